"""A plan by figure: what each part of the paper costs beyond the main line, so that people can choose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tldr.plan.study import RunPlan
from tldr.stages.shared.settings import NEWS
from tldr.study.runs import Run, needed_by
from tldr.study.settings import Study
from tldr.study.variant_settings import LabelsVariant, PPOVariant, RewardVariant, SFTVariant
from tldr.toy.settings import ToyData

MAIN = "The main line (Figs. 1, 8, 10, 14)"
NEWS_FIGURES = "Figs. 4, 13, 14b: news"
AGREEMENT = "Sections 4.3, 4.4: agreement and probes"
RATINGS = "Figs. 3, 12: ratings"
LABELS = "Fig. 6: reward models on other labels"
VALUE = "Fig. 11: the value network"
KL = "Fig. 5: the KL penalty"
BEST_OF_N = "Fig. 7: best of N"

ASKED_BY = {
    RATINGS: "ratings",
    NEWS_FIGURES: "data.cnndm",
    KL: "a variant of kind ppo with a sweep of beta",
    LABELS: "a variant of kind reward with a sweep of limit",
    BEST_OF_N: "best_of_n",
    VALUE: "a variant of kind ppo with value_network: shared",
    AGREEMENT: "pairs",
}
"""Part of the paper -> the setting that asks for its runs."""
BY_PEOPLE = "people's ratings, in ratings.jsonl in the study's folder"
"""What Figs. 3, 12 need where no labelers are simulated."""


@dataclass(frozen=True)
class FigurePlan:
    """What the runs for one part of the paper need.

    Attributes:
        figure: the part, and the figures of Stiennon et al. (2020) in it.
        settings: what asks for its runs: without them it is left out. Empty for the main line.
        runs: their number. hours: of all, one after the other. price: of that time on all devices.
        needs: other parts whose runs it uses, besides the main line.
    """

    figure: str
    settings: tuple[str, ...]
    runs: int
    hours: float
    price: float | None
    needs: tuple[str, ...]

    def row(self) -> dict[str, object]:
        """The plan as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }


def part_of(run: Run, study: Study) -> tuple[str, str]:
    """The part of the paper that a run is for, and the setting that asks for it ("" for the main line)."""
    if run.dataset:
        return (NEWS_FIGURES, ASKED_BY[NEWS_FIGURES]) if run.dataset == NEWS else ("Further posts", "data")
    if run.stage == "pairs":
        return AGREEMENT, ASKED_BY[AGREEMENT]
    if run.stage == "ratings":
        return RATINGS, ASKED_BY[RATINGS]
    judging = {judge.variant: name for name, judge in study.judges.items() if judge.variant is not None}
    if run.stage == "judge" or (run.stage == "reward" and run.variant in judging):
        return "Further judges", f"judges.{judging.get(run.variant, run.variant)}"
    variant, setting = study.variants.get(run.variant), f"variants.{run.variant}"
    if isinstance(variant, SFTVariant):
        return "Demonstrations: other SFT policies", setting
    if isinstance(variant, LabelsVariant):
        return "Which questions are asked", setting
    if isinstance(variant, RewardVariant) and run.stage == "reward":
        if variant.set.pairs != study.reward.pairs:
            return "InstructGPT 3.5: a ranking's pairs together or apart", setting
        return LABELS, setting
    if isinstance(variant, PPOVariant) and variant.set.value_network != study.ppo.value_network:
        return VALUE, setting
    if isinstance(variant, PPOVariant) and variant.set.limit != study.ppo.limit:
        return "Prompts: PPO on fewer posts", setting
    if isinstance(variant, PPOVariant | RewardVariant):  # or the supervised policy, scored for a sweep
        return KL, setting
    if run.stage == "best_of_n" or run.method == "best_of_n":
        return BEST_OF_N, ASKED_BY[BEST_OF_N] if variant is None else setting
    if re.fullmatch(r"r\d+", run.variant):
        return "Earlier rounds of labels", "rounds"
    return MAIN, ""


def not_asked_for(study: Study, runs: Iterable[Run]) -> dict[str, str]:
    """The parts of the paper that a study leaves out, and what would ask for each.

    Args:
        runs: all runs of the study.
    """
    asked = {part_of(run, study)[0] for run in runs}
    left_out = {part: setting for part, setting in ASKED_BY.items() if part not in asked}
    if RATINGS in left_out and not isinstance(study.data, ToyData):
        left_out[RATINGS] = BY_PEOPLE
    evaluation = study.evaluation
    # These are part of runs of the main line.
    if evaluation.zero_shot is None:
        left_out["Fig. 1: examples in context"] = "evaluation.zero_shot"
    if not evaluation.sft_temperatures and not evaluation.sft_top_ps:
        left_out["Fig. 8: the sweeps"] = "evaluation.sft_temperatures, evaluation.sft_top_ps"
    return left_out


def figure_plans(plans: Sequence[RunPlan], study: Study) -> list[FigurePlan]:
    """The plans by part, the main line first; every run counts once, in the part that it is for itself."""
    parts: dict[str, list[RunPlan]] = {MAIN: []}
    for plan in plans:
        parts.setdefault(part_of(plan.runs[0], study)[0], []).append(plan)
    return [_plan(figure, members, study) for figure, members in parts.items() if members]


def _plan(figure: str, members: Sequence[RunPlan], study: Study) -> FigurePlan:
    settings = {part_of(run, study)[1]: None for plan in members for run in plan.runs}
    used = {part_of(run, study)[0] for plan in members for run in needed_by(plan.runs[0])}
    prices = [plan.price * len(plan.runs) for plan in members if plan.price is not None]
    return FigurePlan(
        figure,
        tuple(filter(None, settings)),
        sum(len(plan.runs) for plan in members),
        sum(plan.hours * len(plan.runs) for plan in members),
        sum(prices) if prices else None,
        tuple(sorted(used - {figure, MAIN})),
    )
