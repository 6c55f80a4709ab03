"""The project's stages: the updates of `tldr-lab bench` (`tldr.bench`) on the same texts."""

from __future__ import annotations

from typing import Any

import torch
from rounds import Rounds
from transformers import AutoConfig

from tldr.bench.work import Setting, work_of
from tldr.settings.models import Lengths
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.train.precision import peak_flops


def settings_of(spec: dict[str, Any]) -> SFTSettings | RewardSettings | PPOSettings:
    """The stage's settings with the batch sizes of the comparison; all others are the project's defaults."""
    batch = spec["batch"]
    if spec["stage"] == "sft":
        return SFTSettings(batch=batch)
    if spec["stage"] == "reward":
        return RewardSettings(batch=batch)
    ppo = spec["ppo"]
    return PPOSettings(
        batch=batch,
        micro_batch=ppo["micro_batch"],
        epochs=ppo["epochs"],
        temperature=ppo["temperature"],
        beta=ppo["beta"],
    )


def main() -> None:
    rounds = Rounds()
    spec = rounds.spec
    config = AutoConfig.for_model(**spec["model"])
    setting = Setting(config, Lengths(**spec["lengths"]), spec["precision"], spec["seed"])
    work = work_of(settings_of(spec), setting)
    done = 0
    while True:
        rounds.wait()  # no other contestant computes now
        gemm = peak_flops.__wrapped__(torch.device("cpu"), spec["precision"])
        rounds.begin()
        found = [work.update(done + i) for i in range(spec["updates"])]
        done += len(found)
        phases = {name: sum(update.phases[name] for update in found) for name in found[0].phases}
        rounds.tell(
            tokens=sum(update.tokens for update in found),
            things=float(sum(len(responses) for update in found for _, responses in update.rows))
            if spec["stage"] == "ppo"
            else float(sum(len(update.rows) for update in found)),
            gemm=gemm,
            **phases,
        )


if __name__ == "__main__":
    main()
