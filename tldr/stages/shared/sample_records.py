"""`Sample` records of what a policy wrote, named after the run that drew them."""

from __future__ import annotations

from typing import Any

from tldr.records import Sample
from tldr.settings.base import Settings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.sampling import Draw


def to_sample(ctx: RunContext[Settings, Any], post_id: str, draw: Draw, policy: str, **more: Any) -> Sample:
    """A `Sample` of one draw.

    Args:
        policy: name of the policy. more: further fields (temperature, tags, scores, logprob, ...).
    """
    return Sample(
        id=post_id,
        policy=policy,
        study=ctx.study,
        run=ctx.run,
        seed=ctx.seed,
        text=draw.text,
        response_ids=draw.ids,
        tokens=len(draw.ids),
        stopped=draw.stopped,
        **more,
    )


def policy_name(ctx: RunContext[Settings, Any], method: str = "") -> str:
    """``method-size`` where the tags tell (or `method` is given), else the run's name."""
    method, size = method or str(ctx.tags.get("method", "")), ctx.tags.get("size")
    return f"{method}-{size}" if method and size else method or ctx.run or "policy"
