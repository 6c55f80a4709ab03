"""Rankings of a post that share its encoding: scores, loss and gradients are those of each encoded alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.stages import lab as laboratory
from tldr.models.ladder import build_policy
from tldr.models.reward import reward_from_policy
from tldr.settings.models import ModelSpec
from tldr.stages.reward.algorithm import RankedPrompt, collate_posts, ranked_posts, ranking_loss
from tldr.train.metrics import read_metrics

REFERENCE = [7, 8, 0]
PROMPTS = [
    RankedPrompt([11, 12, 13], [REFERENCE, [9, 0]], [1, 2]),
    RankedPrompt([11, 12, 14], [[10, 0], REFERENCE], [2, 1]),
    RankedPrompt([11, 12, 13], [[9, 0], [20, 21, 22, 0], REFERENCE], [2, 1, 2]),
    RankedPrompt([11, 12, 13], [[30, 0], [31, 0]], [1, 1]),  # a tie teaches nothing
]


def test_each_summary_of_a_post_is_encoded_once() -> None:
    first, second = ranked_posts(PROMPTS, share=True)
    assert first.query == [11, 12, 13] and second.query == [11, 12, 14]
    assert first.responses == [REFERENCE, [9, 0], [20, 21, 22, 0], [30, 0], [31, 0]]
    assert first.places == [[0, 1], [1, 2, 0], [3, 4]] and first.numbers == [0, 2, 3]
    assert first.ranks == [[1, 2], [2, 1, 2], [1, 1]]
    alone = ranked_posts(PROMPTS, share=False)
    assert [post.responses for post in alone] == [prompt.responses for prompt in PROMPTS]
    assert [post.numbers for post in alone] == [[0], [1], [2], [3]]


def test_a_summary_that_is_shown_twice_in_a_ranking_is_encoded_once() -> None:
    (post,) = ranked_posts([RankedPrompt([1], [[2, 0], [2, 0], [3, 0]], [1, 2, 3])], share=True)
    assert post.responses == [[2, 0], [3, 0]] and post.places == [[0, 0, 1]]


@pytest.mark.parametrize("arch", ["gpt_neox", "opt", "llama"])
def test_loss_and_gradients_are_those_of_rankings_encoded_alone(arch: str) -> None:
    spec = ModelSpec.model_validate({"arch": arch, "d_model": 16, "layers": 2, "heads": 2, "context": 32})
    policy = build_policy(spec, vocab_size=40, eos_id=0, pad_id=1, seed=3)
    found = []
    for share in (False, True):
        model = reward_from_policy(policy, seed=5, pad_id=1)
        loss = ranking_loss(
            nn.ModuleDict({"reward": model}), collate_posts(ranked_posts(PROMPTS, share=share), pad=1)
        )
        loss.total.backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((loss.total.detach(), loss.count, loss.stats["accuracy"], gradients))
    (total, count, accuracy, gradients), (other, same, also, others) = found
    assert float(total) == pytest.approx(float(other), rel=1e-5) and float(total) > 0
    assert int(count) == int(same) == 3 and float(accuracy) == float(also)
    assert torch.allclose(gradients, others, rtol=1e-4, atol=1e-5) and gradients.abs().max() > 1e-4


def test_a_reward_model_on_shared_posts_reports_every_ranking(lab: Path, tmp_path: Path) -> None:
    """The lab's 96 comparisons are about 96 posts, so they are asked twice here."""
    labels = tmp_path / "labels"
    labels.mkdir()
    for split in ("train", "valid1", "valid2"):
        rows = (lab / "labels" / f"{split}.jsonl").read_text()
        (labels / f"{split}.jsonl").write_text(rows + rows)
    ctx = laboratory.context(
        "reward", lab, tmp_path / "rm", settings=laboratory.changed("reward", {"share_posts": True})
    )
    laboratory.run(laboratory.rewired(ctx, labels=labels), "reward")
    evaluation = json.loads((tmp_path / "rm" / "evaluation.json").read_text())
    once = json.loads((lab / "reward" / "evaluation.json").read_text())
    assert evaluation["train_rankings"] == 2 * once["train_rankings"]
    assert evaluation["valid2_pairs"] == 2 * once["valid2_pairs"]
    updates = len(read_metrics(tmp_path / "rm" / "metrics.jsonl"))
    assert updates == pytest.approx(2 * len(read_metrics(lab / "reward" / "metrics.jsonl")), abs=1)
