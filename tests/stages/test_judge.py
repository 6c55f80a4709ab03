"""The judge stage: a held-out reward model or a language model compares samples with the references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from tests.judge.judge_server import Reply, Server, says, serving
from tests.stages import lab as laboratory
from tldr.errors import LabError, UsageError
from tldr.records import CandidateSummary, Info, Judgement, Post, Ranking, Sample, read_records, write_records
from tldr.stages.judge.algorithm import judged_posts, pairs_against_reference
from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.judge.stage import pairs_of
from tldr.stages.reward.chosen import in_part
from tldr.stages.shared.trained_on import posts_trained_on


def ranking(body: str, number: int) -> Ranking:
    summaries = [CandidateSummary(text=f"{number} {side}", policy="p") for side in "ab"]
    info = Info(id=f"p{number}", post=body, subreddit="r", title="t")
    return Ranking(info=info, summaries=summaries, rank=[1, 2], worker="w", batch="b", split="train")


@given(st.floats(0.05, 0.95), st.lists(st.integers(0, 30), min_size=40, max_size=80))
def test_trap_two_parts_of_the_rankings_share_no_post(cut: float, bodies: list[int]) -> None:
    """Posts come back in many rankings, batches and copies with other white space."""
    rows = [ranking(f"post {body}{' ' * (number % 3)}\n", number) for number, body in enumerate(bodies)]
    parts = [kept(rows, (0.0, cut)), kept(rows, (cut, 1.0))]
    first, second = ({" ".join((row.info.post or "").split()) for row in part} for part in parts)
    assert not first & second and sum(map(len, parts)) == len(rows)
    assert kept(rows, (0.0, 1.0)) == rows


def kept(rows: list[Ranking], part: tuple[float, float]) -> list[Ranking]:
    try:
        return in_part(rows, part)
    except UsageError:  # an empty part is refused
        return []


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(UsageError, match="no training ranking is about a post of the part"):
        in_part([ranking("post", 1)], (0.0, 1e-9))


def test_more_posts_add_to_fewer() -> None:
    posts = [Post(id=f"p{number}", post="x", title="", subreddit="r", summary="s") for number in range(50)]
    few, many = judged_posts(posts, 10), judged_posts(posts[::-1], 25)
    assert few == many[:10] and judged_posts(posts, 99) == judged_posts(posts, 50)


def test_the_posts_are_chosen_among_those_that_were_sampled(lab: Path, tmp_path: Path) -> None:
    """A study may report on fewer posts than there are, and best-of-N on fewer still."""
    few = tmp_path / "few"
    few.mkdir()
    rows = read_records(lab / "score" / "samples.jsonl", Sample)
    kept = sorted({row.id for row in rows})[:7]
    write_records(few / "samples.jsonl", [row for row in rows if row.id in kept])
    inputs = {"data": lab / "data", "samples-ppo-s": lab / "score", "samples-few": few}
    ctx = laboratory.context("judge", lab, tmp_path / "run", inputs=inputs)
    pairs = pairs_of(ctx)
    assert {pair.post.id for pair in pairs} == set(kept)
    assert {run for pair in pairs for run in pair.runs} == {"score", "few"}
    warm = ctx.settings.model_copy(update={"temperatures": [0.123]})
    with pytest.raises(UsageError, match="no sample is at such a temperature"):
        pairs_of(laboratory.replace(ctx, settings=warm))


def test_a_policy_that_two_reward_models_scored_is_judged_once() -> None:
    post = Post(id="p", post="x", title="", subreddit="r", summary="the reference")
    one = Sample(id="p", policy="sft-m", text="a text", temperature=0.7)
    other = one.model_copy(update={"temperature": 1.0})
    stranger = one.model_copy(update={"id": "q"})
    pairs = pairs_against_reference({"score-1": [one, other, stranger], "score-2": [one]}, [post])
    assert [(pair.policies, pair.runs) for pair in pairs] == [
        (("sft-m-t0.7-p1", "reference"), ("score-1", "score-2")),
        (("sft-m-t1-p1", "reference"), ("score-1",)),
    ]
    assert pairs[0].texts == ("a text", "the reference")


def test_a_reward_model_judges_by_its_scores_in_both_orders(lab: Path, tmp_path: Path) -> None:
    """It reads texts, as people do: the scores are those of samples that come without their tokens."""
    rows = read_records(lab / "judge" / "judgements.jsonl", Judgement)
    texts = [
        one.model_copy(update={"response_ids": None, "stopped": True})
        for one in read_records(lab / "score" / "samples.jsonl", Sample)
    ]
    write_records(tmp_path / "texts.jsonl", texts)
    inputs = {"samples": tmp_path / "texts.jsonl", "reward": lab / "reward", "data": lab / "data"}
    score = laboratory.run(laboratory.context("score", lab, tmp_path / "score", inputs=inputs), "score")
    scored = {
        (one.id, f"{one.policy}-t{one.temperature:g}-p1", one.text): one.scores
        for one in read_records(score / "samples.jsonl", Sample)
    }
    assert len({row.id for row in rows}) == 20
    assert len(rows) == 2 * len({key for key in scored if key[0] in {row.id for row in rows}})
    for row in rows:
        assert row.texts is not None and row.judge == "reward" and row.runs == ["score"]
        scores = scored[row.id, row.policies[0], row.texts[0]]
        ahead = scores["rm"] - scores["rm_reference"]
        assert row.probability == pytest.approx(expit(ahead if row.order == [0, 1] else -ahead), abs=1e-5)
    again = laboratory.run(laboratory.context("judge", lab, tmp_path / "again"), "judge")
    assert (again / "judgements.jsonl").read_bytes() == (lab / "judge" / "judgements.jsonl").read_bytes()
    assert json.loads((again / "judge.json").read_text())["held_out"] is True  # nothing was trained against


def reward_on(lab: Path, folder: Path, part: list[float]) -> Path:
    changes = laboratory.changed("reward", {"posts": tuple(part)})
    return laboratory.run(laboratory.context("reward", lab, folder, settings=changes), "reward")


def test_trap_a_judge_of_the_same_labels_is_not_held_out(lab: Path, tmp_path: Path) -> None:
    """Another seed on the same labels shares the first one's mistakes (Gao et al. 2022)."""
    inputs = {"data": lab / "data", "samples-ppo-s": lab / "score", "trained-s": lab / "reward"}
    other = laboratory.context("reward", lab, tmp_path / "seed", seed=1)
    same = inputs | {"reward": laboratory.run(other, "reward")}
    with pytest.raises(UsageError) as error:
        laboratory.run(laboratory.context("judge", lab, tmp_path / "same", inputs=same), "judge")
    own = posts_trained_on(lab / "reward")
    assert own and f"{len(own):,} of the {len(own):,} posts" in str(error.value)
    assert not (tmp_path / "same" / "judgements.jsonl").exists()

    first, last = (
        reward_on(lab, tmp_path / name, part) for name, part in (("0", [0.0, 0.6]), ("1", [0.6, 1.0]))
    )
    sets = [posts_trained_on(place) or frozenset() for place in (first, last)]
    assert not sets[0] & sets[1] and sets[0] | sets[1] == own and all(sets)
    assert posts_trained_on(first / "checkpoint") == sets[0]
    apart = inputs | {"reward": last, "trained-s": first}
    made = laboratory.run(laboratory.context("judge", lab, tmp_path / "apart", inputs=apart), "judge")
    assert json.loads((made / "judge.json").read_text()) == {
        "held_out": True,
        "judge": "reward",
        "pairs": 40,
        "posts": 20,
        "posts_trained_on": len(sets[1]),
    }


def test_a_judge_from_elsewhere_that_does_not_say_what_it_read_is_marked(lab: Path, tmp_path: Path) -> None:
    inputs = {"data": lab / "data", "samples-ppo-s": lab / "score", "trained-s": lab / "reward"}
    inputs["reward"] = tmp_path / "bare"
    inputs["reward"].symlink_to(lab / "reward" / "checkpoint")
    made = laboratory.run(laboratory.context("judge", lab, tmp_path / "made", inputs=inputs), "judge")
    assert json.loads((made / "judge.json").read_text())["held_out"] is None


def asking(lab: Path, folder: Path, server: Server, **more: Any) -> Any:
    settings = JudgeSettings.model_validate(
        {"kind": "openai", "model": "m", "base_url": server.url, "price": "1000/1000", "posts": 5, **more}
    )
    inputs = {"data": lab / "data", "samples-ppo-s": lab / "score"}
    tags = {"variant": "gpt"}
    return laboratory.context("judge", lab, folder, settings=settings, inputs=inputs, tags=tags)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "k")


@pytest.mark.usefixtures("key")
def test_a_language_model_goes_on_where_its_limit_stopped_it(lab: Path, tmp_path: Path) -> None:
    with serving(prefers_the_first) as server:
        with pytest.raises(LabError, match="maximum cost is reached"):
            laboratory.run(asking(lab, tmp_path / "run", server, max_cost=1.5), "judge")
        before = dict(server.asked)
        assert 0 < len(before) < 20 and not (tmp_path / "run" / "judgements.jsonl").exists()
        laboratory.run(asking(lab, tmp_path / "run", server, max_cost=60.0), "judge")
        assert set(server.asked.values()) == {1}, "no answer is paid for twice"
    rows = read_records(tmp_path / "run" / "judgements.jsonl", Judgement)
    assert len(rows) == 20 and {(row.judge, row.verdict) for row in rows} == {("gpt", "A")}


def prefers_the_first(prompt: str, count: int) -> Reply:
    return says("A")


def test_settings_of_another_kind_and_missing_ones_are_refused() -> None:
    def refused(**values: Any) -> str:
        with pytest.raises(ValueError) as error:
            JudgeSettings.model_validate(values)
        return str(error.value)

    assert "model is for judges of kind openai" in refused(kind="reward", path="x", model="m")
    assert "either a path or a variant" in refused(kind="reward")
    assert "either a path or a variant" in refused(kind="reward", path="x", variant="y")
    assert "needs a model and its price" in refused(kind="openai", model="m")
    assert "needs max_cost" in refused(kind="openai", model="m", price="1/1")
    assert "is not a price" in refused(kind="openai", model="m", price="cheap", max_cost=1.0)
