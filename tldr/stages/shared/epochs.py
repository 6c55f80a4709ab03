"""The epochs of an SFT run that are kept to be chosen from, as its folder lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tldr.errors import UsageError
from tldr.records import write_json
from tldr.strict_json import parse_object

EPOCHS = "epochs.json"


@dataclass(frozen=True)
class Epoch:
    """The weights after an epoch.

    Attributes:
        epoch: passes over the posts so far; the last one may be a fraction.
        checkpoint: the folder of the weights, in the run's folder.
        valid1_loss: their loss on the references of valid1, in nats a token.
    """

    epoch: float
    checkpoint: str
    valid1_loss: float


def write_epochs(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Write ``epochs.json`` of an SFT run, the first epoch first."""
    write_json(folder / EPOCHS, {"epochs": [asdict(epoch) for epoch in epochs]})


def read_epochs(folder: Path) -> list[Epoch]:
    """The epochs that an SFT run kept, the first one first.

    Raises:
        UsageError: it kept none, or the list cannot be read.
    """
    path = folder / EPOCHS
    if not path.is_file():
        raise UsageError(
            "no epochs were kept here to choose from",
            where=folder,
            remedy="give the folder of an SFT run with select: reward",
        )
    try:
        return [Epoch(**row) for row in parse_object(path.read_bytes())["epochs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"not a list of epochs: {error!r}", where=path) from None
