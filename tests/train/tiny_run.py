"""A training run small enough to be killed: a tied toy model with dropout on ragged sequences.

As a script: ``tiny_run.py FOLDER DROPOUT HELD`` trains in FOLDER. Unless HELD is 0, it rests a little in each
update, and in update HELD until there is a file ``go``: it does not end before it is killed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tldr.settings.training import Optimizer, Training
from tldr.train.batching import BatchPlan, micro_batches
from tldr.train.checkpoint import hash_module
from tldr.train.loop import TrainLoop
from tldr.train.metrics import MetricsRow
from tldr.train.processes import make_accelerator
from tldr.train.rng import generator
from tldr.train.stepper import Loss, Stepper

VOCAB, SEED = 31, 5
OPTIMIZER = Optimizer(lr=0.02, warmup=2, clip=0.5, weight_decay=0.1)


class Tiny(nn.Module):
    """Predicts each token from the one before; the head is tied to the embedding."""

    def __init__(self, dropout: float = 0.2):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 16)
        self.body = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, VOCAB, bias=False)
        self.head.weight = self.embed.weight
        draw = generator(SEED, "init")
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=draw)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.norm(self.body(self.embed(ids)).tanh())
        return self.head(self.dropout(hidden))


def corpus(n: int = 27) -> list[Tensor]:
    """Sequences of 3 to 12 tokens."""
    draw = generator(SEED, "corpus")
    lengths = torch.randint(3, 13, (n,), generator=draw).tolist()
    return [torch.randint(VOCAB, (length,), generator=draw) for length in lengths]


BATCHES = [corpus(4), corpus(7)[4:]]
"""Two micro-batches."""


def next_token_loss(modules: nn.ModuleDict, sequences: Sequence[Tensor]) -> Loss:
    """Summed cross entropy, and how many tokens it is a sum over."""
    ids = nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=-100)
    logits = modules["policy"](ids.clamp(min=0))[:, :-1].float()
    targets = ids[:, 1:]
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    right = (logits.argmax(-1) == targets).sum()
    return Loss(total, (targets >= 0).sum(), (ids >= 0).sum(), {"accuracy": right})


def stepper(dropout: float = 0.2, precision: str = "fp32", optimizer: Optimizer = OPTIMIZER) -> Stepper:
    return Stepper(
        make_accelerator(precision), {"policy": Tiny(dropout)}, Training(optimizer=optimizer), SEED
    )


def train(
    folder: Path,
    *,
    updates: int = 12,
    save_every: int = 3,
    dropout: float = 0.2,
    on_update: Callable[[int, MetricsRow], None] | None = None,
) -> str:
    """Train to the end, from where the folder's state stands; the weights' hash."""
    data = corpus()
    step = stepper(dropout)
    rank, processes = step.accelerator.process_index, step.accelerator.num_processes
    lengths = [len(sequence) for sequence in data]
    plan = BatchPlan(lengths, 8, SEED, updates=updates, processes=processes)

    def update(i: int) -> MetricsRow:
        micro = micro_batches(plan.batch(i), 2, rank, processes)
        return step.step(next_token_loss, [[data[j] for j in ids] for ids in micro])

    settings = Training(save_every=save_every)
    TrainLoop("tiny", folder, step, plan.total_updates, settings, on_update=on_update).run(update)
    return hash_module(step.modules["policy"])


if __name__ == "__main__":
    place, dropout, held = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])

    def hold(done: int, _: MetricsRow) -> None:
        if held:
            time.sleep(0.05)
        while done == held and not (place / "go").exists():
            time.sleep(0.01)

    print(train(place, dropout=dropout, on_update=hold))
