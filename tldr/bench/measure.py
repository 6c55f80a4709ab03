"""Measure rounds of one stage: speed, fraction of the device's matrix-product speed, peak memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import torch

from tldr.bench.work import Setting, UpdateMeasurement, work_of
from tldr.plan.flops import Cost, PackedRow, plus, rollout_cost, step_cost, times
from tldr.plan.memory import Options, TrainingStep
from tldr.settings.base import scalar
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.study.environment import STATUS, environment, peak_bytes, proc
from tldr.train.precision import ResolvedPrecision, peak_flops

MEMORY = Path("/proc/meminfo")
BenchRow = dict[str, Any]
"""One line of the results: a round, or the reason for its absence under the key `ERROR`."""
ERROR = "error"


@dataclass(frozen=True)
class Case:
    """A stage of one size, and how to measure it.

    Attributes:
        work, options: the plan's description of the step, for its FLOPs.
        planned: peak memory in the plan, in bytes.
        rounds: number of measured rounds; one warm-up update precedes them.
        updates: updates per round.
    """

    study: str
    stage: str
    size: str
    model: str
    settings: SFTSettings | RewardSettings | PPOSettings
    setting: Setting
    work: TrainingStep
    options: Options
    planned: float
    rounds: int = 5
    updates: int = 1

    def named(self) -> BenchRow:
        """The description of the case, part of every line."""
        micro = self.settings.micro_batch
        return {
            "study": self.study,
            "stage": self.stage,
            "size": self.size,
            "model": self.model,
            "parameters": self.work.shape.policy,
            "batch": scalar(self.settings.batch),
            "micro_batch": None if micro is None else scalar(micro),
            "gradient_checkpointing": self.settings.gradient_checkpointing,
            "lengths": self.setting.lengths.model_dump(),
            "updates": self.updates,
            "planned_bytes": self.planned,
        }


def rounds(case: Case) -> Iterator[BenchRow]:
    """Set the stage up in this process and measure it; yields one line per round.

    Keys besides `Case.named` and the environment: `seconds`, `tokens` (real tokens in the training step),
    `tokens_per_s`; for a reward model `pairs_per_s`; for PPO `episodes_per_s`, `generation_s`, `scoring_s`
    and `update_s`; `flops` (of the model, without recomputation); `mfu`, their rate relative to the
    matrix-product speed `gemm_fp32` or `gemm_bf16` (FLOP/s, measured here); `peak_bytes`: memory of tensors
    on a GPU, growth of the process on a CPU.
    """
    start = proc(STATUS, "VmRSS")
    work = work_of(case.settings, case.setting)
    device, precision = work.stepper.accelerator.device, work.stepper.precision
    ceilings = {f"gemm_{name}": peak_flops(device, name) for name in get_args(ResolvedPrecision)}
    about = case.named() | {"precision": precision, **environment(), "threads": torch.get_num_threads()}
    work.update(0)
    for number in range(case.rounds):
        _begin_peak(device)
        first = 1 + number * case.updates
        done = [work.update(first + i) for i in range(case.updates)]
        speed = _speed(case, done, ceilings[f"gemm_{precision}"])
        yield about | {"round": number, **speed, **ceilings, "peak_bytes": peak_bytes(start)}


def _speed(case: Case, done: Sequence[UpdateMeasurement], ceiling: float) -> BenchRow:
    seconds, tokens = sum(update.seconds for update in done), sum(update.tokens for update in done)
    rows = [row for update in done for row in update.rows]
    cost = Cost()
    for query, responses in rows:
        cost = plus(cost, _cost(case, PackedRow(query, len(responses), mean(responses))))
    found = {"seconds": seconds, "tokens": tokens, "tokens_per_s": tokens / seconds}
    if isinstance(case.settings, RewardSettings):
        found["pairs_per_s"] = len(rows) / seconds
    if isinstance(case.settings, PPOSettings):
        found["episodes_per_s"] = sum(len(responses) for _, responses in rows) / seconds
        found |= {f"{name}_s": sum(update.phases[name] for update in done) for name in done[0].phases}
    return found | {"flops": cost.flops, "mfu": cost.flops / seconds / ceiling}


def _cost(case: Case, row: PackedRow) -> Cost:
    """The cost of one query in an update, at its real length and without recomputation."""
    options = replace(case.options, checkpointing=False)
    cost = step_cost(case.work, options, row)
    if isinstance(case.settings, PPOSettings):
        cost = plus(times(cost, case.settings.epochs), rollout_cost(case.work, row, 1, options))
    return cost


def _begin_peak(device: torch.device) -> None:
    """Reset the peak memory counter."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (peak := Path("/proc/self/clear_refs")).exists():
        peak.write_text("5", encoding="ascii")
