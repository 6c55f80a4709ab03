"""What follows from judgements, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from eval.common.io import load_posts, load_samples
from eval.common.pairs import read_judgements
from eval.common.stats import share
from eval.common.tables import MeasuredResult
from eval.elo.measure import elo
from eval.judge.measure import answers, combined, complete, judge_results
from eval.judge.pairs import pairs_to_judge
from eval.length.measure import length_control
from tests.judge.judge_server import make_pairs
from tldr.errors import NonFiniteError, RecordError, UsageError
from tldr.judge.scored import ScoreJudge
from tldr.records import Article, Judgement, Post, Sample, write_records


def judged(
    *verdicts: tuple[str, str], policy: str = "sft", judge: str = "j", axis: str = "overall"
) -> list[Judgement]:
    """A post for each pair of verdicts: with the policy shown first, and shown second."""
    return [
        pair.judgement(judge, order, verdict, axis)
        for pair, both in zip(make_pairs(len(verdicts), policy), verdicts, strict=True)
        for order, verdict in zip(((0, 1), (1, 0)), both, strict=True)
    ]


def by_measure(rows: list[Judgement]) -> dict[str, MeasuredResult]:
    results = judge_results(rows)
    assert len({(row.measure, row.policy) for row in results}) == len(results)
    return {row.measure: row for row in results}


def test_measures_by_hand() -> None:
    """Posts: won in both orders; won where first alone; a tie and a win; one answer invalid."""
    rows = judged(("A", "B"), ("A", "A"), ("tie", "B"), ("A", "invalid"))
    found = by_measure(rows)
    values = {name: row.value for name, row in found.items()}
    assert values == pytest.approx(
        {
            "preference": (1 + 0.5 + 0.75) / 3,
            "inconsistent": 1 / 3,
            "position_bias": (1 + 0 + 1 + 1 + 0.5 + 0) / 6,
            "ties": 1 / 7,
            "invalid": 1 / 8,
        }
    )
    assert {name: (row.n, row.posts) for name, row in found.items()} == {
        "preference": (3, 3), "inconsistent": (3, 3), "position_bias": (6, 3),
        "ties": (7, 4), "invalid": (8, 4),
    }  # fmt: skip
    preference, bias = found["preference"], found["position_bias"]
    assert (preference.scorer, preference.policy, preference.runs) == ("j", "sft", ("run-1",))
    assert preference.unit == "share preferred to the reference"
    clustered = share([1, 0, 1, 1, 0.5, 0], ["p0", "p0", "p1", "p1", "p2", "p2"])
    assert (bias.low, bias.high) == pytest.approx((clustered.low, clustered.high))
    assert usable(rows)["preferred"].tolist() == [1, 0.5, 0.75]
    assert usable(rows)["inconsistent"].tolist() == [0, 1, 0]


def usable(rows: list[Judgement]) -> pd.DataFrame:
    """The pairs whose two answers are valid."""
    return combined(answers(rows)).dropna(subset="preferred")


@pytest.mark.parametrize("letter,bias", [("A", 1.0), ("B", 0.0)])
def test_a_judge_that_only_knows_one_letter_has_no_opinion(letter: str, bias: float) -> None:
    found = by_measure(judged(*[(letter, letter)] * 10))
    values = {name: row.value for name, row in found.items()}
    assert values == {"preference": 0.5, "inconsistent": 1, "position_bias": bias, "ties": 0, "invalid": 0}
    assert found["preference"].low < 0.5 < found["preference"].high


def test_a_judge_with_an_opinion_has_no_bias_whatever_the_opinion() -> None:
    found = by_measure(judged(*[("A", "B")] * 9 + [("B", "A")]))
    assert found["preference"].value == pytest.approx(0.9) and found["position_bias"].value == 0.5
    assert found["inconsistent"].value == 0


def test_a_judge_that_never_answers_in_form_has_only_its_invalid_share() -> None:
    found = by_measure(judged(*[("invalid", "invalid")] * 3))
    assert set(found) == {"invalid"} and found["invalid"].value == 1
    assert combined(answers(judged(("invalid", "A"), ("A", "B")))).dropna(subset="preferred")[
        "id"
    ].tolist() == ["p1"]


def test_judges_axes_and_policies_are_kept_apart() -> None:
    rows = judged(("A", "B")) + judged(("B", "A"), axis="coverage")
    rows += judged(("tie", "tie"), judge="k") + judged(("A", "A"), policy="ppo")
    found = {(row.scorer, row.policy, row.measure): row.value for row in judge_results(rows)}
    assert found["j", "sft", "preference"] == 1 and found["j", "sft", "preference_coverage"] == 0
    assert found["k", "sft", "ties"] == 1 and found["j", "ppo", "inconsistent"] == 1
    assert len(found) == 20


def test_trap_verdicts_in_one_order_are_refused() -> None:
    """A verdict in one order is part quality and part place; nothing in it tells the two apart."""
    rows = judged(("A", "B"), ("A", "B"), ("B", "B"))
    for function in (answers, judge_results):
        with pytest.raises(UsageError, match="1 of 3 pairs were judged in one order only"):
            function(rows[:-1])
        with pytest.raises(UsageError, match="1 of 3 pairs were judged twice in one order"):
            function([*rows, rows[0]])
    assert complete(rows[:-1]) == rows[:-2]
    other_seed = [row.model_copy(update={"runs": ["run-2"]}) for row in rows]  # it wrote the same texts
    assert by_measure([*rows, *other_seed])["preference"].n == 6
    same_policy = [row.model_copy(update={"policies": ["sft", "sft"]}) for row in rows]
    assert by_measure(same_policy)["inconsistent"].value == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="no judgements"):
        answers([])


def test_provenance_comes_from_the_record_or_the_file(tmp_path: Path) -> None:
    rows = judged(("A", "B"))
    bare = [row.model_copy(update={"runs": []}) for row in rows]
    with pytest.raises(UsageError, match="without the runs"):
        judge_results(bare)
    path = write_records(tmp_path / "theirs.jsonl", bare)
    assert {row.runs for row in judge_results(read_judgements(path))} == {("theirs",)}
    assert read_judgements(write_records(path, rows)) == rows
    path.write_text('{"id": "p", "policies": ["a", "b"], "order": [0, 0], "judge": "j", "verdict": "A"}\n')
    with pytest.raises(RecordError, match="neither"):
        read_judgements(path)


def test_length_control_and_elo_work_on_judgements() -> None:
    """A judge that loves length: at equal length little of the lead is left."""
    words = [f"{'word ' * (n % 9 + 1)}end" for n in range(60)]
    rows = []
    for pair, text in zip(make_pairs(60), words, strict=True):
        wins = len(text.split()) + (int(pair.post.id[1:]) * 7) % 5 > 7
        turned = type(pair)(pair.post, pair.policies, (text, "five words are the reference"), pair.runs)
        for order, verdict in (((0, 1), "AB"[not wins]), ((1, 0), "BA"[not wins])):
            rows.append(turned.judgement("j", order, verdict, "overall"))
    pairs = usable(rows)
    assert length_control(pairs).slope.value > 1
    table = elo(pairs, base="reference").set_index("policy")
    assert table.loc["sft", "wins"] == pairs["preferred"].mean()


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    posts = [
        Post(id=f"p{n}", subreddit="r", title="t", post=f"post {n}", summary=f"ref {n}") for n in range(5)
    ]
    samples = [
        Sample(
            id=post.id,
            policy=policy,
            run=f"run-{policy}",
            temperature=heat,
            text=f"{policy} {heat} {post.id}",
        )
        for post in posts
        for policy, heats in (("sft", (0.0, 0.7)), ("ppo", (0.0,)))
        for heat in heats
    ]
    return (
        write_records(tmp_path / "samples.jsonl", [*samples, *samples]),
        write_records(tmp_path / "posts.jsonl", posts),
    )


def test_pairs_are_made_of_samples_and_references_or_of_two_policies(world: tuple[Path, Path]) -> None:
    samples, posts = load_samples(world[0]), load_posts(world[1])
    pairs = pairs_to_judge(samples, posts)
    assert len(pairs) == 15 and {pair.policies for pair in pairs} == {
        (name, "reference") for name in ("sft-t0", "sft-t0.7", "ppo")
    }
    assert all(pair.texts[1] == f"ref {pair.post.id[1:]}" for pair in pairs)
    assert all(pair.texts[0].endswith(pair.post.id) and pair.post.summary is None for pair in pairs)
    assert {pair.runs for pair in pairs} == {("run-sft",), ("run-ppo",)}
    against = pairs_to_judge(samples, posts, against="ppo")
    assert len(against) == 10 and against[0].runs == ("run-sft", "run-ppo")
    assert all(pair.texts[1] == f"ppo 0.0 {pair.post.id}" for pair in against)


def test_a_limit_keeps_the_same_posts_for_all_and_grows(world: tuple[Path, Path]) -> None:
    samples, posts = load_samples(world[0]), load_posts(world[1])
    before: set[str] = set()
    for limit in (1, 2, 4, 9):
        pairs = pairs_to_judge(samples, posts, limit=limit)
        ids = {pair.post.id for pair in pairs}
        assert len(ids) == min(limit, 5) and len(pairs) == 3 * len(ids) and before <= ids
        before = ids


def test_samples_of_articles_and_from_elsewhere_are_paired(tmp_path: Path) -> None:
    article = Article(id="a", article="It rained.", summary="rain")
    posts = load_posts(write_records(tmp_path / "posts.jsonl", [article]))
    (tmp_path / "theirs.jsonl").write_text('{"id": "a", "text": "wet"}\n')
    (pair,) = pairs_to_judge(load_samples(tmp_path / "theirs.jsonl", policy="them"), posts)
    assert pair.post == Article(id="a", article="It rained.")
    assert (pair.policies, pair.texts, pair.runs) == (("them", "reference"), ("wet", "rain"), ("theirs",))


def test_what_cannot_be_paired_is_told(world: tuple[Path, Path]) -> None:
    samples, posts = load_samples(world[0]), load_posts(world[1])
    with pytest.raises(UsageError, match="no samples of 'gpt'"):
        pairs_to_judge(samples, posts, against="gpt")
    with pytest.raises(UsageError, match="1 of 5 posts are missing"):
        pairs_to_judge(samples, posts.iloc[1:])
    with pytest.raises(UsageError, match="references: 1 of 5"):
        pairs_to_judge(samples, posts.assign(summary=posts["summary"].where(posts.index != "p1")))
    twice = samples.assign(policy="sft", temperature=0.0)
    with pytest.raises(UsageError, match="several samples of one post"):
        pairs_to_judge(twice, posts, against="sft")
    with pytest.raises(UsageError, match="no samples to set against"):
        pairs_to_judge(twice.assign(policy="reference"), posts)


def test_a_scorer_is_a_judge_without_position_bias() -> None:
    scored: list[str] = []

    def longest(posts: list[Post], texts: list[str]) -> list[float]:
        scored.extend(texts)
        return [float(len(text)) for text in texts]

    pairs = make_pairs(3) + make_pairs(3, "ppo")
    pairs.append(type(pairs[0])(pairs[0].post, ("same", "reference"), (pairs[0].texts[1],) * 2, ("run-2",)))
    rows = list(ScoreJudge("rm:x", longest, logits=True).judge(pairs, ["overall"]))
    assert len(scored) == 6  # each text once
    assert [row.verdict for row in rows] == ["B", "A"] * 6 + ["tie", "tie"]
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one.probability is not None and one.probability == pytest.approx(1 - other.probability)
    assert rows[0].probability == pytest.approx(1 / (1 + 2.718281828459045**16))
    values = {(row.policy, row.measure): row.value for row in judge_results(rows)}
    assert values["sft", "position_bias"] == 0.5 and values["sft", "inconsistent"] == 0
    assert values["same", "ties"] == 1
    assert all(row.probability is None for row in ScoreJudge("e", longest).judge(pairs, ["overall"]))
    with pytest.raises(UsageError, match="overall quality alone"):
        list(ScoreJudge("e", longest).judge(pairs, ["coverage"]))
    with pytest.raises(NonFiniteError, match="nan"):
        list(ScoreJudge("e", lambda posts, texts: [float("nan")] * len(texts)).judge(pairs, ["overall"]))
