from __future__ import annotations

import pytest
from pydantic import ValidationError

from tldr.errors import UsageError
from tldr.inputs.posts import body_hash, load_comparisons
from tldr.records import CandidateSummary, Info, Ranking
from tldr.stages.labels.algorithm import POSTS, SELECTION, split_folds
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.reward.algorithm import RankedPrompt, accuracy, freeze_lowest, predictions
from tldr.stages.reward.settings import RewardSettings
from tldr.study.load import load_study


def ranking(number: int, split: str = "valid2", worker: str = "w") -> Ranking:
    sides = [CandidateSummary(text=f" {name} {number}", policy=name) for name in ("a", "b")]
    info = Info(id=f"p{number}", post=f"post {number}", title="t", subreddit="s")
    return Ranking(info=info, summaries=sides, rank=[1, 2], worker=worker, batch="b", split=split)


def test_every_post_is_held_out_once_and_never_trained_on_there() -> None:
    rows = [ranking(n % 100, "valid1" if n % 3 else "train", str(n)) for n in range(230)]
    folds = split_folds(rows, 5)
    held_out = [row for fold in folds for row in fold["valid2"]]
    assert sorted(row.worker for row in held_out) == sorted(row.worker for row in rows)
    for fold in folds:
        bodies = {name: {body_hash(row.info) for row in part} for name, part in fold.items()}
        assert not bodies["train"] & bodies["valid2"] and not bodies["valid1"] & bodies["valid2"]
        assert not bodies["train"] & bodies["valid1"]
        assert sum(len(part) for part in fold.values()) == len(rows)
        assert len(bodies["valid2"]) == 20 and len(bodies["valid1"]) == 80 // SELECTION
        assert all(row.split == name for name, part in fold.items() for row in part)
    assert split_folds(rows[::-1], 5)[0]["valid2"][::-1] == folds[0]["valid2"]  # whatever the order


def test_trap_one_body_under_two_ids_stays_in_one_fold() -> None:
    """OpenAI's files hold posts twice, and rows without an id: folds go by the text."""
    rows = [ranking(n) for n in range(60)]
    twins = [r.model_copy(update={"info": r.info.model_copy(update={"id": f"x{r.info.id}"})}) for r in rows]
    for fold in split_folds([*rows, *twins], 2):
        ids = {row.info.id for row in fold["valid2"]}
        assert {f"x{name}" for name in ids if not str(name).startswith("x")} <= ids


def test_too_few_posts_are_refused() -> None:
    with pytest.raises(UsageError, match="19 posts are too few for 2 folds"):
        split_folds([ranking(n) for n in range(19)], 2)


def test_real_comparisons(shared_comparisons: str) -> None:
    folds = split_folds(load_comparisons(shared_comparisons), 5)
    assert all(len(fold[name]) > 50 for fold in folds for name in POSTS)


@pytest.fixture
def shared_comparisons() -> str:
    from pathlib import Path

    file = Path(__file__).parents[2].parent / "shared" / "data" / "comparisons" / "batch13.json"
    if not file.is_file():
        pytest.skip("needs OpenAI's comparisons beside the checkout")
    return str(file)


def test_predictions_carry_the_scores_of_their_own_summaries() -> None:
    rows = [ranking(1), ranking(2).model_copy(update={"rank": [2, 1]})]
    made = list(predictions(rows, [[0.5, -1.0], [2.0, 3.0]]))
    assert [[s.scores["rm"] for s in row.summaries] for row in made] == [[0.5, -1.0], [2.0, 3.0]]
    assert [row.choice for row in made] == [0, 1]


def test_accuracy_by_hand() -> None:
    examples = [RankedPrompt([1], [[2], [3]], [1, 2]), RankedPrompt([1], [[2], [3], [4]], [2, 1, 2])]
    # right; 1 of the 2 pairs that are not tied; half a point for equal scores
    assert accuracy([[1.0, 0.0], [0.5, 0.4, 0.1]], examples) == pytest.approx(2 / 3)
    assert accuracy([[1.0, 1.0], [0.5, 0.6, 0.1]], examples) == pytest.approx(2.5 / 3)


BASE = """
name: folded
data: {kind: files, sft: a, valid1: b, valid2: c, comparisons: d}
ladder: {x: {path: org/name}}
best_of_n: null
"""


@pytest.mark.parametrize(
    "more, wrong",
    [
        ("reward: {fold: 0}", "the labels have no folds"),
        ("labels: {folds: 2}", "reward.fold None is not one of the 2 folds"),
        ("labels: {folds: 2}\nreward: {fold: 2}", "reward.fold 2 is not one of the 2 folds 0 to 1"),
        (
            "labels: {folds: 2}\nreward: {fold: 0}\nvariants: {f: {kind: reward, set: {fold: 5}}}",
            "variants.f.set.fold 5 is not one of the 2 folds",
        ),
    ],
)
def test_folds_and_reward_models_must_fit(tmp_path, more: str, wrong: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(BASE + more)
    with pytest.raises(UsageError, match=wrong):
        load_study(file)
    file.write_text(BASE + "labels: {folds: 2}\nreward: {fold: 1}")
    assert load_study(file).reward.fold == 1


def test_one_fold_is_none() -> None:
    with pytest.raises(ValidationError):
        LabelsSettings(folds=1)
    assert RewardSettings().fold is None


@pytest.mark.parametrize("arch", ["gpt_neox", "gpt2", "opt", "llama"])
def test_frozen_layers_get_no_gradient(arch: str) -> None:
    from tldr.models.ladder import build_policy
    from tldr.models.packed import collate, response_scores
    from tldr.models.reward import reward_from_policy
    from tldr.settings.models import ModelSpec

    spec = ModelSpec(arch=arch, d_model=16, layers=4, heads=2, context=32)
    policy = build_policy(spec, vocab_size=40, eos_id=0, pad_id=1, seed=0)
    model = reward_from_policy(policy, seed=0, pad_id=1)
    assert freeze_lowest(model, 0.0) == 0 and all(p.requires_grad for p in model.parameters())
    assert freeze_lowest(model, 0.7) == 3
    response_scores(model, collate([[5, 6]], [[[7, 0]]], 1)).sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert "score.weight" in moved
    trained = [name for name in moved if ".3." in name]
    assert len(trained) >= 8 and not any(f".{layer}." in name for name in moved for layer in (0, 1, 2))
    assert not any("emb" in name or "wte" in name or "wpe" in name for name in moved)
