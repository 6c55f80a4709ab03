"""The sections drawn from scored samples: preference, sampling, length, ROUGE."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.stats import wilson
from eval.common.study import StudyResults, once
from eval.length.measure import preference_bins
from eval.length.section import length_bin_table, length_controlled_table, length_section, length_slope_table
from eval.preference.measure import RM, wins
from eval.preference.section import (
    headline_samples,
    paired_test_table,
    preference_by_length_table,
    preference_by_subreddit_table,
    preference_section,
    preference_table,
)
from eval.rouge.measure import rouge
from eval.rouge.section import rouge_table
from eval.sampling.section import sampling_section, sampling_table
from eval.texts.samples import measured_samples
from eval.texts.section import text_section, text_table
from tldr.records import Post, Sample, write_records

WORDS = "cat dog boss friend city late money letter asked left lost never".split()
PARAMS = {"s": 1e4, "m": 1e6}


def sample(post: Post, method: str, size: str, temperature: float, top_p: float = 1.0, **tags: str) -> Sample:
    """Longer texts are liked better; so are colder ones, and those of better methods."""
    draw = random.Random(f"{post.id} {method} {size} {temperature} {top_p} {tags}")
    count = draw.randint(6, 20)
    skill = {"pretrained": -1.0, "sft": 0.0, "ppo": 0.8}[method] - 0.6 * temperature * top_p
    score = skill + 0.1 * (count - 12) + draw.gauss(0, 0.8)
    return Sample(
        id=post.id,
        policy=f"{method}-{size}",
        run=f"score-{method}-{size}",
        temperature=temperature,
        top_p=top_p,
        text=" ".join(draw.choices(WORDS, k=count)),
        scores={"rm": score, "rm_reference": 0.0},
        tags={"method": method, "size": size, "params": PARAMS[size], **tags},
    )


def posts() -> list[Post]:
    """Forty posts of one subreddit, thirty-five of another, five of a third."""
    draw = random.Random(5)
    names = ["tifu"] * 40 + ["jobs"] * 35 + ["cats"] * 5
    return [
        Post(
            id=f"p{number}",
            subreddit=name,
            title=" ".join(draw.choices(WORDS, k=4)),
            post=" ".join(draw.choices(WORDS, k=40)) + ".",
            summary=" ".join(draw.choices(WORDS, k=12)),
        )
        for number, name in enumerate(names)
    ]


SAMPLINGS = [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.0, 0.8)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    folder, every = tmp_path_factory.mktemp("scored"), posts()
    write_records(folder / "valid2.jsonl", every)
    for size in PARAMS:
        for method in ("pretrained", "sft", "ppo"):
            samplings = SAMPLINGS if method == "sft" else [(0.0, 1.0)]
            rows = [sample(post, method, size, *how) for how in samplings for post in every]
            if method == "ppo":
                rows += [sample(post, method, size, 1.0, variant="kl-0") for post in every]
            write_records(folder / f"score-{method}-{size}" / "samples.jsonl", rows)
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=100)


def single(folder: Path, **changes: object) -> StudyResults:
    """A study of one supervised policy sampled in one way."""
    every = [post.model_copy(update=changes) for post in posts()]
    write_records(folder / "valid2.jsonl", every)
    write_records(folder / "a" / "samples.jsonl", [sample(post, "sft", "m", 0.0) for post in every])
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=50)


def test_tables_are_made_once_a_study(study: StudyResults, tmp_path: Path) -> None:
    calls = []

    @once
    def make(of: StudyResults) -> int:
        calls.append(of)
        return len(calls)

    other = single(tmp_path)
    assert (make(study), make(study), make(other), make(study)) == (1, 1, 2, 1)
    assert preference_table(study) is preference_table(study)


def test_subreddits_share_out_the_posts(study: StudyResults) -> None:
    table = preference_by_subreddit_table(study)
    one = table[(table["method"] == "ppo") & (table["size"] == "m")].set_index("group")
    assert one["posts"].to_dict() == {"tifu": 40, "jobs": 35, "other": 5}
    samples = headline_samples(study)
    mine = samples[(samples["tag.method"] == "ppo") & (samples["tag.size"] == "m")]
    won = wins(mine, RM)["hard"][mine["id"].isin([f"p{n}" for n in range(40)])]
    assert one.loc["tifu", "value"] == pytest.approx(won.mean())
    assert set(table["measure"]) == {"preference"} and table["low"].notna().all()
    by_length = preference_by_length_table(study)
    counts = by_length.groupby(["method", "size"])["n"].sum()
    assert (counts == 80).all(), "every sample is in one length group"


def test_headline_samples_are_cold_and_plain(study: StudyResults) -> None:
    samples = headline_samples(study)
    assert len(samples) == 6 * 80 and set(samples["temperature"]) == {0.0}
    assert samples["tag.variant"].isna().all()


def test_section_holds_breakdowns_and_paired_tests(study: StudyResults) -> None:
    tables = {table.name: table for table in preference_section(study).tables}
    assert set(tables) == {
        "preference_rm", "preference_rm_by_cell", "preference_rm_by_subreddit", "preference_rm_by_length",
        "preference_paired",
    }  # fmt: skip
    assert {"tifu", "jobs", "other"} <= set(tables["preference_rm_by_subreddit"].shown.columns)
    assert len(tables["preference_rm_by_subreddit"].shown) == 6, "one row a policy"
    assert len(paired_test_table(study)) == 15


def test_sampling_table_holds_both_sweeps(study: StudyResults) -> None:
    table = sampling_table(study)
    assert set(table["method"]) == {"sft"} and set(table["variant"]) == {""}
    row = table[(table["size"] == "m") & (table["top_p"] == 0.8) & (table["measure"] == "preference")].iloc[0]
    expected = np.mean([sample(post, "sft", "m", 1.0, 0.8).scores["rm"] > 0 for post in posts()])
    assert row["value"] == pytest.approx(expected) and row["n"] == 80
    section = sampling_section(study)
    left, right = section.pictures[0].figure.axes
    lines = {bar.get_label(): bar.lines[0] for bar in left.containers}
    assert lines["Size m"].get_xdata().tolist() == [0.0, 0.5, 1.0]
    assert lines["Published (Fig. 8)"].get_ydata().tolist() == [0.4, 0.384, 0.353, 0.313, 0.165]
    nucleus = {bar.get_label(): bar.lines[0] for bar in right.containers}
    assert nucleus["Size s"].get_xdata().tolist() == [0.8, 1.0]
    assert left.get_xlabel() == "Temperature" and "top-p" in right.get_xlabel()


def test_one_way_of_sampling_is_no_sweep(tmp_path: Path) -> None:
    section = sampling_section(single(tmp_path))
    assert section.missing == ["Not run here."] and not section.tables
    bars = section.pictures[0].figure.axes[0].containers
    assert [bar.get_label() for bar in bars] == ["Published (Fig. 8)"], "the paper's points alone"


def test_bins_by_hand() -> None:
    pairs = pd.DataFrame(
        {"id": list("abcdef"), "log_ratio": [0, 1, 2, 3, 4, 5], "preferred": [0, 0, 1, 1, 0.5, 1]}
    )
    low, high = preference_bins(pairs, bins=2)
    assert (low[0], high[0]) == (1.0, 4.0)
    assert low[1].value == pytest.approx(1 / 3) and high[1].value == pytest.approx(2.5 / 3)
    assert (low[1].low, low[1].high) == pytest.approx((wilson(1, 3).low, wilson(1, 3).high))
    expected = preference_bins(pairs, bins=2, counted=False)[0][1]
    assert expected.low < 0, "a t interval, for probabilities"
    assert len(preference_bins(pairs.assign(log_ratio=[0, 0, 0, 0, 1, 2]), bins=3)) == 2, "ties stay together"


def test_length_bins_and_their_curve(study: StudyResults) -> None:
    bins, policies = length_bin_table(study), length_controlled_table(study)
    assert set(bins["size"]) == {"m"}, "the largest"
    assert (bins.groupby("method")["n"].sum() == 80).all()
    ppo = bins[bins["method"] == "ppo"]
    assert 5 <= len(ppo) <= 10 and ppo["log_ratio"].is_monotonic_increasing
    slope = length_slope_table(study).iloc[0]
    assert slope["value"] > 0 and slope["low"] > 0 and slope["unit"].startswith("logits per ln(words")
    rows = policies[(policies["method"] == "ppo") & (policies["size"] == "m") & (policies["variant"] == "")]
    curve = expit(logit(rows["value"].iloc[0]) + slope["value"] * ppo["log_ratio"])
    np.testing.assert_allclose(ppo["fitted"].astype(float), curve)
    whole = preference_table(study).query("method == 'ppo' and size == 'm' and variant == ''")
    raw = whole[whole["measure"] == "preference"]["value"].iloc[0]
    assert np.average(ppo["value"], weights=ppo["n"]) == pytest.approx(raw)


def test_trap_a_length_ratio_names_its_unit_and_its_zero(study: StudyResults) -> None:
    section = length_section(study)
    picture = next(one for one in section.pictures if one.name == "preference_by_length_ratio_rm")
    axis = picture.figure.axes[0]
    assert axis.get_xlabel() == "ln(words of the summary / words of the reference)"
    vertical = [line for line in axis.lines if list(line.get_xdata()) == [0, 0]]
    assert len(vertical) == 1, "equal length is marked"
    hollow = [line.get_xydata().tolist() for line in axis.lines if line.get_markersize() == 11]
    assert hollow[:3] == [[[0.0, 0.645]], [[0.0, 0.47]], [[0.0, 0.4]]], "the paper's curves at 0"
    assert "in words" in picture.caption


def test_rouge_by_size(study: StudyResults) -> None:
    table = rouge_table(study)
    row = table[(table["method"] == "sft") & (table["size"] == "m") & (table["temperature"] == 0)].set_index(
        "measure"
    )
    scores = rouge([p.summary or "" for p in posts()], [sample(p, "sft", "m", 0.0).text for p in posts()])
    for measure in ("rouge_mean", "rouge2_p"):
        assert row.loc[measure, "value"] == pytest.approx(scores[measure].mean())
    assert {"title", "lead-2"} <= set(table["method"]) and "reference" not in set(table["method"])
    picture = text_section(study).pictures[0]
    ours, theirs = picture.figure.axes
    assert ours.get_title(loc="left") == "This study, T = 0" and "R-1, R-2, R-L" in ours.get_ylabel()
    assert theirs.containers[0].lines[0].get_ydata().tolist() == [0.251, 0.26]
    assert "No stemming" in picture.caption


def test_measures_are_of_samples_and_baselines(study: StudyResults) -> None:
    assert len(measured_samples(study)) == (6 + 2 * 3 + 2 + 4) * 80
    table = text_table(study)
    ratio = table[(table["method"] == "reference") & (table["measure"] == "log_length_ratio")]
    assert ratio["value"].iloc[0] == 0


def test_without_references_the_rest_is_still_shown(tmp_path: Path) -> None:
    study = single(tmp_path, summary=None)
    assert rouge_table(study).empty and length_bin_table(study).empty and length_controlled_table(study).empty
    assert list(length_bin_table(study).columns)[-2:] == ["log_ratio", "fitted"]
    assert "not at hand" in " ".join(text_section(study).missing)
    assert length_section(study).missing == ["Not run here."]
    assert len(preference_section(study).tables) >= 3


def test_a_study_without_scores(tmp_path: Path) -> None:
    write_records(tmp_path / "a" / "samples.jsonl", [Sample(id="p", policy="x", text="t")])
    study = StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=20)
    for table in (
        preference_table,
        preference_by_subreddit_table,
        preference_by_length_table,
        sampling_table,
    ):
        assert table(study).empty and "value" in table(study)
    assert preference_section(study).missing and sampling_section(study).missing
