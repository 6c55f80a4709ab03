"""Damaged answers of a judge: a verdict is read from its own last line, or there is none."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.mutate import COUNTS
from tldr.judge.prompt import parse_verdict

PARTS = [
    "Preferred: A", "Preferred: B", "Preferred: tie", "preferred: a", "Preferred:", "Preferred : A",
    "Preferred: C", "Summary A is better.", "I prefer B", "A", "B", "tie", "\n", "\n\n", "\r\n", "\r",
    "\t", " ", "\u2028", "\x0b", "\x85", "\xa0", "\ufeff", ".", "**", "*", "_", "`", "#", ">", "-",
    "\uff21", "\x00", "\ud800", "{", '"', "Preferred: A or B", "PREFERRED: TIE", "Verdict:", "<think>",
    "</think>",
]  # fmt: skip
MARKS = "*_`#>-~"
"""Marks of Markdown: whether a verdict between them is read is for other tests to say."""


def oracle(answer: str) -> str | None:
    """The verdict, read character by character; None: Markdown, of which only the letter is checked."""
    lines = [line.strip() for line in answer.split("\n")]
    lines = [line for line in lines if line]
    if any(mark in line for line in lines for mark in MARKS):
        return None
    verdicts = {f"Preferred: {name}": name for name in ("A", "B", "tie")}
    if not lines or lines[-1] not in verdicts:
        return "invalid"
    for line in lines[:-1]:
        word, colon, _ = line.partition(":")
        if colon and word.strip().lower() == "preferred":
            return "invalid"
    return verdicts[lines[-1]]


def answer(rng: random.Random) -> str:
    """An answer in form with some parts changed, or parts alone."""
    text = (
        f"Both are short, A says more.\nPreferred: {rng.choice(['A', 'B', 'tie'])}"
        if rng.random() < 0.7
        else ""
    )
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        how = rng.randrange(3)
        if how == 0:
            text = text[:at] + rng.choice(PARTS) + text[at:]
        elif how == 1:
            text = text[:at] + text[at + rng.choice((1, 1, 5)) :]
        else:
            text = text[:at]
    return text


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_answer_is_invalid_or_says_its_verdict(count: int) -> None:
    rng = random.Random(count)
    read = 0
    for _ in range(count):
        text = answer(rng)
        verdict, expected = parse_verdict(text), oracle(text)
        assert verdict in ("A", "B", "tie", "invalid")
        if expected is not None:
            assert verdict == expected, repr(text)
        elif verdict != "invalid":
            last = [line for line in text.split("\n") if line.strip()][-1]
            assert f"Preferred: {verdict}" in last.replace("*", "").replace("_", "").replace("`", ""), repr(
                text
            )
        read += verdict != "invalid"
    assert count / 10 < read < count * 0.9
    print("verdicts", {"read": read, "of": count})
