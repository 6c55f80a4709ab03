"""Rounds of feedback: who writes what is labelled, and in which order a reward model reads it."""

from __future__ import annotations

from collections import Counter

from tldr.records import CandidateSummary, Info, Post, Ranking
from tldr.stages.labels.algorithm import best_of_each, fill_slots, plan_questions
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.reward.stage import interleaved
from tldr.stages.shared.sampling import Draw


def draw(text: str) -> Draw:
    return Draw([1], text, True)


def ranking(name: str) -> Ranking:
    sides = [CandidateSummary(text=f" {side}", policy=side) for side in "ab"]
    info = Info(id=name, post=name, title="t", subreddit="s")
    return Ranking(info=info, summaries=sides, rank=[1, 2], worker="w", batch="b", split="train")


def test_the_best_of_each_n_by_hand() -> None:
    draws = [draw(text) for text in "abcdef"]
    assert [best.text for best in best_of_each(draws, [0.0, 2.0, 1.0, 5.0, 5.0, 4.0], 3)] == ["b", "d"]


def test_every_slot_gets_what_its_own_writer_wrote() -> None:
    post = Post(id="p", subreddit="s", title="t", post="b", summary="the reference")
    settings = LabelsSettings(pairs=300, valid_pairs=2, k=(4, 4), writer_share=0.0)
    posts = {split: [post] for split in ("train", "valid1", "valid2")}
    questions = [one for one in plan_questions(settings, ["x", "y"], posts, 0) if one.split == "train"]
    assert all(question.slots.count("ref") <= 1 for question in questions)
    counts = Counter(slot for question in questions for slot in question.slots)
    assert 0.8 < counts["x"] / counts["y"] < 1.25 and counts["ref"] > 100
    for question in questions:
        names = {"x": [draw("x1"), draw("x2"), draw("x3"), draw("x4")], "y": [draw("y")] * 4}
        shown = fill_slots(question, names, None, 0.85)  # type: ignore[arg-type]  # no scripted writer is drawn
        assert [candidate.policy for candidate in shown] == [
            "ref" if slot == "ref" else f"{slot}-t0.85" for slot in question.slots
        ]
        own = [candidate.text for candidate in shown if candidate.policy == "x-t0.85"]
        assert own == ["x1", "x2", "x3", "x4"][: len(own)]


def test_the_first_labels_of_several_rounds_are_a_sample_of_all() -> None:
    """So that reward models on fewer labels learn from the same mixture (P Fig. 6)."""
    rounds = [[ranking(f"a{n}") for n in range(20)], [ranking(f"b{n}") for n in range(60)]]
    mixed = [row.info.id for row in interleaved(rounds)]
    assert sorted(mixed) == sorted(row.info.id for rows in rounds for row in rows)
    for n in (4, 8, 40, 80):
        assert sum(name.startswith("a") for name in mixed[:n]) == n // 4
    assert [name for name in mixed if name.startswith("b")] == [f"b{n}" for n in range(60)]
    assert interleaved([rounds[0]]) == rounds[0]
