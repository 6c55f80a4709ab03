from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from eval.common.io import files_of, join_by_post, load_posts, load_samples
from tldr.errors import RecordError, UsageError
from tldr.records import Article, Post, ReadReport, Sample, write_records


def sample(post: str, **more: object) -> Sample:
    return Sample.model_validate({"id": post, "policy": "sft", "text": "t", **more})


def test_scores_and_tags_become_columns(tmp_path: Path) -> None:
    write_records(
        tmp_path / "a" / "samples.jsonl",
        [
            sample("p1", run="r1", scores={"gold": 0.5}, tags={"size": "s"}),
            sample("p2", run="r1", response_ids=[1]),
        ],
    )
    table = load_samples(tmp_path)
    assert list(table["id"]) == ["p1", "p2"]
    assert table.loc[0, "score.gold"] == 0.5 and table.loc[0, "tag.size"] == "s"
    assert pd.isna(table.loc[1, "score.gold"]), "an absent score is missing, never zero"
    assert not {"scores", "tags", "response_ids"} & set(table.columns)


def test_samples_without_a_run_are_filed_under_their_place(tmp_path: Path) -> None:
    write_records(tmp_path / "theirs" / "samples.jsonl", [sample("p1")])
    write_records(tmp_path / "other.jsonl", [sample("p2")])
    assert list(load_samples([tmp_path / "theirs", tmp_path / "other.jsonl"])["run"]) == ["theirs", "other"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    file = write_records(tmp_path / "samples.jsonl", [sample("p1")])
    assert len(load_samples([file, tmp_path, str(file)])) == 1


def test_bad_lines_stop_or_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(sample("p1").to_json() + "\n{broken\n")
    with pytest.raises(RecordError, match=r"samples\.jsonl:2"):
        load_samples(file)
    reports: list[ReadReport] = []
    assert len(load_samples(file, on_error="skip", reports=reports)) == 1
    assert len(reports[0].bad) == 1 and reports[0].good == 1


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no samples\.jsonl"):
        load_samples(tmp_path)
    (tmp_path / "samples.jsonl").touch()
    with pytest.raises(UsageError, match="no samples found"):
        load_samples(tmp_path)


def posts(*ids: str) -> list[Post]:
    return [Post(id=one, subreddit="r", title="t", post="b", summary="s") for one in ids]


def test_two_posts_of_one_id_are_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "posts.jsonl", posts("p1", "p2", "p1"))
    with pytest.raises(RecordError, match="1 post ids occur more than once: p1"):
        load_posts(tmp_path / "posts.jsonl")


def test_join_names_how_many_posts_are_missing(tmp_path: Path) -> None:
    table = load_posts(write_records(tmp_path / "posts.jsonl", posts("p1")))
    samples = pd.DataFrame({"id": ["p1", "p2", "p3", "p4", "p5", "p2"]})
    with pytest.raises(UsageError, match=r"posts: 4 of 5 posts are missing: p2, p3, p4, \.\.\."):
        join_by_post(samples, table, what="posts")


def test_join_keeps_rows_and_their_order(tmp_path: Path) -> None:
    table = load_posts(write_records(tmp_path / "posts.jsonl", posts("p1", "p2")))
    samples = pd.DataFrame({"id": ["p2", "p1", "p2"]}, index=[5, 3, 9])
    joined = join_by_post(samples, table, what="posts")
    assert list(joined.index) == [5, 3, 9] and list(joined["id"]) == ["p2", "p1", "p2"]


def test_rows_that_name_no_policy_need_one(tmp_path: Path) -> None:
    file = tmp_path / "theirs.jsonl"
    rows = [
        {"id": f"p{n}", "text": "t", "judge_preferred": v} for n, v in enumerate(["ours", "reference", None])
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RecordError, match=r"theirs\.jsonl:1: .*policy: Field required(.|\n)*--policy"):
        load_samples(file)
    table = load_samples(file, policy="ppo")
    assert set(table["policy"]) == {"ppo"} and set(table["run"]) == {"theirs"}
    assert table["temperature"].isna().all(), "nothing says how these were sampled"
    assert table["score.judge"].fillna(-1).tolist() == [1, 0, -1]
    assert table["score.judge_reference"].fillna(-1).tolist() == [0, 1, -1]
    file.write_text(json.dumps({"id": "p", "text": "t", "judge_preferred": "mine"}))
    with pytest.raises(RecordError, match="judge_preferred: 'mine' is neither"):
        load_samples(file, policy="ppo")
    named = write_records(tmp_path / "named.jsonl", [sample("p1")])
    assert load_samples(named, policy="ppo")["policy"].tolist() == ["sft"], "a row's own name is kept"


def test_articles_are_posts_without_a_subreddit(tmp_path: Path) -> None:
    rows = [Article(id="n1", title="News", article="One. Two.", summary="S"), *posts("p1")]
    table = load_posts(write_records(tmp_path / "both.jsonl", rows))
    assert table.loc["n1", ["title", "post", "summary"]].tolist() == ["News", "One. Two.", "S"]
    assert pd.isna(table.loc["n1", "subreddit"]) and table.loc["p1", "subreddit"] == "r"


def test_bad_posts_are_counted(tmp_path: Path) -> None:
    file = write_records(tmp_path / "posts.jsonl", posts("p1"))
    file.write_text(file.read_text() + "{}\n")
    with pytest.raises(RecordError, match=r"posts\.jsonl:2: not a post or article"):
        load_posts(file)
    reports: list[ReadReport] = []
    assert len(load_posts(file, on_error="skip", reports=reports)) == 1 and len(reports[0].bad) == 1


def test_files_of_a_folder_have_the_first_name_that_is_there(tmp_path: Path) -> None:
    """OpenAI's comparisons are lines in files that end with .json; beside ours, .json is a note."""
    (tmp_path / "batch13.json").touch()
    assert files_of(tmp_path, "*.jsonl", "*.json") == [tmp_path / "batch13.json"]
    (tmp_path / "ours.jsonl").touch()
    assert files_of(tmp_path, "*.jsonl", "*.json") == [tmp_path / "ours.jsonl"]
    with pytest.raises(UsageError, match=r"no \*\.csv or \*\.txt in this folder"):
        files_of(tmp_path, "*.csv", "*.txt")
