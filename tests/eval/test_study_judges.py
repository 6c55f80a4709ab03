"""Verdicts of the judges that a study itself asked: read from their runs, drawn like those in its folder."""

from __future__ import annotations

import json
from math import log10
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt

from eval.claims.evidence import Evidence, headline_scorers
from eval.elo.section import elo_section
from eval.judge.verdicts import read_verdicts
from eval.overoptimisation.section import kl_sweep_table, overoptimisation_section
from eval.reward.scored_pairs import reward_models
from tests.eval.section_study import BETAS, Made, add_rewards, add_sweep, write_lines
from tldr.records import Sample, read_records


def judged(made: Made) -> dict[str, int]:
    """A judge run on all samples at T = 1, by a reward model of its own: it prefers what is better than 0.

    Returns:
        How many it prefers, by score run.
    """
    parents = {"reward": "reward-s-gold"}
    made.run("reward", "s", "gold", settings={})
    where, rows, won = made.run("judge", variant="other", parents=parents), list[dict[str, Any]](), {}
    for run in [row["run"] for row in made.runs if row["stage"] == "score"]:
        for sample in read_records(made.folder / run / "samples.jsonl", Sample):
            if sample.temperature != 1 or sample.top_p != 1:
                continue
            better = sample.scores["gold"] > 0
            won[run] = won.get(run, 0) + better
            for order in ([0, 1], [1, 0]):
                rows.append(
                    {
                        "id": sample.id, "policies": [f"{sample.policy}-t1-p1", "reference"], "order": order,
                        "judge": "other", "verdict": "A" if better == (order == [0, 1]) else "B",
                        "texts": [sample.text, " ref"], "runs": [run],
                    }
                )  # fmt: skip
    write_lines(where / "judgements.jsonl", rows)
    return won


@pytest.fixture
def made(tmp_path: Path) -> Made:
    study = Made(tmp_path, 30)
    add_rewards(study)
    add_sweep(study)
    return study


def test_a_judge_draws_the_kl_sweep_beside_the_planted_labelers(made: Made) -> None:
    won = judged(made)
    study = made.close()
    assert read_verdicts(study.runs).judges == ["other"] and not study.verdict_notes
    table = kl_sweep_table(study)
    rows = table[table["measure"] == "verdicts other_preference"].set_index("variant")
    assert list(rows.index) == ["", *BETAS]
    for variant in BETAS:
        assert rows.loc[variant, "value"] == pytest.approx(won[f"score-m-ppo-{variant}-0"] / 30)
    assert rows.loc["", "value"] == pytest.approx(won["score-m-sft-0"] / 30)
    picture = next(one for one in overoptimisation_section(study).pictures if one.name == "kl_sweep")
    (legend,) = picture.figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert "Actual: other" in texts and "Actual: planted labelers" in texts


def test_the_shapes_of_the_sweep_are_told_by_the_judge_too(made: Made) -> None:
    judged(made)
    study = made.close()
    planted, other = headline_scorers(study)
    rows = [Evidence(study, scorer).source("sweep") for scorer in (planted, other)]
    assert rows[1]["preference"].isin([0.0, 1.0]).all() and not rows[0]["preference"].isin([0.0, 1.0]).all()


def test_a_reward_model_that_only_judges_is_no_point_of_the_scaling_figure(made: Made) -> None:
    before = set(reward_models(made.close().runs))
    judged(made)
    assert set(reward_models(made.close().runs)) == before


def test_elo_by_a_judge_is_the_odds_against_the_reference(made: Made) -> None:
    """With verdicts against references alone each rating is 1000 + 400 log10 of the odds."""
    won = judged(made)
    study = made.close()
    section = elo_section(study)
    assert [picture.name for picture in section.pictures] == [
        "elo_verdicts_other"
    ] and "No labelled comparisons" in section.missing[0]
    (table,) = section.tables
    ratings = table.frame.set_index("policy")
    assert ratings.loc["reference", "value"] == 1000
    for variant in BETAS:
        wins = won[f"score-m-ppo-{variant}-0"]
        if not 0 < wins < 30:
            continue
        row = ratings.loc[f"ppo-m-{variant}-t1"]
        assert row["value"] == pytest.approx(1000 + 400 * log10(wins / (30 - wins)))
        assert row["wins"] == pytest.approx(wins / 30) and row["n"] == 30 and row["low"] < row["value"]
    caption = "Elo by other, against references alone"
    assert section.pictures[0].caption.startswith(caption) and table.caption.startswith(caption)
    plt.close("all")


def test_a_judge_for_whom_one_policy_always_wins_has_no_elo_and_says_so(made: Made) -> None:
    judged(made)
    scores = made.folder / "judge-other-0" / "judgements.jsonl"
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    for row in rows:
        row["verdict"] = "A" if row["order"] == [0, 1] else "B"
    write_lines(scores, rows)
    section = elo_section(made.close())
    assert not section.pictures and any("By other: No finite ratings" in note for note in section.missing)
