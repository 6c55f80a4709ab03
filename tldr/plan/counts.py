"""Shapes of a study's models and sizes of its data, as known before it runs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import mean

from tldr.inputs.validation import UNMARKED
from tldr.plan.flops import PackedRow
from tldr.plan.hardware import Assumed
from tldr.plan.models import model_config
from tldr.plan.steps import Shape
from tldr.settings.models import ModelSpec
from tldr.stages.labels.algorithm import SELECTION
from tldr.stages.labels.settings import LabelsSettings
from tldr.study.runs import Run
from tldr.study.settings import Study
from tldr.toy.settings import ToyData


@dataclass(frozen=True)
class Counts:
    """Shapes of a study's models, numbers of examples in its files, and tokens in its texts."""

    study: Study
    assumed: Assumed
    _shapes: dict[str, Shape] = field(default_factory=dict)

    def shape(self, spec: ModelSpec) -> Shape:
        """Shape of a model of the ladder; a randomly initialised one has the tokenizer's configured
        vocabulary."""
        key = spec.model_dump_json()
        if key not in self._shapes:
            self._shapes[key] = Shape(model_config(spec, self.study.tokenizer.vocab_size))
        return self._shapes[key]

    @property
    def toy(self) -> bool:
        """Whether the data come from the toy world."""
        return isinstance(self.study.data, ToyData)

    def posts(self, name: str) -> int:
        """Examples in the study's data: counted if the file exists, else the paper's number. What the labels
        will leave of a file of validation posts is not counted here."""
        data = self.study.data
        if isinstance(data, ToyData):
            return int(getattr(data, f"{name}_posts"))
        path = getattr(data, name, None) or (data.valid1 if name == UNMARKED else data.sft)
        return _lines(Path(path)) or int(getattr(self.assumed.posts, name))

    def comparisons(self, run: Run) -> tuple[int, int]:
        """Labelled prompts that a reward model trains and is evaluated on (valid1 and valid2): those of all
        rounds so far; a file's rows count by split."""
        study = self.study
        if self.counted:
            rounds = [(labels, _labelers(labels)) for labels in self.rounds(run)]
            train = sum(each * labels.pairs for labels, each in rounds)
            return train, sum(each * labels.valid_pairs for labels, each in rounds)
        assert not isinstance(study.data, ToyData)
        known = self.assumed.posts
        splits = _splits(Path(study.data.comparisons)) if study.data.comparisons else Counter()
        if not splits:
            return known.comparisons, known.valid_comparisons
        if folds := study.labels.folds:  # one fold is for reporting, and a part of the others for selection
            trained = splits.total() * (1 - 1 / folds) * (1 - 1 / SELECTION)
            return round(trained), round(splits.total() - trained)
        return splits["train"], splits["valid1"] + splits["valid2"]

    @property
    def counted(self) -> bool:
        """Whether the study's settings say how many labels there are, as files do not."""
        return self.toy or self.study.labels.kind == "people"

    def rounds(self, run: Run) -> list[LabelsSettings]:
        """The settings of all labels that a reward model reads."""
        parents = (parent.settings for parent in run.parent_runs())
        return [settings for settings in parents if isinstance(settings, LabelsSettings)]

    def rankings_per_post(self, run: Run) -> int:
        """Rankings of a post that has some, on average; 1 for given labels, whose posts are not counted."""
        return max(1, round(self.comparisons(run)[0] / self.posts("sft"))) if self.counted else 1

    def pairs_per_ranking(self, run: Run) -> float:
        """Pairs of a training ranking on average, as if none tied; 1 for given labels."""
        if not self.counted:
            return 1.0
        rounds = self.rounds(run)
        # Every number of summaries from the smallest to the largest is as likely as another.
        pairs = [mean(k * (k - 1) / 2 for k in range(each.k[0], each.k[1] + 1)) for each in rounds]
        weights = [_labelers(each) * each.pairs for each in rounds]
        return sum(each * weight for each, weight in zip(pairs, weights, strict=True)) / sum(weights)

    def typical(self, window: PackedRow) -> PackedRow:
        """Mean lengths of texts after truncation to a window."""
        query, response = self.assumed.query, self.assumed.response
        return replace(window, query=min(query, window.query), response=min(response, window.response))


def _labelers(labels: LabelsSettings) -> int:
    """Labels of an item."""
    return labels.page.labelers_per_item if labels.kind == "people" else 1


@cache
def _lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


@cache
def _splits(path: Path) -> Counter[str]:
    """Rows of a comparison file by split."""
    if not path.is_file():
        return Counter()
    with path.open("rb") as file:
        found = (re.search(rb'"split"\s*:\s*"(\w+)"', line) for line in file)
        return Counter(match[1].decode() for match in found if match)
