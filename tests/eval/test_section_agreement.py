from __future__ import annotations

import math
import random
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest

from eval.agreement.figure import agreement_heatmap, judge_label, judge_order
from eval.agreement.section import (
    ALL,
    COLUMNS,
    MOST,
    NO_LABELS,
    agreement_section,
    agreement_table,
    labelled_pairs,
)
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults, policy_names
from eval.elo.section import elo_section, elo_table
from tldr.errors import UsageError
from tldr.records import Comparison, Post, write_json, write_records

STRENGTH = {"reference": 0.0, "sft-m-t0": -1.0, "ppo-m-t0": 1.0, "pretrained-m-t0": -2.0}


def comparison(
    post: str, policies: tuple[str, str], gold: tuple[float, float], choice: int, worker: str
) -> Comparison:
    """Two texts of different lengths; the reward model sees half of the difference in gold."""
    sides = [
        {
            "text": f"word {policy} {post} " + "more " * place,
            "policy": policy,
            "scores": {
                "gold": value,
                "rm_m": value / 2,
                "rm_m_n750": -value,
                "rm_s": value / 3,
                "logprob_m": -8.0 - place,
                "tokens": 2 + place,
            },
        }
        for place, (policy, value) in enumerate(zip(policies, gold, strict=True))
    ]
    info = {"id": post, "post": f"post word {post} and so on"}
    fixed = {"worker": worker, "batch": "same_policy", "split": "valid2"}
    return Comparison.model_validate({"info": info, "summaries": sides, "choice": choice} | fixed)


def same_policy(policy: str, wrong: int) -> list[Comparison]:
    """Twenty pairs that four workers label by gold, except that w0 errs on the first `wrong` of them."""
    rows = []
    for number in range(20):
        gold = (1.0, 0.0) if number % 2 else (0.0, 1.0)
        right = 0 if number % 2 else 1
        for worker in range(4):
            choice = 1 - right if worker == 0 and number < wrong else right
            rows.append(comparison(f"p{number}", (policy, policy), gold, choice, f"w{worker}"))
    return rows


def tournament(strengths: dict[str, float], count: int) -> list[Comparison]:
    draw = random.Random(3)
    rows = []
    for number in range(count):
        for first, second in combinations(strengths, 2):
            chance = 1 / (1 + math.exp(strengths[second] - strengths[first]))
            rows.append(
                comparison(f"p{number}", (first, second), (0.0, 1.0), int(draw.random() > chance), "w")
            )
    return rows


def write_study(folder: Path, files: dict[str, list[Comparison]], seeds: int = 1) -> StudyResults:
    rows = [{"run": "ppo-m", "stage": "ppo", "folder": "ppo-m", "size": "m", "seed": 0, "params": 170_000}]
    rows.append({"run": "ppo-s", "stage": "ppo", "folder": "ppo-s", "size": "s", "params": 14_000})
    posts = [
        Post(
            id=f"p{n}", subreddit="r", title="t", post=f"post word p{n} and so on", summary=f"word more p{n}"
        )
        for n in range(60)
    ]
    write_records(folder / "valid2.jsonl", posts)
    for seed in range(seeds):
        for name, records in files.items():
            write_records(folder / f"pairs-{seed}" / name, records)
        write_json(folder / f"pairs-{seed}" / "DONE", {})
        rows.append({"run": f"pairs-{seed}", "stage": "pairs", "folder": f"pairs-{seed}", "seed": seed})
    write_json(folder / "study.json", {"runs": rows})
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=200)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    same = same_policy("sft-m-t0.7", wrong=0) + same_policy("ppo-m-t0.7", wrong=10)
    files = {"same_policy.jsonl": same, "valid2.jsonl": tournament(STRENGTH, 60)}
    return write_study(tmp_path_factory.mktemp("labelled"), files)


def cell(table: pd.DataFrame, policy: str, first: str, second: str) -> pd.Series:
    rows = table[(table["policy"] == policy) & (table["first"] == first) & (table["second"] == second)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_agreement_by_hand(study: StudyResults) -> None:
    table = agreement_table(study)
    assert list(table.columns) == COLUMNS and set(table["runs"]) == {"pairs-0"}
    assert cell(table, "sft-m-t0.7", "labeler", "rm_m")["value"] == 1
    assert cell(table, "sft-m-t0.7", "labeler", "rm_m_n750")["value"] == 0
    # One of four workers errs on half of the pairs: 3 of 6 couples disagree there, and 1 of 8 labels.
    assert cell(table, "ppo-m-t0.7", "labeler", "another labeler")["value"] == pytest.approx(0.75)
    assert cell(table, "ppo-m-t0.7", "labeler", "gold")["value"] == pytest.approx(7 / 8)
    row = cell(table, ALL, "labeler", "gold")
    assert row["value"] == pytest.approx(15 / 16) and row["n"] == 160 and row["posts"] == 20
    assert row["low"] < row["value"] < row["high"] and row["se"] > 0
    assert cell(table, ALL, "gold", "rm_m")["n"] == 40, "judges that are no people count a pair once"


def test_a_workers_second_label_of_the_same_two_texts_counts_once(tmp_path: Path) -> None:
    """Two policies wrote the same two texts, and the same workers judged both pairs."""
    rows = same_policy("sft-m-t0.7", 0)
    twin = [
        row.model_copy(
            update={"summaries": [s.model_copy(update={"policy": "ppo-m-t0.7"}) for s in row.summaries]}
        )
        for row in rows
    ]
    table = agreement_table(write_study(tmp_path, {"same_policy.jsonl": rows + twin}))
    assert cell(table, ALL, "labeler", "gold")["n"] == 80
    assert cell(table, "ppo-m-t0.7", "labeler", "gold")["n"] == 80


def test_workers_of_two_seeds_are_different_people(tmp_path: Path) -> None:
    study = write_study(tmp_path, {"same_policy.jsonl": same_policy("sft-m-t0.7", 0)}, seeds=2)
    assert labelled_pairs(study, "same_policy.jsonl")["worker"].nunique() == 8
    assert set(agreement_table(study)["runs"]) == {"pairs-0 pairs-1"}


def test_section_draws_a_heat_map_a_policy_and_the_papers_values(study: StudyResults) -> None:
    section = agreement_section(study)
    assert [picture.name for picture in section.pictures] == [
        "agreement_with_labelers", "agreement_sft-m-t0.7", "agreement_ppo-m-t0.7",
    ]  # fmt: skip
    dots = section.pictures[0].figure.axes
    assert [panel.get_title(loc="left") for panel in dots] == ["Supervised", "Human feedback (PPO)"]
    judges = [label.get_text() for label in dots[0].get_yticklabels()]
    assert judges[::-1][:4] == ["another labeler", "labeler ensemble", "planted truth", "RM s"]
    stars = {
        (line.get_marker(), line.get_xdata()[0], judges[int(line.get_ydata()[0])])
        for line in dots[1].lines
        if line.get_marker() in ("*", "<") and len(line.get_xdata())
    }
    assert stars == {("*", 0.62, "RM m"), ("*", 0.5, "ROUGE"), ("<", 0.5, "log p m")}
    shown = section.tables[0].shown
    assert list(shown.columns) == ["judge", "sft-m-t0.7", "ppo-m-t0.7", ALL]
    assert shown.set_index("judge").loc["rm_m", "sft-m-t0.7"].startswith("1.000 [")


def test_heat_map_is_the_lower_triangle_with_errors(study: StudyResults) -> None:
    table = agreement_table(study)
    axis = agreement_heatmap(table[table["policy"] == "ppo-m-t0.7"], title="T").axes[0]
    names = [label.get_text() for label in axis.get_xticklabels()]
    texts = {
        (names[round(text.get_position()[1])], names[round(text.get_position()[0])]): text.get_text()
        for text in axis.texts
    }
    assert texts["labeler", "labeler"].startswith("75\n±"), "two labelers agree: the diagonal"
    assert texts["planted truth", "labeler"].startswith("88\n±")
    assert all(names.index(y) >= names.index(x) for y, x in texts)
    assert names[3:5] == ["RM s", "RM m"], "small first, and no variant"
    assert "length (tokens)" not in names and "length (words)" in names
    with pytest.raises(UsageError, match="no agreement"):
        agreement_heatmap(table.iloc[:0], title="T")


def test_judges_are_named_and_ordered_for_people() -> None:
    judges = ["logprob_s per token", "ROUGE", "rm_s_n750", "logprob_s", "rm_l", "gold", "another labeler"]
    assert [judge_label(judge) for judge in sorted(judges, key=judge_order)] == [
        "another labeler", "planted truth", "RM l", "RM s n750", "ROUGE", "log p s", "log p s per token",
    ]  # fmt: skip


def test_policies_are_told_by_their_names(study: StudyResults) -> None:
    names = policy_names(study, "ppo-m-kl-0.3-t0.7")
    assert (names["method"], names["size"], names["variant"]) == ("ppo", "m", "kl-0.3")
    assert names["temperature"] == 0.7 and names["params"] == 170_000
    assert policy_names(study, "sft-m")["temperature"] is None
    assert policy_names(study, "sup4_ppo_rm3_kl10")["method"] == "sup4_ppo_rm3_kl10"


def test_elo_recovers_the_strengths(study: StudyResults) -> None:
    table = elo_table(study).set_index("policy")
    assert list(table.index) == sorted(STRENGTH, key=lambda name: -STRENGTH[name])
    assert table.loc["reference", "value"] == 1000 and pd.isna(table.loc["reference", "low"])
    for name, strength in STRENGTH.items():
        if name != "reference":
            truth = 1000 + 400 / math.log(10) * strength
            assert abs(table.loc[name, "value"] - truth) < 3 * table.loc[name, "se"] < 150
    assert (table["n"] == 180).all() and (table["runs"] == "pairs-0").all()
    section = elo_section(study)
    axis = section.pictures[0].figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()][-1] == "ppo-m-t0" and axis.get_xlabel()


def test_policies_never_compared_are_said(tmp_path: Path) -> None:
    apart = tournament({"a": 0.0, "b": 0.1}, 20) + tournament({"c": 0.0, "d": 0.1}, 20)
    study = write_study(tmp_path, {"valid2.jsonl": apart})
    section = elo_section(study)
    assert section.missing == [
        "No finite ratings: groups of policies were never compared with one another: a, b | c, d."
    ]
    assert elo_table(study).empty and not section.pictures


def test_without_labels_not_run_here(tmp_path: Path) -> None:
    study = write_study(tmp_path, {}, seeds=0)
    for section in (agreement_section(study), elo_section(study)):
        assert section.missing == ["Not run here."] and not section.pictures and not section.tables
    assert agreement_table(study).empty and elo_table(study).empty
    alone = write_study(tmp_path / "x", {"valid2.jsonl": same_policy("sft-m-t0", 0)})
    assert elo_section(alone).missing == ["No comparison is between two policies."]


def released(post: str, policy: str, choice: int, worker: str, batch: str) -> Comparison:
    row = comparison(post, (policy, policy), (1.0, 0.0), choice, worker)
    return row.model_copy(update={"batch": batch})


def test_trap_given_labels_of_one_policy_are_agreement_too(tmp_path: Path) -> None:
    """Without simulated labelers the released labels must serve: one name, two samples, several workers.

    A pair that a later batch repeats must not count a worker twice, and two summaries of an unknown policy
    need not be of one.
    """
    name, rows = "sup4_t0.7", []
    for number in range(8):
        rows += [released(f"p{number}", name, number % 2, worker, "batch9") for worker in ("w1", "w2", "w3")]
        rows.append(released(f"p{number}", name, 1 - number % 2, "w1", "batch10"))
        rows.append(released(f"p{number}", "unknown", 0, "w1", "batch9"))
        rows.append(comparison(f"p{number}", (name, "ref"), (1.0, 0.0), 0, "w1"))
        rows.append(released(f"p{number}", "sup4_6b_ppo_rm4_6b_kl14", 0, "w1", "batch9"))
    study = write_study(tmp_path, {"valid2.jsonl": rows})
    table = agreement_table(study)
    assert set(table["policy"]) == {name, "sup4_6b_ppo_rm4_6b_kl14", ALL}
    people = table[(table["policy"] == name) & (table["first"] == "labeler")].set_index("second")
    assert people.loc["another labeler", ["value", "n"]].tolist() == [1.0, 24]
    section = agreement_section(study)
    assert section.missing == [] and "the released ones" in section.pictures[0].caption
    assert [picture.name for picture in section.pictures] == [
        "agreement_with_labelers",
        f"agreement_{name}",
        "agreement_sup4_6b_ppo_rm4_6b_kl14",
    ]


def test_of_many_released_policies_those_with_the_most_labels_are_drawn(tmp_path: Path) -> None:
    names = [f"sup4_t0.{digit}" for digit in range(1, 8)]
    rows = [
        released(f"p{number}", name, number % 2, "w1", "batch9")
        for place, name in enumerate(names)
        for number in range(10 + place)
    ]
    study = write_study(tmp_path, {"valid2.jsonl": rows})
    assert set(agreement_table(study)["policy"]) == {*names, ALL}
    (panel,) = agreement_section(study).pictures[0].figure.axes
    drawn = {line.get_label() for line in panel.lines} & set(names)
    assert drawn == set(names[-MOST:])


def test_labels_without_a_pair_of_one_policy_say_so(tmp_path: Path) -> None:
    rows = [comparison(f"p{number}", ("sup4_t0.7", "ref"), (1.0, 0.0), 0, "w1") for number in range(4)]
    section = agreement_section(write_study(tmp_path, {"valid2.jsonl": rows}))
    assert section.missing == [NO_LABELS] and not section.pictures
