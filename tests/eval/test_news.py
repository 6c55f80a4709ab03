"""News: the section on transfer, ratings from files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from eval.claims.evidence import Evidence
from eval.claims.numbers import number_rows
from eval.claims.schema import load_claims
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.common.tables import group_columns
from eval.news.section import measured_news, news_rouge_table, news_section
from eval.preference.section import preference_table
from eval.report.files import file_sections
from eval.rouge.measure import rouge
from eval.runs.section import runs_section
from eval.texts.section import text_table
from tldr.cli.main import app
from tldr.records import Article, Post, Rating, Sample, write_json, write_records

WORDS = "cat dog boss friend city late money letter asked left lost never".split()


def sample(source: str, method: str, size: str, *, news: bool, count: int) -> Sample:
    draw = random.Random(f"{source} {method} {size} {news}")
    tags: dict[str, Any] = {"method": method, "size": size, "params": {"s": 1e6, "m": 1e7}[size]}
    return Sample(
        id=source,
        policy=f"{method}-{size}",
        run=f"score-{method}-{size}" + ("-cnndm" if news else ""),
        temperature=0.0,
        text=" " + " ".join(draw.choices(WORDS, k=count)) + ". " + " ".join(draw.choices(WORDS, k=3)) + ".",
        tokens=count,
        stopped=True,
        logprob=-10.0,
        logprob_sft=-11.0,
        scores={"rm": draw.gauss(0, 1), "rm_reference": 0.0},
        tags=tags | ({"dataset": "cnndm"} if news else {}),
    )


def write_study(folder: Path, *, news: bool = True) -> StudyResults:
    """Two methods at two sizes on 12 posts (5 words) and, with `news`, on 12 articles (50 words)."""
    draw = random.Random(1)
    posts = [
        Post(
            id=f"p{n}", subreddit="r", title="t", post=" ".join(draw.choices(WORDS, k=20)), summary="cat dog"
        )
        for n in range(12)
    ]
    articles = [
        Article(id=f"a{n}", article="One cat. Two dog. Three boss. Four late.", summary="Cat city. Dog late.")
        for n in range(12)
    ]
    rows = [{"run": "data", "stage": "data", "folder": "data"}]
    write_records(folder / "data" / "valid2.jsonl", posts)
    write_records(folder / "data" / "cnndm.jsonl", articles)
    write_json(folder / "data" / "DONE", {})
    for dataset, sources, count in (("", posts, 5), ("cnndm", articles, 50))[: 1 + news]:
        for method in ("sft", "ppo"):
            for size in ("s", "m"):
                parts = (method, size, *([dataset] if dataset else []))
                samples = [sample(one.id, method, size, news=bool(dataset), count=count) for one in sources]
                for stage in ("sample", "score"):
                    name = "-".join((stage, *parts))
                    write_records(folder / name / "samples.jsonl", samples)
                    write_json(folder / name / "DONE", {})
                    parents = {"samples": "sample-" + "-".join(parts)} if stage == "score" else {}
                    row = {"run": name, "stage": stage, "folder": name, "size": size, "seed": 0}
                    rows.append(row | {"dataset": dataset, "parents": parents})
    write_json(folder / "study.json", {"runs": rows})
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=50)


def by_policy(table: pd.DataFrame) -> pd.Series[float]:
    """Values by policy (method and size) and measure."""
    names = ["-".join(filter(None, parts)) for parts in zip(table["method"], table["size"], strict=True)]
    return table.assign(policy=names).set_index(["policy", "measure"])["value"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return write_study(tmp_path_factory.mktemp("news"))


def test_trap_news_is_never_averaged_with_posts(study: StudyResults, tmp_path: Path) -> None:
    without = write_study(tmp_path, news=False)
    assert study.samples is not None and set(study.samples["id"]) == {f"p{n}" for n in range(12)}
    assert study.news is not None and set(study.news["id"]) == {f"a{n}" for n in range(12)}
    for table in (text_table, preference_table):
        pd.testing.assert_frame_equal(table(study), table(without))
    assert [run.run for run in study.runs.finished("score")] == [
        run.run for run in without.runs.finished("score")
    ]
    shown = runs_section(study).tables[0].frame["run"]
    assert shown.str.endswith("-cnndm").sum() == 8, "they are among the runs all the same"
    assert without.news is None and news_section(without).missing == ["Not run here."]


def test_a_folder_without_a_listing_keeps_news_apart_by_its_tags(tmp_path: Path) -> None:
    write_study(tmp_path)
    (tmp_path / "study.json").unlink()
    bare = StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=50)
    assert bare.samples is not None and set(bare.samples["id"].str[0]) == {"p"}
    assert bare.news is not None and set(bare.news["id"].str[0]) == {"a"}


def test_files_of_both_are_told_apart_without_a_study(study: StudyResults) -> None:
    assert study.samples is not None and study.news is not None
    both = pd.concat([study.samples, study.news.assign(**{"tag.dataset": "cnndm"})], ignore_index=True)
    named = group_columns(both)
    assert named.groupby("variant")["id"].apply(lambda ids: set(ids.str[0])).to_dict() == {
        "": {"p"},
        "cnndm": {"a"},
    }
    tables = [table for section in file_sections(both, draws=20) for table in section.tables]
    (sheet,) = [table for table in tables if table.name == "texts"]
    words = sheet.frame[sheet.frame["measure"] == "words"]
    assert set(zip(words["variant"], words["value"], strict=True)) == {("", 8.0), ("cnndm", 53.0)}


def test_rouge_of_news_splits_sentences_and_has_lead_3(study: StudyResults) -> None:
    table = by_policy(news_rouge_table(study))
    rows = measured_news(study)
    texts = rows[rows["policy"] == "ppo-m"]["text"].tolist()
    lines = [text.strip().replace(". ", ".\n") for text in texts]
    by_hand = rouge(["Cat city.\nDog late."] * 12, lines).mean()
    assert table["ppo-m", "rougeLsum_f"] == pytest.approx(by_hand["rougeLsum_f"])
    assert by_hand["rougeLsum_f"] > by_hand["rougeL_f"], (
        "texts on which splitting does not matter prove nothing"
    )
    three = by_hand[["rouge1_f", "rouge2_f", "rougeLsum_f"]].mean()
    assert table["ppo-m", "rouge_mean"] == pytest.approx(three)
    lead = rouge(["Cat city.\nDog late."], ["One cat.\nTwo dog.\nThree boss."]).iloc[0]
    assert table["lead-3", "rougeLsum_f"] == pytest.approx(lead["rougeLsum_f"])
    assert {policy for policy, _ in table.index} == {"sft-s", "sft-m", "ppo-s", "ppo-m", "lead-3"}


def test_published_rouge_of_news_is_set_beside_ours(study: StudyResults) -> None:
    """Of lead-3 there is a counterpart in any study on news; of policies only at the paper's sizes."""
    rules = {rule.id: rule for rule in load_claims(PAPER_FOLDER).numbers}
    rows = {row.id: row for row in number_rows(rules["cnndm-lead3"], Evidence(study))}
    assert len(rows) == 3 and all(row.verdict == "not reproduced" for row in rows.values())
    ours = by_policy(news_rouge_table(study))
    assert {row.ours for row in rows.values()} == {
        ours["lead-3", f"rouge{name}_f"] for name in ("1", "2", "Lsum")
    }
    notes = {row.note for row in number_rows(rules["fig14b"], Evidence(study))}
    assert notes and all(note.startswith("no result with") for note in notes), "what is missing is a size"


def test_section_shows_fig_14b_lengths_and_scores(study: StudyResults) -> None:
    section = news_section(study)
    assert section.missing == []
    tables = {table.name: table.frame for table in section.tables}
    assert set(tables) == {"rouge_news", "texts_news", "reward_news"}
    texts = by_policy(tables["texts_news"])
    assert texts["reference", "characters"] == len("Cat city. Dog late.") and texts["lead-3", "copying"] == 1
    assert texts["ppo-m", "words"] == 53
    rm = by_policy(tables["reward_news"])
    scores = measured_news(study).groupby("policy")["score.rm"].mean()
    assert rm["ppo-m", "rm"] == pytest.approx(scores["ppo-m"])
    assert ("ppo-m", "preference") in rm.index
    (picture,) = section.pictures
    ours, paper = picture.figure.axes
    assert "Fig. 14b" in paper.get_title(loc="left")
    assert {line.get_label() for line in ours.lines} >= {"lead-3"}
    published = {round(y, 3) for line in paper.lines for y in line.get_ydata()}
    assert {0.340, 0.258, 0.217, 0.233} <= published


def test_ratings_of_articles_from_files(tmp_path: Path) -> None:
    """An axis file as OpenAI's: means by policy, posts and articles apart, and Table 14's columns."""

    def rating(number: int, policy: str, overall: int, article: bool) -> Rating:
        info = {"id": f"x{number}", "article" if article else "post": "It rains."}
        axes = {"overall": overall, "accuracy": 7, "coverage": overall, "coherence": 6}
        summary = {"text": " " + "x" * (100 * overall), "policy": policy, "axes": axes}
        return Rating.model_validate(
            {"info": info, "summary": summary, "worker": "w", "batch": "cnndm1", "split": "test"}
        )

    rows = [rating(n, "ref", 2 + n % 4, True) for n in range(20)] + [
        rating(n, "sup", 4, False) for n in range(5)
    ]
    file = write_records(tmp_path / "cnndm1.json", rows)
    done = CliRunner().invoke(
        app, ["evaluate", "--ratings", str(file), "--out", str(tmp_path / "out"), "--draws", "50"]
    )
    assert done.exit_code == 0, done.output
    news, posts = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("ratings_articles", "ratings"))
    means = news.set_index(["policy", "measure"])["value"]
    assert means["reference", "overall"] == 3.5 and means["reference", "accuracy"] == 7
    assert set(posts["policy"]) == {"sup"} and set(news["runs"]) == {"cnndm1"}
    (row,) = pd.read_csv(tmp_path / "out" / "ratings_articles_by_length.csv").to_dict("records")
    assert (row["rating"], row["length"]) == (3.5, 350) and row["per_100"] == pytest.approx(1)
    assert not (tmp_path / "out" / "ratings_by_length.csv").exists(), "texts of one length have no slope"
