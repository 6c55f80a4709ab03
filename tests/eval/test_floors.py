from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from eval.common.study import StudyResults
from eval.reward.scored_pairs import model_pairs
from eval.reward.section import reward_accuracy_table, reward_section
from eval.reward_floor.measure import FEATURES, cross_fitted, pair_features
from eval.reward_floor.section import JUDGES, judged_right, reward_floor_table
from tests.eval.section_study import Made, write_lines
from tldr.errors import UsageError
from tldr.records import write_json

RNG = np.random.default_rng(0)


def test_features_by_hand() -> None:
    pairs = pd.DataFrame(
        {
            "post": ["the cat sat", "dogs bark"],
            "first_text": [" The cat sat.", " dogs dogs"],
            "second_text": [" a dog", " bark!"],
        }
    )
    found = pair_features(pairs)
    assert list(found.columns) == list(FEATURES)
    first = found.iloc[0]
    assert first["likeness"] == pytest.approx(1.0)  # the post itself, against no word of it
    assert first["length"] == pytest.approx(np.log(4) - np.log(3))
    assert (first["copied"], first["distinct"], first["stop"]) == (1.0, 0.0, 1.0)
    second = found.iloc[1]
    assert second["likeness"] == pytest.approx(0.0)  # each says one of the post's two equally rare words
    assert (second["copied"], second["distinct"], second["stop"]) == (0.0, -0.5, -1.0)


def test_cross_fitting_equals_a_logistic_regression_on_the_other_folds() -> None:
    features = RNG.normal(size=(300, 3))
    chosen = (RNG.random(300) < 1 / (1 + np.exp(-features @ [1.5, -0.7, 0.0]))).astype(float)
    folds = np.arange(300) % 3
    claimed = cross_fitted(features, chosen, folds)
    for fold in range(3):
        rest = folds != fold
        fitted = sm.Logit(chosen[rest], features[rest]).fit(disp=0)
        assert claimed[~rest] == pytest.approx(fitted.predict(features[~rest]), abs=1e-4)
    with pytest.raises(UsageError, match="two folds"):
        cross_fitted(features, chosen, np.zeros(300, dtype=int))


def test_trap_a_floor_is_not_fitted_on_the_pairs_it_judges() -> None:
    """Noise that could be learnt by heart stays at chance."""
    features, chosen = RNG.normal(size=(120, 60)), RNG.integers(0, 2, 120).astype(float)
    claimed = cross_fitted(features, chosen, np.arange(120) % 5)
    assert np.mean((claimed > 0.5) == (chosen > 0.5)) < 0.65


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """Two folds whose models know the planted truth but for noise, on scales of their own."""
    made = Made(tmp_path_factory.mktemp("folds"), posts=200)
    for fold in (0, 1):
        where = made.run("reward", "m", f"fold-{fold}" if fold else "", settings={"fold": fold})
        rows = []
        for post in made.posts[fold::2]:
            gap = float(made.rng.normal())
            sides = [
                {
                    "text": " word" * int(made.rng.integers(5, 20)),
                    "policy": "p",
                    "scores": {"rm": (1 + 99 * fold) * (sign * gap / 2 + 0.3 * made.rng.normal())},
                }
                for sign in (1, -1)
            ]
            choice = 0 if gap > 0 else 1
            rows.append(
                {
                    "info": {"id": post, "post": "some word"},
                    "summaries": sides,
                    "choice": choice,
                    "worker": "w",
                    "batch": "b",
                    "split": "valid2",
                }
            )
        write_lines(where / "predictions.jsonl", rows)
        values = {"valid1_accuracy": 0.5 + fold / 4, "valid2_accuracy": 0.0, "train_rankings": 90}
        write_json(where / "evaluation.json", values | {"valid1_pairs": 10 * (1 + fold), "valid2_pairs": 100})
    return made.close()


def test_folds_are_one_model_judged_on_all_pairs(folded: StudyResults) -> None:
    ((model, pairs),) = model_pairs(folded.runs, "valid2.jsonl")
    assert (model.scorer, len(pairs), set(pairs["fold"])) == ("rm_m", 200, {0, 1})
    table = reward_accuracy_table(folded).set_index("measure")
    right = judged_right(pairs)["reward model"].mean()
    assert table.loc["valid2_accuracy", "value"] == pytest.approx(right)
    assert table.loc["valid2_accuracy", ["n", "cells"]].tolist() == [200, 1]
    # 10 pairs at 0.5 and 20 at 0.75
    assert table.loc["valid1_accuracy", ["value", "n"]].tolist() == pytest.approx([20 / 30, 30])


def test_the_floor_stands_beside_the_model(folded: StudyResults) -> None:
    table = reward_floor_table(folded)
    accuracy = table[table["measure"] == "accuracy"].set_index("judge")
    assert list(accuracy.index) == list(JUDGES)
    assert accuracy.loc["reward model", "value"] > 0.8 > 0.65 > accuracy.loc["five features", "value"]
    # a scale of 100 in one fold does not drown the other
    assert accuracy.loc["features and model", "value"] > 0.8
    lead = table[table["measure"] == "lead"].set_index("judge").loc["longer"]
    gap = accuracy.loc["reward model", "value"] - accuracy.loc["longer", "value"]
    assert lead["value"] == pytest.approx(gap) and lead["low"] > 0
    assert "reward_floor" in [one.name for one in reward_section(folded).tables]


def test_no_folds_no_floor(tmp_path: Path) -> None:
    made = Made(tmp_path, posts=3)
    made.run("reward", "m")
    assert reward_floor_table(made.close()).empty
    assert json.loads((tmp_path / "study.json").read_text())["runs"]
