"""Names of OpenAI's released policies: what is read of them, and what is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eval.common.paper import load_paper
from eval.common.released import PARAMS, ReleasedPolicy, drawn_by_size, policy_columns, read_policy
from tldr.sources.fake_release import POLICIES


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "pretrain_6b_t.7": ReleasedPolicy("", "pretrained", 6.7e9, 0.7),
        "sup4_12b_t0.7": ReleasedPolicy("", "sft", 12.9e9, 0.7, generation=4),
        "sup4_t.7": ReleasedPolicy("", "sft", 1.3e9, 0.7, generation=4),
        "sup4_6b_t0": ReleasedPolicy("", "sft", 6.7e9, 0.0, generation=4),
        "sup4_t1": ReleasedPolicy("", "sft", 1.3e9, 1.0, generation=4),
        "sup4_ppo_rm4_t.7": ReleasedPolicy("", "ppo", 1.3e9, 0.7, reward_model="rm4", generation=4),
        "sup4_6b_ppo_rm4_6b_kl14": ReleasedPolicy(
            "", "ppo", 6.7e9, kl=14, reward_model="rm4_6b", generation=4
        ),
        "6B-ppo_rm4_6B-kl14": ReleasedPolicy("", "ppo", 6.7e9, kl=14, reward_model="rm4_6b"),
        "sup4_ppo_rm3_kl10": ReleasedPolicy("", "ppo", 1.3e9, kl=10, reward_model="rm3", generation=4),
        "sup4_bo128_rm3": ReleasedPolicy("", "best_of_n", 1.3e9, None, 128, None, "rm3", 4),
        "sup4 bo8 rm3_6b": ReleasedPolicy("", "best_of_n", 1.3e9, None, 8, None, "rm3_6b", 4),
        # sizes of older generations are not stated in a source
        "sup1": ReleasedPolicy("", "sft", generation=1),
        "sup3_6b": ReleasedPolicy("", "sft", generation=3),
        "sup3_ppo_rm1": ReleasedPolicy("", "ppo", reward_model="rm1", generation=3),
        "sup3_bo63_rm2": ReleasedPolicy("", "best_of_n", None, None, 63, None, "rm2", 3),
        "pretrain_t.7": ReleasedPolicy("", "pretrained", None, 0.7),
        "ref": ReleasedPolicy("", "reference"),
        "lead3": ReleasedPolicy("", "lead-3"),
        "lead-2": ReleasedPolicy("", "lead-2"),
        "title": ReleasedPolicy("", "title"),
        "T5": ReleasedPolicy("", "t5"),
        "human_editor": ReleasedPolicy("", "human_editor"),
    }.items(),
)
def test_names_are_read(name: str, expected: ReleasedPolicy) -> None:
    read = read_policy(name)
    assert read is not None and read.name == name
    assert {**vars(read), "name": ""} == vars(expected)


@pytest.mark.parametrize(
    "name",
    [
        "sup5",
        "sup4_7b",
        "sup4_t",
        "sup4_t0.7.1",
        "sup4_bo0_rm3",
        "sup4_bo8",
        "sup4_ppo",
        "sup4_ppo_rm5",
        "sup4_6b_kl14",
        "pretrain_xl",
        "xsup4",
        "sup4x",
        "ppo-l-t0.7",
        "",
        "reference summary",
        "sup4_t\uff11",
    ],
)
def test_what_does_not_fit_is_not_guessed(name: str) -> None:
    assert read_policy(name) is None


def test_every_name_of_the_miniature_is_understood() -> None:
    names = {name for names in POLICIES.values() for name in names}
    assert [name for name in sorted(names) if read_policy(name) is None] == []


def test_sizes_are_those_that_the_paper_plots() -> None:
    plotted = set(load_paper("fig1", "fig1")["x"])
    assert {*PARAMS.values(), read_policy("sup4").params} <= plotted  # type: ignore[union-attr]


def test_only_the_papers_own_ppo_policies_are_no_variants() -> None:
    variants = {
        "sup4_ppo_rm4": "",
        "sup4_ppo_rm4_kl18": "",
        "sup4_6b_ppo_rm4_6b_kl14": "",
        "sup4_ppo_rm4_kl3": "rm4 kl3",
        "sup4_ppo_rm4_6b": "rm4_6b",
        "sup4_ppo_rm3_kl10": "rm3 kl10",
        "sup3_ppo_rm1": "sup3 rm1",
        "sup3_6b": "sup3_6b",
        "sup3": "sup3",
        "sup4_12b_t0.7": "",
    }
    assert {name: read_policy(name).variant for name in variants} == variants  # type: ignore[union-attr]


def test_of_each_model_the_coldest_is_drawn_however_it_is_spelled() -> None:
    names = ["sup4_6b", "sup4_6b_t1", "sup4_6b_t0.7", "sup4_6b_t.7", "sup4", "sup3", "title", "what"]
    names += ["sup4_bo8_rm3", "sup4_ppo_rm3_kl10", "pretrain_t.7"]
    assert [one.name for one in drawn_by_size(names)] == ["sup4", "sup4_6b_t.7", "sup4_6b_t0.7"]


def test_columns_are_those_of_the_tables() -> None:
    names = pd.Series(["sup4_bo8_rm3", "what", "sup4_bo8_rm3"], index=[5, 3, 4])
    table = policy_columns(names)
    assert list(table.index) == [5, 3, 4]
    assert table["tag.method"].tolist() == ["best_of_n", "", "best_of_n"] and table["n"].tolist() == [8, 1, 8]
    assert table["tag.scorer"].tolist() == ["rm3", "", "rm3"]
    assert table["tag.size"].tolist() == ["1.3B", "", "1.3B"]
    assert table["tag.params"].iloc[0] == 1.3e9 and np.isnan(table["tag.params"].iloc[1])
