"""A measure whose numbers allow no estimate says why, and costs no other measure."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import statsmodels.api as sm
from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationError

from eval.common import study as studies
from eval.common.numeric import numeric_failures_told
from eval.common.study import Section, try_table
from eval.report import sections as report_sections
from eval.report.files import file_sections
from tests.judge.judge_server import make_pairs
from tldr.errors import NonFiniteError

GOOD = pd.DataFrame({"policy": ["a"], "value": [0.5], "low": [0.4], "high": [0.6]})


def separated() -> None:
    raise PerfectSeparationError("perfect separation")


def not_converged() -> None:
    warnings.warn("the optimizer did not converge", ConvergenceWarning, stacklevel=1)


FAILURES: dict[str, Callable[[], Any]] = {
    "singular": lambda: np.linalg.inv(np.zeros((2, 2))),
    "singular by scipy": lambda: scipy.linalg.solve(np.zeros((2, 2)), np.ones(2)),
    "perfect separation": separated,
    "no convergence": not_converged,
    "no rows": lambda: np.asarray([], dtype=float).max(),
    "too few rows": lambda: 1 / (1 - len([0])),
    "NaN by scipy": lambda: scipy.linalg.inv(np.full((2, 2), np.nan)),
    "NaN by statsmodels": lambda: sm.OLS([1.0, np.nan, 2.0], np.ones(3), missing="raise").fit(),
    "overflow": lambda: 10.0 ** float(2**40),
}
MISTAKES: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
    "key": (KeyError, lambda: {}["policy"]),
    "type": (TypeError, lambda: len(None)),  # type: ignore[arg-type]
    "column": (KeyError, lambda: GOOD["absent"]),
    "shape": (ValueError, lambda: np.ones(2) @ np.ones(3)),
    "argument": (ValueError, lambda: np.quantile([1.0, 2.0], 3.0)),
    "our own": (ValueError, lambda: int("nan")),
    "attribute": (AttributeError, lambda: GOOD.absent),
}


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_a_numeric_failure_costs_only_its_own_measure(name: str) -> None:
    section = Section("x", "X")
    try_table(section, "good", "", lambda: GOOD)

    def make() -> pd.DataFrame:
        FAILURES[name]()
        return GOOD

    try_table(section, "bad", "", make)
    try_table(section, "also good", "", lambda: GOOD)
    assert [table.name for table in section.tables] == ["good", "also_good"]
    (why,) = section.missing
    assert why.startswith("bad: these numbers allow no estimate: ")


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_a_mistake_of_the_program_is_not_taken_for_missing_data(name: str) -> None:
    kind, make = MISTAKES[name]
    with pytest.raises(kind) as caught, numeric_failures_told():
        make()
    assert not isinstance(caught.value, NonFiniteError)


def test_a_section_of_the_report_that_fails_on_its_numbers_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def length_section(_: studies.StudyResults) -> Section:
        np.linalg.inv(np.zeros((2, 2)))
        raise AssertionError

    def other_section(_: studies.StudyResults) -> Section:
        return Section("other", "Other")

    monkeypatch.setattr(report_sections, "SECTIONS", (length_section, other_section))
    study: Any = None
    failed, other = report_sections.sections(study)
    assert failed.id == "length" and "Singular matrix" in failed.missing[0]
    assert other.id == "other" and not other.missing


@pytest.mark.parametrize("equal", [True, False])
def test_pairs_of_equal_length_leave_out_the_length_control_alone(equal: bool) -> None:
    """Every log length ratio is 0, or follows from the policy."""
    texts = ("one two three", "four five six" if equal else "four five six seven")
    judgements = [
        pair.judgement("j", order, verdict, "overall", raw="", prompt_sha="")
        for number, pair in enumerate(make_pairs(12))
        for order, verdict in (((0, 1), "AB"[number % 2]), ((1, 0), "BA"[number % 2]))
        for pair in [type(pair)(pair.post, pair.policies, texts, pair.runs)]
    ]
    sections = file_sections(judgements=judgements)
    names = [table.name for section in sections for table in section.tables]
    assert names == ["judges", "judge_j_overall", "judge_j_overall_elo"]
    (why,) = [line for section in sections for line in section.missing]
    assert why.startswith("judge_j_overall_length_controlled: no finite fit")
