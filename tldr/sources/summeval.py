"""SummEval's expert scores of CNN/DM summaries (Fabbri et al. 2021) as 1-7 ratings of the paper's axes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from tldr.records import Axes, Info, NonEmpty, RatedSummary, Rating, Record

NAMES = {"M0": "lead-3"}
"""Names of systems that the paper rates too; the others keep their numbers, ``M1`` ..."""
EXPERTS = "mean of 3 experts"

Score = Annotated[float, Field(ge=1, le=5)]


class ExpertScores(Record):
    """Means of three experts on 1-5."""

    coherence: Score
    consistency: Score
    fluency: Score
    relevance: Score


class SystemSummary(Record):
    """What one system wrote, and its scores."""

    summary: str
    scores: ExpertScores


class SummEvalRow(Record):
    """An article with every system's summary."""

    id: NonEmpty
    article: NonEmpty
    systems: Annotated[dict[str, SystemSummary], Field(min_length=1)]

    def ratings(self) -> Iterator[Rating]:
        """A rating for each system's summary."""
        info = Info(id=self.id, article=self.article)
        for system, rated in self.systems.items():
            yield Rating(
                info=info,
                summary=RatedSummary(
                    text=rated.summary, policy=NAMES.get(system, system), axes=paper_axes(rated.scores)
                ),
                worker=EXPERTS,
                batch="summeval",
                split="test",
            )


def paper_axes(scores: ExpertScores) -> Axes:
    """SummEval's scores on the paper's axes, mapped from 1-5 to 1-7; they need not be whole numbers.

    Coherence maps to coherence and consistency to accuracy. Relevance stands for coverage, although it asks
    for the important content *only* and so also penalises superfluous content. Fluency of single sentences
    has no counterpart. SummEval has no overall score, so `overall` is the mean of all four.
    """
    every = (scores.coherence, scores.consistency, scores.fluency, scores.relevance)
    return Axes(
        overall=to_seven(sum(every) / len(every)),
        accuracy=to_seven(scores.consistency),
        coverage=to_seven(scores.relevance),
        coherence=to_seven(scores.coherence),
    )


def to_seven(score: float) -> float:
    """A score of 1-5 mapped linearly to 1-7."""
    return 1 + (score - 1) * 1.5
