from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import LabError, RecordError, UsageError
from tldr.inputs.posts import body_hash, check_disjoint, load_comparisons, load_posts, post_keys
from tldr.records import Article, Comparison, Info, Post, Ranking, write_records

COMPARISON: dict[str, Any] = {
    "info": {"id": "t3_1", "post": "a\n\nb", "title": "t", "subreddit": "dogs"},
    "summaries": [
        {"text": " one", "policy": "ref", "note": None},
        {"text": " two", "policy": "sup4", "note": "ok"},
    ],
    "choice": 1,
    "worker": "w",
    "batch": "batch3",
    "split": "train",
    "extra": {"confidence": 8},
}
RANKING: dict[str, Any] = {k: v for k, v in COMPARISON.items() if k not in ("choice", "extra")} | {
    "rank": [2, 2]
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_comparisons_and_rankings_mix_in_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", COMPARISON, "", RANKING, COMPARISON | {"choice": 0})
    assert [row.rank for row in load_comparisons(path)] == [[2, 1], [2, 2], [1, 2]]
    assert load_comparisons(path)[0].summaries[1].text == " two"


def test_rows_without_an_id_get_one_from_their_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = COMPARISON | {"info": {k: v for k, v in COMPARISON["info"].items() if k != "id"}}
    other = COMPARISON | {"info": bare["info"] | {"post": "something else"}}
    path = write(tmp_path / "labels.jsonl", bare, bare, other, COMPARISON)
    with caplog.at_level(logging.WARNING):
        ids = [row.info.id for row in load_comparisons(path)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] is not None and ids[0].startswith("h_")
    assert ids[3] == "t3_1"
    assert "3 of 4 rows have no info.id" in caplog.text
    assert [row.info.id for row in load_comparisons(path)] == ids


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"info": ', "broken JSON"),
        (COMPARISON | {"choice": 2}, "choice"),
        (COMPARISON | {"extra": {"confidence": 0}}, "confidence"),
        (RANKING | {"rank": [1]}, "2 summaries but 1 ranks"),
        ({k: v for k, v in RANKING.items() if k != "rank"}, "rank"),
        (COMPARISON | {"summaries": COMPARISON["summaries"] * 2}, "summaries"),
    ],
)
def test_a_bad_row_stops_with_its_line(tmp_path: Path, row: Any, what: str) -> None:
    path = write(tmp_path / "labels.jsonl", COMPARISON, row)
    with pytest.raises(RecordError, match=rf"labels.jsonl:2: not a comparison or ranking: .*{what}"):
        load_comparisons(path)


def test_empty_and_missing_files_are_refused(tmp_path: Path) -> None:
    for load in (load_posts, load_comparisons):
        with pytest.raises(UsageError, match="no such file"):
            load(tmp_path / "none.jsonl")
        with pytest.raises(UsageError, match="holds no"):
            load(write(tmp_path / "empty.jsonl", ""))


def test_posts_load_unchanged_and_ids_mean_one_post(tmp_path: Path) -> None:
    posts = [
        Post(id="a", subreddit="s", title=" t", post=" x\n\n y ", summary=None),
        Post(id="b", subreddit="s", title="t", post="z"),
    ]
    path = write_records(tmp_path / "posts.jsonl", posts)
    assert load_posts(path) == posts
    write_records(path, [*posts, posts[1].model_copy(update={"post": "other"})])
    with pytest.raises(UsageError, match="two different posts have the id 'b'"):
        load_posts(path)


@settings(max_examples=100)
@given(data=st.data())
def test_mutated_lines_never_crash_and_never_pass_as_something_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    line = json.dumps(COMPARISON)
    at = data.draw(st.integers(0, len(line) - 1))
    mutated = line[:at] + data.draw(st.sampled_from(["", '"', "}", "{", "x", "null", "0"])) + line[at + 1 :]
    path = write(tmp_path_factory.mktemp("m") / "labels.jsonl", mutated)
    try:
        (row,) = load_comparisons(path)
    except LabError:
        return
    raw = json.loads(mutated)
    assert [s.text for s in row.summaries] == [s["text"] for s in raw["summaries"]]
    assert row.rank == ([1, 2] if raw["choice"] == 0 else [2, 1])


def test_body_hash_ignores_white_space_alone() -> None:
    info = Info(id="1", post="a\n\nb")
    assert body_hash(info) == body_hash(Post(id="2", subreddit="s", title="t", post=" a\nb "))
    assert body_hash(info) != body_hash(Info(id="1", post="ab"))
    assert body_hash(Article(id="3", article="a b")) == body_hash(info)


def test_post_keys_of_every_kind_of_row() -> None:
    comparison = Comparison.model_validate(COMPARISON)
    body = f"body:{body_hash(comparison.info)}"
    assert post_keys([comparison]) == post_keys([Ranking.from_comparison(comparison)]) == {"id:t3_1", body}
    assert post_keys([Post(id="t3_2", subreddit="s", title="t", post="a b")]) == {"id:t3_2", body}


def test_trap_evaluation_posts_in_training_are_refused_by_id_and_by_body() -> None:
    def keys(id: str, body: str) -> frozenset[str]:
        return post_keys([Post(id=id, subreddit="s", title="t", post=body)])

    check_disjoint({"sft": keys("1", "a")}, {"valid2": keys("2", "b")})
    check_disjoint({}, {"valid2": keys("2", "b")})
    for shared in (keys("2", "other"), keys("3", " b\n")):
        with pytest.raises(UsageError, match=r"1 keys of 'valid2' are in 'ppo'") as error:
            check_disjoint({"sft": keys("1", "a"), "ppo": shared}, {"valid2": keys("2", "b")})
        assert "'sft'" not in str(error.value)
