"""A judge's win share corrected by people's verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.judge.calibration import FEWEST, calibrated, corrected_share
from eval.preference.section import preference_section
from tests.eval.verdict_study import JUDGED, WON, judged_study, opened


def test_by_hand() -> None:
    people, judge = np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    alone = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    # var(f) = 1/3 and cov(Y, f) = (0.125 + 0.375 - 0.125 + 0.125) / 3 = 1/6, so w = (1/6) / (1.5 / 3) = 1/3.
    rest = people - judge / 3  # 2/3, 0, 1, 2/3
    value = 0.5 / 3 + 7 / 12
    se = np.sqrt((1 / 9) * (2 / 7) / 8 + np.var(rest, ddof=1) / 4)
    found = corrected_share(people, judge, alone)
    assert found.value == pytest.approx(value) and found.se == pytest.approx(se) and found.n == 12


def test_a_judge_that_knows_nothing_leaves_peoples_mean() -> None:
    people, judge = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0, 1.0])
    found = corrected_share(people, judge, np.array([1.0, 1.0, 1.0]))
    assert found.value == 0.5 and found.se == pytest.approx(np.std(people, ddof=1) / 2)
    assert corrected_share(people, people, np.array([])).value == 0.5, "no further post"
    assert corrected_share(people, np.ones(4), np.ones(9)).value == 0.5, "it always says the same"


def test_a_perfect_judge_brings_all_of_its_posts() -> None:
    generator = np.random.default_rng(0)
    people, alone = (generator.random(n) for n in (50, 5000))
    found = corrected_share(people, people, alone)
    assert found.se == pytest.approx(np.std(alone) / np.sqrt(5050), rel=0.05)
    assert found.value == pytest.approx((alone.sum() + people.sum()) / 5050, abs=0.002)


def test_trap_a_biased_judges_interval_covers_what_people_say() -> None:
    """The raw share of a judge that favours samples is off by .2; the corrected interval covers in 95 %."""
    generator, truth, inside, raw, widths = np.random.default_rng(1), 0.4, 0, [], []
    rounds = 400
    for _ in range(rounds):
        people = (generator.random(600) < truth).astype(float)
        flipped = generator.random(600)
        judge = np.where(people == 1, flipped < 0.9, flipped < 0.4).astype(float)
        found = corrected_share(people[:150], judge[:150], judge[150:])
        inside += found.low <= truth <= found.high
        raw.append(judge.mean())
        widths.append((found.se, np.std(people[:150], ddof=1) / np.sqrt(150)))
    assert np.mean(raw) == pytest.approx(0.6, abs=0.01)
    assert 0.92 < inside / rounds < 0.98
    own, alone = np.mean(widths, axis=0)
    assert own < 0.95 * alone, "the judge's verdicts narrow the interval"


def test_policies_are_calibrated_over_cells_and_by_post() -> None:
    rows = []
    for cell in ("0", "1"):
        for post in range(60):
            won = float(post % 3 == 0)
            rows += [
                {"id": f"p{post}", "cell": cell, "people": won if post < 30 else np.nan, "judge": 1 - won}
                for _ in range(2)
            ]
    table = pd.DataFrame(rows).assign(
        policy="ppo-m", run="r", temperature=0.0, top_p=1.0, n=1,
        **{"tag.method": "ppo", "tag.size": "m", "tag.params": 1e4, "tag.variant": ""},
    )  # fmt: skip
    found = {result.measure: result for result in calibrated(table, "people", "judge")}
    assert found["people_preference"].value == pytest.approx(1 / 3)
    assert found["agreement_with_people"].value == 0 and found["agreement_with_people"].n == 120
    assert found["corrected_preference"].value == pytest.approx(1 / 3), "a judge against people helps nobody"
    assert found["corrected_preference"].cells == 2
    few = table[table["id"].isin([f"p{n}" for n in range(FEWEST - 1)])]
    assert calibrated(few, "people", "judge") == []


def test_the_report_sets_a_judge_beside_people(tmp_path: Path) -> None:
    tables = {table.name: table.frame for table in preference_section(opened(judged_study(tmp_path))).tables}
    rows = tables["preference_verdicts_llm_x_calibrated"]
    one = rows[(rows["method"] == "ppo") & (rows["size"] == "m")].set_index("measure")
    assert one.loc["people_preference", "value"] == pytest.approx(WON["ppo-m"] / JUDGED)
    assert one.loc["agreement_with_people", "value"] == 0
