"""The `evaluate` module, loaded in a process of its own that has no network and an empty cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import eval.rouge
from eval.rouge.measure import rouge
from tests.eval.oracles import bootstrap_mean

PREDICTIONS = [
    "the cat sat down",
    "he was running. she left",
    "a b c",
    "no",
    *("abcdefgh"[:n] for n in range(1, 9)),
]
REFERENCES = [
    "the cat lay down",
    "she left. he runs",
    "a b",
    "yes",
    *("a b ab c abc d abcd e" for _ in range(8)),
]
PREDICTIONS = [" ".join(text) if len(text) > 2 and " " not in text else text for text in PREDICTIONS]
POSTS = [number // 2 for number in range(len(PREDICTIONS))]
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "again": {},
    "other seed": {"seed": 1},
    "stemmed": {"use_stemmer": True, "split_sentences": True, "rouge_types": ["rouge1", "rougeLsum"]},
    "each": {"use_aggregator": False},
    "clustered": {"clusters": POSTS},
    "backend": {"backend": "rouge-score"},
    "wrong": {"rouge_types": ["rouge9"]},
}
CODE = """
import json, socket, sys
def refuse(*args, **kwargs): raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = refuse
sys.modules["transformers"] = None  # evaluate wants it for other things, and it takes seconds to import
import evaluate
del sys.modules["transformers"]
folder, predictions, references, calls = json.loads(sys.stdin.read())
metric, made = evaluate.load(folder), {}
for name, options in calls.items():
    try:
        made[name] = metric.compute(predictions=predictions, references=references, **options)
    except Exception as error:
        made[name] = str(error)
metric.add_batch(predictions=predictions[:9], references=references[:9])
metric.add_batch(predictions=predictions[9:], references=references[9:])
made["batches"] = metric.compute()
print(json.dumps(made))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("hub")
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps([str(eval.rouge.METRIC), PREDICTIONS, REFERENCES, CALLS]),
        cwd=Path(eval.rouge.__file__).parents[2],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "m")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_it_gives_our_numbers(made: dict[str, Any]) -> None:
    scores = rouge(REFERENCES, PREDICTIONS)
    plain = made["plain"]
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        assert plain[name] == pytest.approx(scores[f"{name}_f"].mean(), abs=1e-12)
        assert plain[f"{name}_precision"] == pytest.approx(scores[f"{name}_p"].mean())
        assert plain[f"{name}_recall"] == pytest.approx(scores[f"{name}_r"].mean())
    assert plain["rouge_mean"] == pytest.approx(scores["rouge_mean"].mean())
    assert (plain["pairs"], plain["stemmer"]) == (12, False)
    assert made["each"]["rougeL"] == scores["rougeL_f"].tolist()
    assert {k: v for k, v in made["backend"].items() if k != "backend"} == pytest.approx(
        {k: v for k, v in plain.items() if k != "backend"}
    )


def test_the_interval_is_seeded_and_clustered(made: dict[str, Any]) -> None:
    plain, clustered, scores = made["plain"], made["clustered"], rouge(REFERENCES, PREDICTIONS)
    assert plain == made["again"] and plain["rouge1_low"] < plain["rouge1"] < plain["rouge1_high"]
    assert plain != made["other seed"] and plain["rouge1"] == made["other seed"]["rouge1"]
    ours = bootstrap_mean(scores["rouge1_f"], POSTS, draws=2000)
    assert (clustered["rouge1_low"], clustered["rouge1_high"]) == pytest.approx((ours.low, ours.high))


def test_options(made: dict[str, Any]) -> None:
    scores = rouge(REFERENCES, PREDICTIONS, stemmer=True, split_sentences=True)
    stemmed = made["stemmed"]
    assert stemmed["stemmer"] is True and "rouge2" not in stemmed
    assert stemmed["rougeLsum"] == pytest.approx(scores["rougeLsum_f"].mean())
    assert "no such ROUGE: rouge9" in made["wrong"]


def test_trap_rouge_is_averaged_over_the_whole_set_not_by_batch(made: dict[str, Any]) -> None:
    scores = rouge(REFERENCES, PREDICTIONS)["rouge1_f"]
    assert made["batches"] == made["plain"]
    assert abs((scores[:9].mean() + scores[9:].mean()) / 2 - made["batches"]["rouge1"]) > 0.01
