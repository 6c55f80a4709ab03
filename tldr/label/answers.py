"""What labelers answer. An answer is about the summaries in some order: as shown, or as in the item.

The page knows the order shown and no other; the database and all files use the item's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

TaskKind: TypeAlias = Literal["comparison", "ranking", "rating", "demonstration"]
T = TypeVar("T")

Order: TypeAlias = Sequence[int]
"""``order[place]`` is the item's index of the summary shown at that place."""
Note = Annotated[str, Field(max_length=2000)]
Seven = Annotated[int, Field(ge=1, le=7)]
AXES = ("coverage", "accuracy", "coherence", "overall")


class TaskAnswer(BaseModel):
    """Base of the answers. `notes` has one text a summary, or none at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    notes: list[Note] = []

    def fits(self, summaries: int) -> None:
        """Raise ValueError unless the answer is about this many summaries."""
        for name, values in self.per_summary().items():
            if values and len(values) != summaries:
                raise ValueError(f"{len(values)} {name} for {summaries} summaries")

    def per_summary(self) -> dict[str, list[Any]]:
        """The fields that have a value for each summary."""
        return {"notes": self.notes}

    def unshuffled(self, order: Order) -> Self:
        """The answer in the item's order, from the one about the order shown."""
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return self.model_copy(update={name: _taken(v, inverse) for name, v in self.per_summary().items()})

    def shuffled(self, order: Order) -> Self:
        """The answer about the order shown, from the one in the item's order."""
        return self.model_copy(update={name: _taken(v, order) for name, v in self.per_summary().items()})


def _taken(values: list[T], places: Order) -> list[T]:
    return [values[place] for place in places] if values else []


class ComparisonAnswer(TaskAnswer):
    """The paper's slider: 1 is certainly the first summary, 9 certainly the second; there is no middle.

    `interpretations` is what each summary alone seemed to say before the post was shown.
    """

    confidence: Annotated[int, Field(ge=1, le=9)]
    interpretations: list[Note] = []

    @model_validator(mode="after")
    def _takes_a_side(self) -> ComparisonAnswer:
        if self.confidence == 5:
            raise ValueError("the slider has no middle: choose 1 to 4 or 6 to 9")
        return self

    @property
    def choice(self) -> Literal[0, 1]:
        """The preferred summary's index."""
        return 1 if self.confidence > 5 else 0

    def per_summary(self) -> dict[str, list[Any]]:
        return {"notes": self.notes, "interpretations": self.interpretations}

    def unshuffled(self, order: Order) -> ComparisonAnswer:
        return self._mirrored(super().unshuffled(order), order)

    def shuffled(self, order: Order) -> ComparisonAnswer:
        return self._mirrored(super().shuffled(order), order)

    def _mirrored(self, moved: ComparisonAnswer, order: Order) -> ComparisonAnswer:
        swapped = list(order) == [1, 0]
        return moved.model_copy(update={"confidence": 10 - self.confidence if swapped else self.confidence})


class RankingAnswer(TaskAnswer):
    """A rank for each summary, 1 = best; equal ranks are ties, and the next rank counts them (1, 1, 3)."""

    rank: Annotated[list[int], Field(min_length=2)]

    @model_validator(mode="after")
    def _is_a_ranking(self) -> RankingAnswer:
        expected = [1 + sum(other < rank for other in self.rank) for rank in self.rank]
        if self.rank != expected:
            raise ValueError(f"{self.rank} is no ranking: a rank is 1 plus the number of better summaries")
        return self

    def per_summary(self) -> dict[str, list[Any]]:
        return {"notes": self.notes, "rank": self.rank}


class RatingAnswer(TaskAnswer):
    """The paper's four axes, 1 to 7."""

    coverage: Seven
    accuracy: Seven
    coherence: Seven
    overall: Seven

    @property
    def axes(self) -> dict[str, int]:
        """Axis -> rating."""
        return {axis: getattr(self, axis) for axis in AXES}


class DemonstrationAnswer(TaskAnswer):
    """A summary that the labeler wrote."""

    summary: Annotated[str, Field(pattern=r"\S", max_length=4000)]


ANSWERS: dict[TaskKind, type[TaskAnswer]] = {
    "comparison": ComparisonAnswer,
    "ranking": RankingAnswer,
    "rating": RatingAnswer,
    "demonstration": DemonstrationAnswer,
}


def agreement(first: TaskAnswer, second: TaskAnswer) -> tuple[float, float]:
    """On how much two answers to one item agree: (agreeing, of).

    Comparisons: the choice. Rankings: pairs that both put in one order, of those that neither ties. Ratings:
    axes within one point. Demonstrations are never compared: (0, 0).
    """
    if isinstance(first, ComparisonAnswer) and isinstance(second, ComparisonAnswer):
        return float(first.choice == second.choice), 1.0
    if isinstance(first, RankingAnswer) and isinstance(second, RankingAnswer):
        signs = [
            (first.rank[i] - first.rank[j]) * (second.rank[i] - second.rank[j])
            for i, j in combinations(range(len(first.rank)), 2)
        ]
        return float(sum(sign > 0 for sign in signs)), float(sum(sign != 0 for sign in signs))
    if isinstance(first, RatingAnswer) and isinstance(second, RatingAnswer):
        near = sum(abs(first.axes[axis] - second.axes[axis]) <= 1 for axis in AXES)
        return float(near), float(len(AXES))
    return 0.0, 0.0
