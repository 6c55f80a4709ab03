"""Cells: the one rule of intervals, and studies of several data and training seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from eval.claims.evidence import Evidence
from eval.claims.schema import load_claims
from eval.claims.section import claims_section
from eval.claims.verdicts import ClaimRow, shape_rows
from eval.common.cells import (
    cell_name,
    cell_order,
    listed_values,
    one_world,
    values_of,
    with_cells,
    world_of,
)
from eval.common.figures import interval
from eval.common.pairs import score_pairs
from eval.common.runs import incomplete
from eval.common.stats import Estimate, cellwise, mean, over_cells, table_over_cells
from eval.common.study import StudyResults
from eval.common.style import METHODS
from eval.elo.measure import elo
from eval.overoptimisation.measure import fit_overoptimisation, mean_fit
from eval.preference.section import paired_test_table, preference_by_cell_table, preference_table
from eval.report.viewer_data import viewer_data
from eval.rouge.section import rouge_scores, rouge_table
from eval.texts.samples import measured_samples
from eval.training.figure import training_curves
from tests.eval.cells_study import cells_study, post_text, unfinished
from tldr.errors import UsageError


def ppo_claim(study: StudyResults, size: str = "") -> ClaimRow:
    """The verdict on PPO over SFT at a size, or at every size."""
    claim = next(claim for claim in load_claims(study.paper).shapes if claim.id == "rl-over-supervised")
    rows = shape_rows(claim, Evidence(study), study.draws)
    return next(row for row in rows if row.id == claim.id + (f"@{size}" if size else ""))


def one(value: float, posts: int = 10) -> Estimate:
    return Estimate(value, value - 0.01, value + 0.01, 0.005, 2 * posts, posts)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return cells_study(tmp_path_factory.mktemp("cells"))


def test_the_rule_by_hand() -> None:
    found = over_cells({"d3 s0": one(0.5), "d3 s1": one(0.6), "d4 s0": one(0.1)})
    # mean 0.4, deviations 0.1, 0.2, -0.3: variance 0.14 / 2; t(0.975, 2) = 4.302653.
    assert found.value == pytest.approx(0.4) and found.cell_sd == pytest.approx(np.sqrt(0.07))
    half = 4.302653 * np.sqrt(0.07) / np.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half), rel=1e-6)
    assert (found.n, found.clusters, found.cells) == (60, 20, 3), "cells of one world share their posts"
    assert found.cell_values == (("d3 s0", 0.5), ("d3 s1", 0.6), ("d4 s0", 0.1))


def test_one_cell_keeps_its_own_interval_and_none_is_refused() -> None:
    assert over_cells({"0": one(0.3)}) == one(0.3)
    with pytest.raises(UsageError, match="no cell"):
        over_cells({})


def test_every_cell_counts_the_same_whatever_its_data_seed() -> None:
    """Three training seeds of one data seed and one of another: the fourth cell counts as one of four."""
    found = over_cells({"d3 s0": one(0.0), "d3 s1": one(0.0), "d3 s2": one(0.0, 1000), "d4 s0": one(1.0)})
    assert found.value == 0.25 and found.clusters == 1010


def test_cells_are_named_ordered_and_listed() -> None:
    assert [cell_name(2), cell_name(None), cell_name(0, "d3"), cell_name(None, "d?")] == [
        "2", "0", "d3 s0", "d? s0",
    ]  # fmt: skip
    assert [world_of("2"), world_of("d3 s0"), world_of("d3")] == ["", "d3", "d3"]
    assert sorted(["d10 s0", "d4 s1", "d4 s0"], key=cell_order) == ["d4 s0", "d4 s1", "d10 s0"]
    assert values_of(listed_values([("d3 s0", 0.1), ("d4 s1", -2e-05)])) == {"d3 s0": 0.1, "d4 s1": -2e-05}
    assert values_of("") == values_of(np.nan) == {}


def test_samples_from_anywhere_are_marked_where_their_tags_name_several_data_seeds() -> None:
    rows = pd.DataFrame({"id": ["p", "p"], "seed": [0, 1], "tag.data_seed": [3.0, 3.0]})
    assert with_cells(rows)[["id", "cell"]].to_numpy().tolist() == [["p", "0"], ["p", "1"]]
    rows["tag.data_seed"] = [3.0, np.nan]
    assert with_cells(rows)[["id", "cell"]].to_numpy().tolist() == [["d3:p", "d3 s0"], ["d?:p", "d? s1"]]


def test_trap_posts_are_not_cells() -> None:
    """Where cells differ by luck, the interval over posts misses the truth mostly, that over cells seldom."""
    draw, hits = np.random.default_rng(0), {"posts": 0, "cells": 0}
    for _ in range(120):
        luck = draw.normal(0, 0.1, 6)
        rows = pd.DataFrame(
            {
                "cell": np.repeat([f"d{data} s{seed}" for data in (3, 4) for seed in range(3)], 40),
                "id": np.tile(np.arange(40), 6),
                "value": 0.5 + np.repeat(luck, 40) + draw.normal(0, 0.15, 240),
            }
        )
        over_posts = mean(rows["value"], rows["cell"].str[:2] + rows["id"].astype(str))
        found = cellwise(rows, lambda part, _: {"": mean(part["value"], part["id"])})[""]
        for name, estimate in (("posts", over_posts), ("cells", found)):
            hits[name] += estimate.low < 0.5 < estimate.high
    assert 0.9 < hits["cells"] / 120 < 0.99
    assert hits["posts"] / 120 < 0.5


def test_what_one_cell_alone_has_keeps_its_interval_over_posts() -> None:
    rows = pd.DataFrame(
        {"cell": ["0", "0", "1", "1"], "id": list("abab"), "x": [0.0, 1, 2, 3], "y": [5.0, 7, np.nan, np.nan]}
    )
    seen = []

    def measure(part: pd.DataFrame, draws: int) -> dict[str, Estimate]:
        seen.append(draws)
        return {name: mean(part[name], part["id"]) for name in "xy" if part[name].notna().all()}

    found = cellwise(rows, measure, 50)
    assert found["x"].cells == 2 and found["x"].value == 1.5
    assert found["y"] == mean([5.0, 7.0]) and seen == [0, 0, 50], "the draws are for it alone"


def test_tables_are_combined_row_by_row() -> None:
    rows = pd.DataFrame({"cell": ["0", "1", "1"]})

    def measure(part: pd.DataFrame, _: int) -> pd.DataFrame:
        value = float(len(part))
        row = {"value": value, "low": value, "high": value, "se": 0.0, "n": 3, "posts": 3}
        extra = [{"key": "b", **row, "left": 1, "at": value}] if value == 2 else []
        return pd.DataFrame([{"key": "a", **row, "left": 4, "at": value}, *extra])

    table = table_over_cells(rows, measure, ["key"], averaged=["at"], summed=["left"]).set_index("key")
    assert table["value"].to_dict() == {"a": 1.5, "b": 2.0} and table["cells"].to_dict() == {"a": 2, "b": 1}
    assert table["at"].to_dict() == {"a": 1.5, "b": 2.0} and table["left"].to_dict() == {"a": 8, "b": 1}


def test_posts_of_two_data_seeds_are_different_posts(study: StudyResults) -> None:
    posts, samples = study.posts, study.samples
    assert posts is not None and samples is not None
    assert len(posts) == 60 and posts.loc["d3:p0", "post"] == post_text(3, 0) != posts.loc["d4:p0", "post"]
    assert set(samples["cell"]) == {"d3 s0", "d3 s1", "d4 s0", "d4 s1"}
    row = preference_table(study).query("method == 'ppo' and size == 's' and measure == 'preference'").iloc[0]
    assert (row["n"], row["posts"], row["cells"], row["scorer"]) == (120, 60, 4, "gold")


def test_texts_are_compared_with_the_references_of_their_own_data_seed(study: StudyResults) -> None:
    """A sample repeats its own post's first word, which no post of the other data seed has."""
    measured = measured_samples(study)
    policies = measured[measured["method" if "method" in measured else "tag.method"].isin(["sft", "ppo"])]
    assert (rouge_scores(study).loc[policies.index, "rouge1_r"] == 0.5).all()
    table = rouge_table(study).query("measure == 'rouge1_r'").set_index(["method", "size"])
    assert table.loc[("ppo", "s"), ["value", "cells"]].tolist() == [0.5, 4]
    assert table.loc[("title", ""), "cells"] == 2, "a baseline has no training seed: one cell a data seed"


def test_the_estimate_is_the_mean_of_the_cells_and_both_tables_agree(study: StudyResults) -> None:
    query = "method == 'sft' and size == 'm' and measure == 'expected_preference' and scorer == 'gold'"
    pooled = preference_table(study).query(query).iloc[0]
    apart = preference_by_cell_table(study).query(query)
    assert list(apart["cell"]) == ["d3 s0", "d3 s1", "d4 s0", "d4 s1"]
    assert pooled["value"] == pytest.approx(apart["value"].mean())
    assert pooled["cell_sd"] == pytest.approx(apart["value"].std(ddof=1))
    assert list(values_of(pooled["cell_values"]).values()) == apart["value"].tolist()


def test_claims_hold_in_so_many_cells(study: StudyResults) -> None:
    row = ppo_claim(study, "s")
    assert row.cells == 4 and row.holds_in is not None
    assert f"holds in {row.holds_in} of 4 cells" in row.note and "sd between cells" in row.note
    apart = preference_by_cell_table(study).query(
        "size == 's' and measure == 'expected_preference' and scorer == 'gold'"
    )
    wide = apart.pivot(index="cell", columns="method", values="value")
    effects = wide["ppo"] - wide["sft"]
    assert row.ours == pytest.approx(effects.mean()) and row.holds_in == (effects > 0).sum()


def test_every_step_is_written_with_its_own_effect_in_each_cell(study: StudyResults) -> None:
    claims, steps = (table.frame for table in claims_section(study).tables[:2])
    assert list(steps["step"]) == ["s", "m"] and list(steps["cells"]) == [4, 4]
    for step in steps.itertuples():
        part = claims.set_index("claim").loc[f"{step.claim} ({step.step})"]
        values = values_of(step.cell_values)
        assert list(values) == ["d3 s0", "d3 s1", "d4 s0", "d4 s1"]
        assert np.mean(list(values.values())) == pytest.approx(part["ours"]) and step.ours == part["ours"]
        assert (step.low, step.high, step.cell_sd) == (part["low"], part["high"], part["cell_sd"])
        assert step.holds == (part["verdict"] == "reproduced") == (step.low > -step.margin)
        assert step.holds_in == sum(value > 0 for value in values.values())
    whole = claims[claims["claim"].isin(steps["claim"])].iloc[0]
    assert steps.set_index("step").loc[whole["step"], "ours"] == whole["ours"], "a claim shows one of them"


def test_the_section_names_what_is_not_finished_and_writes_the_cells(tmp_path: Path) -> None:
    study = unfinished(cells_study(tmp_path, ((3, 0), (4, 0)), posts=10), "score-s-ppo-d4-0")
    section = claims_section(study)
    assert section.missing == incomplete(study.runs) != []
    frame = section.tables[0].frame.set_index("claim")
    about = ["cells", "holds_in"]
    row = frame.loc["Human feedback (PPO) is preferred to supervised learning at each size (m)"]
    assert row[about].isin([0, 1, 2]).all() and row["cells"] == 2 and pd.notna(row["cell_sd"])


def test_a_missing_cell_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    study = unfinished(cells_study(tmp_path), "score-s-ppo-d4-1")
    (said,) = incomplete(study.runs)
    assert "score s of ppo in cell d4 s1 (not finished)" in said
    row = ppo_claim(study, "s")
    assert row.cells == 3 and "without d4 s1" in row.note
    whole = ppo_claim(study, "")
    assert whole.cells == 3, "a cell without one of the steps does not count"
    other = ppo_claim(study, "m")
    assert other.cells == 4 and "without" not in other.note
    ppo = preference_table(study).query("method == 'ppo' and size == 's' and measure == 'preference'").iloc[0]
    sft = preference_table(study).query("method == 'sft' and size == 's' and measure == 'preference'").iloc[0]
    assert (ppo["cells"], sft["cells"]) == (3, 4)
    tests = paired_test_table(study)
    cells = {(row.first, row.second): row.cells for row in tests.itertuples()}
    assert cells["sft s T=0", "ppo s T=0"] == 3 and cells["sft m T=0", "ppo m T=0"] == 4
    assert tests["p_value"].between(0, 1).all() and tests["mcnemar"].isna().all()


def test_a_method_in_one_cell_only_is_one_draw(tmp_path: Path) -> None:
    study = cells_study(tmp_path)
    for cell in ("d3-1", "d4-0", "d4-1"):
        study = unfinished(study, f"score-m-ppo-{cell}")
    row = ppo_claim(study, "m")
    assert (row.cells, row.cell_sd) == (1, None) and row.low < row.ours < row.high
    assert "one draw" in row.note and "without d3 s1, d4 s0, d4 s1" in row.note
    ppo = preference_table(study).query("method == 'ppo' and size == 'm' and measure == 'preference'").iloc[0]
    assert ppo["cells"] == 1 and pd.isna(ppo["cell_sd"]) and ppo["low"] < ppo["value"] < ppo["high"]


def test_one_cell_is_said_to_be_one_draw(tmp_path: Path) -> None:
    study = cells_study(tmp_path, ((7, 0),))
    row = ppo_claim(study, "s")
    assert row.cells == 1 and row.note.startswith("one draw") and incomplete(study.runs) == []
    assert study.samples is not None and set(study.samples["cell"]) == {"0"}
    assert "p0" in set(study.samples["id"]), "one data seed marks no post"


def test_the_viewer_shows_each_data_seed_with_its_own_post(study: StudyResults) -> None:
    data, _ = viewer_data(study, [])
    posts = data["posts"]
    place = posts["id"].index("d4:p5")
    assert len(posts["id"]) == 60 and posts["post"][place] == post_text(4, 5)
    assert all(column["text"][place].startswith("d4word5 ") for column in data["policies"])


def test_elo_is_fitted_in_each_cell() -> None:
    """Two cells in which a beats the base in 3 of 4 and in 2 of 4 pairs: 400 lg 3 and 0 points."""
    rows = [
        {"id": f"p{number}", "first": "a", "second": "base", "preferred": float(number < wins), "cell": cell}
        for cell, wins in (("0", 3), ("1", 2))
        for number in range(4)
    ]
    table = elo(pd.DataFrame(rows), base="base").set_index("policy")
    expected = 400 * np.log10(3) / 2
    assert table.loc["a", "elo"] == pytest.approx(1000 + expected)
    assert table.loc["a", ["cells", "pairs", "wins"]].tolist() == [2, 8, 0.625]
    # Two values d apart: t(0.975, 1) * d / 2, and d is twice the mean.
    assert table.loc["a", "high"] == pytest.approx(1000 + expected + 12.7062 * expected, rel=1e-5)
    assert table.loc["base", "elo"] == 1000 and np.isnan(table.loc["base", "low"])
    never = pd.DataFrame([row | {"preferred": 1.0} if row["cell"] == "1" else row for row in rows])
    with pytest.raises(UsageError, match="cell 1: groups of policies always win"):
        elo(never, base="base")


def test_scores_of_two_cells_are_never_one_pair() -> None:
    columns = {"id": "p", "score.rm": [1.0, 2.0, 3.0, 0.0], "cell": ["0", "0", "1", "1"]}
    pairs = score_pairs(pd.DataFrame(columns), "rm", pd.Series(["a", "b", "a", "b"]))
    assert pairs[["cell", "preferred"]].to_numpy().tolist() == [["0", 0.0], ["1", 1.0]]


def test_curves_are_fitted_in_each_cell() -> None:
    kl = np.array([1.0, 4.0, 9.0, 16.0])
    d = np.sqrt(kl)
    one_cell, other = (fit_overoptimisation(kl, d * (alpha - 0.1 * d), "best_of_n") for alpha in (1.0, 2.0))
    both = mean_fit({"0": one_cell, "1": other})
    assert both.alpha.value == pytest.approx(1.5) and both.alpha.cells == 2
    assert both.peak.value == pytest.approx(7.5), "the peaks are at d = alpha / (2 beta): 5 and 10"
    assert both.predict([4.0]) == pytest.approx([2 * (1.5 - 0.2)])
    rising = fit_overoptimisation(kl, d * (1 + 0.1 * d), "best_of_n")
    assert mean_fit({"0": one_cell, "1": rising}).peak.value == np.inf


def test_samples_of_several_data_seeds_need_their_own_posts() -> None:
    with pytest.raises(UsageError, match=r"several data seeds \(d3, d4\)"):
        one_world(pd.DataFrame({"cell": ["d3 s0", "d4 s0"]}))
    one_world(pd.DataFrame({"cell": ["0", "1"]}))


def test_figures_show_each_cell_as_a_dot_beside_its_interval() -> None:
    rows = pd.DataFrame(
        {"params": [1e5], "value": [0.5], "low": [0.4], "high": [0.6], "cell_values": ["0=0.45; 1=0.55"]}
    )
    axis = Figure().subplots()
    interval(axis, rows, METHODS["ppo"])
    dots = axis.lines[-1]
    assert dots.get_ydata().tolist() == [0.45, 0.55] and dots.get_transform() != axis.transData
    count = len(axis.lines)
    interval(axis, rows.assign(cell_values=""), METHODS["ppo"])
    assert len(axis.lines) - count == count - 1, "one cell has no dot"


def test_training_curves_show_the_mean_of_the_cells_and_the_cells() -> None:
    rows = [
        {
            "size": "s",
            "params": 1e5,
            "variant": "",
            "run": f"r{cell}",
            "cell": cell,
            "episodes": at,
            "kl": at * level,
        }
        for cell, level in (("0", 1.0), ("1", 3.0))
        for at in (1, 2, 3)
        if (cell, at) != ("1", 3)
    ]
    lines = training_curves(pd.DataFrame(rows)).axes[0].lines[:3]
    assert [line.get_ydata().tolist() for line in lines] == [[1, 2, 3], [3, 6], [2, 4]]
    assert lines[2].get_linewidth() > lines[0].get_linewidth(), "where all cells are"
