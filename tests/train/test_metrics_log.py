"""The log and the progress file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tldr.errors import NonFiniteError, RecordError
from tldr.train import metrics
from tldr.train.metrics import MetricsLog, Progress, read_metrics


def test_resumed_log_drops_later_rows_and_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for update in (1, 2, 3):
        log.append({"update": update, "loss": 1 / update})
    log.close()
    with path.open("a") as file:
        file.write('{"update": 4, "lo')
    assert [row["update"] for row in read_metrics(path)] == [1, 2, 3]
    log = MetricsLog(path, resumed=2)
    log.append({"update": 3, "loss": 0.25})
    log.sync()
    log.close()
    assert read_metrics(path) == [
        {"update": 1, "loss": 1.0},
        {"update": 2, "loss": 0.5},
        {"update": 3, "loss": 0.25},
    ]


def test_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 1}\n{"upd\n{"update": 3}\n')
    with pytest.raises(RecordError, match=r"metrics.jsonl:2: broken JSON"):
        read_metrics(path)
    assert read_metrics(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    "line",
    ["3", "{}", '{"update": "x"}', '{"update": 1, "update": 2}', '{"update": 1, "loss": null}', "\udcff"],
)
def test_a_row_of_another_kind_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"update": 1}}\n{line}\n', encoding="utf-8", errors="surrogateescape")
    with pytest.raises(RecordError, match=r"metrics.jsonl:2: "):
        MetricsLog(path, resumed=1)


def test_nan_is_read_and_never_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 1, "loss": NaN}\n')
    assert math.isnan(read_metrics(path)[0]["loss"])
    with pytest.raises(NonFiniteError, match="update 1 cannot be written: loss: not a finite number"):
        MetricsLog(path, resumed=1)


def test_nan_never_reaches_the_log(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError, match="the row of update 1 cannot be written: loss: not a finite number"
    ):
        MetricsLog(tmp_path / "metrics.jsonl").append({"update": 1, "loss": float("nan")})


def test_progress_once_a_second_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: clock[0])
    progress = Progress(tmp_path, total=10, done=2, seconds=30.0)

    def at(seconds: float, done: int) -> dict[str, float]:
        clock[0] = 100.0 + seconds
        progress.update(done, loss=0.5)
        return json.loads((tmp_path / "progress.json").read_text())

    assert at(2.0, 3) == {"done": 3, "total": 10, "seconds": 32.0, "eta": 14.0, "loss": 0.5}
    assert at(2.9, 4)["done"] == 3
    assert at(3.1, 5)["done"] == 5
    assert at(3.2, 10) == {"done": 10, "total": 10, "seconds": 33.2, "eta": 0.0, "loss": 0.5}
