"""Measure a study's stages one after the other, each in its own process."""

from __future__ import annotations

import multiprocessing
import sys
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import torch

from tldr.bench.measure import ERROR, MEMORY, BenchRow, Case, rounds
from tldr.bench.work import Setting
from tldr.errors import LabError
from tldr.plan.hardware import GIB, DeviceSpec, hardware
from tldr.plan.study import Machine, Planner, RunPlan
from tldr.settings.models import ModelSpec
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.study.environment import proc
from tldr.study.settings import Study

STAGES = ("sft", "reward", "ppo")
_OOM = (torch.OutOfMemoryError, MemoryError)


def cases(study: Study, stages: Sequence[str], rounds: int, updates: int) -> Iterator[Case | BenchRow]:
    """A study's stages with their plans; a stage that does not fit into memory is a line with an error."""
    machine = machine_here()
    planner = Planner(study, machine, hardware().assumed)
    for stage in stages:
        for plan in planner.plan(stage):
            if plan.variant:
                continue
            case = _case(study, plan, rounds, updates)
            if plan.fits:
                yield case
            else:
                room = f"{plan.memory.total / GIB:.1f} GiB planned of {machine.device.memory:.1f}"
                yield case.named() | {ERROR: f"does not fit: {room}; set {', '.join(plan.suggestion)}"}


def _case(study: Study, plan: RunPlan, rounds: int, updates: int) -> Case:
    run = plan.runs[0]
    assert isinstance(run.settings, SFTSettings | RewardSettings | PPOSettings) and run.model is not None
    setting = Setting(plan.work.shape.config, study.lengths, study.precision, run.seed or 0)
    return Case(
        study.name,
        plan.stage,
        plan.size,
        _model_name(run.model),
        run.settings,
        setting,
        plan.work,
        plan.options,
        plan.memory.total,
        rounds,
        updates,
    )


def _model_name(spec: ModelSpec) -> str:
    return spec.path or f"{spec.arch}, {spec.layers} layers, d {spec.d_model}, {spec.heads} heads"


def machine_here() -> Machine:
    """This machine's first GPU, or its CPU, with the available memory."""
    table = hardware().devices
    if not torch.cuda.is_available():
        room = proc(MEMORY, "MemAvailable") / GIB
        return Machine(table["cpu"].model_copy(update={"memory": room} if room else {}), "cpu")
    properties = torch.cuda.get_device_properties(0)
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    # The speed is measured, so these values are placeholders; bf16 support decides what "auto" means.
    device = DeviceSpec(
        memory=properties.total_memory / GIB, bf16=1 if has_bf16 else None, fp32=1, bandwidth=1, note=""
    )
    return Machine(device, properties.name)


def measured(case: Case) -> Iterator[BenchRow]:
    """Yield a case's lines as they arrive; if it fails (for example out of memory), the last is the error."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(case, sender))
    child.start()
    sender.close()
    with receiver:
        while True:
            try:
                yield receiver.recv()
            except EOFError:
                break
    child.join()
    if child.exitcode:
        why = "killed: probably out of memory" if child.exitcode == -9 else "ended"
        yield case.named() | {ERROR: f"{why} (exit code {child.exitcode})"}


def _child(case: Case, sender: Connection[BenchRow, BenchRow]) -> None:
    with sender:
        try:
            for row in rounds(case):
                sender.send(row)
        except Exception as error:
            sender.send(case.named() | {ERROR: failure(error)})
            if not isinstance(error, (*_OOM, LabError)):
                traceback.print_exc(file=sys.stderr)


def failure(error: Exception) -> str:
    """The reason why a case has no figures, in one line."""
    first = (str(error).strip().splitlines() or [""])[0]
    # The CPU's allocator raises a plain RuntimeError.
    if isinstance(error, _OOM) or "can't allocate memory" in str(error):
        return f"out of memory: {first}"
    return f"{type(error).__name__}: {first}"
