"""A scorer of single summaries as a judge: a reward model, or the cosine to the post.

It never sees two summaries at once, so it has no position bias: its two judgements of a pair are
exact mirror images by construction, and its share of inconsistent pairs is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from scipy.special import expit

from tldr.errors import NonFiniteError, UsageError
from tldr.judge.pairs import ORDERS, SummaryPair
from tldr.judge.prompt import Axis, JudgedText, JudgeVerdict
from tldr.records import Judgement

ScoreTexts = Callable[[Sequence[JudgedText], Sequence[str]], Sequence[float]]
"""Scores of (n,) summaries of (n,) posts, higher is better."""


@dataclass(frozen=True)
class ScoreJudge:
    """Prefers the higher score; equal scores are ties.

    Attributes:
        logits: score differences are log-odds of being preferred, as a reward model's are (its loss
            says so, P 3.4); then judgements carry P(A preferred) = sigma(difference).
    """

    name: str
    score: ScoreTexts
    logits: bool = False

    def judge(self, pairs: Sequence[SummaryPair], axes: Sequence[Axis]) -> Iterator[Judgement]:
        """As `eval.judge.pairs.Judge`; each text is scored once, however many pairs it is in.

        Raises:
            UsageError: an axis other than overall, as a score has only one.
            NonFiniteError: a score that is no number.
        """
        if tuple(axes) != ("overall",):
            raise UsageError(
                f"{self.name} judges overall quality alone", where="--axis", remedy="leave --axis out"
            )
        texts = {(pair.post.id, text): (pair.post, text) for pair in pairs for text in pair.texts}
        values = self.score([post for post, _ in texts.values()], [text for _, text in texts.values()])
        scores = dict(zip(texts, values, strict=True))
        for pair in pairs:
            first, second = (scores[pair.post.id, text] for text in pair.texts)
            difference = first - second
            if difference != difference or abs(difference) == float("inf"):
                raise NonFiniteError(
                    f"scores {first} and {second}", where=f"{self.name}, post {pair.post.id}"
                )
            for order in ORDERS:
                ahead = difference if order == (0, 1) else -difference
                more = {"probability": float(expit(ahead))} if self.logits else {}
                verdict: JudgeVerdict = "A" if ahead > 0 else "B" if ahead < 0 else "tie"
                yield pair.judgement(self.name, order, verdict, "overall", **more)
