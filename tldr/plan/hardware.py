"""Devices and the assumptions about computing on them, read from ``hardware.yaml``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tldr.errors import UsageError, nearest
from tldr.settings.base import Positive, Settings, Unit
from tldr.strict_yaml import read_yaml
from tldr.study.load import read_settings

GIB = 2**30
BUILT_IN = Path(__file__).with_name("hardware.yaml")


class DeviceSpec(Settings):
    """One device: memory in GiB, dense throughput in TFLOP/s, bandwidth in GB/s, source of these figures."""

    memory: Positive
    bf16: Positive | None
    fp32: Positive
    bandwidth: Positive
    note: str

    def flops(self, bf16: bool) -> float:
        """Throughput of large matrix products in FLOP/s."""
        return 1e12 * (self.bf16 if bf16 and self.bf16 is not None else self.fp32)


class PostCounts(Settings):
    """Assumed rows of the post, comparison and article files where the files are absent."""

    sft: int
    ppo: int
    valid1: int
    valid2: int
    validation_unmarked: int
    test: int
    comparisons: int
    valid_comparisons: int
    cnndm: int


class Assumed(Settings):
    """Assumptions behind the hours and the memory reserve; ``hardware.yaml`` explains each."""

    training: Unit
    scoring: Unit
    decoding: Unit
    several: Unit
    reserve: float
    fragmentation: Unit
    cpu_fragmentation: Unit
    query: Positive
    response: Positive
    posts: PostCounts
    vocabulary: int


class Hardware(Settings):
    """The whole table."""

    devices: dict[str, DeviceSpec]
    assumed: Assumed


@cache
def hardware(path: Path = BUILT_IN) -> Hardware:
    """The table of a file.

    Raises:
        UsageError: it cannot be read or holds something else.
    """
    return read_settings(Hardware, read_yaml(path), where=str(path))


def device_named(name: str, table: Hardware) -> DeviceSpec:
    """A device of the table.

    Raises:
        UsageError: the table has no such device; the message lists those it has.
    """
    if name not in table.devices:
        raise UsageError(
            f"no device '{name}'{nearest(name, table.devices)}",
            where="--gpu",
            remedy=f"choose from {', '.join(table.devices)}, or add it to a table of your own (--table)",
        )
    return table.devices[name]
