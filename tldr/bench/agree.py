"""Compare a training step in bf16 with one in fp32: loss and gradients for the same weights and examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tldr.bench.measure import BenchRow, Case
from tldr.bench.work import PPOWork, Work, work_of
from tldr.settings.base import Precision
from tldr.stages.ppo.rollout import Rollout

BOUNDS = {"loss": 0.02, "grad_norm": 0.05, "cosine": 0.99}
"""Largest relative differences of the loss and of the gradient norm, smallest cosine of the gradients.
bf16 has 8 bits of mantissa (0.4 % per product), and errors average out over many tokens."""


def agreement(case: Case) -> BenchRow:
    """One optimizer step of a case's stage in bf16 and in fp32, in this process.

    Returns:
        `loss` and `grad_norm` as relative differences, `cosine` of the gradients (the smallest over the
        trained modules), and whether all are `within` `BOUNDS`. For PPO they describe a first step on
        episodes of the fp32 policy; the policy loss is then near 0, so `loss` is the value loss.
    """
    rollout: Rollout | None = None
    found: dict[str, tuple[dict[str, float], dict[str, Tensor]]] = {}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        work = work_of(case.settings, replace(case.setting, precision=precision))
        gradients = _watched(work)
        if isinstance(work, PPOWork):
            rollout = rollout or work.rollout(0, beta=0.05)
            row = work.stepper.step(work.loss, work.minibatch(rollout, 0, 0))
        else:
            row = work.update(0).figures
        found[precision] = row, gradients
        del work
    (exact, fine), (row, rough) = found.values()
    loss = "value_loss" if "value_loss" in exact else "loss"
    norms = [name for name in exact if name.startswith("grad_norm")]
    differences = {
        "loss": _apart(row[loss], exact[loss]),
        "grad_norm": max(_apart(row[name], exact[name]) for name in norms),
        "cosine": min(_cosine(fine[name], rough[name]) for name in fine),
    }
    within = differences["cosine"] >= BOUNDS["cosine"] and all(
        differences[name] <= BOUNDS[name] for name in ("loss", "grad_norm")
    )
    return {"stage": case.stage, "size": case.size, "model": case.model, **differences, "within": within}


def _watched(work: Work) -> dict[str, Tensor]:
    """A dict that receives each module's gradient, as one vector on the CPU, at its optimizer's step."""
    gradients: dict[str, Tensor] = {}
    for name, module in work.stepper.modules.items():

        def keep(*_: Any, name: str = name, module: torch.nn.Module = module) -> None:
            parts = [p.grad.flatten().cpu() for p in module.parameters() if p.grad is not None]
            gradients[name] = torch.cat(parts)

        hook: Any = work.stepper.optimizers[name]
        getattr(hook, "optimizer", hook).register_step_pre_hook(keep)
    return gradients


def _apart(a: float, b: float) -> float:
    return abs(a - b) / abs(b)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))
