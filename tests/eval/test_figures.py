from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from eval.common.paper import load_paper
from eval.common.style import CYCLE, METHODS, data_uri, save
from eval.preference.figure import headline, preference_by_size
from eval.reward.figure import reward_accuracy
from eval.training.figure import training_curves
from tldr.errors import UsageError


def table(**changes: object) -> pd.DataFrame:
    rows = [
        {
            "method": method, "params": params, "value": 0.2 + 0.1 * place, "temperature": temperature,
            "selected_by": "", "variant": "", "best_of": 1, "top_p": 1.0, "cells": 1,
            "cell": "0", "cell_values": "",
        }
        for place, method in enumerate(("pretrained", "sft", "ppo"))
        for params in (1e6, 1e5)
        for temperature in (0.7, 0.0)
    ]  # fmt: skip
    rows += [
        {**rows[0], "method": "best_of_n", "best_of": n, "selected_by": by}
        for n in (4, 16)
        for by in ("rm", "gold")
    ]
    frame = pd.DataFrame(rows).assign(**changes)
    return frame.assign(low=frame["value"] - 0.02, high=frame["value"] + 0.03)


def test_headline_is_the_coldest_sampling_and_the_largest_pool_by_rm() -> None:
    rows = headline(table())
    assert set(rows[rows["method"] != "best_of_n"]["temperature"]) == {0.0}
    best = rows[rows["method"] == "best_of_n"]
    assert best[["best_of", "selected_by"]].to_numpy().tolist() == [[16, "rm"]]
    assert list(rows[rows["method"] == "ppo"]["params"]) == [1e5, 1e6]
    assert headline(table(variant="beta0")).empty, "variants are no part of the main figure"
    assert headline(table(top_p=0.9)).empty, "nor is nucleus sampling"
    assert set(headline(table(), 0.7)["temperature"]) == {0.7}


def test_preference_figure_shows_values_and_intervals() -> None:
    paper = load_paper("fig1", "fig1")
    figure = preference_by_size(headline(table()), paper, title="Ours")
    ours, theirs = figure.axes
    bars = {bar.get_label(): bar for bar in ours.containers}
    assert list(bars) == [
        METHODS["ppo"].label,
        "Best of 16 (T = 0.7)",
        METHODS["sft"].label,
        METHODS["pretrained"].label,
    ]
    line, _, (segments,) = bars[METHODS["ppo"].label].lines
    assert line.get_ydata().tolist() == [0.4, 0.4]
    assert segments.get_segments()[0][:, 1] == pytest.approx([0.38, 0.43])
    assert ours.get_xscale() == "log" and ours.get_ylabel() and ours.get_xlabel()
    ppo = theirs.containers[0].lines
    assert ppo[0].get_ydata().tolist() == [0.607, 0.701]
    assert ppo[2][0].get_segments()[0][:, 1] == pytest.approx([0.607 - 1.96 * 0.02, 0.607 + 1.96 * 0.02])
    assert len(preference_by_size(headline(table()), title="Ours").axes) == 1


def test_the_legend_names_what_only_the_paper_has() -> None:
    ours = headline(table())
    figure = preference_by_size(ours[ours["method"] == "sft"], load_paper("fig1", "fig1"), title="Ours")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [METHODS["sft"].label, METHODS["ppo"].label, METHODS["pretrained"].label, "Reference"]


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(UsageError, match="no policies"):
        preference_by_size(table(method="other"), title="t")
    with pytest.raises(UsageError, match="no reward model accuracy"):
        reward_accuracy(pd.DataFrame({"measure": ["x"], "params": [1.0]}))
    with pytest.raises(UsageError, match="no training curve"):
        training_curves(pd.DataFrame({"size": ["s"], "params": [1.0], "run": ["r"], "episodes": [1]}))


def metrics(**extra: object) -> pd.DataFrame:
    rows = [
        {
            "size": size,
            "params": params,
            "run": f"{size}{seed}",
            "episodes": 64 * update,
            "kl": update * 0.1,
            **extra,
        }
        for size, params in (("m", 1e6), ("s", 1e5))
        for seed in (0, 1)
        for update in (3, 1, 2)
    ]
    return pd.DataFrame(rows)


def test_training_curves_draw_each_run_in_order() -> None:
    figure = training_curves(metrics(score=1.0, entropy=np.nan))
    score, kl = figure.axes
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Reward model score",
        "KL from the supervised policy",
    ]
    runs = [line for line in kl.lines if len(line.get_xdata())]
    assert len(runs) == 4 and runs[0].get_xdata().tolist() == [64, 128, 192]
    assert [line.get_color() for line in runs] == [CYCLE[0], CYCLE[0], CYCLE[1], CYCLE[1]], (
        "smallest size first"
    )
    assert score.get_xlabel() == "Episodes"


def test_reward_figure_draws_the_agreement_line() -> None:
    rows = pd.DataFrame({"measure": ["valid2_accuracy"] * 2, "params": [1e5, 1e6], "value": [0.6, 0.65]})
    figure = reward_accuracy(rows.assign(low=0.58, high=0.67), agreement=0.74)
    heights = {
        line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines if len(line.get_ydata()) == 2
    }
    assert heights["Two labelers agree"] == 0.74 and heights["Chance"] == 0.5
    assert figure.axes[0].get_ylim()[1] >= 0.74


def test_files_are_the_same_bytes_twice_and_leave_no_trace(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    for folder in (tmp_path / "a", tmp_path / "b"):
        save(preference_by_size(headline(table()), title="T"), folder, "f")
    for name in ("f.png", "f.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "f.png").read_bytes()[:4] == b"\x89PNG"
    assert data_uri(tmp_path / "a" / "f.svg").startswith("data:image/svg+xml;base64,")
    assert dict(matplotlib.rcParams) == before
