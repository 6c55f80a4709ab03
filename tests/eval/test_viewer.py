from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.report import viewer_data as module
from eval.report.page import embedded_json
from eval.report.viewer import build_viewer
from eval.report.viewer_data import CHUNK, STEPS, viewer_data
from tldr.errors import RecordError, UsageError
from tldr.records import Judgement, Post, Sample, TokenTrace, write_json, write_records

POSTS = [
    Post(id=f"p{number}", subreddit=f"r{number % 3}", title=f"title {number}", post="text", summary="short")
    for number in range(30)
]


def sample(post: Post, method: str, seed: int, temperature: float, **more: Any) -> Sample:
    return Sample(
        id=post.id,
        policy=f"{method}-m",
        run=f"score-{method}-{seed}",
        seed=seed,
        temperature=temperature,
        text=f" {method} {post.id} seed {seed} at {temperature}",
        tokens=3,
        stopped=post.id != "p1",
        logprob=-2.0,
        logprob_sft=-3.25,
        scores={"rm": 1.0, "rm_reference": 0.5, "gold_coverage": 4.123456},
        tags={"method": method, "size": "m", "params": 1e6},
        **more,
    )


def trace(post: Post, method: str, shift: float) -> TokenTrace:
    return TokenTrace(
        id=post.id,
        policy=f"{method}-m",
        run=f"score-{method}-0",
        temperature=0.0,
        pieces=[" a", " b", "<end>"],
        logprob=[-0.5, -1.0, -0.25],
        logprob_sft=[-0.75, -0.5 - shift, -0.25],
        value=[0.1, 0.2, 0.3],
        reward=[-0.0128, 0.025, 1.5],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of an SFT and a PPO policy, each at two temperatures; seed 0 of PPO is traced."""
    place = tmp_path / "study"
    rows: list[dict[str, Any]] = []

    def run(name: str, stage: str) -> Path:
        rows.append({"run": name, "stage": stage, "folder": name})
        (place / name).mkdir(parents=True)
        write_json(place / name / "DONE", {})
        return place / name

    write_records(run("data", "data") / "valid2.jsonl", POSTS)
    for method in ("ppo", "sft"):
        for seed in (1, 0):
            scored = run(f"score-{method}-{seed}", "score")
            samples = [sample(post, method, seed, heat) for heat in (0.7, 0.0) for post in POSTS]
            write_records(scored / "samples.jsonl", samples)
    traces = [trace(post, "ppo", number / 10) for number, post in enumerate(POSTS)]
    write_records(place / "score-ppo-0" / "tokens.jsonl", traces)
    write_json(place / "study.json", {"runs": rows})
    return place


def data_of(folder: Path, judgements: tuple[Path, ...] = ()) -> tuple[dict[str, Any], list[str]]:
    return viewer_data(StudyResults(load_runs(folder), PAPER_FOLDER, draws=20), judgements)


def test_columns_are_policies_of_one_seed_in_reading_order(folder: Path) -> None:
    data, _ = data_of(folder)
    policies = data["policies"]
    assert [one["label"] for one in policies] == ["sft m, T 0", "sft m, T 0.7", "ppo m, T 0", "ppo m, T 0.7"]
    assert [one["shown"] for one in policies] == [True, False, True, False]
    assert [one["traced"] for one in policies] == [False, False, True, False]
    assert policies[3]["text"] == [f" ppo p{number} seed 0 at 0.7" for number in range(30)]
    assert policies[3]["kl"] == [1.25] * 30 and policies[3]["tokens"] == [3] * 30
    assert policies[3]["stopped"][:3] == [1, 0, 1]
    assert policies[3]["scores"] == {
        "rm": [1.0] * 30,
        "rm_reference": [0.5] * 30,
        "gold_coverage": [4.123] * 30,
    }
    assert data["scorers"] == ["rm"]
    assert data["notes"] == [
        "120 samples left out: further seeds of a policy, or of one post at one setting."
    ]
    assert data["posts"]["id"][2:4] == ["p2", "p3"] and data["posts"]["reference"][2] == "short"


def test_what_a_policy_lacks_is_missing_not_zero(folder: Path) -> None:
    few = [sample(POSTS[5], "ppo", 0, 0.0).model_copy(update={"tokens": None, "logprob": None})]
    write_records(folder / "score-ppo-0" / "samples.jsonl", few)
    policy = data_of(folder)[0]["policies"][2]
    assert policy["text"][4:7] == [None, few[0].text, None]
    assert policy["tokens"] == [None] * 30 and policy["kl"] == [None] * 30
    assert policy["scores"]["rm"][4:7] == [None, 1.0, None] and policy["stopped"][4:7] == [None, 1, None]


def test_token_values_survive_packing(folder: Path) -> None:
    data, chunks = data_of(folder)
    assert len(chunks) == -(-len(POSTS) // CHUNK) == 2
    rows = [row for chunk in chunks for row in json.loads(zlib.decompress(base64.b64decode(chunk)))]
    assert [(row, column) for row, column, *_ in rows] == [(number, 2) for number in range(30)]
    for number, _, pieces, values in rows:
        made = trace(POSTS[number], "ppo", number / 10)
        assert pieces == made.pieces
        assert made.logprob_sft is not None and made.value is not None and made.reward is not None
        kl = np.array(made.logprob) - np.array(made.logprob_sft)
        expected = {"logprob": made.logprob, "value": made.value, "reward": made.reward, "kl": kl}
        assert set(values) == set(expected)
        for name, numbers in expected.items():
            assert np.array(values[name]) / STEPS == pytest.approx(np.array(numbers), abs=0.5 / STEPS)
    every = np.abs([[0.25, number / 10 - 0.5, 0] for number in range(30)])
    assert data["tokens"]["limits"]["kl"] == float(f"{np.quantile(every, 0.9):.2g}")
    assert data["tokens"]["limits"]["logprob"] == 1.0


def judged(policies: list[str], verdict: str = "A", **more: Any) -> Judgement:
    return Judgement(id="p3", policies=policies, judge="j", **{"verdict": verdict, "order": [1, 0], **more})


def test_verdicts_find_their_columns(folder: Path, tmp_path: Path) -> None:
    mine, others = " ppo p3 seed 0 at 0.7", " ppo p3 seed 1 at 0.7"
    rows = [
        judged(["ppo-m-t0.7", "reference"], texts=[mine, "short"]),
        judged(["ppo-m-t0.7", "reference"], texts=[others, "short"], order=[0, 1]),
        judged(["sft m, T 0", "ppo-m"], "tie"),
        judged(["nobody", "sft-m-t0"], "B", axis="coverage", raw="B."),
        judged(["a", "b"]).model_copy(update={"id": "elsewhere"}),
    ]
    write_records(folder / "judgements-local.jsonl", rows[:2])
    write_records(tmp_path / "given.jsonl", rows[2:])
    data, _ = data_of(folder, (tmp_path / "given.jsonl",))
    found = {(*one["policies"], one["first"]): one for one in data["verdicts"]}
    assert len(data["verdicts"]) == 4 and {one["post"] for one in data["verdicts"]} == {3}
    assert found["ppo-m-t0.7", "reference", 1]["columns"] == [3, -1]
    assert found["ppo-m-t0.7", "reference", 1]["winner"] == 1, "A was the reference, shown first"
    assert found["ppo-m-t0.7", "reference", 0]["columns"] == [None, -1], "another seed's text is not shown"
    assert found["sft m, T 0", "ppo-m", 1]["columns"] == [0, None], "ppo-m was sampled in two ways"
    assert found["sft m, T 0", "ppo-m", 1]["winner"] == "tie"
    assert found["nobody", "sft-m-t0", 1]["winner"] == 0 and found["nobody", "sft-m-t0", 1]["raw"] == "B."
    assert "1 verdicts are about posts that are not shown." in data["notes"]


def test_broken_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        data_of(folder, (tmp_path / "none.jsonl",))
    (folder / "judgements.jsonl").write_text('{"id": "p1"}\n')
    with pytest.raises(RecordError, match=r"judgements\.jsonl:1: not a Judgement"):
        data_of(folder)


def test_what_is_left_out_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POSTS_SHOWN", 10)
    write_records(folder / "data" / "valid2.jsonl", POSTS[:5])
    data, _ = data_of(folder)
    assert data["posts"]["id"] == [f"p{number}" for number in range(10)]
    assert data["posts"]["post"][4:6] == ["text", None]
    assert data["notes"][1:] == [
        "25 posts have no text here: their posts file is not at hand.",
        "The first 10 of 30 posts.",
    ]


def test_policies_that_would_share_a_name_are_told_apart(folder: Path) -> None:
    best = {"method": "best_of_n"}
    bare = [
        Sample(id="p1", policy="x", text="a", temperature=1.0, top_p=0.9),
        Sample(id="p1", policy="y", text="b", temperature=1.0, n=4, tags=best | {"scorer": "rm"}),
        Sample(id="p1", policy="y", text="c", temperature=1.0, n=4, tags=best | {"scorer": "rouge"}),
    ]
    write_records(folder / "score-sft-0" / "samples.jsonl", bare)
    labels = [one["label"] for one in data_of(folder)[0]["policies"]]
    assert {"x, T 1, top-p 0.9", "best of 4, T 1 (y, rm)", "best of 4, T 1 (y, rouge)"} <= set(labels)
    assert len(set(labels)) == len(labels)


def test_same_input_same_bytes(folder: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        study = StudyResults(load_runs(folder), PAPER_FOLDER, draws=20)
        page = build_viewer(study, tmp_path / name, title="T")
        assert page is not None and page.name == "samples.html"
        pages.append(page.read_bytes())
    assert pages[0] == pages[1]


def test_half_a_surrogate_pair_does_not_stop_the_page(folder: Path, tmp_path: Path) -> None:
    page = build_viewer(StudyResults(load_runs(folder), PAPER_FOLDER, draws=20), tmp_path, title="a\ud800b")
    assert page is not None and "a&#55296;b" in page.read_text(encoding="utf-8")


def test_without_samples_there_is_no_viewer(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {"runs": []})
    study = StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=20)
    assert build_viewer(study, tmp_path / "out", title="T") is None
    assert not (tmp_path / "out").exists()


anything: Callable[..., Any] = st.text
HOSTILE = st.one_of(
    anything(alphabet=st.characters()),  # lone surrogates included
    st.sampled_from(["</script>", "<!--<script>", "\u2028", "\ud800", "\x00", "]]>", "</SCRIPT\n>"]),
)


@given(st.dictionaries(HOSTILE, st.lists(HOSTILE, max_size=3), max_size=3))
def test_trap_embedded_json_cannot_end_its_element(data: dict[str, list[str]]) -> None:
    text = str(embedded_json(data))
    assert "<" not in text and text.isascii() and text.isprintable()
    assert json.loads(text) == data
