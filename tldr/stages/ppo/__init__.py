"""PPO against a reward model (P 3.4, App. B.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, POLICY, REWARD_MODEL, Stage, reads

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PPOInputs(Generic[T]):
    """What the PPO stage reads."""

    policy: T = reads(POLICY, "Policy: run folder, checkpoint or hub name.")
    reference: T = reads(POLICY, "Policy that the KL penalty is measured from (the SFT model).")
    reward: T = reads(REWARD_MODEL, "Reward model: run folder or checkpoint.")
    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")


PPORun: TypeAlias = RunContext[PPOSettings, PPOInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "ppo",
    settings=PPOSettings,
    inputs=PPOInputs,
    makes=POLICY,
    help="Optimise a policy against a reward model.",
    weight=6,
)
