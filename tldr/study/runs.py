"""A run of a study: its stage, settings and parents, and the name that they give it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tldr.errors import UsageError, nearest
from tldr.settings.base import Settings
from tldr.settings.models import ModelSpec
from tldr.stages.shared.declaration import named
from tldr.study.hashes import FileHashes, sha256
from tldr.study.registry import STAGES, stage_of

Tags = dict[str, str | int | float | bool]


@dataclass(frozen=True)
class InputSource:
    """The source of an input: a run, the best of several runs (reward models), or a path or hub name."""

    runs: tuple[Run, ...] = ()
    external: str = ""
    identity: str = ""
    """The content hash of `external`, or the hub name."""

    @classmethod
    def outside(cls, path: str, files: FileHashes) -> InputSource:
        """A path or hub name.

        Raises:
            UsageError: a path that does not exist.
        """
        return cls(external=files.pinned(path), identity=files.place(path))


@dataclass(frozen=True)
class Run:
    """One run of one stage.

    Attributes:
        size: model size in the ladder, if the stage has one.
        seed: the training seed; None if the stage does not depend on it.
        data_seed: of the toy world, in a study of several worlds; the same as that of its parents.
        method: the policy that is sampled or scored.
        variant: distinguishes it from the main run ("rm1", "r1"); "" for the main run.
        dataset: what is summarized, if not the posts of valid2: "cnndm", or further posts such as "test".
        offset: added to the seed, so that additional reward models and rounds use other random numbers.
        ingredients: everything that its name depends on: settings, seed, external inputs, and its parents'
            keys. Not the code: a run records it (`tldr.study.folder.RunFile`) and is stale if it changes.
    """

    stage: str
    settings: Settings
    size: str | None = None
    seed: int | None = None
    data_seed: int | None = None
    method: str = ""
    variant: str = ""
    dataset: str = ""
    offset: int = 0
    model: ModelSpec | None = None
    parents: dict[str, InputSource] = field(default_factory=dict)
    ingredients: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """sha256 of the ingredients."""
        return sha256(json.dumps(self.ingredients, sort_keys=True))

    @property
    def title(self) -> str:
        """Its name without the key; it does not change with the settings."""
        data_seed = None if self.data_seed is None else f"d{self.data_seed}"
        seed = None if self.seed is None else f"s{self.seed}"
        parts = (self.stage, self.size, data_seed, seed, self.method, self.variant, self.dataset)
        return "-".join(filter(None, parts))

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.title}-{self.key[:10]}"

    @property
    def tags(self) -> Tags:
        """The tags by which tables group its samples."""
        names = {"size": self.size, "method": self.method, "variant": self.variant, "dataset": self.dataset}
        tags: Tags = {name: value for name, value in names.items() if value}
        return tags if self.data_seed is None else tags | {"data_seed": self.data_seed}

    def parent_runs(self) -> list[Run]:
        """All runs that must be done before this one."""
        return [run for source in self.parents.values() for run in source.runs]


def needed_by(run: Run) -> list[Run]:
    """The runs that a run depends on, directly or through others."""
    found: dict[str, Run] = {}
    waiting = run.parent_runs()
    while waiting:
        parent = waiting.pop()
        if parent.name not in found:
            found[parent.name] = parent
            waiting += parent.parent_runs()
    return list(found.values())


def needed_for(runs: list[Run], stage: str | None) -> list[Run]:
    """The runs of one stage and all runs that they need; without a stage, all runs.

    Raises:
        UsageError: the study has no such stage.
    """
    if stage is None:
        return runs
    stages = list(dict.fromkeys(run.stage for run in runs))
    if stage not in stages:
        raise UsageError(
            f"the study has no stage '{stage}'{nearest(stage, stages)}",
            where="--only",
            remedy=f"choose from {', '.join(stages)}",
        )
    wanted: set[str] = set()
    for run in reversed(runs):
        if run.stage == stage or run.name in wanted:
            wanted.update([run.name, *(parent.name for parent in run.parent_runs())])
    return [run for run in runs if run.name in wanted]


def run_of(inputs: Any, settings: Settings, **more: Any) -> Run:
    """A run of the stage with this class of inputs.

    Args:
        inputs: the stage's inputs, such as `PPOInputs`, filled with sources.
        more: further fields of `Run`.

    Raises:
        TypeError: a source is a run that does not make the product that the stage reads.
    """
    stage, parents = stage_of(inputs), named(inputs)
    for name, source in parents.items():
        product = stage.needs(name).metadata["product"]
        if wrong := [run.name for run in source.runs if STAGES[run.stage].makes != product]:
            raise TypeError(f"{stage.name} reads a {product.name} as '{name}', but {wrong[0]} makes none")
    return Run(stage.name, settings, parents=parents, **more)
