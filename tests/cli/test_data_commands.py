"""``data filter`` and ``data fake-dump`` as a user types them."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from tldr.cli.main import app
from tldr.queries.tokenizer import train_bpe
from tldr.records import Post, read_records, write_records
from tldr.sources.fake_dump import fake_rows
from tldr.sources.split import SETS


def test_a_made_up_dump_is_filtered_and_told(tmp_path: Path) -> None:
    train_bpe([line for _, line in fake_rows(300)], 2000).save_pretrained(tmp_path / "bpe")
    call = CliRunner().invoke
    dump, out = str(tmp_path / "dump.jsonl"), str(tmp_path / "out")
    made = call(app, ["data", "fake-dump", dump, "--rows", "400"])
    assert made.exit_code == 0
    planted = dict(line.split(": ") for line in made.stdout.splitlines())

    common = ["data", "filter", dump, "--out", out, "--tokenizer", str(tmp_path / "bpe"), "--workers", "1"]
    stopped = call(app, common)
    assert stopped.exit_code == 1
    assert "dump.jsonl:" in stopped.stderr and "--on-error skip" in stopped.stderr

    out = common[4] = str(tmp_path / "out2")
    done = call(app, [*common, "--on-error", "skip", "--set", "off=[profanity]"])
    assert done.exit_code == 0, done.stderr
    assert "123,169" in done.stdout
    assert (Path(out) / "funnel.png").is_file()
    kept = len((Path(out) / "posts" / "train.jsonl").read_text().splitlines())
    assert 0 < kept <= int(planted["kept"]) + int(planted["profanity"])

    other = call(app, [*common, "--on-error", "skip"])
    assert other.exit_code == 2
    assert "another folder" in other.stderr
    assert call(app, [*common, "--set", "off=[topic]"]).exit_code == 2


def test_a_split_stops_at_a_bad_line_or_sets_it_aside(tmp_path: Path) -> None:
    posts = [
        Post(id=f"t3_{n}", subreddit="r", title="A title", post=f"text {n}", summary="short")
        for n in range(60)
    ]
    place = write_records(tmp_path / "posts.jsonl", posts)
    with place.open("a") as file:
        file.write("{broken\n")
    line = ["data", "split", str(place), "--out", str(tmp_path / "out"), "--valid1", "0.2", "--valid2", "0.2"]
    stopped = CliRunner().invoke(app, line)
    assert stopped.exit_code == 1 and "posts.jsonl:61" in stopped.stderr
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, [*line, "--on-error", "skip"])
    assert done.exit_code == 0 and "1 invalid lines skipped, 60 read" in done.stderr
    written = [len(read_records(tmp_path / "out" / f"{name}.jsonl", Post)) for name in SETS]
    assert sum(written) == 60 and min(written) > 0
