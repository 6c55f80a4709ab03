"""The file of claims, numbers beside published ones, provenance, and the report's section."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import eval.report.build
from eval.claims.contrast import Missing
from eval.claims.counterparts import TABLES, judged_preference
from eval.claims.evidence import SOURCES, Evidence
from eval.claims.numbers import number_rows
from eval.claims.schema import CLAIMS_FILE, NumberRule, load_claims, published_numbers
from eval.claims.section import claims_section
from eval.claims.verdicts import COLUMNS, ClaimRow, shape_rows
from eval.common.paper import PAPER_FOLDER, load_paper
from eval.common.runs import StudyRun, StudyRuns, load_runs
from eval.common.study import StudyResults
from eval.report.sections import SECTIONS
from tldr.errors import UsageError
from tldr.measures.best_of_n import best_of_n_kl
from tldr.records import Judgement, write_records

CLAIMS = load_claims(PAPER_FOLDER)
RULES = {rule.id: rule for rule in CLAIMS.numbers}
REAL = StudyResults(StudyRuns(Path("."), ()), PAPER_FOLDER, draws=50)


def test_every_published_number_is_a_claim_or_says_why_not() -> None:
    told: set[tuple[str, str]] = set()
    for rule in CLAIMS.numbers:
        told |= {(rule.file, item) for item in rule.items}
        assert rule.left_out or rule.table in TABLES
        ids = [key for key, _, _ in published_numbers(rule, PAPER_FOLDER)]
        assert len(ids) == len(load_paper(rule.file).query("item in @rule.items"))
    there = {
        (path.stem, item) for path in PAPER_FOLDER.glob("*.csv") for item in load_paper(path.stem)["item"]
    }
    assert told == there


def test_the_claims_that_the_design_names_are_here() -> None:
    shapes = {claim.id for claim in CLAIMS.shapes}
    assert {
        "rl-over-supervised", "supervised-over-pretrained", "supervised-grows-with-size",
        "rm-grows-with-data", "rm-grows-with-size", "best-of-n-grows", "rm-over-rouge-best-of-n",
        "proxy-rises-with-kl",
        "preference-peaks-in-kl", "length-shrinks-lead-over-supervised", "rm-over-rouge-agreement",
        "rm-over-length-agreement", "rm-over-log-prob-agreement", "colder-is-better",
    } <= shapes  # fmt: skip
    assert {"fig1", "fig5", "fig6", "fig7", "fig10a", "fig11", "fig12", "fig13", "fig14a", "table14"} <= set(
        RULES
    )


def test_table_10_is_the_formula() -> None:
    table = load_paper("table10", "table10")
    assert np.abs(best_of_n_kl(table["x"]) - table["value"]).max() <= 0.06


def broken(tmp_path: Path, change: str, by: str) -> Path:
    text = (PAPER_FOLDER / CLAIMS_FILE).read_text()
    assert change in text
    (tmp_path / CLAIMS_FILE).write_text(text.replace(change, by, 1))
    for path in PAPER_FOLDER.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("change", "by", "message"),
    [
        ("predicate: rises", "predicate: soars", r"claims\.yaml, claim .*: test: .*'soars'"),
        (
            "better: {method: ppo}",
            "beter: {method: ppo}",
            r"claim rl-over-supervised: test\.beats\.(beter|better)",
        ),
        ("    x: params\n", "    y: params\n", r"claim fig1: y: Extra inputs are not permitted"),
        ("source: samples", "source: sampels", r"claim rl-over-supervised: .*use one of samples"),
        ("id: rl-grows-with-size", "id: rl-over-supervised", r"the same id twice: rl-over-supervised"),
        (
            "items: [fig1_text]}",
            "items: [fig2]}",
            r"claim small-rl-over-large-supervised: fig1.csv has no item fig2",
        ),
        (
            "paper: {file: fig10a}",
            "paper: {tag: seen}",
            r"name either a file of published numbers, or tag and source",
        ),
        ("tag: 2nd,", "tag: memory,", r"claim rm-surer-where-right: paper: .*tag memory"),
        ("shapes:\n", "shapes:\n  - {", r"claims\.yaml:\d+:\d+: broken YAML"),
        (
            "shapes:\n",
            "shapes: []\nshapes:\n",
            r"claims\.yaml:\d+:1: broken YAML: the key 'shapes' is given twice",
        ),
    ],
)
def test_a_broken_claim_is_named(tmp_path: Path, change: str, by: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_claims(broken(tmp_path, change, by))


def test_a_series_that_nobody_spoke_of_is_an_error(tmp_path: Path) -> None:
    folder = broken(tmp_path, "shapes:", "shapes:")
    with (folder / "fig1.csv").open("a") as file:
        file.write("fig1,1300000000,distilled,0.4,0.02,dig,nobody\n")
    with pytest.raises(UsageError, match=r"the rule does not mention series 'distilled'"):
        list(published_numbers(RULES["fig1"], folder))
    with pytest.raises(UsageError, match="no file of claims"):
        load_claims(tmp_path / "nowhere")


def result(**columns: Any) -> pd.DataFrame:
    base = {"measure": "preference", "method": "ppo", "variant": "", "temperature": 0.0, "params": 1.4e9,
            "value": 0.6, "low": 0.57, "high": 0.63, "n": 500, "cells": 1,
            "unit": "share", "runs": "a b"}  # fmt: skip
    return pd.DataFrame([base | columns])


def compared(monkeypatch: pytest.MonkeyPatch, table: pd.DataFrame, rule: str = "fig1") -> dict[str, ClaimRow]:
    monkeypatch.setitem(TABLES, RULES[rule].table, lambda study: table)
    return {row.id: row for row in number_rows(RULES[rule], Evidence(REAL))}


NUMBER = "fig1 fig1 human_feedback 1300000000"


def test_a_number_is_reproduced_within_both_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    # Published 0.607 with a standard error of 0.02; ours may be off by its half interval 0.03.
    allowed = math.hypot(0.03, 1.96 * 0.02) + 0.005
    for apart, verdict in ((allowed - 1e-4, "reproduced"), (allowed + 1e-4, "not reproduced"),
                           (1e-4 - allowed, "reproduced"), (-1e-4 - allowed, "not reproduced")):  # fmt: skip
        value = 0.607 + apart
        row = compared(monkeypatch, result(value=value, low=value - 0.03, high=value + 0.03))[NUMBER]
        assert (row.verdict, row.ours, row.runs) == (verdict, value, ("a", "b"))
    assert row.paper == "0.607" and row.tag == "dig" and "Fig. 1" in row.source and row.n == 500
    # The interval need not be even: the side towards the published value counts.
    row = compared(monkeypatch, result(value=0.5, low=0.4, high=0.505))[NUMBER]
    assert row.verdict == "not reproduced"


def test_a_size_of_another_kind_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for params, verdict in ((1.04e9 + 1, "reproduced"), (1.625e9, "reproduced"), (1.63e9, "not run here"),
                            (1.03e9, "not run here")):  # fmt: skip
        row = compared(monkeypatch, result(params=params))[NUMBER]
        assert row.verdict == verdict
    assert row.note == "no result with params 1.3B within a quarter" and math.isnan(row.ours) and not row.runs
    assert compared(monkeypatch, result())["fig1 fig1 supervised 6700000000"].verdict == "not run here"
    assert compared(monkeypatch, pd.DataFrame())[NUMBER].note == "no judged preference"


def test_x_may_be_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.concat([result(measure=axis, value=value, low=value - 0.05, high=value + 0.05)
                       for axis, value in (("overall", 5.5), ("coverage", 3.0))])  # fmt: skip
    rows = compared(monkeypatch, table, "fig12")
    assert rows["fig12 fig12 human_feedback_1.3b overall"].verdict == "reproduced"
    assert rows["fig12 fig12 human_feedback_1.3b coverage"].verdict == "not reproduced"
    assert rows["fig12 fig12 human_feedback_6.7b coverage"].verdict == "not run here"


def test_trap_a_synthetic_study_reproduces_no_published_number(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = StudyResults(load_runs(study_folder), PAPER_FOLDER, draws=50)
    (tmp_path / "manifest.json").write_text('{"synthetic": true}')
    named = StudyResults(StudyRuns(tmp_path, (StudyRun("d", "data", tmp_path),)), PAPER_FOLDER, draws=50)
    monkeypatch.setitem(TABLES, "judged preference", lambda study: result())
    for study in (toy, named):
        rows = number_rows(RULES["fig1"], Evidence(study))
        assert {row.verdict for row in rows} == {"not run here"} and "synthetic" in rows[0].note


def test_people_or_judges_stand_beside_the_papers_people(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    rows = [
        Judgement(id=f"p{post}", policies=["ppo-b", "reference"], order=order, judge="people",
                  runs=["score-ppo-b"], verdict="A" if (post < 7) == (order == [0, 1]) else "B")
        for post in range(10) for order in ([0, 1], [1, 0])
    ]  # fmt: skip
    write_records(folder / "judgements.jsonl", rows)
    runs = StudyRuns(folder, (StudyRun("sft-b", "sft", folder, size="b", params=1.3e9),))
    table = judged_preference(StudyResults(runs, PAPER_FOLDER, draws=50))
    row = table[table["measure"] == "preference"].iloc[0]
    assert (row["method"], row["params"], row["value"], row["runs"]) == ("ppo", 1.3e9, 0.7, "score-ppo-b")
    with pytest.raises(Missing, match="no judge or person compared summaries"):
        judged_preference(REAL)


def test_trap_a_verdict_without_the_runs_it_came_from_is_refused(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = SOURCES["samples"]
    monkeypatch.setitem(SOURCES, "samples", lambda evidence: make(evidence).assign(run=""))
    claim = next(claim for claim in CLAIMS.shapes if claim.id == "rl-over-supervised")
    message = r"claim rl-over-supervised: .*the runs it came from are not known"
    with pytest.raises(UsageError, match=message):
        shape_rows(claim, Evidence(StudyResults(load_runs(study_folder), PAPER_FOLDER, draws=50)), 50)
    monkeypatch.setattr(eval.report.build, "sections", lambda study: map(claims_section, [study]))
    with pytest.raises(UsageError, match=message):
        eval.report.build.build_report(study_folder, tmp_path, title="T", draws=50)
    named = {
        "id": "x",
        "claim": "c",
        "kind": "number",
        "paper": "1",
        "where": "w",
        "tag": "seen",
        "source": "s",
    }
    with pytest.raises(UsageError, match="claim x"):
        ClaimRow(**named, verdict="reproduced", note="", ours=1.0, n=5, runs=("",))
    assert ClaimRow(**named, verdict="not run here", note="no runs").runs == ()


def test_the_section_opens_the_report_and_hides_nothing(study_folder: Path) -> None:
    assert SECTIONS[0] is claims_section
    study = StudyResults(load_runs(study_folder), PAPER_FOLDER, draws=50)
    table, steps, silent = claims_section(study).tables
    assert set(steps.frame["claim"]) <= set(table.frame["claim"])
    assert list(table.frame.columns) == COLUMNS
    assert [
        *("claim", "kind", "paper", "ours", "low", "high", "n"),
        *("cells", "cell_sd", "holds_in", "step", "runs", "verdict"),
    ] == COLUMNS
    kinds = list(table.frame["kind"])
    assert kinds == sorted(kinds, reverse=True), "shapes, then numbers"
    numbers = sum(
        reason is None for rule in CLAIMS.numbers for _, reason, _ in published_numbers(rule, PAPER_FOLDER)
    )
    assert kinds.count("number") == numbers == len(silent.frame) and numbers > 250
    counted = table.caption.partition(" of the shapes")[0].replace(",", "").split()
    assert sum(int(word) for word in counted if word.isdigit()) == len(CLAIMS.shapes), "parts are not counted"
    known = {run.run for run in study.runs.runs}
    ran = table.frame[table.frame["verdict"] != "not run here"]
    assert len(ran) and all(set(runs.split()) <= known and runs for runs in ran["runs"])
    assert (ran["low"] <= ran["ours"]).all() and (ran["ours"] <= ran["high"]).all() and (ran["n"] > 0).all()
    assert set(table.shown["mark"] + table.shown["verdict"]) <= {
        "+reproduced",
        "-not reproduced",
        "onot run here",
    }
    assert {"not reproduced", "not run here"} <= set(table.shown["verdict"])
    assert table.shown["paper"].str.contains(r"\[(?:seen|dig|2nd|calc)", regex=True).all()
    for text in table.shown.to_numpy().ravel():
        assert str(text).isascii(), "the tables are LaTeX, too"


def test_a_study_without_anything_runs_no_claim(tmp_path: Path) -> None:
    section = claims_section(StudyResults(StudyRuns(tmp_path, ()), PAPER_FOLDER, draws=50))
    assert set(section.tables[0].frame["verdict"]) == {"not run here"}
    bare = claims_section(StudyResults(StudyRuns(tmp_path, ()), tmp_path, draws=50))
    assert bare.missing and not bare.tables


def test_no_number_is_typed_twice() -> None:
    """Published values stand in the CSV files: the rules name rows, and hold no key for a value."""
    assert "value" not in NumberRule.model_fields and "paper" not in NumberRule.model_fields
    data = yaml.safe_load((PAPER_FOLDER / CLAIMS_FILE).read_text())
    assert all("value" not in rule for rule in data["numbers"])
