"""The base of all settings: strict types, no unknown keys, values per model size."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
PerSize: TypeAlias = T | dict[str, T]

Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
LARGEST_SEED = (1 << 62) - 1
"""A seed and an offset that is added to it stay within 64 bits, as records and tables need."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
SeedOffset = Annotated[int, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
"""A name that can be part of a folder's name."""
Precision = Literal["auto", "fp32", "bf16"]


def scalar(value: PerSize[T]) -> T:
    """The value of a per-size setting, after it was resolved by `Settings.for_size`."""
    assert not isinstance(value, dict), "settings of one size: call for_size first"
    return value


def different(values: list[T]) -> list[T]:
    """A validator: the values of a list, none of which may be there twice.

    Raises:
        ValueError: one is.
    """
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{values}: {twice[0]} is there twice")
    return values


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, and values are never silently coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
    newer: ClassVar[tuple[str, ...]] = ()
    """Settings that came when runs already had names. At its default such a setting is no part of a name."""

    def naming(self) -> dict[str, Any]:
        """The settings that a run is named by, as JSON values: all but those of `newer` at their default. The
        same holds of settings within."""
        values, fields = self.model_dump(mode="json"), type(self).model_fields
        inner = {
            name: value.naming() for name, value in self if isinstance(value, Settings) and name in values
        }
        at_default = {name for name in self.newer if getattr(self, name) == fields[name].default}
        return {name: value for name, value in (values | inner).items() if name not in at_default}

    def for_size(self, size: str) -> Self:
        """The same settings with every ``PerSize`` map replaced by this size's value.

        Raises:
            KeyError: a map lacks the size.
            ValidationError: the values for this size are inconsistent.
        """
        changes: dict[str, object] = {}
        for name, value in self:
            if isinstance(value, dict):
                changes[name] = value[size]
            elif isinstance(value, Settings):
                changes[name] = value.for_size(size)
        return self.model_validate({**dict(self), **changes})

    def packages(self) -> dict[str, str]:
        """Optional packages that these settings require: dotted key -> package."""
        return {}

    def of_sizes(self, sizes: Container[str]) -> Self:
        """The same settings with every ``PerSize`` map restricted to some sizes."""
        changes: dict[str, object] = {}
        for name, value in self:
            if isinstance(value, dict):
                changes[name] = {size: of_size for size, of_size in value.items() if size in sizes}
            elif isinstance(value, Settings):
                changes[name] = value.of_sizes(sizes)
        return self.model_copy(update=changes)

    def size_maps(self) -> Iterator[tuple[str, set[str]]]:
        """The dotted key of every ``PerSize`` map, and its sizes."""
        for name, value in self:
            if isinstance(value, dict):
                yield name, set(value)
            elif isinstance(value, Settings):
                yield from ((f"{name}.{key}", sizes) for key, sizes in value.size_maps())
