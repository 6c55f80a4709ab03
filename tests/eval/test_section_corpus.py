"""Loss on the held-out corpus: ratios of sums, the rise over SFT, and the share that PPO-ptx has of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.corpus.section import FILE, corpus_section, corpus_table, loss_a_token, shares_of_the_rise
from eval.report.sections import SECTIONS
from tests.eval.section_study import Made, write_lines
from tldr.records import write_json

TOKENS = [10, 20, 30]
LEVELS = {("pretrained", ""): 1.0, ("sft", ""): 2.0, ("ppo", ""): 3.0, ("ppo", "ptx"): 2.25}
"""Nats a token of cell 0; cell 1 has .5 more."""


def add_policy(made: Made, method: str, variant: str, level: float, **settings: Any) -> None:
    stage = "pretrain" if method == "pretrained" else method
    made.run(stage, "s", variant, settings=settings)
    parent = "-".join(filter(None, (stage, "s", variant)))
    where = made.run("score", "s", variant, method, parents={"policy": parent})
    write_json(
        where / "run.json", {"run": where.name, "settings": {}, "tags": {"method": method, "size": "s"}}
    )
    rows = [{"nats": (level + 0.5 * made.seed) * tokens, "tokens": tokens} for tokens in TOKENS]
    write_lines(where / FILE, rows)


def study(folder: Path, seeds: int) -> StudyResults:
    runs = []
    for seed in range(seeds):
        made = Made(folder, 5, seed)
        for (method, variant), level in LEVELS.items():
            settings = {"ptx_coef": 0.1 if variant == "ptx" else 0.0} if method == "ppo" else {}
            add_policy(made, method, variant, level, **settings)
        # the main SFT policy once more, as it is scored by another reward model
        where = made.run("score", "s", "n-5", "sft", parents={"policy": "sft-s"})
        write_json(where / "run.json", {"settings": {}, "tags": {"method": "sft", "size": "s"}})
        write_lines(where / FILE, [{"nats": 1.0, "tokens": 1}])
        runs += made.runs
    write_json(folder / "study.json", {"study": "made", "runs": runs})
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=100)


def test_losses_and_rises_by_hand(tmp_path: Path) -> None:
    table = corpus_table(study(tmp_path, 2))
    found = {(row.measure, row.method, row.variant): row.value for row in table.itertuples()}
    assert found == pytest.approx(
        {("corpus_loss", *policy): level + 0.25 for policy, level in LEVELS.items()}
        | {
            ("rise_over_sft", "pretrained", ""): -1.0,
            ("rise_over_sft", "ppo", ""): 1.0,
            ("rise_over_sft", "ppo", "ptx"): 0.25,
        }
    )
    losses = table[table["measure"] == "corpus_loss"]
    assert set(losses["cells"]) == {2} and (losses["cell_sd"] > 0.3).all()
    # the cells' own levels cancel: the rises are of the same documents
    assert np.allclose(table[table["measure"] == "rise_over_sft"]["cell_sd"], 0.0)


def test_a_long_document_counts_by_its_tokens() -> None:
    part = pd.DataFrame({"id": ["a", "b"], "nats": [10.0, 30.0], "tokens": [10, 90]})
    estimate = loss_a_token(part, 200)["loss"]
    assert estimate.value == pytest.approx(0.4) and estimate.low < 0.4 < estimate.high


def test_the_share_of_the_rise_and_the_section(tmp_path: Path) -> None:
    made = study(tmp_path, 1)
    table = corpus_table(made)
    (told,) = shares_of_the_rise(table)
    raised = "size s: PPO raises the loss by 1.000; with a coefficient of 0.1 there is"
    assert told == f"{raised} 0.25 of that rise"
    below = table.assign(value=table["value"].where(table["variant"] != "ptx", -0.5))
    assert list(shares_of_the_rise(below)) == [
        f"{raised} no rise, but 0.500 less than the supervised policy's loss"
    ]
    assert not list(shares_of_the_rise(table.assign(value=-1.0))), "PPO costs nothing"
    section = corpus_section(made)
    assert told in section.intro and section.tables[0].name == "corpus"
    assert corpus_section in SECTIONS


def test_without_a_held_out_corpus_it_says_so(tmp_path: Path) -> None:
    made = Made(tmp_path, 5)
    made.run("score", "s", "", "sft")
    section = corpus_section(made.close())
    assert not section.tables and "data.corpus_held_out" in section.missing[0]
