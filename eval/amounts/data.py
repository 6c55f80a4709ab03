"""How much data each policy was trained on: SFT's demonstrations, or the prompts of PPO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.common.rows import runs_by_name, settings_of
from eval.common.runs import StudyRun, StudyRuns

PPO, SFT = "ppo", "sft"

Policy = tuple[str, str]
"""A policy's size and variant, "" for the main one."""


@dataclass(frozen=True)
class DataKind:
    """A kind of data that policies of one stage may have more or less of.

    Attributes:
        name: of its column and files, ``demonstrations``.
        stage: whose setting `limit` it is; also the method of its policies.
        beside: the method that stands beside as a level, at the same size.
        lead: the measure of how far the better of the two methods, which is PPO, leads.
        amount: how much of it a run used, from its settings and the posts of its data run (None: unknown).
        own: what its policies are called. axis: the horizontal axis. other: what the level is called.
    """

    name: str
    stage: str
    beside: str
    lead: str
    amount: Callable[[dict[str, Any], int | None], int | None]
    own: str
    axis: str
    other: str

    @property
    def posts(self) -> str:
        """The file of a data run that has the posts, one a line."""
        return f"{self.stage}.jsonl"


def _demonstrations(settings: dict[str, Any], posts: int | None) -> int | None:
    limit: int | None = settings.get("limit")
    return limit or posts


def _prompts(settings: dict[str, Any], posts: int | None) -> int | None:
    """The posts that queries are drawn from, or the queries drawn where those are fewer.

    A rollout takes each post at most once, and the rollouts go through the posts in turn.
    """
    available: int | None = settings.get("limit") or posts
    batch, episodes = settings.get("batch"), settings.get("episodes")
    if available is None or not isinstance(batch, int) or not isinstance(episodes, int):
        return None
    each: int = settings.get("samples_per_query", 1)
    return min(available, max(1, episodes // batch) * (batch // each))


DEMONSTRATIONS = DataKind(
    "demonstrations",
    SFT,
    PPO,
    "gap_to_ppo",
    _demonstrations,
    "supervised policy",
    "Demonstrations (posts that SFT trains on, log scale)",
    "PPO of the same size",
)
PROMPTS = DataKind(
    "prompts",
    PPO,
    SFT,
    "lead_over_sft",
    _prompts,
    "PPO policy",
    "Prompts (different posts that PPO asks about, log scale)",
    "Supervised policy of the same size",
)


def amounts_of(kind: DataKind, runs: StudyRuns) -> tuple[dict[Policy, int], dict[Policy, str]]:
    """How much data each policy of the kind was trained on, and why others are left out.

    A variant counts if it differs from the main policy of its size in `limit` alone, in every cell. One of
    the same limit answers another question, and is neither.
    """
    by_name = runs_by_name(runs)
    trained = runs.finished(kind.stage)
    main = {(run.size, run.cell): run for run in trained if run.variant == ""}
    amounts: dict[Policy, int] = {}
    left: dict[Policy, str] = {}
    for run in trained:
        policy, own, settings = (run.size, run.variant), main.get((run.size, run.cell)), settings_of(run)
        if run.variant and own is not None and settings.get("limit") == settings_of(own).get("limit"):
            continue
        amount = kind.amount(settings, _posts(kind, by_name.get(run.parents.get("data", ""))))
        if own is None or _otherwise(own) != _otherwise(run):
            left[policy] = "its settings differ from the main policy's in more than the number of posts"
        elif amount is None:
            left[policy] = f"the number of its posts is not known: its data run left no {kind.posts}"
        else:
            amounts[policy] = min(amount, amounts.get(policy, amount))
    return {policy: amount for policy, amount in amounts.items() if policy not in left}, left


def _otherwise(run: StudyRun) -> tuple[dict[str, Any], dict[str, str]]:
    """All in which two policies must not differ: the settings but the limit, and what they were made from."""
    return {name: value for name, value in settings_of(run).items() if name != "limit"}, run.parents


def _posts(kind: DataKind, data: StudyRun | None) -> int | None:
    """The posts of a data run; None where it left no file of them."""
    return None if data is None else _lines(data.folder / kind.posts)


def _lines(path: Path) -> int | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
