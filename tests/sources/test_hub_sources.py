from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from tests.sources.hub_server import COMMIT, Hub, serve, use_as_hub
from tldr.errors import LabError, RecordError, UsageError
from tldr.inputs.posts import body_hash
from tldr.queries.formats import format_query
from tldr.records import Comparison, Info, Post, ReadReport, read_records
from tldr.sources.filter_rules import read_candidate, table2
from tldr.sources.hub import resume
from tldr.sources.hub.catalog import BATCHES, CATALOG, KnownSource
from tldr.sources.hub.convention import convention
from tldr.sources.hub.convert import parse_prompt
from tldr.sources.hub.fetch import fetch
from tldr.sources.hub.layout import by_split, check_shards, split_name
from tldr.sources.hub.load import open_source

BODY = "  We have a dog.\n\nIt ate\tthe sofa.\n "
POST = {"id": "t3_1", "subreddit": "dogs", "title": " The sofa ", "post": BODY, "summary": "dog ate sofa"}
QUERY = f"SUBREDDIT: r/dogs\n\nTITLE:  The sofa \n\nPOST: {BODY}\n\nTL;DR:"
COMPARISON: dict[str, Any] = {
    "info": {"id": "t3_1", "post": BODY, "title": "t", "subreddit": "dogs"},
    "summaries": [
        {"text": "  one", "policy": "ref", "note": None},
        {"text": "two ", "policy": "b", "note": "n"},
    ],
    "choice": 1,
    "worker": "w",
    "batch": "batch3",
    "split": "valid1",
    "extra": {"confidence": 8},
}
NEWS = COMPARISON | {"info": {"id": "c1", "site": "cnn", "title": "t", "article": "A b."}, "extra": {}}
AXES = {"overall": 7, "accuracy": None, "coverage": 1, "coherence": 2}
RATING = {k: COMPARISON[k] for k in ("info", "worker", "batch")} | {
    "summary": {"text": " s", "policy": "ref", "note": None, "axes": AXES},
    "split": "test",
}
RAW = {"author": "a", "body": "b TL;DR s", "content": "b", "summary": "s", "id": "x1", "subreddit": "dogs"}


def parquet(*rows: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), out)
    return out.getvalue()


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("corpus.json", data)
    return out.getvalue()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(resume, "ATTEMPTS", 2)
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with serve() as hub:
        yield hub


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


MADE_ID = f"h_{body_hash(Info(post=BODY))[:16]}"
ASKED = {"prompt": QUERY, "label": " dog ate sofa"}
COMPLETED = {"prompt": QUERY, "completion": " dog ate sofa"}
CNN = {"id": "1", "article": " A\n", "highlights": "h\ni"}
CARPER = QUERY.replace("\n\nTITLE", "\nTITLE").replace("\n\nPOST", "\nPOST").removesuffix("\n\nTL;DR:")
PAIR = {"prompt": CARPER, "chosen": "TL;DR: good", "rejected": "TL;DR:  bad"}
TLDR_URL = "datasets/tldr_3_filtered"


@pytest.mark.parametrize(
    ("name", "files", "split", "expected"),
    [
        ("openai/summarize_from_feedback",
         {"comparisons/validation/0000.parquet": parquet(COMPARISON, NEWS)},
         "comparisons", [COMPARISON, NEWS]),
        ("openai/summarize_from_feedback", {"axis/test/0000.parquet": parquet(RATING)},
         "axis/test", [RATING]),
        ("vwxyzjn/summarize_from_feedback_tldr_3_filtered",
         {"data/train-00000-of-00002-0a.parquet": parquet(POST),
          "data/train-00001-of-00002-0b.parquet": parquet(POST | {"id": "t3_2"})},
         "train", [POST, POST | {"id": "t3_2"}]),
        ("trl-lib/tldr",
         {"data/validation-00000-of-00001.parquet": parquet(COMPLETED)},
         "validation", [POST | {"id": MADE_ID, "summary": " dog ate sofa"}]),
        ("CarperAI/openai_summarize_tldr",
         {"data/valid-00000-of-00001-1f.parquet": parquet(ASKED | {"prompt": CARPER + "\nTL;DR:"})},
         "valid", [POST | {"id": MADE_ID, "summary": " dog ate sofa"}]),
        ("webis/tldr-17", {"data/corpus-webis-tldr-17.zip": zipped(lines(RAW, RAW | {"title": "t"}))},
         "train", [RAW, RAW | {"title": "t"}]),
        ("abisee/cnn_dailymail",
         {"1.0.0/train-00000-of-00001.parquet": parquet(CNN | {"id": "no"}),
          "3.0.0/train-00000-of-00001.parquet": parquet(CNN)},
         "train", [{"id": "1", "article": " A\n", "summary": "h\ni"}]),
    ],
)  # fmt: skip
def test_hub_sets_become_records_with_their_text_unchanged(
    hub: Hub, name: str, files: dict[str, bytes], split: str, expected: list[dict[str, Any]]
) -> None:
    hub.publish(name, files | {"README.md": b"#"})
    source = open_source(name, hub.url)
    assert source.revision == COMMIT
    rows = [json.loads(row.to_json()) for of in source.select(split) for row in source.records(of)]
    assert rows == expected


def test_openais_own_files_by_url(hub: Hub, tmp_path: Path) -> None:
    known = CATALOG["openai-files"]
    hub.files |= {f"m/{path}": lines(COMPARISON) for path in known.files if "comparisons" in path}
    hub.files |= {f"m/{path}": lines(RATING) for path in known.files if "axis_evals" in path}
    hub.files |= {f"m/{TLDR_URL}/{split}.jsonl": lines(POST) for split in ("train", "test")}
    source = open_source("openai-files", f"{hub.url}/m/")
    assert source.select("comparisons") == sorted(f"comparisons/{batch}" for batch in BATCHES)
    (row,) = source.records("comparisons/batch22")
    assert json.loads(row.to_json()) == COMPARISON
    assert list(source.records("tldr_3_filtered/train")) == [Post.model_validate(POST)]
    # a file that is gone is an error for whoever wants it
    with pytest.raises(UsageError, match="no such file") as error:
        list(source.records("tldr_3_filtered/valid"))
    assert f"{hub.url}/m/{TLDR_URL}/valid.jsonl" in str(error.value)
    # what was fetched is not fetched again, and changes on the server are another revision
    before = len(hub.got("train.jsonl"))
    list(open_source("openai-files").records("tldr_3_filtered/train"))
    assert len(hub.got("train.jsonl")) == before
    hub.files[f"m/{TLDR_URL}/train.jsonl"] = lines(POST, POST)
    fresh = open_source("openai-files", f"{hub.url}/m/", refresh=True)
    assert fresh.revision != source.revision
    assert len(list(fresh.records("tldr_3_filtered/train"))) == 2


def test_a_repository_that_is_not_there_is_named(hub: Hub) -> None:
    with pytest.raises(UsageError, match="no such data set") as error:
        open_source("trl-lib/tldr", hub.url)
    assert f"{hub.url}/datasets/trl-lib/tldr" in str(error.value)
    with pytest.raises(UsageError, match="did you mean 'trl-lib/tldr'"):
        open_source("trl-lib/tdlr")
    hub.publish("trl-lib/tldr", {"README.md": b"#"})
    with pytest.raises(UsageError, match="holds no file of the form"):
        open_source("trl-lib/tldr", hub.url)


@pytest.mark.parametrize("by_setting", [False, True])
def test_offline_never_asks_and_says_what_it_lacks(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, by_setting: bool
) -> None:
    files = {f"data/{split}-00000-of-00001.parquet": parquet(POST) for split in ("train", "test")}
    hub.publish("vwxyzjn/summarize_from_feedback_tldr_3_filtered", files)
    name, offline = "vwxyzjn/summarize_from_feedback_tldr_3_filtered", not by_setting
    use_as_hub(monkeypatch, hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", by_setting)
    with pytest.raises(UsageError, match=r"never fetched on this machine(?s:.*)data fetch"):
        open_source(name, offline=offline)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    list(open_source(name).records("train"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", by_setting)
    asked = len(hub.asked)
    source = open_source(name, offline=offline, refresh=True)
    assert list(source.records("train")) == [Post.model_validate(POST)]
    with pytest.raises(UsageError, match=r"test-00000-of-00001.parquet: offline, and this file"):
        list(source.records("test"))
    assert len(hub.asked) == asked


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
line = text.map(lambda value: value.replace("\n", " "))


@given(subreddit=line, title=line, post=text.map(lambda value: value + "x"), single=st.booleans())
def test_a_query_parses_to_the_one_post_it_was_made_of(
    subreddit: str, title: str, post: str, single: bool
) -> None:
    subreddit = subreddit.removeprefix("r/")
    made = Post(id="1", subreddit=subreddit, title=title, post=post)
    query = format_query(made)
    parts = {"subreddit": subreddit, "title": title, "post": post}
    assert parse_prompt(query) == parts
    gap = "\n" if single else "\n\n"
    bare = f"SUBREDDIT: r/{subreddit}{gap}TITLE: {title}{gap}POST: {post}"
    assert parse_prompt(f"{bare}{gap}TL;DR:") == parts
    assert parse_prompt(bare, asks=False) == parts


@pytest.mark.parametrize(
    "prompt",
    [QUERY + " ", QUERY.removesuffix(":"), QUERY.replace("\n\nPOST", "\nPOST"), QUERY[1:], "",
     QUERY.replace("TITLE:  The", "TITLE:  The\n")],
)  # fmt: skip
def test_what_is_no_such_query_is_a_bad_row(tmp_path: Path, prompt: str) -> None:
    put(tmp_path, {"train.parquet": parquet(ASKED, {"prompt": prompt, "label": "s"})})
    with pytest.raises(RecordError, match=r"train.parquet:2: not a query with label: prompt: "):
        list(open_source(str(tmp_path)).records("train"))


def test_trap_the_better_summary_of_a_pair_is_not_always_first(tmp_path: Path) -> None:
    rows = [PAIR | {"chosen": f"TL;DR: a{n}", "rejected": f"TL;DR: b{n}"} for n in range(64)]
    swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    put(tmp_path, {"train.parquet": parquet(*rows), "valid1.parquet": parquet(*swapped)})
    source = open_source(str(tmp_path))
    first, second = (list(source.records(split)) for split in ("train", "valid1"))
    choices = [row.choice for row in first if isinstance(row, Comparison)]
    assert 16 < sum(choices) < 48
    for row, other, n in zip(first, second, range(64), strict=True):
        assert isinstance(row, Comparison) and isinstance(other, Comparison)
        # the order is of the texts alone: whichever is the better one, they stand where they stood
        assert [summary.text for summary in row.summaries] == [summary.text for summary in other.summaries]
        assert {row.choice, other.choice} == {0, 1}
        assert row.summaries[row.choice].text == f" a{n}"
        assert (row.split, other.split, row.info.post, row.info.id) == ("train", "valid1", BODY, MADE_ID)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00003.parquet", "train"),
        ("data/train-00000-of-00001-5cba982de50d7004.parquet", "train"),
        ("3.0.0/test-00000-of-00001.parquet", "3.0.0/test"),
        ("comparisons/train/0000.parquet", "comparisons/train"),
        ("default/partial-train/0009.parquet", "partial-train"),
        ("dataset/comparisons/batch3.json", "comparisons/batch3"),
        ("datasets/tldr_3_filtered/valid.jsonl", "tldr_3_filtered/valid"),
        ("posts/train.jsonl.gz", "posts/train"),
        ("data.jsonl", "data"),
    ],
)
def test_split_names_of_the_published_layouts(path: str, split: str) -> None:
    assert split_name(path) == split


def test_a_missing_shard_is_missed_and_two_forms_of_a_split_count_once() -> None:
    shards = [f"data/train-{n:05}-of-00003.parquet" for n in range(3)]
    check_shards(shards, "here")
    with pytest.raises(UsageError, match="1 of 3 shards are missing: data/train-00001-of-00003"):
        check_shards([shards[0], shards[2]], "here")
    assert by_split(["posts/train.parquet", "posts/train.jsonl"]) == {"posts/train": ["posts/train.jsonl"]}


def test_a_folder_of_no_known_layout_lists_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found no \.parquet"):
        open_source(str(tmp_path))
    put(tmp_path, {"a.jsonl": lines({"x": 1, "y": 2}), "b.parquet": parquet({"z": 1}), "c.json": b"{\n}"})
    with pytest.raises(UsageError, match=r"a.jsonl: x, y; b.parquet: z; c.json: no rows of JSON"):
        open_source(str(tmp_path))
    put(tmp_path, {"d.jsonl": lines(POST)})
    source = open_source(str(tmp_path))
    assert list(source.splits) == ["d"]
    assert [file.split(":")[0] for file in source.left_aside] == ["a.jsonl", "b.parquet", "c.json"]
    with pytest.raises(UsageError, match=r"no split 'train'(?s:.*)its splits: d"):
        source.select("d+train")
    put(tmp_path, {"d.jsonl": b"", "e.parquet": b"PAR1 no"})
    with pytest.raises(UsageError, match=r"e.parquet: not a Parquet file"):
        open_source(str(tmp_path))


def test_bad_rows_stop_or_are_counted_and_named(tmp_path: Path) -> None:
    bad = [b'{"id": "t3_9"', POST | {"post": " "}, {"id": "t3_1"}, b"\xff"]
    put(tmp_path / "in", {"train.jsonl": lines(POST, *bad, POST)})
    source = open_source(str(tmp_path / "in"))
    with pytest.raises(RecordError, match=r"train.jsonl:2: not a post: broken JSON"):
        list(source.records("train"))
    report = ReadReport(tmp_path)
    assert len(list(source.records("train", on_error="skip", report=report))) == report.good == 2
    places = [line.split(": ")[0].rpartition(":")[2] for line in report.bad]
    assert places == ["2", "3", "4", "5"]
    (split,) = fetch(source, None, tmp_path / "out", on_error="skip").splits
    assert (split.rows, len(split.bad)) == (6, 4)
    assert len((tmp_path / "out" / "train.bad.txt").read_text().splitlines()) == 4
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["splits"]["train"]["rows"], manifest["splits"]["train"]["bad"]) == (6, 4)


def test_sizes_and_table_2_are_checked_and_told() -> None:
    known = CATALOG["trl-lib/tldr"]
    assert sum(table2().values()) == known.rows["train"] == 116_722
    assert known.differences("train", 116_722, table2()) == []
    counts = dict(table2()) | {"relationships": 63_320, "cats": 325, "aww": 3}
    told = known.differences("train", 116_722, counts)
    assert told == ["train: rows by subreddit differ from Table 2: r/relationships -4, r/cats +1, r/aww +3"]
    assert known.differences("test", 6_500, {}) == ["test: 6,500 rows, known to be 6,553 (-53)"]
    unsure: KnownSource = CATALOG["openai/summarize_from_feedback"]
    assert unsure.differences("axis/test", 6_320, {}) == []
    assert unsure.differences("axis/test", 6_400, {}) != []


def test_the_manifest_says_what_was_got_and_vouches_for_it(hub: Hub, tmp_path: Path) -> None:
    name = "CarperAI/openai_summarize_tldr"
    data = parquet(ASKED)
    hub.publish(name, {"data/train-00000-of-00001.parquet": data, "data/test-00000-of-00001.parquet": data})
    out = tmp_path / "out"
    fetched = fetch(open_source(name, hub.url), "train", out)
    assert [w.split(":")[0] for w in fetched.warnings] == ["train", "train"]
    fetch(open_source(name, hub.url), "test", out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["source"], manifest["revision"], manifest["origin"]) == (name, COMMIT, hub.url)
    assert set(manifest["splits"]) == {"train", "test"}
    listed = hub.listing(name)["siblings"][0]["lfs"]
    entry = manifest["inputs"]["data/train-00000-of-00001.parquet"]
    assert (entry["sha256"], entry["bytes"]) == (listed["sha256"], len(data))
    assert entry["url"].endswith(f"resolve/{COMMIT}/data/train-00000-of-00001.parquet")
    assert read_records(out / "train.jsonl", Post)[0].post == BODY
    # another content under the same path, as a server without checksums might send: both are kept apart
    other = put(tmp_path / "other", {"data/train-00000-of-00001.parquet": parquet(ASKED, ASKED)})
    with pytest.raises(LabError, match=r"has changed: its sha256 is .* and was .* when it was fetched"):
        fetch(open_source(name, str(other)), "train", out)
    assert len(read_records(out / "train.jsonl", Post)) == 1
    with pytest.raises(UsageError, match=f"holds {name}, not"):
        fetch(open_source(str(other)), "train", out)


def test_a_damaged_file_in_the_cache_is_found(hub: Hub, tmp_path: Path) -> None:
    name = "CarperAI/openai_summarize_tldr"
    hub.publish(name, {"data/train-00000-of-00001.parquet": parquet(ASKED)})
    source = open_source(name, hub.url)
    path = source.local("data/train-00000-of-00001.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(LabError, match=r"as announced(?s:.*)remove it"):
        fetch(open_source(name, hub.url), None, tmp_path / "out")


def test_a_damaged_file_in_the_cache_is_found_by_a_study_too(hub: Hub) -> None:
    name, path = "CarperAI/openai_summarize_tldr", "data/train-00000-of-00001.parquet"
    hub.publish(name, {path: parquet(ASKED)})
    file = open_source(name, hub.url).local(path)
    assert list(open_source(name, hub.url).records("train"))
    file.write_bytes(parquet({**ASKED, "label": "Another one."}))
    with pytest.raises(LabError, match=r"as announced(?s:.*)remove it"):
        list(open_source(name, hub.url).records("train"))


def test_a_dump_without_titles_is_told(tmp_path: Path) -> None:
    for folder, rows in (("without", [RAW]), ("with", [RAW, RAW | {"title": "t"}])):
        put(tmp_path / folder, {"data/corpus-webis-tldr-17.zip": zipped(lines(*rows))})
        source = open_source("webis/tldr-17", str(tmp_path / folder))
        told = fetch(source, None, tmp_path / f"{folder}-out").warnings
        assert any("no row has a title" in warning for warning in told) == (folder == "without")
        assert any("known to be 3,848,330" in warning for warning in told)
        written = (tmp_path / f"{folder}-out" / "train.jsonl").read_text().splitlines()
        assert [read_candidate(json.loads(line)).body for line in written] == [RAW["body"]] * len(rows)


def test_real_comparisons_load_as_a_folder_of_openais(shared: Path) -> None:
    source = open_source(str(shared))
    files: Sequence[str] = source.select("comparisons")
    assert files == [f"comparisons/{name}" for name in ("batch13", "cnndm0", "edit_b2_eval_test")]
    for split, rows in zip(files, (850, 437, 5), strict=True):
        raw = [json.loads(text) for text in (shared / f"{split}.json").read_text().split("\n") if text]
        got = [json.loads(row.to_json()) for row in source.records(split)]
        assert len(got) == rows
        for before, after in zip(raw, got, strict=True):
            id = after["info"].pop("id")
            assert id == before["info"].pop("id", id)
            assert id.startswith("h_") == (split == "comparisons/edit_b2_eval_test")
            before["info"] = {key: value for key, value in before["info"].items() if value is not None}
            before["extra"] = {k: v for k, v in before.get("extra", {}).items() if v is not None}
            assert after == before
    posts = list(source.records("tldr_posts"))
    labels = list(source.records("comparisons/batch13"))
    assert convention(posts).paragraph_style == convention(labels).paragraph_style == "kept"
    assert (convention(posts).leading_share, convention(labels).leading_share) == (0.0, 1.0)


def test_real_posts_survive_the_way_through_a_query(shared: Path, tmp_path: Path) -> None:
    posts = read_records(shared / "tldr_posts.jsonl", Post)
    rows = [{"prompt": format_query(post), "completion": f" {post.summary}"} for post in posts]
    put(tmp_path, {"data/train-00000-of-00001.parquet": parquet(*rows)})
    back = list(open_source("trl-lib/tldr", str(tmp_path)).records("train"))
    for post, again in zip(posts, back, strict=True):
        assert isinstance(again, Post)
        assert (again.subreddit, again.title, again.post) == (post.subreddit, post.title, post.post)
        assert again.summary == f" {post.summary}"
        assert again.id == f"h_{body_hash(post)[:16]}"
