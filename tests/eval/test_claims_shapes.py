"""Every kind of predicate in a world where its claim is true and in one where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from eval.claims.contrast import Missing, contrast
from eval.claims.evidence import SOURCES, Evidence
from eval.claims.functions import _Shares, peak_steps
from eval.claims.schema import load_claims
from eval.claims.verdicts import ClaimRow, shape_rows
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import StudyRuns
from eval.common.study import StudyResults
from eval.length.measure import length_controlled

POSTS = 100
PARAMS = {"s": 1e4, "m": 1e5, "l": 1e6}
CLAIMS = {claim.id: claim for claim in load_claims(PAPER_FOLDER).shapes}
SOURCE_OF = {
    "rm-like-another-labeler": "same-policy pairs",
    "rl-raises-coverage-most": "ratings",
    "preference-peaks-in-kl": "sweep",
    "best-of-n-spends-less-kl": "sweep",
    "length-shrinks-lead-over-supervised": "samples",
}
"""The rows that claims with a function of their own look at."""
Group = dict[str, Any]
Effect = Callable[[Group], float]


def study() -> StudyResults:
    return StudyResults(StudyRuns(Path("."), ()), PAPER_FOLDER, draws=200)


def groups(**columns: Iterable[Any]) -> list[Group]:
    made = [dict(zip(columns, values, strict=True)) for values in product(*columns.values())]
    return [
        group | ({"params": PARAMS[group["size"]]} if group.get("size") in PARAMS else {}) for group in made
    ]


def rows(made: list[Group], value: str, effect: Effect, *, seed: int = 0, seeds: int = 1) -> pd.DataFrame:
    """Posts with a difficulty of their own, seen by every group; `effect` is the group's true mean."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(0, 0.3, POSTS)
    parts = []
    for number, group in enumerate(made):
        for one in range(seeds):
            values = effect(group) + hard + draw.normal(0, 0.1, POSTS)
            ids = [f"p{post}" for post in range(POSTS)]
            names = {"id": ids, "key": ids, "run": f"run-{number}-{one}", "cell": str(one), value: values}
            parts.append(pd.DataFrame({**names, **group}))
    return pd.concat(parts, ignore_index=True)


def verdicts(monkeypatch: pytest.MonkeyPatch, name: str, frame: pd.DataFrame) -> list[ClaimRow]:
    claim = CLAIMS[name]
    source = claim.test.source if claim.test else SOURCE_OF[name]
    monkeypatch.setitem(SOURCES, source, lambda evidence: frame)
    return shape_rows(claim, Evidence(study()), 200)


SAMPLED = groups(
    method=["pretrained", "sft", "ppo"], size=PARAMS, variant=[""], top_p=[1.0], temperature=[0.0]
)
HEATED = groups(method=["sft"], size=PARAMS, variant=[""], top_p=[1.0], temperature=[0.0, 0.3, 1.0])
SKILL = {"pretrained": 0.2, "sft": 0.4, "ppo": 0.7, "title": 0.9}
SIZE = {"s": 0.0, "m": 0.1, "l": 0.2}
AXES = groups(
    method=["sft", "ppo", "title"], size=["s", "l"], axis=["overall", "coverage", "coherence", "accuracy"]
)
JUDGED = ("rm", "rouge", "tokens", "logprob", "labeler", "ensemble")
JUDGES = [group | {"params": 1e6} for group in groups(judge=JUDGED, variant=[""], method=["sft", "ppo"])]
AGREES = {"rm": 0.65, "rouge": 0.5, "tokens": 0.5, "logprob": 0.5, "labeler": 0.65, "ensemble": 0.8}
POOL = groups(size=["l"], pool=[8], n=[1, 2, 4, 8], chooser=["rm", "rouge"])
POOL = [group | {"from_4": group["n"] >= 4} for group in POOL]
RMS = groups(size=PARAMS, variant=[""], rankings=[1000, 4000], earlier_round=[False])
RMS += groups(size=["m"], variant=["r1"], rankings=[2000], earlier_round=[True])
MODELS = groups(size=PARAMS, variant=[""])
KL = [{"sweep": "l, rm_l", "size": "l", "kl": kl} for kl in (0.0, 1.0, 5.0, 20.0)]
NETWORKS = groups(size=["l"], value_network=["separate", "shared"], iteration=[9])
NETWORKS = [group | {"variant": group["value_network"].removeprefix("separate")} for group in NETWORKS]
PROBED = groups(size=PARAMS, variant=[""], probe=["original vs reversed roles", "lead-3 vs shuffled lead-3"])


def by_size(group: Group) -> float:
    return SKILL[group["method"]] + SIZE[group["size"]]


CASES: list[tuple[str, list[Group], str, Effect]] = [
    ("rl-over-supervised", SAMPLED, "preference", by_size),
    ("supervised-over-pretrained", SAMPLED, "preference", by_size),
    ("rl-over-supervised-overall", SAMPLED, "preference", by_size),
    ("rl-over-reference", SAMPLED, "preference", by_size),
    ("small-rl-over-large-supervised", SAMPLED, "preference", by_size),
    ("supervised-grows-with-size", SAMPLED, "preference", by_size),
    ("rl-grows-with-size", SAMPLED, "preference", by_size),
    ("cold-over-hot", HEATED, "preference", lambda group: -group["temperature"]),
    ("colder-is-better", HEATED, "preference", lambda group: -group["temperature"]),
    ("rl-raises-coverage-most", AXES, "rating", lambda g: SKILL[g["method"]] * (g["axis"] == "coverage")),
    ("rl-rated-above-supervised", AXES, "rating", lambda group: SKILL[group["method"]]),
    ("plain-baselines-accurate", AXES, "rating", lambda group: SKILL[group["method"]]),
    # Fewer labels of other policies are no step of a sweep over nested subsets, whatever comes of them.
    ("rm-grows-with-data", RMS, "hit", lambda g: 0.6 + g["rankings"] / 1e4 * (not g["earlier_round"])),
    ("rm-grows-with-size", MODELS, "hit", lambda group: 0.6 + SIZE[group["size"]]),
    ("best-of-n-grows", POOL, "preference", lambda group: 0.1 * np.log(group["n"])),
    ("rm-over-rouge-best-of-n", POOL, "preference", lambda g: 0.1 * np.log(g["n"]) * (g["chooser"] == "rm")),
    ("proxy-rises-with-kl", KL, "rm_preference", lambda group: 0.02 * group["kl"] + 0.1 * (group["kl"] > 0)),
    ("preference-peaks-in-kl", KL, "preference", lambda g: {0: 0.2, 1: 0.4, 5: 0.5, 20: 0.1}[g["kl"]]),
    ("separate-value-network", NETWORKS, "rm", lambda group: 0.2 * (group["value_network"] == "separate")),
    ("rm-over-rouge-agreement", JUDGES, "hit", lambda group: AGREES[group["judge"]]),
    ("rm-over-length-agreement", JUDGES, "hit", lambda group: AGREES[group["judge"]]),
    ("rm-over-log-prob-agreement", JUDGES, "hit", lambda group: AGREES[group["judge"]]),
    ("ensemble-over-labeler", JUDGES, "hit", lambda group: AGREES[group["judge"]]),
    ("rm-prefers-right-roles", PROBED, "hit", lambda group: 0.8),
    ("rm-sees-shuffles", PROBED, "hit", lambda group: 0.8),
    ("supervised-copies-less", SAMPLED, "copying", lambda group: -SKILL[group["method"]]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "made", "value", "effect"), CASES, ids=[case[0] for case in CASES])
def test_a_claim_holds_where_it_is_true_and_not_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, made: list[Group], value: str, effect: Effect
) -> None:
    true = verdicts(monkeypatch, name, rows(made, value, effect))
    assert [row.verdict for row in true] == ["reproduced"] * len(true)
    assert true[0].low > 0 and true[0].n >= POSTS and true[0].runs

    # All about one half, so that claims against one half fail as well.
    flat = verdicts(monkeypatch, name, rows(made, value, lambda group: 0.48))
    assert flat[0].verdict == "not reproduced"
    reverse = verdicts(monkeypatch, name, rows(made, value, lambda group: 0.4 - effect(group)))
    assert reverse[0].verdict == "not reproduced"
    if name != "preference-peaks-in-kl":
        assert "the other way" in reverse[0].note and reverse[0].high < 0


def test_one_failing_size_is_enough_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = rows(
        SAMPLED, "preference", lambda g: by_size(g) - 0.5 * (g["method"] == "ppo" and g["size"] == "m")
    )
    whole, *parts = verdicts(monkeypatch, "rl-over-supervised", frame)
    assert (
        whole.verdict == "not reproduced" and "1 of 3 steps fail; weakest: m; the other way: m" in whole.note
    )
    assert [row.verdict for row in parts] == ["reproduced", "not reproduced", "reproduced"]
    assert [row.id for row in parts] == [f"rl-over-supervised@{size}" for size in PARAMS]
    assert whole.ours == pytest.approx(parts[1].ours) and whole.ours == pytest.approx(-0.2, abs=0.05)


def test_a_size_without_one_of_the_policies_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = rows(SAMPLED, "preference", by_size)
    frame = frame[(frame["method"] != "ppo") | (frame["size"] != "m")]
    whole = verdicts(monkeypatch, "rl-over-supervised", frame)[0]
    assert whole.verdict == "reproduced" and "not run at m" in whole.note
    overall = verdicts(monkeypatch, "rl-over-supervised-overall", frame)[0]
    assert overall.ours == pytest.approx(0.3, abs=0.03), "sizes without both policies count for neither"
    none = verdicts(monkeypatch, "rl-over-supervised", frame[frame["method"] != "ppo"])
    assert (
        [row.verdict for row in none] == ["not run here"]
        and none[0].runs == ()
        and "method ppo" in none[0].note
    )


def test_equality_needs_the_whole_interval_within_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(rm: float) -> ClaimRow:
        frame = rows(JUDGES, "hit", lambda group: rm if group["judge"] == "rm" else 0.65)
        return verdicts(monkeypatch, "rm-like-another-labeler", frame)[0]

    assert judged(0.65).verdict == "reproduced" and "margin 0.05" in judged(0.65).note
    assert judged(0.75).verdict == "not reproduced" and "beyond the margin" in judged(0.75).note
    assert judged(0.7).note.startswith("not distinguishable")


def test_rouge_may_not_put_rl_above_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    for lead, verdict in ((-0.05, "reproduced"), (0.0, "not reproduced"), (0.1, "not reproduced")):
        effect: Effect = lambda group, lead=lead: lead * (group["method"] == "ppo")  # noqa: E731
        assert (
            verdicts(monkeypatch, "rouge-does-not-separate", rows(SAMPLED, "rouge_mean", effect))[0].verdict
            == verdict
        )


def test_log_prob_at_most_at_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    for agrees, verdict in ((0.4, "reproduced"), (0.6, "not reproduced")):
        frame = rows(JUDGES, "hit", lambda group, agrees=agrees: agrees)
        assert verdicts(monkeypatch, "log-prob-at-chance-on-rl", frame)[0].verdict == verdict


def test_the_interval_of_one_cell_is_the_paired_one() -> None:
    frame = rows(SAMPLED, "preference", by_size)
    ppo, sft = (frame[(frame["method"] == name) & (frame["size"] == "s")] for name in ("ppo", "sft"))
    step = contrast([(1.0, ppo), (-1.0, sft)], "preference", label="", unit="share", draws=4000)
    means = [part.groupby("id")["preference"].mean() for part in (ppo, sft)]
    paired = scipy_stats.ttest_rel(*means)
    low, high = paired.confidence_interval(0.95)
    assert step.effect.value == pytest.approx((means[0] - means[1]).mean())
    assert (step.effect.low, step.effect.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    apart = scipy_stats.ttest_ind(*means).confidence_interval(0.95)
    assert high - low < 0.5 * (apart[1] - apart[0]), "pairing takes the posts' difficulty out"
    assert step.effect.cells == 1 and step.effect.cell_sd is None


def test_the_interval_of_several_cells_is_the_t_interval_over_their_effects() -> None:
    frame = rows(SAMPLED, "preference", by_size, seeds=3)
    ppo, sft = (frame[(frame["method"] == name) & (frame["size"] == "s")] for name in ("ppo", "sft"))
    step = contrast([(1.0, ppo), (-1.0, sft)], "preference", label="", unit="share", draws=50)
    of_cell = [
        ppo[ppo["cell"] == cell]["preference"].mean() - sft[sft["cell"] == cell]["preference"].mean()
        for cell in ("0", "1", "2")
    ]
    expected = scipy_stats.ttest_1samp(of_cell, 0).confidence_interval(0.95)
    assert (step.effect.low, step.effect.high) == pytest.approx((expected.low, expected.high))
    assert step.effect.cell_sd == pytest.approx(np.std(of_cell, ddof=1))
    assert list(step.cells.values()) == pytest.approx(of_cell)
    assert len(step.runs) == 6 and step.effect.clusters == POSTS and step.effect.n == 3 * POSTS


def test_only_units_that_both_saw_are_compared() -> None:
    frame = rows(SAMPLED, "preference", by_size)
    ppo, sft = (frame[(frame["method"] == name) & (frame["size"] == "s")] for name in ("ppo", "sft"))
    sft = sft.assign(preference=sft["preference"].where(sft.index % 2 == 0))
    step = contrast([(1.0, ppo), (-1.0, sft)], "preference", label="", unit="share", draws=50)
    kept = sft.dropna(subset="preference")
    expected = ppo[ppo["id"].isin(kept["id"])]["preference"].mean() - kept["preference"].mean()
    assert step.effect.value == pytest.approx(expected) and step.effect.n == POSTS // 2
    with pytest.raises(Missing, match="the compared rows share no post"):
        contrast([(1.0, ppo.head(9)), (-1.0, sft.tail(9))], "preference", label="", unit="share")


def test_trap_a_peak_found_by_looking_for_it_is_none() -> None:
    """In a flat world the highest of many places beats both ends by chance, more often than one in twenty."""
    places = [{"size": "l", "kl": float(kl)} for kl in range(5)]
    found = 0
    for seed in range(16):
        frame = rows(places, "preference", lambda group: 0.5, seed=seed)
        steps = peak_steps(frame, "", source="sweep", value="preference", along="kl", each=[], draws=400)
        found += all(step.holds for step in steps)
    assert found <= 1


def lengths(shift: float, lead: float, seed: int = 0) -> pd.DataFrame:
    """Policies whose preference follows their skill (`lead` of RL) and their length (`shift` of RL)."""
    draw = np.random.default_rng(seed)
    parts = []
    for method, skill, longer in (("pretrained", -0.8, 0.0), ("sft", -0.3, 0.0), ("ppo", -0.3 + lead, shift)):
        ratio = longer + draw.normal(0, 0.3, 400)
        chance = 1 / (1 + np.exp(-(skill + 1.5 * ratio)))
        ids = [f"p{post}" for post in range(400)]
        parts.append(pd.DataFrame({
            "id": ids, "key": ids, "run": f"run-{method}", "cell": "0", "method": method, "size": "s",
            "params": 1e4, "variant": "", "top_p": 1.0, "temperature": 0.0,
            "log_length_ratio": ratio, "preference": chance,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_length_control_shrinks_the_lead_or_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {(0.5, 1.0): ["reproduced"] * 3, (0.5, 0.0): ["not reproduced", "reproduced", "not reproduced"],
             (0.0, 1.0): ["not reproduced", "not reproduced", "reproduced"]}  # fmt: skip
    for (shift, lead), expected in cases.items():
        made = verdicts(monkeypatch, "length-shrinks-lead-over-supervised", lengths(shift, lead))
        assert [row.verdict for row in made] == expected, (shift, lead)
        assert [row.id.partition("@")[2] for row in made] == ["", "s lead lost", "s lead left"]


def test_length_control_agrees_with_the_regression_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = lengths(0.5, 1.0)
    left = verdicts(monkeypatch, "length-shrinks-lead-over-supervised", frame)[2]
    words = 100
    # Texts whose word counts have these ratios: the published regression counts them itself.
    counts = np.round(words * np.exp(frame["log_length_ratio"])).astype(int)
    samples = frame.assign(text=[" ".join("w" * count) for count in counts], policy=frame["method"], n=1,
                           **{"tag.method": frame["method"], "tag.size": "s", "tag.params": 1e4})  # fmt: skip
    posts = pd.DataFrame({"summary": " ".join("w" * words)}, index=frame["id"].unique())
    results, _ = length_controlled(samples, posts, samples["preference"], scorer="gold")
    by_method = {result.method: result for result in results}
    assert left.ours == pytest.approx(by_method["ppo"].value - by_method["sft"].value, abs=2e-3)
    width = np.hypot(*((result.high - result.low) / 2 for result in (by_method["ppo"], by_method["sft"])))
    assert (left.high - left.low) / 2 < 1.1 * width


def test_best_of_n_spends_less_where_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = groups(size=["l"], pool=[8], n=[1, 2, 4, 8], chooser=["rm"])
    pool = rows(curve, "preference", lambda group: 0.3 + 0.1 * np.log2(group["n"]))
    pool["kl"] = np.log(pool["n"]) - (pool["n"] - 1) / pool["n"]
    monkeypatch.setitem(SOURCES, "pool", lambda evidence: pool)
    for kl, verdict in ((4.0, "reproduced"), (0.2, "not reproduced")):
        policy = rows([{"size": "l", "optimised": "rm_l", "beta": 0.05}], "preference", lambda group: 0.5)
        policy = policy.assign(kl=kl, logprob=-20.0 + kl, logprob_sft=-20.0)
        whole = verdicts(monkeypatch, "best-of-n-spends-less-kl", policy)[0]
        assert whole.verdict == verdict and whole.unit == "nats a sequence"
        # 0.5 is reached at N = 4, whose KL is ln 4 - 3/4.
        assert whole.ours == pytest.approx(kl - (np.log(4) - 0.75), abs=0.15)
    beyond = policy.assign(preference=2.0)
    assert verdicts(monkeypatch, "best-of-n-spends-less-kl", beyond)[0].verdict == "not run here"


def test_best_of_n_is_compared_in_the_cells_whose_curve_holds_the_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    curve = groups(size=["l"], pool=[8], n=[1, 2, 4, 8], chooser=["rm"])
    pool = rows(curve, "preference", lambda group: 0.3 + 0.1 * np.log2(group["n"]), seeds=3)
    pool["kl"] = np.log(pool["n"]) - (pool["n"] - 1) / pool["n"]
    monkeypatch.setitem(SOURCES, "pool", lambda evidence: pool)
    policy = rows(
        [{"size": "l", "optimised": "rm_l", "beta": 0.05}], "preference", lambda group: 0.5, seeds=3
    )
    policy.loc[policy["cell"] == "2", "preference"] = 2.0
    policy = policy.assign(kl=4.0, logprob=-16.0, logprob_sft=-20.0)
    row = verdicts(monkeypatch, "best-of-n-spends-less-kl", policy)[0]
    assert (row.cells, row.holds_in) == (2, 2) and "holds in 2 of 2 cells" in row.note
    assert row.ours == pytest.approx(4 - (np.log(4) - 0.75), abs=0.15)


def test_the_length_claim_is_fitted_in_each_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [lengths(0.5, 1.0, seed).assign(cell=str(seed)) for seed in range(3)]
    made = verdicts(monkeypatch, "length-shrinks-lead-over-supervised", pd.concat(cells, ignore_index=True))
    alone = [verdicts(monkeypatch, "length-shrinks-lead-over-supervised", frame) for frame in cells]
    for place in (1, 2):
        effects = [one[place].ours for one in alone]
        assert made[place].ours == pytest.approx(np.mean(effects))
        assert made[place].cell_sd == pytest.approx(np.std(effects, ddof=1))
    assert made[0].verdict == "reproduced" and (made[0].cells, made[0].holds_in) == (3, 3)


def test_lengths_that_never_vary_make_the_length_claim_missing_not_a_crash() -> None:
    rows = pd.DataFrame(
        {
            "id": ["p0", "p1", "p0", "p1"],
            "policy": ["a", "a", "b", "b"],
            "log_length_ratio": 0.5,
            "preference": [0.2, 0.6, 0.7, 0.4],
        }
    )
    with pytest.raises(Missing, match="no finite regression"):
        _Shares(rows, "preference", draws=10)
