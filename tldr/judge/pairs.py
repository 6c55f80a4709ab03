"""The pairs to judge, and the interface of every judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tldr.judge.prompt import Axis, JudgedText, JudgeVerdict
from tldr.records import Judgement

ORDERS = ((0, 1), (1, 0))
"""Which summary is shown as A; every pair is judged in both."""


def first_by_hash(ids: Iterable[str], count: int | None) -> list[str]:
    """The `count` ids with the smallest hash (None: all), so that a larger number only adds some."""
    return sorted(ids, key=lambda one: hashlib.sha256(one.encode()).digest())[:count]


@dataclass(frozen=True)
class SummaryPair:
    """Two summaries of a post or article; `runs` are those that either came from."""

    post: JudgedText
    policies: tuple[str, str]
    texts: tuple[str, str]
    runs: tuple[str, ...] = ()

    def judgement(
        self,
        judge: str,
        order: tuple[int, int],
        verdict: JudgeVerdict,
        axis: Axis,
        **more: str | float,
    ) -> Judgement:
        """The record of a verdict on this pair; `more` as `Judgement`."""
        fields = {
            "id": self.post.id,
            "policies": list(self.policies),
            "order": list(order),
            "judge": judge,
            "verdict": verdict,
            "axis": axis,
            "texts": list(self.texts),
            "runs": list(self.runs),
        }
        return Judgement.model_validate(fields | more)


class Judge(Protocol):
    """Anything that says which of two summaries is better."""

    @property
    def name(self) -> str:
        """The judge, as judgements name it."""

    def judge(self, pairs: Sequence[SummaryPair], axes: Sequence[Axis]) -> Iterator[Judgement]:
        """Two judgements for every pair and axis, one in each order, in any sequence.

        Raises:
            LabError: the judge cannot go on; all that it found out before was yielded.
        """
