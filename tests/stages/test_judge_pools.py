"""Judges of the best of pools: which texts they see, each once, and what the plan says of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from eval.best_of_n.judged import judged_best_of_n_table
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from tests.judge.judge_server import Reply, Server, says, serving
from tests.stages import lab as laboratory
from tldr.errors import LabError, Waiting
from tldr.label.batch import LABELING
from tldr.label.items import read_items
from tldr.label.labelers import Labelers
from tldr.label.project import Project
from tldr.label.robots import robot_labels
from tldr.label.settings import LabelSettings
from tldr.plan.judging import judged_pools, most_texts
from tldr.records import Comparison, Judgement, Sample, read_records, write_records
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.judge import JudgeRun
from tldr.stages.judge.algorithm import best_texts
from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.judge.stage import pool_pairs_of
from tldr.study.runs import InputSource, Run
from tldr.toy import labelers

CHOOSERS = ("rm", "rouge", "length", "gold")
Texts = dict[str, set[str]]


def texts_by_hand(place: Path, posts: int) -> Texts:
    """By post the texts that are the best of the first 1, 2 or 4 of the lab's pool, by four choosers."""
    rows = [json.loads(line) for line in (place / "pool.jsonl").read_text().splitlines()]
    every = sorted({row["id"] for row in rows}, key=lambda one: hashlib.sha256(one.encode()).digest())
    found: Texts = {}
    for post in every[:posts]:
        samples = [row for row in rows if row["id"] == post]
        assert len(samples) == 4
        for chooser in CHOOSERS:
            scores = [row["tokens"] if chooser == "length" else row["scores"][chooser] for row in samples]
            picked = {scores.index(max(scores[:n])) for n in (1, 2, 4)}
            found.setdefault(post, set()).update(samples[place]["text"] for place in picked)
    return found


def judging(lab: Path, folder: Path, settings: JudgeSettings | None = None, **more: Any) -> JudgeRun:
    inputs = {"data": lab / "data", "samples-ppo-s": lab / "score", "pool-s": lab / "best_of_n"}
    if settings is None:
        inputs["reward"] = lab / "reward"
        made = laboratory.changed("judge", {"pool_share": 0.5})
        assert isinstance(made, JudgeSettings)
        settings = made
    ctx: JudgeRun = laboratory.context("judge", lab, folder, settings=settings, inputs=inputs, **more)
    return ctx


def test_each_different_best_text_is_judged_once_in_both_orders(lab: Path, tmp_path: Path) -> None:
    """On half of the 20 posts; the verdicts on samples are those of a run without pools, up to last bits."""
    made = laboratory.run(judging(lab, tmp_path / "judge"), "judge")
    rows = read_records(made / "pool_judgements.jsonl", Judgement)
    texts = texts_by_hand(lab / "best_of_n", 10)
    asked = Counter((row.id, (row.texts or [""])[0], *row.order) for row in rows)
    assert set(asked.values()) == {1}
    assert set(asked) == {
        (post, text, *order) for post, some in texts.items() for text in some for order in ((0, 1), (1, 0))
    }
    assert {(*row.policies, *row.runs) for row in rows} == {("pool-s", "reference", "best_of_n")}
    own, before = (read_records(place / "judgements.jsonl", Judgement) for place in (made, lab / "judge"))
    assert [row.model_copy(update={"probability": None}) for row in own] == [
        row.model_copy(update={"probability": None}) for row in before
    ]
    assert [row.probability for row in own] == pytest.approx([row.probability for row in before], abs=1e-6)
    about = json.loads((made / "judge.json").read_text())
    assert about == json.loads((lab / "judge" / "judge.json").read_text()) | {
        "pool_posts": 10,
        "pool_pairs": sum(map(len, texts.values())),
    }


def test_the_verdicts_on_a_pool_are_the_reward_model_s_scores(lab: Path, tmp_path: Path) -> None:
    """It reads texts, as people do: the scores are those of samples that come without their tokens."""
    made = laboratory.run(judging(lab, tmp_path / "judge"), "judge")
    texts = [
        one.model_copy(update={"response_ids": None, "stopped": True})
        for one in read_records(lab / "best_of_n" / "pool.jsonl", Sample)
    ]
    write_records(tmp_path / "texts.jsonl", texts)
    inputs = {"samples": tmp_path / "texts.jsonl", "reward": lab / "reward", "data": lab / "data"}
    score = laboratory.run(laboratory.context("score", lab, tmp_path / "score", inputs=inputs), "score")
    scores = {(row.id, row.text): row.scores for row in read_records(score / "samples.jsonl", Sample)}
    for row in read_records(made / "pool_judgements.jsonl", Judgement):
        of_text = scores[row.id, (row.texts or [""])[0]]
        ahead = of_text["rm"] - of_text["rm_reference"]
        assert row.probability == pytest.approx(expit(ahead if row.order == [0, 1] else -ahead), abs=1e-5)


def test_the_share_says_on_how_many_of_a_pool_s_posts() -> None:
    settings = [JudgeSettings(kind="people", posts=20, pool_share=share) for share in (0.0, 0.01, 0.25, 1.0)]
    assert [one.pool_posts(24) for one in settings] == [0, 1, 5, 20]
    assert settings[-1].pool_posts(8) == 8


def test_a_larger_share_only_adds_posts(lab: Path, tmp_path: Path) -> None:
    posts = []
    for share in (0.2, 0.6):
        settings = laboratory.changed("judge", {"pool_share": share})
        assert isinstance(settings, JudgeSettings)
        posts.append([pair.post.id for pair in pool_pairs_of(judging(lab, tmp_path / "judge", settings))])
    assert set(posts[0]) < set(posts[1]) and posts[1][: len(posts[0])] == posts[0]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def prefers_the_first(prompt: str, count: int) -> Reply:
    return says("A")


def asking(lab: Path, folder: Path, server: Server, **more: Any) -> JudgeRun:
    values = {"kind": "openai", "model": "m", "base_url": server.url, "price": "1000/1000", "posts": 6}
    settings = JudgeSettings.model_validate(values | {"pool_share": 0.5, "temperatures": [0.0]} | more)
    return judging(lab, folder, settings, tags={"variant": "gpt"})


@pytest.mark.usefixtures("key")
def test_no_answer_on_a_pool_is_paid_for_twice_when_a_limit_stopped_it(lab: Path, tmp_path: Path) -> None:
    """A sample and a pool's best of the same text are one question, whoever wrote it."""
    with serving(prefers_the_first) as server:
        with pytest.raises(LabError, match="maximum cost is reached"):
            laboratory.run(asking(lab, tmp_path / "run", server, max_cost=1.5), "judge")
        assert server.asked and not (tmp_path / "run" / "pool_judgements.jsonl").exists()
        laboratory.run(asking(lab, tmp_path / "run", server, max_cost=90.0), "judge")
        assert set(server.asked.values()) == {1}
    samples = read_records(tmp_path / "run" / "judgements.jsonl", Judgement)
    pools = read_records(tmp_path / "run" / "pool_judgements.jsonl", Judgement)
    texts = texts_by_hand(lab / "best_of_n", 3)
    assert len(pools) == 2 * sum(map(len, texts.values())) and len(samples) == 2 * 6
    different = {(row.id, *(row.texts or []), *row.order) for row in [*samples, *pools]}
    assert len(server.asked) == len(different)
    assert {(row.judge, row.verdict) for row in pools} == {("gpt", "A")}


def test_people_see_each_text_once_and_answer_for_samples_and_pools(lab: Path, tmp_path: Path) -> None:
    page = LabelSettings(shared=0.0, calibration=0.0)
    settings = JudgeSettings(kind="people", posts=6, page=page, pool_share=0.5, unanswered=0.001)
    ctx = judging(lab, tmp_path / "judge-s0", settings)
    with pytest.raises(Waiting):
        laboratory.run(ctx, "judge")
    place = ctx.folder.parent / LABELING / ctx.folder.name
    items = read_items(place / "items.jsonl")
    asked = [(str(item.info.id), item.summaries[0].text) for item in items]
    pool = {
        (post, text.strip())
        for post, some in texts_by_hand(lab / "best_of_n", 3).items()
        for text in some
        if text.strip()
    }
    assert len(asked) == len(set(asked)) and pool <= set(asked)
    project = Project.open(place, page)
    project.labelers.add("Ann", 0.0)
    (who,) = Labelers(project.database).all()
    robot_labels(project.desk, who, labelers.WORKERS[4], 10_000)
    project.database.close()
    laboratory.run(ctx, "judge")
    rows = read_records(ctx.folder / "pool_comparisons.jsonl", Comparison)
    assert {row.summaries[0].policy for row in rows} == {"pool-s"} and len(rows) >= len(pool) - 1
    assert {(str(row.info.id), row.summaries[0].text) for row in rows} <= pool
    others = read_records(ctx.folder / "comparisons.jsonl", Comparison)
    assert {(row.summaries[0].policy or "")[:3] for row in others} == {"ppo"}


def pool_run(n: int, scorers: list[str], rewards: list[str], posts: int | None = None) -> Run:
    settings = BestOfNSettings.model_validate({"n": n, "scorers": scorers, "posts": posts})
    data = InputSource(runs=(Run("data", laboratory.SETTINGS["data"]),))
    models = {name: InputSource(external=f"model {name}", identity=f"model {name}") for name in rewards}
    same = {"reward-s": models["reward"]}  # the main reward model, named once more for its size
    return Run("best_of_n", settings, parents={"data": data, **models, **same})


def judge_of(pool: Run, share: float, posts: int) -> Run:
    settings = JudgeSettings(kind="people", posts=posts, pool_share=share)
    return Run("judge", settings, parents={"pool-s": InputSource(runs=(pool,))})


def test_the_plan_counts_posts_and_texts_of_the_lab_s_pool(lab: Path) -> None:
    pool = pool_run(4, ["rm", "gold", "rouge"], ["reward"])
    ((posts, texts),) = judged_pools(judge_of(pool, 0.5, 20), lambda asked: 24 if asked is None else asked)
    judged = texts_by_hand(lab / "best_of_n", 10)
    assert posts == len(judged) == 10
    # 1 text at N = 1, at most 1 more at N = 2 and 2 more at N = 4, as no more samples are new
    assert texts == 4 >= max(map(len, judged.values()))


def test_the_plan_s_count_is_what_is_judged_where_every_doubling_has_a_better_text() -> None:
    """Each chooser likes another of the new samples best, as long as they go round."""
    pool = pool_run(16, ["rm"], ["reward", "reward-m"])
    ((posts, texts),) = judged_pools(judge_of(pool, 1.0, 500), lambda asked: 3)
    names = ("rm", "rm_m", "gold")  # with length, four choosers
    rows = []
    for post in "abc":
        for place in range(16):
            level = place.bit_length()
            first = 2 ** (level - 1) if level else 0
            liked = dict.fromkeys([*names, "length"], float(level * 10))
            liked[[*names, "length"][(place - first) % 4]] += 5
            tokens = int(liked.pop("length"))
            rows.append(Sample(id=post, policy="sft-s", text=f"{post} {place}", scores=liked, tokens=tokens))
    found = best_texts(rows)
    assert sum(map(len, found.values())) == posts * texts == 3 * (1 + 1 + 2 + 4 + 4)


def test_the_most_texts_of_a_pool() -> None:
    assert [most_texts(n, 3) for n in (1, 2, 3, 4, 6, 64)] == [1, 2, 3, 4, 6, 1 + 1 + 2 + 3 * 4]
    assert most_texts(2048, 1) == 12


def test_texts_that_differ_in_white_space_at_their_ends_are_one() -> None:
    rows = [
        Sample(id="a", policy="p", text=text, scores={"rm": score})
        for text, score in ((" one", 0.0), ("one ", 1.0), ("two", 2.0), ("less", -1.0))
    ]
    assert best_texts(rows) == {"a": [" one", "two"]}


def of_lab(lab: Path, judge: Path, names: Sequence[str]) -> StudyResults:
    """The laboratory's runs and a judge's as a study."""
    rows: list[dict[str, Any]] = [
        {"run": name, "stage": name, "folder": str(lab / name), "size": "s", "seed": 0, "params": 10_000}
        for name in names
    ]
    pool = {"reward": "reward", "policy": "sft", "data": "data"}
    rows = [row | ({"parents": pool} if row["stage"] == "best_of_n" else {}) for row in rows]
    parents = {"data": "data", "reward": "reward", "samples-ppo-s": "score", "pool-s": "best_of_n"}
    rows.append({"run": judge.name, "stage": "judge", "folder": str(judge), "seed": 0, "parents": parents})
    runs = load_runs(judge.parent, {"study": "lab", "runs": rows})
    finished = tuple(type(run)(**{**vars(run), "finished": True}) for run in runs.runs)
    return StudyResults(type(runs)(runs.folder, finished), PAPER_FOLDER, draws=200)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def best(samples: list[dict[str, Any]], chooser: str, n: int) -> dict[str, Any]:
    """The first of the highest of the first n samples of a post."""
    score = lambda row: row["tokens"] if chooser == "length" else row["scores"][chooser]  # noqa: E731
    return max(samples[:n], key=score)


def test_verdicts_that_the_stages_made_are_the_table(lab: Path, tmp_path: Path) -> None:
    """A pool that a policy drew, judged by a reward model, and counted by hand from the files."""
    judge = laboratory.run(judging(lab, tmp_path / "judge", tags={"variant": "held-out"}), "judge")
    study = of_lab(lab, judge, ("data", "sft", "reward", "best_of_n", "score"))
    said: dict[tuple[str, str], list[float]] = {}
    for row in lines(judge / "pool_judgements.jsonl"):
        first = {"A": row["order"] == [0, 1], "B": row["order"] == [1, 0], "tie": 0.5}[row["verdict"]]
        said.setdefault((row["id"], row["texts"][0].strip()), []).append(float(first))
    posts = {post for post, _ in said}
    assert len(posts) == 10
    pool: dict[str, list[dict[str, Any]]] = {}
    for row in lines(lab / "best_of_n" / "pool.jsonl"):
        pool.setdefault(row["id"], []).append(row)
    table = judged_best_of_n_table(study)
    assert {(row.selected_by, row.best_of) for row in table.itertuples()} == {
        (chooser, n) for chooser in ("rm", "rouge", "length", "gold") for n in (1, 2, 4)
    }
    for row in table.itertuples():
        texts = [(post, best(pool[post], row.selected_by, row.best_of)["text"].strip()) for post in posts]
        assert row.value == pytest.approx(np.mean([np.mean(said[text]) for text in texts]))
        assert (row.scorer, row.posts) == ("verdicts held-out", 10)
    first = table[table["best_of"] == 1]["value"]
    assert first.nunique() == 1, "the first sample is everybody's best of one"
