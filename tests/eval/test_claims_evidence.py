"""The sources of the claims, read from a study's folder: values and runs worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.claims.contrast import Missing
from eval.claims.evidence import Evidence, select
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from tldr.records import (
    Axes,
    CandidateSummary,
    Comparison,
    Info,
    Post,
    RatedSummary,
    Rating,
    Sample,
    write_json,
    write_records,
)

POSTS = [
    Post(id=f"p{n}", subreddit="r", title="t", post="my cat ran off", summary="cat ran") for n in range(2)
]


def comparison(
    post: Post,
    scores: list[dict[str, float]],
    choice: int,
    worker: str = "w",
    policy: str = "sft-s-t0.7",
    texts: tuple[str, str] = ("my cat ran", "dog"),
) -> Comparison:
    summaries = [
        CandidateSummary(text=t, policy=policy, scores=s) for t, s in zip(texts, scores, strict=True)
    ]
    return Comparison(
        info=Info(id=post.id, post=post.post),
        summaries=summaries,
        choice=choice,
        worker=worker,
        batch="b",
        split="valid2",
    )


def sample(post: Post, policy: str, **more: Any) -> Sample:
    return Sample(id=post.id, policy=policy, text="cat", run="x", **more)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    listing: list[dict[str, Any]] = []

    def run(
        name: str, stage: str, size: str = "", variant: str = "", settings: Any = None, **parents: str
    ) -> Path:
        params = {"s": 1e4, "l": 1e6}.get(size)
        row = {"run": name, "stage": stage, "folder": name, "size": size, "seed": 0, "variant": variant}
        listing.append(row | {"params": params, "parents": parents})
        write_json(tmp_path / name / "DONE", {})
        write_json(tmp_path / name / "run.json", {"settings": settings or {}})
        return tmp_path / name

    write_records(run("data", "data") / "valid2.jsonl", POSTS)
    run("sft-s", "sft", "s"), run("sft-l", "sft", "l")
    for size, variant, rankings in (("s", "", 100), ("s", "few", 50), ("l", "", 100)):
        place = run("-".join(filter(None, ("rm", size, variant))), "reward", size, variant)
        write_json(place / "evaluation.json", {"train_rankings": rankings})
    pairs = run("pairs", "pairs", **{"reward-s": "rm-s", "reward-s_few": "rm-s-few", "reward-l": "rm-l"})
    scorers = ("rm_s", "rm_s_few", "rm_l")
    right, wrong, same = (
        [{"rm_s": a, "rm_s_few": -a, "rm_l": 2 * a}, dict.fromkeys(scorers, 0.0)] for a in (1.0, -1.0, 0.0)
    )
    write_records(
        pairs / "valid2.jsonl",
        [comparison(POSTS[0], right, 0), comparison(POSTS[1], wrong, 0), comparison(POSTS[1], same, 1)],
    )
    labels = [comparison(POSTS[0], right, int(n == 4), f"w{n}") for n in range(5)]
    labels += [comparison(POSTS[0], right, 0, f"w{n}", "ppo-s-t0.7") for n in range(2)]
    write_records(pairs / "same_policy.jsonl", labels)
    pool = [
        sample(
            post,
            "sft-s",
            n=1,
            tokens=3,
            scores={"rm": float(n), "rouge": -float(n), "gold_preference": n / 10},
        )
        for post in POSTS
        for n in range(4)
    ]
    write_records(run("pool", "best_of_n", "s") / "pool.jsonl", pool)
    for beta in (0.0, 0.1):
        place = run(f"ppo-{beta}", "ppo", "s", f"kl-{beta}", {"beta": beta}, reward="rm-s-few")
        rolled = [
            sample(POSTS[0], "ppo-s", scores={"rm": n - beta, "gold": -n}, tags={"iteration": n})
            for n in (1, 2)
        ]
        write_records(place / "rollouts.jsonl", rolled)
    axes = [Axes(overall=n + 1, coverage=n + 2, coherence=7) for n in range(2)]
    write_records(
        run("ratings", "ratings") / "ratings.jsonl",
        [
            Rating(
                info=Info(id=post.id, post=post.post),
                summary=RatedSummary(text="a", policy="ppo-s", axes=given),
                worker="w",
                batch="b",
                split="valid2",
            )
            for post, given in zip(POSTS, axes, strict=True)
        ],
    )
    write_json(tmp_path / "study.json", {"runs": listing})
    return Evidence(StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=50))


def test_held_out_labels_know_hits_labels_and_both_runs(evidence: Evidence) -> None:
    table = evidence.source("valid pairs").set_index(["size", "variant"])
    assert list(table.loc[("s", ""), "hit"])[:2] == [1, 0] and list(table.loc[("s", "few"), "hit"])[:2] == [
        0,
        1,
    ]
    assert table.loc[("s", ""), "hit"].isna().tolist() == [False, False, True], "equal scores decide nothing"
    assert set(table.loc[("s", "few"), "rankings"]) == {50} and set(table.loc[("l", ""), "params"]) == {1e6}
    assert set(table.loc[("s", "few"), "run"]) == {"pairs rm-s-few"}
    assert table.loc[("s", ""), "key"].tolist() == table.loc[("l", ""), "key"].tolist(), "the same pairs"


def test_judges_of_two_samples_of_one_policy(evidence: Evidence) -> None:
    whole = evidence.source("same-policy pairs")
    table = whole[whole["method"] == "sft"]
    hits = {judge: rows.sort_values("key")["hit"].tolist() for judge, rows in table.groupby("judge")}
    # Four workers took the first summary, the fifth the second.
    assert hits["labeler"] == [0.75] * 4 + [0.0] and hits["ensemble"] == [1.0] * 4 + [0.0]
    assert hits["tokens"] == hits["rouge"] == hits["copying"] == [1.0] * 4 + [0.0], "longer, nearer, copied"
    assert set(table["policy_params"]) == {1e4}
    assert set(table.loc[table["judge"] == "rm", "run"]) == {"pairs rm-s", "pairs rm-s-few", "pairs rm-l"}
    assert set(table.loc[table["judge"] != "rm", "run"]) == {"pairs"}
    other = whole[(whole["method"] == "ppo") & (whole["judge"] == "labeler")]
    assert other["hit"].tolist() == [1.0, 1.0], "the same texts by another policy are another pair"


def test_best_of_n_of_every_post(evidence: Evidence) -> None:
    table = evidence.source("pool").set_index(["chooser", "n", "id"])["preference"]
    # Best of 2 of four: ranks 2, 3, 4 win with 1/6, 2/6, 3/6.
    best = (1 * 0.1 + 2 * 0.2 + 3 * 0.3) / 6
    assert [table["rm", n, "p1"] for n in (1, 2, 4)] == pytest.approx([0.15, best, 0.3])
    assert [table["rouge", n, "p0"] for n in (1, 2, 4)] == pytest.approx([0.15, 0.3 - best, 0.0])
    rows = evidence.source("pool")
    assert (
        set(rows["chooser_params"].dropna()) == {1e4}
        and set(rows["pool"]) == {4}
        and set(rows["run"]) == {"pool"}
    )


def test_rollouts_and_ratings(evidence: Evidence) -> None:
    rolled = select(evidence.source("rollouts"), {"beta": "lowest"})
    assert rolled["rm"].tolist() == [1.0, 2.0] and rolled["gold"].tolist() == [-1.0, -2.0]
    assert not rolled["swept"].any(), "two coefficients are no sweep"
    assert set(rolled["optimised"]) == {"rm_s_few"} and set(rolled["value_network"]) == {"separate"}
    rated = evidence.rows("ratings", {"method": "ppo", "axis": "coverage"}, "rating")
    assert (
        rated["rating"].tolist() == [2, 3]
        and set(rated["params"]) == {1e4}
        and set(rated["run"]) == {"ratings"}
    )
    assert evidence.rows("ratings", {"axis": "accuracy"}, "rating")["rating"].isna().all()


def test_what_is_absent_is_named(evidence: Evidence) -> None:
    for source, selector, value, message in (
        ("samples", {}, "preference", "no samples"),
        ("sweep", {}, "preference", "differ in beta alone"),
        ("probes", {}, "hit", r"probes\.jsonl"),
        ("pool", {"chooser": "rm_l"}, "preference", "nothing with chooser rm_l"),
        ("pool", {}, "coverage", "pool carry no coverage"),
    ):
        with pytest.raises(Missing, match=message):
            evidence.rows(source, selector, value)
