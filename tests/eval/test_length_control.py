from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy.special import expit

from eval.common.io import load_posts
from eval.common.pairs import comparison_pairs, log_length_ratio
from eval.common.paper import load_paper
from eval.length.measure import length_control, length_controlled, rating_by_length
from tldr.errors import UsageError
from tldr.records import Comparison, read_records


def simulated(count: int, seed: int, strength: float = 0.5, slope: float = 1.5) -> pd.DataFrame:
    """A policy against the reference whose texts are longer, and preferred for that as well."""
    draw = np.random.default_rng(seed)
    first, second = draw.integers(20, 45, count), draw.integers(15, 40, count)
    chance = expit(strength + slope * np.log(first / second))
    return pd.DataFrame(
        {
            "id": [f"p{number}" for number in range(count)],
            "first": "ppo",
            "second": "reference",
            "first_text": ["w " * n for n in first],
            "second_text": ["w " * n for n in second],
            "preferred": (draw.random(count) < chance).astype(float),
        }
    )


def test_equals_a_plain_logistic_regression() -> None:
    pairs = simulated(400, 1)
    fit = length_control(pairs)
    frame = pd.DataFrame({"y": pairs["preferred"], "x": log_length_ratio(pairs)})
    plain = smf.logit("y ~ x", frame).fit(disp=False, cov_type="HC0")
    assert fit.slope.value == pytest.approx(plain.params["x"], rel=1e-6)
    assert fit.preference("ppo").value == pytest.approx(expit(plain.params["Intercept"]), rel=1e-6)
    assert fit.slope.se == pytest.approx(plain.bse["x"], rel=0.01)


def test_planted_truth_is_covered() -> None:
    truth, inside = expit(0.5), {"preference": [], "slope": []}
    for seed in range(60):
        fit = length_control(simulated(300, seed))
        preference, slope = fit.preference("ppo"), fit.slope
        inside["preference"].append(preference.low <= truth <= preference.high)
        inside["slope"].append(slope.low <= 1.5 <= slope.high)
    for hits in inside.values():
        assert 0.87 <= np.mean(hits) <= 1.0


def test_length_is_taken_out() -> None:
    pairs = simulated(4000, 3, strength=0.0, slope=2.0)
    assert pairs["preferred"].mean() > 0.57
    fit = length_control(pairs)
    assert fit.preference("ppo").low < 0.5 < fit.preference("ppo").high


def test_policies_are_compared_through_the_base() -> None:
    pairs = pd.concat(
        [simulated(500, 5), simulated(500, 6, strength=-0.5).assign(first="sft")], ignore_index=True
    )
    fit = length_control(pairs)
    between, back = fit.preference("ppo", over="sft"), fit.preference("sft", over="ppo")
    assert between.value == pytest.approx(1 - back.value)
    assert (between.low, between.high) == pytest.approx((1 - back.high, 1 - back.low))
    assert fit.preference("reference").value == 0.5
    other_base = length_control(pairs, base="sft")
    assert other_base.preference("ppo").value == pytest.approx(between.value, rel=1e-6)
    with pytest.raises(UsageError, match="no policy 'x'"):
        fit.preference("x")


def test_openai_ppo_samples_against_references(shared_data: Path) -> None:
    """paper.md 4.4 has 0.640 raw, slope 2.09, 0.540 at equal length on 1,000 judged; 767 of them are here."""
    posts = load_posts(shared_data / "tldr_posts.jsonl")
    rows = [
        json.loads(line) for line in (shared_data / "openai_1p3b_ppo_samples.jsonl").read_text().splitlines()
    ]
    judged = [row for row in rows if row["judge_preferred"]]
    pairs = pd.DataFrame(
        {
            "id": [row["id"] for row in judged],
            "first": "ppo",
            "second": "reference",
            "first_text": [row["text"] for row in judged],
            "second_text": [posts.loc[row["id"], "summary"] for row in judged],
            "preferred": [float(row["judge_preferred"] == "ours") for row in judged],
        }
    )
    fit = length_control(pairs)
    assert pairs["preferred"].mean() == pytest.approx(0.64, abs=0.03)
    assert fit.slope.low < 2.09 < fit.slope.high
    assert fit.preference("ppo").low < 0.54 < fit.preference("ppo").high


def test_human_comparisons_on_news(shared_data: Path) -> None:
    pairs = comparison_pairs(read_records(shared_data / "comparisons" / "cnndm0.json", Comparison))
    fit = length_control(pairs, unit="characters")
    assert len(fit.fit.names) == 4  # three policies beside the reference, and the slope
    assert fit.slope.value > 0 and fit.fit.posts == 45
    ppo, pretrained = (fit.preference(name) for name in ("sup4_6b_ppo_rm4_6b_kl14", "pretrain_6b_t.7"))
    assert ppo.value > pretrained.value


def scored_samples() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Two policies and one that never wins, against references; the first writes longer texts."""
    parts = []
    for name, strength, seed in (("ppo", 0.5, 1), ("sft", -0.3, 2)):
        pairs = simulated(300, seed, strength=strength)
        parts.append(
            pd.DataFrame({"id": pairs["id"], "text": pairs["first_text"], "y": pairs["preferred"], "m": name})
        )
    parts.append(parts[0].assign(m="title", y=0.0))
    table = pd.concat(parts, ignore_index=True).rename(columns={"m": "tag.method"})
    fixed = {"cell": "0", "temperature": 0.0, "top_p": 1.0, "n": 1}
    table = table.assign(policy=table["tag.method"], run="r-" + table["tag.method"], **fixed)
    pairs = simulated(300, 1)
    return table, pd.DataFrame({"summary": pairs["second_text"].to_numpy()}, index=pairs["id"]), table["y"]


def test_policies_against_their_references() -> None:
    samples, posts, preferred = scored_samples()
    results, slope = length_controlled(samples, posts, preferred, scorer="rm")
    found = {result.method: result for result in results}
    assert set(found) == {"sft", "ppo"}, "a policy that never wins has no finite estimate"
    assert found["ppo"].runs == ("r-ppo",) and found["ppo"].n == 300 and found["ppo"].scorer == "rm"
    raw = preferred[samples["tag.method"] == "ppo"].mean()
    assert found["ppo"].low < expit(0.5) < found["ppo"].high
    assert found["ppo"].value < raw, "its longer texts helped it"
    assert slope.value > 0
    with pytest.raises(UsageError, match="no policy has both won and lost"):
        length_controlled(samples, posts, preferred * 0, scorer="rm")


def exact_line(policy: str, length: float, sd: float, rating: float, per_100: float) -> pd.DataFrame:
    lengths = length + sd * np.array([-1.0, 0.0, 1.0, -0.5, 0.5])
    ratings = rating + per_100 * (lengths - length) / 100
    return pd.DataFrame(
        {"id": [f"p{i}" for i in range(5)], "policy": policy, "length": lengths, "rating": ratings}
    )


def test_lead_3_shrunk_to_the_reference_as_in_appendix_e() -> None:
    """The paper: lead-3 (475 characters, 6.23, 0.34 a 100) would score 5.68 at the reference's 314."""
    published = (
        load_paper("table14", "table14").pivot(index="series", columns="x", values="value").loc["lead-3"]
    )
    data = exact_line(
        "lead-3",
        published["length_characters"],
        published["length_sd"],
        published["quality"],
        published["gain_per_100_characters"],
    )
    row = rating_by_length(data, at=314).iloc[0]
    assert row["at_length"] == pytest.approx(5.68, abs=0.005)
    assert row["per_100"] == pytest.approx(0.34) and row["length"] == pytest.approx(475)


def test_rating_slopes_are_a_policy_each_and_cover_the_truth() -> None:
    inside = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        parts = [exact_line(name, 200, 50, 5, slope) for name, slope in (("a", 0.5), ("b", -0.2))]
        data = pd.concat([part.assign(id=part["id"] + str(copy)) for part in parts for copy in range(20)])
        data["rating"] += draw.normal(scale=0.7, size=len(data))
        table = rating_by_length(data).set_index("policy")
        inside += [
            table.loc[n, "per_100_low"] <= s <= table.loc[n, "per_100_high"]
            for n, s in (("a", 0.5), ("b", -0.2))
        ]
    assert 0.89 <= np.mean(inside) <= 0.99


def test_no_slope_without_lengths() -> None:
    with pytest.raises(UsageError, match="no slope"):
        rating_by_length(pd.DataFrame({"id": ["a"] * 3, "policy": "p", "length": 5, "rating": [1, 2, 3]}))
