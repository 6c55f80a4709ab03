"""Settings of the comparison pool."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from tldr.label.items import MOST_RANKED
from tldr.label.settings import LabelSettings
from tldr.settings.base import Positive, Settings, Unit, different

FOR_PEOPLE = ("further_temperatures", "references", "control", "spare", "known", "page")
"""Settings that only people's labels have."""
NOT_FOR_PEOPLE = ("reference_share", "writer_share", "folds")
"""Settings of simulated and given labels alone."""


class LabelsSettings(Settings):
    """The shared comparison pool: samples of the SFT policies, references and writers, labelled."""

    newer: ClassVar[tuple[str, ...]] = ("choose_by", "among")

    kind: Literal["simulated", "people"] = "simulated"
    """Who labels: the toy world's simulated labelers, or people on a page (`tldr-lab label serve`). Labels
    from files (`data.comparisons`) keep the default."""
    pairs: PositiveInt = 8000
    """Comparisons or rankings to train on (toy world)."""
    valid_pairs: PositiveInt = 2000
    """Comparisons or rankings to select on and to report on, half each (toy world)."""
    k: tuple[PositiveInt, PositiveInt] = (2, 2)
    """Smallest and largest number of summaries ranked at once; (4, 9) is InstructGPT's."""
    temperature: Positive = 0.85
    """At which the policies are sampled."""
    best_of: Annotated[int, Field(ge=2)] = 8
    """From the second round of feedback on: N of the best-of-N samples that are compared, too."""
    reference_share: Unit = 0.25
    """Share of shown summaries that are the author's reference."""
    writer_share: Unit = 0.25
    """Share that comes from the toy world's scripted writers (planted errors)."""
    choose_by: Literal["uncertainty", "disagreement"] | None = None
    """What the training labels are asked about, from the second round on: of `among` times as many questions
    those about whose pairs the reward models of the round before are the least sure, or disagree the most
    (several sizes, or `reward.seeds`). None: as the questions come. Those of valid1 and valid2 are never
    chosen, so that accuracies compare."""
    among: Annotated[int, Field(ge=2)] = 4
    """Questions made for each one asked, if they are chosen (`choose_by`)."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation of given labels: all are pooled, whatever their split, and each post is held
    out once; for labels too few to hold a part out. A reward model names its `fold`."""

    further_temperatures: list[Positive] = []
    """People: further temperatures at which the policies are sampled."""
    references: Unit = 0.5
    """People: share of the posts whose reference may be shown, like the summaries of any policy."""
    control: Unit = 0.0
    """People: share of the comparisons, the same in every round, between the SFT policy of the ladder's last
    size and the reference, so that drift between rounds shows."""
    spare: Unit = 0.1
    """People: further items, as a share, that take the place of skipped ones."""
    known: str | None = None
    """People: a file of comparisons that researchers labeled, mixed in at the share `page.calibration`. They
    test the labelers and train nothing. The file may be given or changed while they label."""
    page: LabelSettings = LabelSettings()
    """People: the page on which they label. `instructions` is a path. All but `labelers_per_item` may be
    changed while they label."""

    _different = field_validator("further_temperatures")(different)

    @property
    def temperatures(self) -> list[float]:
        """All temperatures at which the policies are sampled."""
        return [self.temperature, *self.further_temperatures]

    @property
    def made_of_one(self) -> int:
        """Training questions made for each one asked."""
        return 1 if self.choose_by is None else self.among

    def items_wanted(self) -> dict[str, int]:
        """Items by the split of their labels."""
        half = self.valid_pairs // 2
        return {"train": self.pairs, "valid1": half, "valid2": self.valid_pairs - half}

    def items_made(self) -> dict[str, int]:
        """Items that people are given, with spare ones, by the split of their labels."""
        return {split: ceil(count * (1 + self.spare)) for split, count in self.items_wanted().items()}

    def posts_sampled(self) -> dict[str, int]:
        """Posts that policies write about for people's items, by the split of their labels."""
        made = self.items_made()
        return made | {"train": made["train"] * self.made_of_one}

    def draws(self, policies: int) -> int:
        """Summaries that each of some policies writes for people about a post, at each temperature: together
        two more than are shown at once, as some are empty or equal."""
        return ceil((self.k[1] + 2) / (policies * len(self.temperatures)))

    @model_serializer(mode="wrap")
    def _of_its_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what its kind has. Without people no kind is written, so runs keep their names and bytes."""
        values: dict[str, Any] = handler(self)
        hidden = ("kind", *FOR_PEOPLE) if self.kind == "simulated" else NOT_FOR_PEOPLE
        return {name: value for name, value in values.items() if name not in hidden}

    @model_validator(mode="after")
    def _at_least_two(self) -> LabelsSettings:
        if self.k[0] < 2 or self.k[1] < self.k[0]:
            raise ValueError(f"k {self.k}: a ranking needs at least 2 summaries, smallest first")
        return self

    @model_validator(mode="after")
    def _of_one_kind(self) -> LabelsSettings:
        others, whose = (
            (FOR_PEOPLE, "people's") if self.kind == "simulated" else (NOT_FOR_PEOPLE, "simulated or given")
        )
        for name in others:
            default = type(self).model_fields[name].get_default()
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name} is for {whose} labels alone, but the kind is {self.kind}: where a base sets it, "
                    f"write its default, {'null' if default is None else default}"
                )
        return self

    @model_validator(mode="after")
    def _for_people(self) -> LabelsSettings:
        if self.kind != "people":
            return self
        if self.k[1] > MOST_RANKED:
            raise ValueError(f"k {self.k}: people rank at most {MOST_RANKED} summaries at once")
        if self.control and self.k[0] > 2:
            raise ValueError(f"control is a share of comparisons, but k {self.k} makes none")
        if self.control and not self.references:
            raise ValueError("control compares with the reference, but references is 0")
        if self.known is not None and not self.page.calibration:
            raise ValueError("known is mixed in at the share page.calibration, but that is 0")
        if self.valid_pairs < 2:
            raise ValueError("valid_pairs 1: valid1 and valid2 need a label each")
        if self.temperature in self.further_temperatures:
            raise ValueError(f"further_temperatures has the temperature {self.temperature:g} again")
        return self
