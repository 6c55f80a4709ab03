from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.best_of_n.measure import best_of_n_curve
from eval.best_of_n.pool import load_pool
from eval.best_of_n.section import best_of_n_section, best_of_n_table
from eval.common.paper import PAPER_FOLDER, load_paper
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.common.tables import COLUMNS
from eval.overoptimisation.course import ppo_course_table
from eval.overoptimisation.figure import kl_sweep
from eval.overoptimisation.measure import fit_overoptimisation
from eval.overoptimisation.section import (
    kl_sweep_table,
    overoptimisation_fit_table,
    overoptimisation_section,
    overoptimisation_table,
)
from eval.overoptimisation.sweeps import find_sweeps
from eval.training.section import compared_runs, training_section, value_network_table
from tests.eval.oracles import paired_difference
from tests.eval.section_study import BETAS, KLS, Made, add_pool, add_rewards, add_sweep, whole_study
from tldr.errors import NonFiniteError, RecordError, UsageError
from tldr.measures.best_of_n import best_of_n_kl
from tldr.records import Sample, read_records

SWEEP = "m, rm_m_n750"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return whole_study(tmp_path_factory.mktemp("whole"), posts=80, n=16)


def samples_of(study: StudyResults, run: str) -> list[Sample]:
    return read_records(study.runs.folder / run / "samples.jsonl", Sample)


def test_sweep_policies_stand_at_their_own_kl(study: StudyResults) -> None:
    table = kl_sweep_table(study)
    assert set(table["sweep"]) == {SWEEP}, "value networks against the main model are no sweep"
    places = table[table["measure"] == "kl"].set_index("variant")
    assert list(places.index) == ["", *BETAS], "by KL, the start first"
    for variant, beta in BETAS.items():
        drawn = samples_of(study, f"score-m-ppo-{variant}-0")
        ratios = [(one.logprob or 0) - (one.logprob_sft or 0) for one in drawn]
        row = places.loc[variant]
        assert row["value"] == row["kl"] == pytest.approx(np.mean(ratios)) and row["beta"] == beta
        assert row["kl_low"] < row["kl"] < row["kl_high"] and row["runs"] == f"score-m-ppo-{variant}-0"
        assert row["kl"] == pytest.approx(KLS[variant], rel=0.2)
    assert places.loc["", "kl"] == 0 and pd.isna(places.loc["", "beta"])


def test_proxy_rises_while_gold_peaks(study: StudyResults) -> None:
    table = kl_sweep_table(study)
    shares = {name: part.set_index("variant")["value"] for name, part in table.groupby("measure")}
    assert set(shares) == {
        "kl", "rm_preference", "rm_expected_preference", "gold_preference", "gold_expected_preference",
    }  # fmt: skip
    assert shares["rm_expected_preference"].is_monotonic_increasing
    gold = shares["gold_expected_preference"]
    assert gold[""] < gold.max() > gold["kl-0"]
    drawn = samples_of(study, "score-m-ppo-kl-0-0")
    hard = np.mean([one.scores["rm"] > one.scores["rm_reference"] for one in drawn])
    assert shares["rm_preference"]["kl-0"] == pytest.approx(hard)
    assert gold["kl-0"] == pytest.approx(np.mean([one.scores["gold_preference"] for one in drawn]))


def test_trap_kl_is_measured_on_samples_at_temperature_one(study: StudyResults) -> None:
    """The start also has colder and top-p samples; there the log-ratio's mean is no KL."""
    (sweep,) = find_sweeps(study)
    start = sweep.samples[sweep.samples["beta"].isna()]
    assert len(start) == 80 and (start["temperature"] == 1).all() and (start["top_p"] == 1).all()
    assert (start["kl"] == 0).all()


def test_trap_the_proxy_is_the_model_that_was_optimised(tmp_path: Path) -> None:
    """A start scored by another reward model gives no predicted share; a score of the right name does."""
    made = Made(tmp_path, posts=30)
    add_rewards(made)
    add_sweep(made, start_by_own_model=False)
    table = kl_sweep_table(made.close())
    start = table[table["method"] == "sft"]
    assert set(start["measure"]) == {"kl", "gold_preference", "gold_expected_preference"}
    file = tmp_path / "score-m-sft-0" / "samples.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["scores"] |= {"rm_m_n750": 1.0, "rm_m_n750_reference": 0.0}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=50)
    start = kl_sweep_table(study).query("method == 'sft'").set_index("measure")["value"]
    assert start["rm_preference"] == 1 and start["rm_expected_preference"] == pytest.approx(0.7311, abs=1e-4)


def test_a_policy_without_logprobs_has_no_place_on_the_axis(tmp_path: Path) -> None:
    made = Made(tmp_path, posts=20)
    add_rewards(made)
    add_sweep(made)
    file = tmp_path / "score-m-ppo-kl-0.1-0" / "samples.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    gone = [{name: value for name, value in row.items() if "logprob" not in name} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in gone))
    study = made.close()
    for table in (kl_sweep_table(study), overoptimisation_table(study)):
        assert set(table["variant"]) == {"", *BETAS} - {"kl-0.1"}


def test_gains_are_paired_with_the_start(study: StudyResults) -> None:
    table = (
        overoptimisation_table(study).query("method == 'ppo' and variant == 'kl-0.01'").set_index("measure")
    )
    (sweep,) = find_sweeps(study)
    ppo, start = (sweep.samples[sweep.samples["variant"] == name] for name in ("kl-0.01", ""))
    for measure, column in (("gold_gain", "score.gold"), ("rm_gain", "score.proxy")):
        expected = paired_difference(ppo, start, column, draws=500)
        assert table.loc[measure, "value"] == pytest.approx(expected.value)
        assert table.loc[measure, "se"] == pytest.approx(expected.se, rel=0.2)
    assert table.loc["gold_gain", "se"] < ppo["score.gold"].std() / np.sqrt(80)


def test_best_of_n_shares_the_axis(study: StudyResults) -> None:
    table = overoptimisation_table(study)
    pools = table[table["method"] == "best_of_n"]
    assert {"m, rm_m", SWEEP} <= set(pools["sweep"]), "the weak model's best of N beside PPO against it"
    one = pools.query("sweep == @SWEEP and measure == 'gold_gain'").set_index("best_of")
    assert one["kl"].to_dict() == pytest.approx({n: np.log(n) - (n - 1) / n for n in (1, 2, 4, 8, 16)})
    assert one.loc[1, "value"] == pytest.approx(0, abs=1e-12) and one["value"].is_monotonic_increasing


def test_fits_find_the_planted_peak(study: StudyResults) -> None:
    table = overoptimisation_fit_table(study)
    fits = table.query("source == 'policies' and of == 'gold_gain'").set_index("measure")
    assert fits.loc["beta", "low"] < 0.22 < fits.loc["beta", "high"] and (fits["form"] == "rl").all()
    assert fits.loc["peak_kl", "value"] == pytest.approx(np.exp(2 * (0.55 / 0.22 - 1)), rel=0.35)
    assert fits.loc["peak_kl", "peak_inside"] and fits.loc["alpha", "n"] == len(BETAS)
    assert {"course", "best_of_n", "policies"} == set(table["source"])


def test_course_starts_at_the_first_rollout(study: StudyResults) -> None:
    table = ppo_course_table(study).query("sweep == 'ppo-m-kl-0-0' and measure == 'gold_gain'")
    assert table["iteration"].tolist() == [1, 5, 9, 13, 16]
    rows = [json.loads(line) for line in (study.runs.folder / "ppo-m-kl-0-0" / "rollouts.jsonl").open()]
    means = {
        i: np.mean([row["scores"]["gold"] for row in rows if row["tags"]["iteration"] == i]) for i in (1, 16)
    }
    last, first = table.iloc[-1], table.iloc[0]
    assert last["value"] == pytest.approx(means[16] - means[1]) and last["low"] < last["value"] < last["high"]
    assert first["kl"] == first["value"] == first["se"] == 0
    assert table["kl"].is_monotonic_increasing


def test_figures_show_both_and_the_papers(study: StudyResults) -> None:
    section = overoptimisation_section(study)
    assert section.missing == []
    names = [picture.name for picture in section.pictures]
    assert names == ["kl_sweep", "overoptimisation", "ppo_course"]
    ours, theirs = section.pictures[0].figure.axes
    assert ours.get_xscale() == "function" and ours.transScale.transform((np.e - 1, 0))[0] == pytest.approx(1)
    assert len(ours.containers) == 3 and all(bar.has_xerr and bar.has_yerr for bar in ours.containers)
    published = {line.get_label(): line for line in theirs.lines}
    assert published["Actual: people"].get_ydata().tolist()[-1] == 0.061
    proxy, gold = section.pictures[1].figure.axes
    assert "sqrt nats" in proxy.get_xlabel() and gold.get_title(loc="left").startswith("Gold")
    with pytest.raises(UsageError, match="no KL sweep"):
        kl_sweep({})


def test_without_a_sweep_the_paper_stands_alone(tmp_path: Path) -> None:
    study = Made(tmp_path, posts=1).close()
    section = overoptimisation_section(study)
    assert "No KL sweep" in " ".join(section.missing)
    assert [picture.name for picture in section.pictures] == ["kl_sweep"] and not section.tables
    assert best_of_n_section(study).missing and len(best_of_n_section(study).pictures) == 1
    for make in (
        kl_sweep_table,
        overoptimisation_table,
        best_of_n_table,
        ppo_course_table,
        value_network_table,
    ):
        assert make(study).empty and set(COLUMNS) <= set(make(study).columns)


def test_start_on_other_posts_is_said_and_costs_only_the_gains(tmp_path: Path) -> None:
    made = Made(tmp_path, posts=20)
    add_rewards(made)
    add_sweep(made)
    file = tmp_path / "score-m-sft-0" / "samples.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows if row["id"] != "p3"))
    section = overoptimisation_section(made.close())
    assert "missing for 1 of 20 samples" in " ".join(section.missing)
    assert [table.name for table in section.tables] == ["kl_sweep"]


def test_best_of_n_table_equals_the_definition(study: StudyResults) -> None:
    """Best of all 16 is the one with the highest score; best of 1 the mean of the pool."""
    table = best_of_n_table(study).query("size == 'm' and measure == 'gold_expected_preference'")
    assert set(table["selected_by"]) == {"rm", "rouge", "length", "gold", "rm_m_n750"}, "rm_m is rm itself"
    pool = pd.DataFrame(
        [
            {"id": row.id, "length": row.tokens, **row.scores}
            for row in read_records(study.runs.folder / "best_of_n-m-pool-0" / "pool.jsonl", Sample)
        ]
    )
    for chooser in ("rm", "rouge", "gold"):
        rows = table[table["selected_by"] == chooser].set_index("best_of")["value"]
        best = pool.loc[pool.groupby("id")[chooser].idxmax(), "gold_preference"]
        assert rows[16] == pytest.approx(best.mean()) and rows[1] == pytest.approx(
            pool["gold_preference"].mean()
        )
    row = table.iloc[0]
    assert (row["n"], row["posts"], row["temperature"]) == (1280, 80, 0.7) and row["low"] < row["value"]


def test_best_of_n_figure(study: StudyResults) -> None:
    figure = best_of_n_section(study).pictures[0].figure
    small, _, theirs = figure.axes
    assert small.get_xscale() == "log" and small.get_xlim()[1] > 16
    assert len(small.containers) == 5
    rouge = next(line for line in theirs.lines if line.get_label() == "ROUGE")
    paper = load_paper("fig7", "fig7")
    assert rouge.get_ydata().tolist() == paper[paper["series"] == "rouge"]["value"].tolist()


def test_trap_without_planted_truth_best_of_n_is_drawn_by_the_main_reward_model(tmp_path: Path) -> None:
    """Pools of real posts carry no planted preference, and the paper's points alone are no Fig. 7."""
    made = Made(tmp_path, posts=12)
    add_rewards(made)
    add_sweep(made, start_by_own_model=False)
    add_pool(made)
    file = tmp_path / "best_of_n-m-pool-0" / "pool.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["scores"] = {name: score for name, score in row["scores"].items() if "gold" not in name}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = made.close()
    table = best_of_n_table(study).query("measure == 'rm_expected_preference'")
    assert set(table["selected_by"]) == {"rm", "rouge", "length", "rm_m_n750"}
    references = {
        one.id: one.scores["rm_reference"]
        for one in samples_of(study, "score-m-sft-0")
        if "rm_reference" in one.scores
    }
    pool = pd.DataFrame([{"id": row["id"], **row["scores"]} for row in rows])
    pool["share"] = 1 / (1 + np.exp(pool["id"].map(references) - pool["rm"]))
    for chooser in ("rm", "rouge", "rm_m_n750"):
        values = table[table["selected_by"] == chooser].set_index("best_of")["value"]
        best = pool.loc[pool.groupby("id")[chooser].idxmax(), "share"]
        assert values[16] == pytest.approx(best.mean()) and values[1] == pytest.approx(pool["share"].mean())
    (picture,) = best_of_n_section(study).pictures
    assert len(picture.figure.axes) == 2 and "as the main reward model says" in picture.caption


def test_kl_of_best_of_n_is_the_papers() -> None:
    paper = load_paper("table10", "table10")
    assert best_of_n_kl(paper["x"]).round(1).tolist() == paper["value"].tolist()


def test_curves_of_several_cells_and_gains() -> None:
    rng = np.random.default_rng(3)
    pool = pd.DataFrame(
        {
            "id": np.tile(np.repeat(["a", "b", "c"], 4), 2), "cell": np.repeat(["0", "1"], 12),
            "rm": rng.normal(size=24), "gold": rng.normal(size=24),
        }
    )  # fmt: skip
    shuffled = pool.sample(frac=1, random_state=0)
    both = best_of_n_curve(shuffled, "rm", "gold", [1, 2, 4], draws=50)
    alone = [
        best_of_n_curve(part.drop(columns="cell"), "rm", "gold", [1, 2, 4], draws=50)["value"]
        for _, part in pool.groupby("cell")
    ]
    assert both["value"].to_numpy() == pytest.approx(np.mean(alone, axis=0)) and (both["posts"] == 3).all()
    gain = best_of_n_curve(pool, "rm", "gold", [1, 2, 4], gain=True, draws=50)["value"]
    assert gain.to_numpy() == pytest.approx((both["value"] - both["value"][0]).to_numpy())
    with pytest.raises(NonFiniteError, match="scores to choose by"):
        best_of_n_curve(pool.assign(rm=np.nan), "rm", "gold", [1])


def test_a_curve_that_falls_from_the_start_peaks_there() -> None:
    kl = np.array([0.5, 1, 2, 4])
    fit = fit_overoptimisation(kl, -0.5 * np.sqrt(kl) - 0.2 * kl, "best_of_n")
    assert fit.peak.value == 0 == fit.height and not fit.peak_inside


def test_pools_are_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "pool.jsonl"
    good = '{"id": "a", "tokens": 3, "scores": {"rm": 1, "gold": 0.5}}'
    file.write_text(f"{good}\n\n{good}\n")
    pool = load_pool(file)
    assert pool.to_dict("list") == {"id": ["a", "a"], "rm": [1, 1], "gold": [0.5, 0.5], "length": [3, 3]}
    for bad, why in (
        ('{"id": "a", "tokens": 3, "scores": {"rm": 1}}', "but the first has"),
        ('{"id": "a", "tokens": 3, "scores": {"rm": "1", "gold": 0}}', "'1', not a number"),
        ('{"id": "a", "tokens": 3, "scores": {"rm": true, "gold": 0}}', "True, not a number"),
        ('{"id": "", "scores": {"rm": 1}}', "id is ''"),
        ('{"id": "a", "scores": {}}', "no scores"),
        ('{"id": "a", "scores": {"rm": NaN, "gold": 0}}', "pool.jsonl:2"),
        ('{"id": "a", "scores": {"rm": 1e999, "gold": 0}}', "pool.jsonl:2"),
        (f'{{"id": "a", "scores": {{"rm": 1{"0" * 400}, "gold": 0}}}}', "pool.jsonl:2"),
        ("[1]", "found list"),
        ('{"id": ', "EOF"),
        ('{"id": "\\ud800"}', "pool.jsonl:2"),
    ):
        file.write_text(f"{good}\n{bad}\n")
        with pytest.raises(RecordError, match=why) as error:
            load_pool(file)
        assert error.value.where == f"{file}:2"
    file.write_text("")
    with pytest.raises(UsageError, match="empty pool"):
        load_pool(file)
    with pytest.raises(UsageError, match="no such pool"):
        load_pool(tmp_path / "nothing")


def test_a_large_pool_takes_little_memory(tmp_path: Path) -> None:
    """16 x 2,048 samples: a 125th of 2,000 posts, for which 4 GB are allowed."""
    rng = np.random.default_rng(0)
    file, draws = tmp_path / "pool.jsonl", rng.normal(size=(16, 2048, 2)).round(3).tolist()
    with file.open("w") as out:
        for post, samples in enumerate(draws):
            row = {"id": f"p{post}", "text": "word " * 20, "response_ids": [7] * 25, "tokens": 25}
            out.writelines(
                json.dumps(row | {"scores": {"rm": rm, "gold": gold}}) + "\n" for rm, gold in samples
            )
    tracemalloc.start()
    pool = load_pool(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    curve = best_of_n_curve(pool, "rm", "gold", [2**power for power in range(12)], draws=200)
    assert len(pool) == 32_768 and len(curve) == 12
    assert peak < 4e9 / 125


def test_largest_pool_of_a_size_is_taken(tmp_path: Path) -> None:
    made = Made(tmp_path, posts=10)
    add_pool(made, "m", 4, "")
    add_pool(made, "m", 16, "pool")
    assert set(best_of_n_table(made.close())["variant"]) == {"pool"}


def test_value_networks_are_compared_where_nothing_else_differs(study: StudyResults) -> None:
    assert {name: len(runs) for name, runs in compared_runs(study)["m"].items()} == {
        "separate": 1,
        "shared": 1,
    }
    table = value_network_table(study).set_index(["value_network", "measure"])
    rows = [json.loads(line) for line in (study.runs.folder / "ppo-m-shared-0" / "rollouts.jsonl").open()]
    last = np.mean([row["scores"]["rm"] for row in rows if row["tags"]["iteration"] == 16])
    one = table.loc[("shared", "rm_score")]
    assert one["value"] == pytest.approx(last) and one["iteration"] == 16 and one["runs"] == "ppo-m-shared-0"
    section = training_section(study)
    names = [picture.name for picture in section.pictures]
    assert names == ["training_curves", "training_curves_sweep_1", "value_networks"]
    at = "KL at the rollouts' temperature, T = 0.7."
    assert all(picture.caption.endswith(at) for picture in section.pictures[:2])
    sweep = section.pictures[1].figure
    assert [text.get_text() for text in sweep.legends[0].get_texts()] == [
        f"beta = {beta:g}" for beta in sorted(BETAS.values())
    ]
    ours, theirs = section.pictures[2].figure.axes
    assert len([line for line in ours.lines if len(line.get_xdata())]) == 2
    assert theirs.lines[0].get_xdata().tolist() == [0, 50_000, 500_000, 1_000_000]
