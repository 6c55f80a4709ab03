"""What all settings have in common: strict types, unknown keys refused, values by model size."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Annotated, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
PerSize: TypeAlias = T | dict[str, T]

Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
"""What may stand in a folder's name."""
Precision = Literal["auto", "fp32", "bf16"]


def scalar(value: PerSize[T]) -> T:
    """The value of a setting whose per-size map has been resolved (`Settings.for_size`)."""
    assert not isinstance(value, dict), "settings of one size: call for_size first"
    return value


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values are never coerced in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def for_size(self, size: str) -> Self:
        """The same settings with every ``PerSize`` map replaced by this size's value.

        Raises:
            KeyError: a map lacks the size.
            ValidationError: this size's values do not go together.
        """
        changes: dict[str, object] = {}
        for name, value in self:
            if isinstance(value, dict):
                changes[name] = value[size]
            elif isinstance(value, Settings):
                changes[name] = value.for_size(size)
        return self.model_validate({**dict(self), **changes})

    def packages(self) -> dict[str, str]:
        """Optional packages that these settings need: dotted key -> package."""
        return {}

    def of_sizes(self, sizes: Container[str]) -> Self:
        """The same settings with every ``PerSize`` map cut down to some sizes."""
        changes: dict[str, object] = {}
        for name, value in self:
            if isinstance(value, dict):
                changes[name] = {size: of_size for size, of_size in value.items() if size in sizes}
            elif isinstance(value, Settings):
                changes[name] = value.of_sizes(sizes)
        return self.model_copy(update=changes)

    def size_maps(self) -> Iterator[tuple[str, set[str]]]:
        """The dotted key of every ``PerSize`` map, and the sizes it names."""
        for name, value in self:
            if isinstance(value, dict):
                yield name, set(value)
            elif isinstance(value, Settings):
                yield from ((f"{name}.{key}", sizes) for key, sizes in value.size_maps())
