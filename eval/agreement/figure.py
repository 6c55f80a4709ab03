"""Agreement of judges: heat maps in the manner of Tables 20-23, and who agrees with the labelers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from eval.common.figures import dots
from eval.common.style import BLACK, CYCLE, MARKERS, METHODS, Series, styled
from tldr.errors import UsageError

LABELER, ANOTHER = "labeler", "another labeler"
_ORDER = (LABELER, ANOTHER, "labeler ensemble", "gold", "rm", "ROUGE", "length", "copying", "logprob")
_HIDDEN = frozenset({"length (tokens)"})
"""Nearly the same as length in words, so it is in the table only."""
_ANCHORS = {
    "sft": ("supervised samples", {"rouge_labeler": ("ROUGE", "*")}),
    "ppo": (
        "human feedback samples",
        {
            "rouge_labeler": ("ROUGE", "*"),
            "rm_labeler": ("rm", "*"),
            "logprob_labeler_at_most": ("logprob", "<"),
        },
    ),
}
"""Method -> the pairs that the paper describes, and for each of its judges our judge and the marker."""


def judge_order(judge: str) -> tuple[int, bool, int]:
    """Sort key: people, the planted truth, reward models (variants last), texts, log-probabilities."""
    start = next((name for name in _ORDER if name != LABELER and judge.startswith(name)), judge)
    place = _ORDER.index(start) if start in _ORDER else len(_ORDER)
    return place, judge.endswith("per token"), judge.count("_")


def judge_label(judge: str) -> str:
    """A judge's readable name: ``rm_l_n750`` is "RM l n750", ``logprob_l`` "log p l"."""
    kinds = {"rm_": "RM ", "logprob_": "log p ", "gold": "planted truth"}
    kind = next((start for start in kinds if judge.startswith(start)), "")
    return kinds.get(kind, "") + judge.removeprefix(kind).replace("_", " ")


def main_judges(judges: Sequence[str], kind: str) -> list[str]:
    """The judges of a kind that are main models: a variant's name has one part more."""
    known = [one for one in judges if one.startswith(kind) and not one.endswith("per token")]
    return [one for one in known if one.count("_") == min(other.count("_") for other in known)]


@styled
def agreement_heatmap(table: pd.DataFrame, *, title: str) -> Figure:
    """Agreement of every two judges, per cent with standard errors, lower triangle; main models only.

    Args:
        table: rows of one policy: ``first``, ``second``, ``value``, ``se``. The row of ``labeler``
            and ``another labeler`` is drawn on the diagonal.

    Raises:
        UsageError: nothing to draw.
    """
    rows = table.replace({"first": {ANOTHER: LABELER}, "second": {ANOTHER: LABELER}})
    every = [one for one in dict.fromkeys([*rows["first"], *rows["second"]]) if one not in _HIDDEN]
    variants = {one for one in every if one.startswith("rm_")} - set(main_judges(every, "rm_"))
    judges = sorted((one for one in every if one not in variants), key=judge_order)
    if not judges:
        raise UsageError("no agreement to draw")
    place = {judge: number for number, judge in enumerate(judges)}
    values = np.full((len(judges), len(judges)), np.nan)
    figure = Figure(figsize=(0.66 * len(judges) + 3.2, 0.56 * len(judges) + 2.6), layout="constrained")
    axis = figure.subplots()
    errors = values.copy()
    for first, second, value, error in rows[["first", "second", "value", "se"]].to_numpy():
        if first in place and second in place:
            cell = max(place[first], place[second]), min(place[first], place[second])
            values[cell], errors[cell] = value, error
    for y, x in np.argwhere(np.isfinite(values)):
        below = f"\n±{100 * errors[y, x]:.0f}" if np.isfinite(errors[y, x]) else ""
        color = "white" if abs(values[y, x] - 0.5) > 0.27 else BLACK
        text = f"{100 * values[y, x]:.0f}{below}"
        cell_text = axis.text(
            x, y, text, ha="center", va="center", fontsize=11, linespacing=0.95, color=color
        )
        cell_text.set_in_layout(False)  # inside the axes anyway; measuring hundreds of texts takes seconds
    image = axis.imshow(values, cmap="RdBu", vmin=0.1, vmax=0.9, aspect="auto")
    shown = [judge_label(judge) for judge in judges]
    axis.set_xticks(range(len(judges)), shown, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(judges)), shown)
    axis.grid(False)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)
    axis.set_title(title)
    bar = figure.colorbar(image, ax=axis, shrink=0.7, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("Agreement")
    return figure


@styled
def agreement_with_labelers(
    table: pd.DataFrame, methods: Mapping[str, str], paper: pd.DataFrame | None = None
) -> Figure:
    """How often each judge agrees with one labeler: a panel per method, a colour per policy.

    Args:
        table: rows of several policies, as `agreement_heatmap`, with ``policy``, ``low``, ``high``.
        methods: policy -> its method.
        paper: rows of ``agreement.csv``, item ``metric_agreement``.

    Raises:
        UsageError: no judge is compared with a labeler.
    """
    rows = table[(table["first"] == LABELER) & ~table["second"].isin(list(_HIDDEN))]
    rows = rows[rows["policy"].isin(list(methods))]
    if rows.empty:
        raise UsageError("no agreement with a labeler to draw")
    judges = sorted(dict.fromkeys(rows["second"]), key=judge_order)[::-1]
    panels_of = list(dict.fromkeys(methods[policy] for policy in rows["policy"]))
    figure = Figure(figsize=(3.4 + 4.6 * len(panels_of), 0.42 * len(judges) + 2.2), layout="constrained")
    panels = figure.subplots(1, len(panels_of), sharex=True, sharey=True, squeeze=False)[0]
    for panel, method in zip(panels, panels_of, strict=True):
        policies = [policy for policy in dict.fromkeys(rows["policy"]) if methods[policy] == method]
        for number, policy in enumerate(policies):
            look = Series(policy, CYCLE[number % len(CYCLE)], MARKERS[number % len(MARKERS)])
            shift = 0.5 * ((len(policies) - 1) / 2 - number) / len(policies)
            for _, row in rows[rows["policy"] == policy].iterrows():
                dots(panel, row, judges.index(row["second"]) + shift, look)
            panel.plot([], [], look.marker, color=look.color, label=policy)
        if paper is not None:
            _anchors(panel, method, paper, judges)
        panel.axvline(0.5, color=BLACK, linestyle=":", linewidth=1.5, zorder=1)
        panel.set_title(METHODS[method].label if method in METHODS else method)
        panel.set_xlabel("Agreement with a labeler")
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        below = -0.75 / (0.42 * len(judges))
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=2, fontsize=11)
    panels[0].set_yticks(range(len(judges)), [judge_label(judge) for judge in judges])
    return figure


def _anchors(panel: Axes, method: str, paper: pd.DataFrame, judges: list[str]) -> None:
    """The paper's values, drawn at our largest judge of the same kind."""
    which, series = _ANCHORS.get(method, ("", {}))
    for name, (judge, marker) in series.items():
        values = paper[(paper["x"] == which) & (paper["series"] == name)]["value"]
        ours = main_judges(judges, judge)
        if len(values) and ours:
            panel.plot(
                values.iloc[0],
                judges.index(ours[0]),
                marker,
                color=BLACK,
                markerfacecolor="white",
                markeredgewidth=1.6,
                markersize=13,
                zorder=6,
            )
    panel.plot([], [], "*", color=BLACK, markerfacecolor="white", markersize=13, label="Published")
