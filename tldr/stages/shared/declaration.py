"""How a stage declares itself: its settings, what it reads of which parent, and what it makes.

Each folder of `tldr/stages` declares one `Stage` in its ``__init__.py``. The study graph, the command
line, the registry and the tests read that declaration; nothing here needs torch. What a stage reads is a
dataclass. Its fields hold paths in a run, and the graph's sources in a study::

    @dataclass(frozen=True, kw_only=True)
    class ScoreInputs(Generic[T]):
        policy: T = reads(POLICY, "Policy to train.")
        rewards: Mapping[str, T] = reads_each(REWARD_MODEL, "reward", "Further reward models.")
        sft: T | None = may_read(POLICY, "SFT policy, for log-probabilities under it.")

A run file names inputs as the fields are named; those of a mapping are named ``reward-<key>``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar

from tldr.errors import UsageError
from tldr.settings.base import Settings
from tldr.settings.training import Training

T = TypeVar("T")


@dataclass(frozen=True)
class Product:
    """What a stage makes and others read.

    Attributes:
        name: in messages.
        files: paths that must exist in the run's folder when the stage is done.
        outside: whether one may come from elsewhere as a hub name, not a local path.
    """

    name: str
    files: tuple[str, ...]
    outside: bool = False


DATA = Product("data", ("sft.jsonl", "ppo.jsonl", "valid1.jsonl", "valid2.jsonl", "tokenizer"))
POLICY = Product("policy", ("checkpoint",), outside=True)
REWARD_MODEL = Product("reward model", ("checkpoint", "evaluation.json"), outside=True)
LABELS = Product("labels", ())
"""``train``, ``valid1`` and ``valid2`` rankings, or folders of them (``fold-0``)."""
SAMPLES = Product("samples", ("samples.jsonl",))
PAIRS = Product("pairs", ("valid2.jsonl",))
RATINGS = Product("ratings", ("ratings.jsonl",))
JUDGEMENTS = Product("judgements", ("judge.json",))


def reads(product: Product, help: str) -> Any:
    """A field of an input that the stage needs."""
    return field(metadata={"product": product, "help": help, "prefix": None})


def may_read(product: Product, help: str) -> Any:
    """A field of an input that the stage can do without: None then."""
    return field(default=None, metadata={"product": product, "help": help, "prefix": None})


def reads_each(product: Product, prefix: str, help: str) -> Any:
    """A field of any number of inputs: key -> input, named ``prefix-key`` in a run file."""
    return field(default_factory=dict, metadata={"product": product, "help": help, "prefix": prefix})


@dataclass(frozen=True)
class Stage:
    """One kind of run.

    Attributes:
        name: of its folder in `tldr/stages`, and in run names.
        inputs: dataclass of what it reads (see above).
        makes: what others read of it.
        help: what it does, in a line.
        weight: rough cost next to the others', for a model of the same size.
        alone: whether it is a command of its own; the others need more than one model's inputs.
        spread: whether several processes can share its sampling and scoring (`tldr.train.crew`); not of the
            kinds in `modules`.
        module: holds ``run(ctx)``; by default `stage` in the stage's folder.
        modules: kind of the settings -> the module that holds ``run(ctx)`` for it instead.
    """

    name: str
    settings: type[Settings]
    inputs: Callable[..., Any]
    makes: Product
    help: str
    weight: float
    alone: bool = True
    spread: bool = False
    module: str = ""
    modules: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.module:
            object.__setattr__(self, "module", f"tldr.stages.{self.name}.stage")

    @property
    def trains(self) -> bool:
        """Whether it is on the training loop, which several processes can share."""
        return issubclass(self.settings, Training)

    def in_processes(self, settings: Settings) -> bool:
        """Whether a launcher's processes share a run with these settings."""
        return self.trains or (self.spread and str(getattr(settings, "kind", "")) not in self.modules)

    def module_of(self, settings: Mapping[str, Any]) -> str:
        """The module that holds ``run(ctx)`` for settings, as a run file has them."""
        return self.modules.get(str(settings.get("kind")), self.module)

    def load(self, settings: Mapping[str, Any]) -> Callable[[Any], None]:
        """Import the module for settings, as a run file has them, and hand over its ``run``."""
        run: Callable[[Any], None] = importlib.import_module(self.module_of(settings)).run
        return run

    def fields(self) -> tuple[Field[Any], ...]:
        """The fields of its inputs, with `product`, `help` and `prefix` in their metadata."""
        found: Any = self.inputs
        return fields(found)

    def needs(self, name: str) -> Field[Any]:
        """The field that an input's name in a run file belongs to.

        Raises:
            KeyError: the stage reads no such input.
        """
        for declared in self.fields():
            prefix = declared.metadata["prefix"]
            if name == declared.name if prefix is None else name.startswith(f"{prefix}-"):
                return declared
        raise KeyError(name)

    def typed(self, named: Mapping[str, T]) -> Any:
        """Its inputs, from their names in a run file.

        Raises:
            UsageError: one is missing, or the stage reads no such input.
        """
        values: dict[str, Any] = {}
        for name, value in named.items():
            try:
                belongs = self.needs(name)
            except KeyError:
                known = ", ".join(sorted(declared.name for declared in self.fields()))
                remedy = f"it reads {known or 'nothing'}"
                raise UsageError(
                    f"{self.name} reads no input '{name}'", where="inputs", remedy=remedy
                ) from None
            if (prefix := belongs.metadata["prefix"]) is None:
                values[name] = value
            else:
                values.setdefault(belongs.name, {})[name.removeprefix(f"{prefix}-")] = value
        try:
            return self.inputs(**values)
        except TypeError:
            missing = [f.name for f in self.fields() if f.name not in values and is_needed(f)]
            remedy = "; ".join(f"{f.name}: {f.metadata['help']}" for f in self.fields() if f.name in missing)
            what = f"{self.name} lacks its input {' and '.join(missing)}"
            raise UsageError(what, where="inputs", remedy=remedy) from None


def is_needed(input_field: Field[Any]) -> bool:
    """Whether a stage cannot do without the input."""
    return input_field.default is MISSING and input_field.default_factory is MISSING


def named(inputs: Any) -> dict[str, Any]:
    """Inputs by their names in a run file; what is absent is left out."""
    found: dict[str, Any] = {}
    for input_field in fields(inputs):
        value, prefix = getattr(inputs, input_field.name), input_field.metadata["prefix"]
        if prefix is not None:
            found |= {f"{prefix}-{key}": entry for key, entry in value.items()}
        elif value is not None:
            found[input_field.name] = value
    return found
