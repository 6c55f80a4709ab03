"""Preference against the number of demonstrations beside PPO, and of prompts beside SFT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.amounts.data import DEMONSTRATIONS, PROMPTS, amounts_of
from eval.amounts.figure import preference_by_amount
from eval.amounts.measure import gain_by_doubling, lead
from eval.amounts.section import (
    demonstrations_gap_table,
    demonstrations_section,
    demonstrations_table,
    prompts_gap_table,
    prompts_section,
    prompts_table,
)
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.common.tables import COLUMNS
from eval.overoptimisation.sweeps import find_sweeps
from eval.preference.section import preference_section
from eval.report.sections import SECTIONS
from eval.training.section import compared_runs
from tests.eval.section_study import (
    KLS,
    SIZES,
    Made,
    add_rewards,
    add_sweep,
    add_value_networks,
    expit,
    policy_samples,
    write_lines,
)
from tldr.errors import UsageError
from tldr.records import write_json

LIMITS = {"sft-n-500": 500, "sft-n-1000": 1000, "sft-n-2000": 2000}
WHOLE = 4000
SETTINGS = {"epochs": 1.0, "batch": 16, "limit": None}
GAIN = {"s": 0.25, "m": 0.35}
"""What a doubling of the demonstrations adds to the planted score."""


def add_policy(made: Made, method: str, size: str, variant: str, level: float, **more: Any) -> None:
    """A trained policy and its scored samples; each post is as hard for all policies."""
    made.run(method, size, variant, parents={"data": "data"}, **more)
    parent = "-".join(filter(None, (method, size, variant)))
    where = made.run("score", size, variant, method=method, parents={"policy": parent})
    tags = {"method": method, "size": size, "params": SIZES[size]} | ({"variant": variant} if variant else {})
    rows = []
    for number, post in enumerate(made.posts):
        reference = np.random.default_rng([made.seed, number]).normal()
        gold = level + 0.5 * reference + 0.7 * float(made.rng.normal())
        scores = {"gold_reference": reference, "gold_preference": expit(gold - reference)}
        scores |= {"rm": gold + 0.2 * float(made.rng.normal()), "rm_reference": reference}
        for temperature in (0.0, 0.7):
            rows.append(
                made.sample(post, gold - temperature, temperature=temperature, tags=tags, scores=scores)
            )
    write_lines(where / "samples.jsonl", rows)


def made_study(
    folder: Path, seeds: Sequence[int] = (0,), posts: int = 60, sizes: Sequence[str] = tuple(SIZES)
) -> list[Made]:
    """Supervised policies on 500 to 4,000 posts, and PPO, whose lead four doublings would not close."""
    every = []
    for seed in seeds:
        made = Made(folder, posts, seed)
        write_lines(made.run("data") / "sft.jsonl", [{"id": f"t{number}"} for number in range(WHOLE)])
        luck = 0.1 * float(made.rng.normal())
        for size in sizes:
            for variant, limit in {**LIMITS, "": WHOLE}.items():
                settings = SETTINGS | {"limit": limit if variant else None}
                level = luck - 1.2 + (size == "m") * 0.4 + GAIN[size] * float(np.log2(limit / 500))
                add_policy(made, "sft", size, variant, level, settings=settings)
            add_policy(made, "ppo", size, "", luck + 1.0 + (size == "m") * 0.3)
            # A policy of another KL coefficient is no part of the question.
            add_policy(made, "ppo", size, "kl-0", luck + 3.0)
        every.append(made)
    return every


def closed(folder: Path, every: Sequence[Made]) -> StudyResults:
    rows = [row for made in every for row in made.runs]
    write_json(folder / "study.json", {"study": "made", "runs": rows})
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("demonstrations")
    closed(where, made_study(where))
    return where


@pytest.fixture
def study(folder: Path) -> StudyResults:
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=200)


def samples_of(folder: Path, run: str, temperature: float = 0.0) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / run / "samples.jsonl").read_text().splitlines()]
    return [row for row in rows if row["temperature"] == temperature]


def test_every_policy_stands_at_its_number_of_posts(study: StudyResults, folder: Path) -> None:
    table = demonstrations_table(study)
    rows = table[(table["scorer"] == "gold") & (table["measure"] == "expected_preference")]
    found = {(row.method, row.size, row.demonstrations): row.value for row in rows.itertuples()}
    ppo = {key: value for key, value in found.items() if key[0] == "ppo"}
    assert {key[1:] for key in found if key[0] == "sft"} == {
        (size, float(amount)) for size in SIZES for amount in (*LIMITS.values(), WHOLE)
    }
    assert len(ppo) == 2 and all(np.isnan(amount) for _, _, amount in ppo)
    cold = samples_of(folder, "score-m-sft-sft-n-1000-0")
    expected = np.mean([row["scores"]["gold_preference"] for row in cold])
    assert found["sft", "m", 1000.0] == pytest.approx(expected)
    assert set(table["temperature"]) == {0.0} and set(table["scorer"]) == {"gold", "rm"}
    assert not table["variant"].str.startswith("kl").any()
    sft = rows[(rows["method"] == "sft") & (rows["size"] == "m")]
    assert sft["demonstrations"].is_monotonic_increasing, "the study's own policy is the last point"
    assert sft["variant"].iloc[-1] == "" and (rows["low"] < rows["value"]).all()


def test_variants_are_no_points_of_the_main_figure(study: StudyResults) -> None:
    main = preference_section(study).pictures[0].figure.axes[0]
    supervised = next(bar for bar in main.containers if bar.get_label() == "Supervised")
    assert len(supervised.lines[0].get_ydata()) == len(SIZES)


def test_gaps_and_gains_on_the_same_posts(study: StudyResults, folder: Path) -> None:
    table = demonstrations_gap_table(study)
    gold = table[(table["scorer"] == "gold") & (table["size"] == "m")]
    gaps = gold[gold["measure"] == "gap_to_ppo"].set_index("demonstrations")
    values = {
        name: np.array([row["scores"]["gold_preference"] for row in samples_of(folder, f"score-m-{name}-0")])
        for name in ("ppo", "sft", *(f"sft-{variant}" for variant in LIMITS))
    }
    assert gaps.loc[500, "value"] == pytest.approx((values["ppo"] - values["sft-sft-n-500"]).mean())
    assert gaps.loc[4000, "value"] == pytest.approx((values["ppo"] - values["sft"]).mean())
    assert gaps["value"].is_monotonic_decreasing and (gaps["low"] > 0).all(), "planted: PPO is out of reach"
    assert gaps.loc[500, "runs"] == "score-m-ppo-0 score-m-sft-sft-n-500-0"
    line = [values[f"sft-{variant}"].mean() for variant in LIMITS] + [values["sft"].mean()]
    slope = np.polyfit(np.log2([*LIMITS.values(), WHOLE]), line, 1)[0]
    gain = gold[gold["measure"] == "gain_by_doubling"].iloc[0]
    assert gain["value"] == pytest.approx(slope) and gain["low"] > 0
    assert set(gain["runs"].split()) == {f"score-m-{name}-0" for name in values if name != "ppo"}


def test_measures_by_hand() -> None:
    values = pd.DataFrame(
        {
            "cell": "0",
            "id": ["a", "b", "c"],
            "ppo": [1.0, 0.5, np.nan],
            "x": [0.0, 0.5, 1.0],
            "y": [1.0, 0.5, 1.0],
            "z": [1.0, np.nan, np.nan],
        }
    )
    gap = lead(values, "ppo", "x", 50)
    assert gap is not None and gap.value == 0.5 and gap.n == 2, "post c has no sample of PPO"
    gain = gain_by_doubling(values, {"x": 500, "y": 2000}, 50)
    assert gain is not None and gain.value == pytest.approx(1 / 3 / 2), "two doublings gain a third"
    assert gain_by_doubling(values, {"x": 500}, 50) is None
    assert lead(values.assign(ppo=np.nan), "ppo", "x", 50) is None
    three = gain_by_doubling(values, {"x": 500, "y": 1000, "z": 2000}, 0)
    assert three is not None and three.value == pytest.approx(0.5) and three.n == 1


def test_figure_has_a_log_axis_a_line_a_size_and_ppo_across(study: StudyResults) -> None:
    pictures = {picture.name: picture for picture in demonstrations_section(study).pictures}
    assert list(pictures) == ["demonstrations_gold", "demonstrations_rm"]
    picture = pictures["demonstrations_gold"]
    (axis,) = picture.figure.axes
    assert axis.get_xscale() == "log" and "posts" in axis.get_xlabel()
    lines = {bar.get_label(): bar.lines[0] for bar in axis.containers}
    assert {"Size s (15k)", "Size m (150k)"} <= set(lines)
    table = demonstrations_table(study)
    rows = table[(table["scorer"] == "gold") & (table["measure"] == "expected_preference")]
    mine = rows[(rows["size"] == "m") & (rows["method"] == "sft")]
    np.testing.assert_allclose(np.array(lines["Size m (150k)"].get_ydata(), float), mine["value"])
    np.testing.assert_allclose(
        np.array(lines["Size m (150k)"].get_xdata(), float), [500, 1000, 2000, 4000], rtol=0.05
    )
    across = {
        (line.get_color(), float(line.get_ydata()[0]))
        for line in axis.lines
        if line.get_linestyle() == "--" and len(line.get_xdata()) == 2
    }
    reached = rows[rows["method"] == "ppo"].set_index("size")["value"]
    colors = [lines[name].get_color() for name in ("Size s (15k)", "Size m (150k)")]
    assert across == {(colors[0], reached["s"]), (colors[1], reached["m"])}
    assert "T = 0" in picture.caption and "one draw" in picture.caption


def test_over_cells_the_bars_are_t_intervals_and_cells_are_dots(tmp_path: Path) -> None:
    study = closed(tmp_path, made_study(tmp_path, seeds=(0, 1, 2), posts=30))
    table = demonstrations_table(study)
    assert set(table["cells"]) == {3}
    assert set(demonstrations_gap_table(study)["cells"]) == {3}
    picture = demonstrations_section(study).pictures[0]
    assert "3 cells" in picture.caption and "single cells" in picture.caption
    dots = [line for line in picture.figure.axes[0].lines if line.get_markersize() == 4.5]
    assert sum(len(line.get_xdata()) for line in dots) == 3 * len(SIZES) * (len(LIMITS) + 1 + 1)


def test_a_cell_without_a_variant_costs_the_others_nothing(tmp_path: Path) -> None:
    every = made_study(tmp_path, seeds=(0, 1), posts=20, sizes=["m"])
    (tmp_path / "score-m-sft-sft-n-500-1" / "DONE").unlink()
    table = demonstrations_gap_table(closed(tmp_path, every))
    gaps = table[(table["scorer"] == "gold") & (table["measure"] == "gap_to_ppo")]
    assert gaps.set_index("demonstrations")["cells"].to_dict() == {500: 1, 1000: 2, 2000: 2, 4000: 2}


def test_without_variants_it_is_not_run(tmp_path: Path) -> None:
    made = Made(tmp_path, 10)
    write_lines(made.run("data") / "sft.jsonl", [{"id": "t"}] * 20)
    add_policy(made, "sft", "m", "", 0.0, settings=SETTINGS)
    add_policy(made, "ppo", "m", "", 0.5)
    section = demonstrations_section(made.close())
    assert section.missing == ["Not run here."] and not section.pictures and not section.tables
    (tmp_path / "none").mkdir()
    empty = Made(tmp_path / "none", 1).close()
    assert demonstrations_section(empty).missing == ["Not run here."]
    assert demonstrations_table(empty).empty and set(COLUMNS) < set(demonstrations_table(empty))
    assert demonstrations_section in SECTIONS


def test_what_differs_in_more_than_its_posts_is_left_out_and_told(tmp_path: Path) -> None:
    (made,) = made_study(tmp_path, posts=20, sizes=["m"])
    add_policy(made, "sft", "m", "long", 0.0, settings=SETTINGS | {"limit": 500, "epochs": 4.0})
    study = closed(tmp_path, [made])
    assert ("m", "long") not in amounts_of(DEMONSTRATIONS, study.runs)[0]
    section = demonstrations_section(study)
    assert section.missing == [
        "Left out: sft m long: its settings differ from the main policy's in more than the number of posts."
    ]
    assert "long" not in set(demonstrations_table(study)["variant"])


def test_without_the_data_run_the_study_s_own_policy_has_no_place(tmp_path: Path) -> None:
    (made,) = made_study(tmp_path, posts=20, sizes=["m"])
    (tmp_path / "data-0" / "sft.jsonl").unlink()
    study = closed(tmp_path, [made])
    assert sorted(amounts_of(DEMONSTRATIONS, study.runs)[0].values()) == [500, 1000, 2000]
    section = demonstrations_section(study)
    assert "the number of its posts is not known" in section.missing[0] and section.pictures


def test_a_study_on_part_of_its_posts_stands_at_that_part(tmp_path: Path) -> None:
    (made,) = made_study(tmp_path, posts=10, sizes=["m"])
    path = tmp_path / "sft-m-0" / "run.json"
    note = json.loads(path.read_text())
    write_json(path, note | {"settings": SETTINGS | {"limit": 3000}})
    assert amounts_of(DEMONSTRATIONS, closed(tmp_path, [made]).runs)[0]["m", ""] == 3000


def test_nothing_to_draw_is_refused() -> None:
    rows = pd.DataFrame({"method": ["ppo"], "size": ["m"], "params": [1e5], "demonstrations": [np.nan]})
    with pytest.raises(UsageError, match="no supervised policy"):
        preference_by_amount(rows, DEMONSTRATIONS, title="nothing")


PROMPT_LIMITS = {"prompts-64": 64, "prompts-128": 128, "prompts-256": 256}
ASKED = 512
"""Queries of the whole PPO run: 8 rollouts of 64."""
PPO_SETTINGS = {"batch": 256, "samples_per_query": 4, "episodes": 2048, "beta": 0.2, "limit": None}


def prompts_study(folder: Path, seeds: Sequence[int] = (0,), posts: int = 40) -> list[Made]:
    """PPO on 64 to 512 of 6,000 posts; each doubling adds 0.3 to the planted score."""
    every = []
    for seed in seeds:
        made = Made(folder, posts, seed)
        write_lines(made.run("data") / "ppo.jsonl", [{"id": f"t{number}"} for number in range(6000)])
        for size in SIZES:
            add_policy(made, "sft", size, "", -1.0, settings=SETTINGS)
            for variant, limit in {**PROMPT_LIMITS, "": ASKED}.items():
                settings = PPO_SETTINGS | {"limit": limit if variant else None}
                add_policy(made, "ppo", size, variant, 0.3 * float(np.log2(limit / 64)), settings=settings)
            # Of other settings, or against another reward model: no policies of the question.
            add_policy(made, "ppo", size, "kl-0", 3.0, settings=PPO_SETTINGS | {"beta": 0.0})
            changes = {"limit": 128, "beta": 0.0}
            add_policy(made, "ppo", size, "few-kl-0", 3.0, settings=PPO_SETTINGS | changes)
        every.append(made)
    return every


def test_a_ppo_policy_stands_at_the_posts_that_it_asks_about(tmp_path: Path) -> None:
    """Not at those that it might ask about: the whole run has 512 queries, so 512 of the 6,000 posts."""
    study = closed(tmp_path, prompts_study(tmp_path))
    amounts, left = amounts_of(PROMPTS, study.runs)
    assert amounts == {
        (size, variant): amount for size in SIZES for variant, amount in {**PROMPT_LIMITS, "": ASKED}.items()
    }
    assert set(left) == {(size, "few-kl-0") for size in SIZES}, "a policy of the same limit is none of them"
    table = prompts_table(study)
    assert set(table["temperature"]) == {0.0} and set(table["scorer"]) == {"gold", "rm"}
    rows = table[(table["scorer"] == "gold") & (table["measure"] == "expected_preference")]
    found = {(row.method, row.size, row.prompts): row.value for row in rows.itertuples()}
    cold = samples_of(tmp_path, "score-m-ppo-prompts-128-0")
    mean = np.mean([row["scores"]["gold_preference"] for row in cold])
    assert found["ppo", "m", 128.0] == pytest.approx(mean)
    mine = rows[(rows["method"] == "ppo") & (rows["size"] == "m")]
    assert list(mine["prompts"]) == [64, 128, 256, ASKED] and mine["variant"].iloc[-1] == ""
    assert list(rows[rows["method"] == "sft"]["size"]) == ["s", "m"], "SFT stands beside, once a size"


def test_prompts_lead_over_sft_and_gain_by_doubling(tmp_path: Path) -> None:
    study = closed(tmp_path, prompts_study(tmp_path))
    gaps = prompts_gap_table(study)
    gold = gaps[(gaps["scorer"] == "gold") & (gaps["size"] == "m")]
    means = {
        name: np.mean([row["scores"]["gold_preference"] for row in samples_of(tmp_path, f"score-m-{name}-0")])
        for name in ("sft", "ppo", *(f"ppo-{variant}" for variant in PROMPT_LIMITS))
    }
    leads = gold[gold["measure"] == "lead_over_sft"].set_index("prompts")["value"]
    assert leads[64] == pytest.approx(means["ppo-prompts-64"] - means["sft"])
    assert leads[ASKED] == pytest.approx(means["ppo"] - means["sft"])
    line = [means[f"ppo-{variant}"] for variant in PROMPT_LIMITS] + [means["ppo"]]
    gain = gold[gold["measure"] == "gain_by_doubling"].iloc[0]
    slope = np.polyfit(np.log2([*PROMPT_LIMITS.values(), ASKED]), line, 1)[0]
    assert gain["value"] == pytest.approx(slope) and gain["low"] > 0


def test_prompts_figure_and_what_is_left_out(tmp_path: Path) -> None:
    study = closed(tmp_path, prompts_study(tmp_path, seeds=(0, 1, 2), posts=20))
    section = prompts_section(study)
    assert [picture.name for picture in section.pictures] == ["prompts_gold", "prompts_rm"]
    assert [table.name for table in section.tables] == ["prompts_gold", "prompts_rm", "prompts_gap"]
    picture = section.pictures[0]
    (axis,) = picture.figure.axes
    assert axis.get_xscale() == "log" and "posts that PPO asks about" in axis.get_xlabel()
    lines = {bar.get_label(): bar.lines[0] for bar in axis.containers}
    drawn = np.array(lines["Size m (150k)"].get_xdata(), float)
    np.testing.assert_allclose(drawn, [*PROMPT_LIMITS.values(), ASKED], rtol=0.05)
    assert "3 cells" in picture.caption and "T = 0" in picture.caption
    assert section.missing == [
        f"Left out: ppo {size} few-kl-0: its settings differ from the main policy's in more than the number "
        "of posts."
        for size in ("m", "s")
    ]
    assert prompts_section in SECTIONS and not demonstrations_section(study).pictures


def test_policies_on_fewer_prompts_that_were_sampled_at_another_temperature_are_told(tmp_path: Path) -> None:
    (made,) = prompts_study(tmp_path, posts=10)
    for path in tmp_path.glob("score-*-ppo-prompts-*/samples.jsonl"):
        warm = [json.loads(line) | {"temperature": 1.0} for line in path.read_text().splitlines()]
        write_lines(path, warm)
    section = prompts_section(closed(tmp_path, [made]))
    assert not section.pictures and "prompts-128, prompts-256, prompts-64: no samples" in section.missing[0]


def test_without_policies_on_fewer_prompts_it_is_not_run(study: StudyResults) -> None:
    assert prompts_section(study).missing == ["Not run here."] and prompts_table(study).empty


def judged(made: Made, name: str, *, further: bool) -> None:
    """A judge who prefers what is better than 0, of the main policies alone or of variants as well."""
    where, rows = made.run("judge", variant=name), []
    for run in (row for row in made.runs if row["stage"] == "score"):
        for row in samples_of(made.folder, run["run"]) if further or not run["variant"] else ():
            for order in ([0, 1], [1, 0]):
                rows.append(
                    {
                        "id": row["id"], "policies": [row["policy"], "reference"], "order": order,
                        "judge": name,
                        "verdict": "A" if (row["scores"]["gold"] > 0) == (order == [0, 1]) else "B",
                        "texts": [row["text"], " ref"], "runs": [run["run"]],
                    }
                )  # fmt: skip
    write_lines(where / "judgements.jsonl", rows)


def test_every_judge_of_variants_has_its_figure_and_another_is_told(tmp_path: Path) -> None:
    (made,) = prompts_study(tmp_path, posts=20)
    for path in tmp_path.glob("score-*/samples.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_lines(path, [row for row in rows if row["temperature"] == 0])  # a policy's name means one way
    for judge, further in (("all", True), ("main", False)):
        judged(made, judge, further=further)
    study = closed(tmp_path, [made])
    section = prompts_section(study)
    names = [picture.name for picture in section.pictures]
    assert names == ["prompts_gold", "prompts_verdicts_all", "prompts_rm"]
    assert any("By main: no verdicts" in note and "further: true" in note for note in section.missing)
    table = prompts_table(study)
    rows = table[(table["scorer"] == "verdicts all") & (table["measure"] == "preference")]
    found = rows[(rows["method"] == "ppo") & (rows["size"] == "s")].set_index("prompts")["value"]
    for variant, limit in PROMPT_LIMITS.items():
        gold = [row["scores"]["gold"] for row in samples_of(tmp_path, f"score-s-ppo-{variant}-0")]
        assert found[limit] == pytest.approx(np.mean([one > 0 for one in gold]))
    gaps = prompts_gap_table(study)
    assert set(gaps["scorer"]) == {"gold", "verdicts all", "rm"}


def test_trap_a_policy_on_fewer_prompts_is_no_point_of_figs_5_and_11(tmp_path: Path) -> None:
    """It has the same coefficient and value network as another, but was trained on other posts."""
    made = Made(tmp_path, 20)
    add_rewards(made)
    add_sweep(made)
    add_value_networks(made)
    before = made.close()
    sweeps = {sweep.name: set(sweep.samples["run"]) for sweep in find_sweeps(before)}
    networks = {network: [run.run for run in runs] for network, runs in compared_runs(before)["m"].items()}
    for variant, reward, settings in (
        ("few", "reward-m-n750", {"beta": 0.1, "limit": 64}),
        ("few-main", "reward-m", {"beta": 0.05, "limit": 64, "value_network": "separate"}),
    ):
        parents = {"policy": "sft-m", "reference": "sft-m", "reward": reward}
        made.run("ppo", "m", variant, parents=parents, settings=settings)
        parents = {"policy": f"ppo-m-{variant}", "reward": reward}
        where = made.run("score", "m", variant, method="ppo", parents=parents)
        tags = {"method": "ppo", "params": SIZES["m"], "variant": variant}
        write_lines(where / "samples.jsonl", policy_samples(made, KLS["kl-0"], "m", tags))
    after = made.close()
    assert {sweep.name: set(sweep.samples["run"]) for sweep in find_sweeps(after)} == sweeps
    found = {network: [run.run for run in runs] for network, runs in compared_runs(after)["m"].items()}
    assert found == networks and sweeps
