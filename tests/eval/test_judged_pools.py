"""Best of N by judges: their verdicts on a pool's best texts as Fig. 7, its table and its claims."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from eval.best_of_n.judged import judged_best_of_n_table, pool_judges
from eval.best_of_n.section import best_of_n_section, best_of_n_table
from eval.claims.counterparts import chosen
from eval.claims.evidence import Evidence, headline_scorers
from eval.claims.schema import load_claims
from eval.claims.section import claims_section
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.stats import wilson_interval
from eval.common.study import StudyResults
from tests.eval.section_study import Json, Made, add_pool, add_rewards, add_sweep, write_lines
from tldr.records import write_json

POSTS, SEEN, N = 30, 20, 16
COUNTS = (1, 2, 4, 8, 16)
CHOOSERS = ("rm", "rm_m_n750", "rouge", "length", "gold")


def lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def best(samples: list[Json], chooser: str, n: int) -> Json:
    """The first of the highest of the first n samples of a post."""
    score = lambda row: row["tokens"] if chooser == "length" else row["scores"][chooser]  # noqa: E731
    return max(samples[:n], key=score)


def verdicts(judge: str, row: Json, wins: bool, run: str, policy: str) -> list[Json]:
    """Both orders of a pair with the reference."""
    return [
        {
            "id": row["id"], "policies": [policy, "reference"], "order": order, "judge": judge,
            "verdict": "A" if wins == (order == [0, 1]) else "B",
            "texts": [row["text"], " ref"], "runs": [run],
        }
        for order in ([0, 1], [1, 0])
    ]  # fmt: skip


def add_judged_pool(made: Made, judge: str = "other", bar: float = 0.0) -> dict[str, list[Json]]:
    """A pool whose texts differ, and a judge that prefers those of its first posts whose truth is above
    `bar`; it saw the sweep's samples as well.

    Returns:
        Post -> the pool's samples.
    """
    add_pool(made, "m", N)
    pool = made.folder / f"best_of_n-m-pool-{made.end}"
    rows = [row | {"text": f" text {place}"} for place, row in enumerate(lines(pool / "pool.jsonl"))]
    write_lines(pool / "pool.jsonl", rows)
    by_post = {post: [row for row in rows if row["id"] == post] for post in made.posts}
    parents = {"pool-m": "best_of_n-m-pool"}
    where = made.run("judge", variant=judge, parents=parents)
    picked = {
        (row["id"], row["text"]): row
        for post in made.posts[:SEEN]
        for row in (best(by_post[post], chooser, n) for chooser in CHOOSERS for n in COUNTS)
    }
    judged: list[Json] = []
    for row in picked.values():
        judged += verdicts(judge, row, row["scores"]["gold"] > bar, pool.name, "pool-m")
    write_lines(where / "pool_judgements.jsonl", judged)
    of_samples: list[Json] = []
    for run in (row["run"] for row in made.runs if row["stage"] == "score"):
        for row in lines(made.folder / run / "samples.jsonl"):
            if (row["temperature"], row.get("top_p", 1)) == (1, 1):
                of_samples += verdicts(judge, row, row["scores"]["gold"] > bar, run, f"{row['policy']}-t1-p1")
    write_lines(where / "judgements.jsonl", of_samples)
    return by_post


@pytest.fixture
def made(tmp_path: Path) -> Made:
    study = Made(tmp_path, POSTS)
    add_rewards(study)
    add_sweep(study)
    return study


def test_every_chooser_s_curve_is_the_share_of_its_own_best_texts(made: Made) -> None:
    pool = add_judged_pool(made)
    study = made.close()
    assert [judge.name for judge in pool_judges(study)] == ["verdicts other"]
    table = judged_best_of_n_table(study)
    assert len(table) == len(CHOOSERS) * len(COUNTS), "the main reward model is there once"
    for row in table.itertuples():
        won = [
            best(pool[post], row.selected_by, row.best_of)["scores"]["gold"] > 0 for post in made.posts[:SEEN]
        ]
        assert row.value == pytest.approx(np.mean(won)) and (row.n, row.posts) == (SEEN, SEEN)
        assert (row.low, row.high) == pytest.approx(wilson_interval(sum(won), SEEN))
        assert row.kl == pytest.approx(np.log(row.best_of) - (row.best_of - 1) / row.best_of)
    assert (table["scorer"] == "verdicts other").all() and set(table["measure"]) == {"judged_preference"}
    assert set(table["runs"]) == {"best_of_n-m-pool-0"} and set(table["temperature"]) == {0.7}


def test_two_judges_are_drawn_beside_one_another(made: Made) -> None:
    add_judged_pool(made)
    pool = made.folder / "best_of_n-m-pool-0"
    where = made.run("judge", variant="strict", parents={"pool-m": "best_of_n-m-pool"})
    rows = []
    for row in lines(made.folder / "judge-other-0" / "pool_judgements.jsonl"):
        rows.append(row | {"judge": "strict", "verdict": "B" if row["order"] == [0, 1] else "A"})
    write_lines(where / "pool_judgements.jsonl", rows)
    study = made.close()
    section = best_of_n_section(study)
    names = ["best_of_n", "best_of_n_verdicts_other", "best_of_n_verdicts_strict"]
    assert [picture.name for picture in section.pictures] == names == [one.name for one in section.tables]
    own = section.pictures[1]
    assert [axis.get_title(loc="left") or axis.get_title() for axis in own.figure.axes] == [
        "Policy m, by other",
        "Published: Stiennon et al. 2020, Fig. 7",
    ]
    drawn = {bar.get_label(): list(bar.lines[0].get_ydata()) for bar in own.figure.axes[0].containers}
    table = judged_best_of_n_table(study)
    mine = table[(table["scorer"] == "verdicts other") & (table["selected_by"] == "rm")]
    assert drawn["Its reward model"] == list(mine["value"])
    assert f"over {SEEN} posts" in own.caption and "one draw" in own.caption.lower()
    strict = table[table["scorer"] == "verdicts strict"]
    assert (strict["value"] == 0).all() and (strict["high"] > 0).all()
    assert pool.is_dir() and not section.missing
    plt.close("all")


def test_the_planted_labelers_figure_and_table_stay(made: Made) -> None:
    before = best_of_n_table(made.close()).copy()
    add_judged_pool(made)
    study = made.close()
    assert before.empty and set(best_of_n_table(study)["scorer"]) == {
        "gold_preference",
        "gold",
        "rm",
        "rm_m_n750",
    }


def test_a_post_without_a_verdict_on_one_of_its_best_is_left_out_for_that_chooser(made: Made) -> None:
    pool = add_judged_pool(made)
    path = made.folder / "judge-other-0" / "pool_judgements.jsonl"
    post = made.posts[0]
    gone = best(pool[post], "rouge", N)["text"]
    write_lines(path, [row for row in lines(path) if row["texts"][0] != gone])
    table = judged_best_of_n_table(made.close())
    posts = {row.selected_by: row.posts for row in table.itertuples()}
    touched = {
        chooser for chooser in CHOOSERS if gone in {best(pool[post], chooser, n)["text"] for n in COUNTS}
    }
    assert "rouge" in touched
    assert posts == {chooser: SEEN - (chooser in touched) for chooser in CHOOSERS}
    assert table.groupby("selected_by")["posts"].nunique().eq(1).all(), "all N are of the same posts"


def by_id(claims: pd.DataFrame) -> pd.DataFrame:
    """The shapes as a whole, by their ids."""
    ids = {claim.text: claim.id for claim in load_claims(PAPER_FOLDER).shapes}
    return claims.assign(id=claims["claim"].map(ids)).dropna(subset="id").set_index("id")


def test_the_shapes_of_fig_7_are_told_by_the_judge_too(made: Made) -> None:
    pool = add_judged_pool(made)
    study = made.close()
    planted, other = headline_scorers(study)
    rows = Evidence(study, other).rows("pool", {"pool": "highest", "chooser": "rm", "n": 8}, "preference")
    won = {post: best(pool[post], "rm", 8)["scores"]["gold"] > 0 for post in made.posts[:SEEN]}
    assert dict(zip(rows["id"], rows["preference"], strict=True)) == won
    gold = Evidence(study, planted).rows("pool", {"pool": "highest", "chooser": "rm", "n": 8}, "preference")
    assert len(gold) == POSTS and not gold["preference"].isin([0.0, 1.0]).all()
    tables = {table.name: table.frame for table in claims_section(study).tables}
    told = by_id(tables["claims_verdicts_other"])
    for claim in (
        "best-of-n-grows",
        "rm-over-rouge-best-of-n",
        "preference-peaks-in-kl",
        "best-of-n-spends-less-kl",
    ):
        assert told.loc[claim, "verdict"] in ("reproduced", "not reproduced"), claim
    (step,) = [one for one in load_claims(PAPER_FOLDER).shapes if one.id == "best-of-n-grows"]
    effects = step.steps(Evidence(study, other), 200)[0]
    means = [
        np.mean([best(pool[post], "rm", n)["scores"]["gold"] > 0 for post in made.posts[:SEEN]])
        for n in COUNTS
    ]
    assert [one.effect.value for one in effects] == pytest.approx(list(np.diff(means)))


def test_a_judge_that_saw_no_pool_tells_no_shape_of_it(made: Made) -> None:
    add_judged_pool(made)
    (made.folder / "judge-other-0" / "pool_judgements.jsonl").unlink()
    study = made.close()
    tables = {table.name: table.frame for table in claims_section(study).tables}
    told = by_id(tables["claims_verdicts_other"])
    assert told.loc["best-of-n-grows", "verdict"] == "not run here"
    shown = {table.name: table.shown for table in claims_section(study).tables}["claims_verdicts_other"]
    assert shown["note"].str.contains("pool carry no preference").any()
    assert by_id(tables["claims"]).loc["best-of-n-grows", "verdict"] != "not run here"
    assert [picture.name for picture in best_of_n_section(study).pictures] == ["best_of_n"]
    plt.close("all")


def test_the_published_numbers_of_fig_7_stand_beside_the_judge_s(made: Made) -> None:
    """They are people's shares, so neither the planted truth's nor a reward model's count as theirs."""
    add_judged_pool(made)
    table = chosen(made.close())
    judged = table[table["measure"] == "judged_preference"]
    assert len(judged) == len(CHOOSERS) * len(COUNTS)
    by_rm = judged[judged["selected_by"] == "rm"]
    assert set(by_rm["chooser_params"]) == {150_000} and set(by_rm["chooser_rankings"]) == {12_000}


def test_over_cells_and_worlds_each_verdict_counts_in_its_own(tmp_path: Path) -> None:
    """The worlds' posts have the same ids in their files."""
    every, values = [], []
    for world in (3, 4):
        for seed in (0, 1):
            one = Made(tmp_path, POSTS, seed, data_seed=world)
            add_rewards(one)
            add_sweep(one)
            pool = add_judged_pool(one)
            values.append(np.mean([best(pool[p], "rm", 8)["scores"]["gold"] > 0 for p in one.posts[:SEEN]]))
            every += one.runs
    write_json(tmp_path / "study.json", {"study": "made", "runs": every})
    study = StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=200)
    table = judged_best_of_n_table(study)
    (row,) = table[(table["selected_by"] == "rm") & (table["best_of"] == 8)].to_dict("records")
    assert row["cells"] == 4 and row["value"] == pytest.approx(np.mean(values))
    assert sorted(float(part.split("=")[1]) for part in row["cell_values"].split("; ")) == pytest.approx(
        sorted(values)
    )
    picture = best_of_n_section(study).pictures[1]
    assert "4 cells" in picture.caption and "single cells" in picture.caption
    plt.close("all")
