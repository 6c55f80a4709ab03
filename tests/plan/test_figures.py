"""A study's plan by figure of the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plan.test_study import TINY, planned
from tldr.plan.figures import ASKED_BY, BY_PEOPLE, MAIN, RATINGS, figure_plans, not_asked_for, part_of
from tldr.plan.study import UnreadFiles
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study

WHOLE = """
pairs: {posts: 10}
best_of_n: {n: 4}
variants:
  n: {kind: reward, sweep: {limit: [5, 10]}}
  kl: {kind: ppo, reward: n-5, sweep: {beta: [0.1, 0.0]}}
  shared: {kind: ppo, set: {value_network: shared}}
  pool: {kind: best_of_n, set: {n: 8}}
  few: {kind: sft, sweep: {limit: [8, 16]}}
  prompts: {kind: ppo, sweep: {limit: [16, 32]}}
  apart: {kind: reward, set: {pairs: apart}}
"""
TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"


def test_every_run_counts_once_and_what_a_part_needs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(TINY + WHOLE)
    study = load_study(path)
    plans = planned(study, 1.0)
    parts = {part.figure: part for part in figure_plans(plans, study)}
    assert next(iter(parts)) == MAIN and parts[MAIN].settings == parts[MAIN].needs == ()
    assert sum(part.runs for part in parts.values()) == sum(len(plan.runs) for plan in plans)
    total = sum(plan.hours * len(plan.runs) for plan in plans)
    assert sum(part.hours for part in parts.values()) == pytest.approx(total)
    assert all(part.price == pytest.approx(2 * part.hours) for part in parts.values())
    labels, kl, network = (
        parts[name]
        for name in (
            "Fig. 6: reward models on other labels",
            "Fig. 5: the KL penalty",
            "Fig. 11: the value network",
        )
    )
    assert labels.settings == ("variants.n-5", "variants.n-10") and labels.runs == 2
    assert {"variants.kl-0.1", "variants.kl-0"} <= set(kl.settings)
    assert kl.needs == ("Fig. 6: reward models on other labels",)
    assert network.settings == ("variants.shared",) and network.needs == ()
    best = parts["Fig. 7: best of N"]
    assert best.settings == ("best_of_n", "variants.pool")
    pairs = parts["Sections 4.3, 4.4: agreement and probes"]
    apart = "InstructGPT 3.5: a ranking's pairs together or apart"
    assert pairs.runs == 1 and pairs.needs == ("Fig. 6: reward models on other labels", apart)
    assert parts[apart].settings == ("variants.apart",) and parts[apart].needs == ()
    few = parts["Demonstrations: other SFT policies"]
    assert few.settings == ("variants.few-8", "variants.few-16") and few.needs == ()
    assert few.runs == 2 * 3, "each is trained, sampled and scored"
    prompts = parts["Prompts: PPO on fewer posts"]
    assert prompts.settings == ("variants.prompts-16", "variants.prompts-32") and prompts.runs == 2 * 3


def test_what_a_study_leaves_out_is_named_with_what_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(TINY + WHOLE)
    study = load_study(path)
    left_out = not_asked_for(study, expand(study, UnreadFiles()))
    assert left_out == {
        RATINGS: BY_PEOPLE,
        "Figs. 4, 13, 14b: news": "data.cnndm",
        "Fig. 1: examples in context": "evaluation.zero_shot",
        "Fig. 8: the sweeps": "evaluation.sft_temperatures, evaluation.sft_top_ps",
    }
    path.write_text(TINY + "best_of_n: null\n")
    study = load_study(path)
    every = not_asked_for(study, expand(study, UnreadFiles()))
    assert set(every) == set(ASKED_BY) | set(left_out)
    toy = load_study(TOY)
    assert RATINGS not in not_asked_for(toy, expand(toy, UnreadFiles()))


def test_trap_a_variant_called_rm3_is_no_further_seed_of_the_reward_model(tmp_path: Path) -> None:
    path = tmp_path / "rm3.yaml"
    variants = (
        "{rm3: {kind: reward, set: {limit: 5}}, kl: {kind: ppo, reward: rm3, sweep: {beta: [0.1, 0.2]}}}"
    )
    path.write_text(f"{TINY}variants: {variants}\n")
    study = load_study(path)
    parts = {part.figure: part for part in figure_plans(planned(study, 1.0), study)}
    assert parts[MAIN].settings == ()
    assert parts["Fig. 5: the KL penalty"].settings == tuple(
        f"variants.{name}" for name in ("kl-0.1", "rm3", "kl-0.2")
    )


def test_every_setting_that_asks_for_a_part_is_one_of_the_study() -> None:
    study = load_study(TOY)
    asked = {part_of(run, study) for run in expand(study, FileHashes())}
    assert {setting for _, setting in asked} - {""} == {
        "rounds", "best_of_n", "pairs", "ratings",
        *(f"variants.{name}" for name in study.variants),
    }  # fmt: skip
    assert len({figure for figure, _ in asked}) == 8
