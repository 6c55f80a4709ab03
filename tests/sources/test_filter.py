"""The whole filter on made-up dumps with planted rule-breakers."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tldr import locks
from tldr.errors import RecordError, UsageError
from tldr.files import host
from tldr.inputs.posts import load_posts
from tldr.queries.tokenizer import train_bpe
from tldr.records import Post
from tldr.sources import filter as filtering
from tldr.sources import filter_state
from tldr.sources.fake_dump import SHARES, fake_rows, write_fake_dump
from tldr.sources.filter import FilterProgress, run_filter
from tldr.sources.filter_rules import FilterOptions
from tldr.sources.funnel import Funnel
from tldr.sources.raw import read_chunks

ROWS = 3000


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer to which each word of the made-up posts is one token, as to GPT-2's."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_bpe([line for _, line in fake_rows(400)], 2000).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dump") / "dump.jsonl"
    write_fake_dump(path, ROWS)
    return path


@pytest.fixture(scope="module")
def plain(dump: Path, tokenizer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dump filtered at one go."""
    out = tmp_path_factory.mktemp("plain")
    run_filter([dump], out, tokenizer, workers=1, on_error="skip")
    return out


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def funnel_of(folder: Path) -> Funnel:
    return Funnel.from_json(json.loads((folder / "funnel.json").read_text()))


def test_every_planted_case_is_removed_by_its_rule(plain: Path) -> None:
    planted: dict[str, int] = {}
    for fate, _ in fake_rows(ROWS):
        planted[fate] = planted.get(fate, 0) + 1
    assert set(planted) == set(SHARES)
    funnel = funnel_of(plain)
    assert dict(funnel.removed) | {"kept": funnel.posts} == planted
    assert funnel.rows == ROWS
    assert funnel.queries == sum(
        planted[f] for f in ("kept", "summary_update", "profanity", "summary_tokens")
    )


def test_outputs_are_openais_layout_and_nested_splits(plain: Path) -> None:
    counts = funnel_of(plain).splits
    for split in ("train", "valid", "test"):
        posts, queries = (load_posts(plain / kind / f"{split}.jsonl") for kind in ("posts", "queries"))
        assert (len(posts), len(queries)) == (counts[f"posts/{split}"], counts[f"queries/{split}"])
        assert {post.id for post in posts} <= {query.id for query in queries}
        assert all(post.summary for post in posts)
        assert all(query.summary is None for query in queries)
        line = json.loads((plain / "posts" / f"{split}.jsonl").read_text().splitlines()[0])
        assert list(line) == ["id", "subreddit", "title", "post", "summary"]
        rows = pq.read_table(plain / "posts" / f"{split}.parquet").to_pylist()
        assert [Post(**row) for row in rows] == posts


def test_the_report_sets_the_paper_beside_ours(plain: Path) -> None:
    text = (plain / "funnel.md").read_text()
    funnel = funnel_of(plain)
    assert f"| summary_tokens | {funnel.posts + funnel.removed['summary_tokens']:,} " in text
    assert "287,790 |" in text and "123,169 |" in text
    assert "| relationships | " in text and "54.25%" in text
    assert sum(funnel.query_tokens.values()) == funnel.queries
    assert set(funnel.summary_tokens) <= set(range(24, 49))
    assert sum(funnel.subreddits["posts"].values()) == sum(funnel.summary_tokens.values()) == funnel.posts


def test_the_manifest_names_inputs_outputs_and_rules(plain: Path, dump: Path) -> None:
    manifest = json.loads((plain / "manifest.json").read_text())
    assert manifest["inputs"][0]["sha256"] == hashlib.sha256(dump.read_bytes()).hexdigest()
    found = hashes(plain)
    assert {name: entry["sha256"] for name, entry in manifest["outputs"].items()} == found
    assert {"bad_lines.txt", "posts/train.jsonl", "queries/test.parquet"} <= set(found)
    assert "suicide.txt" in manifest["request"]["rules"]
    assert not (plain / "state").exists()


def test_an_interrupted_filter_ends_with_the_same_bytes(
    plain: Path, dump: Path, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtering, "CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr(filter_state, "SYNC_SECONDS", 0.0)
    copy = tmp_path / "dump.jsonl.gz"
    copy.write_bytes(gzip.compress(dump.read_bytes(), 1))
    stops = iter([3, 6])
    seen: list[int] = []

    def stop_at(limit: int | None) -> Any:
        def callback(progress: FilterProgress) -> None:
            seen.append(progress.funnel.rows)
            # the chunk that has just been written was not noted: it must be cut off again
            monkeypatch.setattr(filter_state, "SYNC_SECONDS", 1e9 if len(seen) == limit else 0.0)
            if limit is not None and len(seen) > limit:
                raise KeyboardInterrupt

        return callback

    for limit in stops:
        with pytest.raises(KeyboardInterrupt):
            run_filter(
                [copy], tmp_path / "out", tokenizer, workers=1, on_error="skip", progress=stop_at(limit)
            )
    run_filter([copy], tmp_path / "out", tokenizer, workers=1, on_error="skip", progress=stop_at(None))
    assert len(seen) > len(set(seen)), "some chunk was done twice"
    assert seen[-1] == ROWS
    # the only difference is the file's name beside the bad lines
    bad = tmp_path / "out" / "bad_lines.txt"
    bad.write_text(bad.read_text().replace("dump.jsonl.gz:", "dump.jsonl:"))
    assert hashes(tmp_path / "out") == hashes(plain)


@pytest.mark.parametrize(
    ("signum", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_filter_that_is_told_to_end_saves_all_that_it_has_done(
    dump: Path, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int, end: type
) -> None:
    monkeypatch.setattr(filtering, "CHUNK_BYTES", 1 << 16)
    done: list[int] = []

    def stop(progress: FilterProgress) -> None:
        done.append(progress.funnel.rows)
        os.kill(os.getpid(), signum)

    with pytest.raises(end):
        run_filter([dump], tmp_path, tokenizer, workers=1, on_error="skip", progress=stop)
    noted = json.loads((tmp_path / "state" / "progress.json").read_text())
    assert len(done) == 1 and noted["funnel"]["rows"] == done[0] < ROWS


def test_a_second_filter_into_one_folder_is_told_who_the_first_is(
    dump: Path, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    told: list[str] = []

    def second(_: FilterProgress) -> None:
        with pytest.raises(locks.Busy) as busy:
            run_filter([dump], tmp_path, tokenizer, workers=1, on_error="skip")
        told.append(busy.value.what)
        raise KeyboardInterrupt  # the first has done enough

    monkeypatch.setattr(filtering, "CHUNK_BYTES", 1 << 16)
    with pytest.raises(KeyboardInterrupt):
        run_filter([dump], tmp_path, tokenizer, workers=1, on_error="skip", progress=second)
    assert told[0] == f"process {os.getpid()} on {host()} is filtering into this folder"


def test_digests_are_remembered_as_a_set_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_state, "LATEST", 50)  # merged into the sorted array many times over
    rng = random.Random(2)
    seen, expected = filter_state.Seen(), set[bytes]()
    written = b""
    for _ in range(200):
        digests = [rng.randrange(2000).to_bytes(8, "big") for _ in range(rng.randrange(12))]
        fresh = []
        for digest in digests:
            fresh.append(digest not in expected)
            expected.add(digest)
        assert seen.new(b"".join(digests)) == fresh
        written += b"".join(d for d, new in zip(digests, fresh, strict=True) if new)
        if rng.random() < 0.1:  # killed, and going on from what was written
            seen = filter_state.Seen(written)
    assert len(written) == 8 * len(expected)


def test_a_finished_filter_is_not_done_again(plain: Path, dump: Path, tokenizer: str) -> None:
    before = (plain / "manifest.json").stat().st_mtime_ns
    again = run_filter([dump], plain, tokenizer, workers=1, on_error="skip")
    assert again == funnel_of(plain)
    assert (plain / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="other inputs, options, rules or another tokenizer"):
        run_filter([dump], plain, tokenizer, FilterOptions(off=("suicide",)), workers=1, on_error="skip")


def _dump(path: Path, word: str, rows: int = 60) -> Path:
    """Rows whose bodies hold a word; words of one length give files of one size."""
    lines = [
        {
            "id": str(n),
            "subreddit": "dogs",
            "title": "My dog",
            "body": f"{word} {n}.\n\nTL;DR: {word} ran {n}",
        }
        for n in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _outward(path: Path) -> tuple[str, int]:
    return path.name, path.stat().st_size


def test_another_file_of_the_same_name_and_size_is_another(tokenizer: str, tmp_path: Path) -> None:
    path = _dump(tmp_path / "dump.jsonl", "fox")
    outward = _outward(path)
    run_filter([path], tmp_path / "out", tokenizer, workers=1)
    times = path.stat()
    _dump(path, "cat")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _outward(path) == outward
    with pytest.raises(UsageError, match="the folder holds the result of other inputs"):
        run_filter([path], tmp_path / "out", tokenizer, workers=1)
    _dump(path, "fox")  # downloaded again: the same content is the same file
    assert run_filter([path], tmp_path / "out", tokenizer, workers=1).rows == 60


def _stop(progress: FilterProgress) -> None:
    raise KeyboardInterrupt


def test_a_filter_does_not_go_on_with_another_file(
    tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtering, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(filter_state, "SYNC_SECONDS", 0.0)
    path = _dump(tmp_path / "dump.jsonl", "fox")
    with pytest.raises(KeyboardInterrupt):
        run_filter([path], tmp_path / "out", tokenizer, workers=1, progress=_stop)
    _dump(path, "cat")
    with pytest.raises(UsageError, match="the folder holds the result of other inputs"):
        run_filter([path], tmp_path / "out", tokenizer, workers=1)


def test_a_file_that_changes_while_it_is_filtered_gives_no_result(
    tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _dump(tmp_path / "dump.jsonl", "fox")
    with pytest.raises(UsageError, match=r"dump.jsonl: the file was changed while it was read"):
        run_filter(
            [path], tmp_path / "out", tokenizer, workers=1, progress=lambda _: _dump(path, "cat") and None
        )
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("damage", ["seen.bin", "progress.json"])
def test_a_damaged_state_of_the_filter_is_named(
    damage: str, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter_state, "SYNC_SECONDS", 0.0)
    path = _dump(tmp_path / "dump.jsonl", "fox")
    with pytest.raises(KeyboardInterrupt):
        run_filter([path], tmp_path / "out", tokenizer, workers=1, progress=_stop)
    state = tmp_path / "out" / "state" / damage
    state.write_bytes(state.read_bytes()[:-8])
    with pytest.raises(UsageError, match=rf"{damage}: (the file is shorter|what an earlier run wrote)"):
        run_filter([path], tmp_path / "out", tokenizer, workers=1)


def _compress(data: bytes, kind: str, folder: Path) -> str:
    path = folder / f"dump.jsonl.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("corpus.json", data)
            archive.writestr("README.md", "hello")
    elif kind == "zst":
        zstandard = pytest.importorskip("zstandard")
        half = data.index(b"\n", len(data) // 2) + 1
        path.write_bytes(b"".join(zstandard.compress(part) for part in (data[:half], data[half:])))
    else:
        path.write_bytes({"gz": gzip.compress, "bz2": bz2.compress}[kind](data))
    return str(path)


@pytest.mark.parametrize("kind", ["gz", "bz2", "zip", "zst"])
def test_compressed_files_read_alike_from_any_offset(kind: str, dump: Path, tmp_path: Path) -> None:
    data = b"".join(dump.read_bytes().splitlines(keepends=True)[:300])
    name = _compress(data, kind, tmp_path)
    chunks = list(read_chunks(name, 200_000))
    assert b"".join(chunk.data for chunk in chunks) == data
    assert all(chunk.data.endswith(b"\n") for chunk in chunks)
    assert [chunk.first_line for chunk in chunks[:2]] == [1, chunks[0].data.count(b"\n") + 1]
    second = next(read_chunks(name, 200_000, chunks[0].end, chunks[1].first_line))
    assert (second.data, second.first_line, second.end) == (
        chunks[1].data,
        chunks[1].first_line,
        chunks[1].end,
    )


def test_several_files_are_one_dump(plain: Path, dump: Path, tokenizer: str, tmp_path: Path) -> None:
    lines = dump.read_bytes().splitlines(keepends=True)
    names = [tmp_path / "a.jsonl", tmp_path / "b.json"]
    for name, part in zip(names, (lines[:1000], lines[1000:]), strict=True):
        name.write_bytes(b"".join(part))
    run_filter(names, tmp_path / "out", tokenizer, workers=1, on_error="skip")
    assert hashes(tmp_path / "out")["posts/train.jsonl"] == hashes(plain)["posts/train.jsonl"]
    assert (tmp_path / "out" / "bad_lines.txt").read_text().count("b.json:") > 0


def test_archives_with_several_members_need_a_name(dump: Path, tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", "one\n")
        archive.writestr("b.json", "two\n")
    with pytest.raises(UsageError, match=r"2 .json/.jsonl members.*\n.*many.zip::MEMBER"):
        next(read_chunks(path, 10))
    assert next(read_chunks(f"{path}::b.json", 10)).data == b"two\n"
    with pytest.raises(UsageError, match=r"no member 'c\.json'"):
        next(read_chunks(f"{path}::c.json", 10))


def test_damaged_and_missing_files_are_named(dump: Path, tmp_path: Path, tokenizer: str) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(dump.read_bytes()[:100_000])[:-2000])
    with pytest.raises(UsageError, match=r"cut.gz: cannot be read to its end"):
        run_filter([cut], tmp_path / "out", tokenizer, workers=1)
    with pytest.raises(UsageError, match="no such file"):
        run_filter([tmp_path / "none.jsonl"], tmp_path / "out2", tokenizer, workers=1)
    with pytest.raises(UsageError, match="no input file"):
        run_filter([], tmp_path / "out2", tokenizer)


GOOD = {"id": "1", "subreddit": "dogs", "title": "My dog", "body": "It ran.\n\nTL;DR: dog ran"}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"id": "1"', "broken JSON"),
        (b'{"id": "\xff"}', "invalid UTF-8"),
        (b"[1]", "expected a JSON object, found list"),
        (b"[" * 100_000, "nested too deeply"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "body"}).encode(), "no field 'body'"),
        (json.dumps(GOOD | {"id": ""}).encode(), "no field 'id', or an empty one"),
        (json.dumps(GOOD | {"title": 3}).encode(), "title: expected text, found int"),
        (json.dumps(GOOD | {"body": "\ud800"}).encode(), "body: an unpaired surrogate"),
    ],
)
def test_bad_lines_stop_or_are_counted(line: bytes, what: str, tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(RecordError, match=rf"^dump.jsonl:3: .*{what}"):
        run_filter([path], tmp_path / "stop", tokenizer, workers=1)
    funnel = run_filter([path], tmp_path / "skip", tokenizer, workers=1, on_error="skip")
    assert (funnel.rows, funnel.removed["bad_line"], funnel.queries) == (2, 1, 1)
    assert (tmp_path / "skip" / "bad_lines.txt").read_text().startswith("dump.jsonl:3: ")


def test_rules_can_be_switched_off(dump: Path, plain: Path, tokenizer: str, tmp_path: Path) -> None:
    off = ("duplicate", "query_tokens", "summary_tokens", "profanity")
    funnel = run_filter(
        [dump], tmp_path / "out", tokenizer, FilterOptions(off=off), workers=1, on_error="skip"
    )
    assert not any(funnel.removed[name] for name in off)
    usual = funnel_of(plain)
    assert funnel.posts > usual.posts + usual.removed["query_tokens"]


def test_without_no_tldr_the_dumps_own_parts_are_taken(tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl"
    rows = [GOOD | {"id": "a", "content": "Its own.", "summary": "own"}, GOOD | {"id": "b", "body": "x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = FilterOptions(off=("no_tldr", "summary_tokens"), valid=0, test=0)
    funnel = run_filter([path], tmp_path / "out", tokenizer, options, workers=1, on_error="skip")
    assert (funnel.posts, funnel.removed["bad_line"]) == (1, 1)
    (post,) = load_posts(tmp_path / "out" / "posts" / "train.jsonl")
    assert (post.id, post.post, post.summary) == ("t3_a", "Its own.", "own")


def test_a_dump_without_titles_is_refused(tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / "hub.jsonl"
    path.write_text(
        "".join(
            json.dumps({k: v for k, v in GOOD.items() if k != "title"} | {"body": f"{n} {GOOD['body']}"})
            + "\n"
            for n in range(3)
        )
    )
    with pytest.raises(UsageError, match="none of 3 rows has a title"):
        run_filter([path], tmp_path / "out", tokenizer, workers=1)


PROGRAM = """
import sys
from tldr.sources import filter
from tldr.sources import filter_state
filter.CHUNK_BYTES, filter_state.SYNC_SECONDS = 1 << 18, 0.0
if __name__ == "__main__":
    filter.run_filter([sys.argv[1]], sys.argv[2], sys.argv[3], workers=2, on_error="skip")
"""


@pytest.mark.slow
def test_a_filter_killed_in_its_pool_goes_on(plain: Path, dump: Path, tokenizer: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(dump), str(tmp_path / "out"), tokenizer]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    noted = tmp_path / "out" / "state" / "progress.json"
    process = subprocess.Popen(command, env=env)
    deadline = time.monotonic() + 120
    while not noted.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < json.loads(noted.read_text())["funnel"]["rows"] < ROWS
    subprocess.run(command, env=env, check=True)
    assert hashes(tmp_path / "out") == hashes(plain)


@pytest.mark.slow
def test_filters_of_one_folder_at_once_make_it_once(
    plain: Path, dump: Path, tokenizer: str, tmp_path: Path
) -> None:
    """Each of eight is done, or is told which one is at work; the folder is that of one filter."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(dump), str(tmp_path / "out"), tokenizer]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    ends = [(process.communicate(timeout=500)[1], process.returncode) for process in running]
    assert any(code == 0 for _, code in ends)
    assert all(code == 0 or "is filtering into this folder" in text for text, code in ends), ends
    assert hashes(tmp_path / "out") == hashes(plain)
