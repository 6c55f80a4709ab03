"""Cleaning of CNN/DM articles and highlights, rule by rule, and SummEval's scores as ratings."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from eval.texts.overlap import words
from tldr.errors import RecordError, UsageError
from tldr.inputs.posts import load_articles
from tldr.records import Article, Comparison, Rating, ReadReport, read_records, write_records
from tldr.sources import cnndm, place
from tldr.sources.cnndm import (
    SUBSETS,
    article_of_row,
    clean_article,
    clean_highlight,
    end_sentence,
    in_subset,
    iter_articles,
    reference,
    repair,
    strip_start,
)
from tldr.sources.hub.load import open_source
from tldr.sources.place import articles_at
from tldr.sources.summeval import SummEvalRow
from tldr.stages.data.settings import DataSettings, FileData

STORY = """\
(CNN) -- The fox ran off on Monday.

Scroll down

It came back, he said.

@highlight

NEW: The fox came back

@highlight

READ: All about foxes

@highlight

Owner \u201cvery glad\u201d Click here for more
"""


def story(folder: Path, name: str = "0a1b", text: str = STORY) -> Path:
    place = folder / "cnn" / "stories"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.story").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("(CNN) -- It rains.", "It rains."),
        ("ATLANTA, Georgia (CNN)  -- It rains.", "It rains."),
        ("(CNN) -- Once. He told us (CNN) -- Twice.", "Twice."),  # the release keeps what follows the last
        ("(CNN)It rains.", "It rains."),
        ("London (CNN) It rains.", "It rains."),
        ("x" * 100 + " says Jo (CNN) It rains.", "x" * 100 + " says Jo (CNN) It rains."),
        ("By Jo\n\nPUBLISHED:\n\n07:34\n\nUPDATED:\n\n10:15 EST, 6 April 2012\n\nIt rains.", "It rains."),
        ("UPDATED: 10:15 EST, 6 April 2013 . It rains.", ". It rains."),
        ("UPDATED yesterday at 10:15 in 2012. It rains.", "UPDATED yesterday at 10:15 in 2012. It rains."),
        ("It rains (AP).", "It rains (AP)."),
    ],
)  # fmt: skip
def test_start_of_the_article(text: str, kept: str) -> None:
    assert strip_start(text) == kept


def test_curly_apostrophes_are_straight_in_articles() -> None:
    assert clean_article("(CNN) -- \u2018It\u2019s raining,\u2019 he said.") == "'It's raining,' he said."


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("NEW: It rains", "It rains"),
        ("NEWS: It rains", "NEWS: It rains"),
        ("It is NEW: it rains", "It is NEW: it rains"),
        ("READ: Ten tips", ""),
        ("He READ: Ten tips", "He READ: Ten tips"),
        ("for all the latest football news", ""),
        ("For all the latest", "For all the latest"),
        ("It rains. CLICK HERE for more", "It rains."),
        ("It rains. Click HERE for more", "It rains."),
        ("Click here for more", ""),
        ("It rains. Click here", "It rains. Click here"),  # nothing follows it
        ("It rains. For confidential support call the Samaritans in the UK on 1", "It rains."),
    ],
)
def test_highlights(line: str, kept: str) -> None:
    assert clean_highlight(line) == kept


@pytest.mark.parametrize("end", list(".!?'`\"\u2019\u201d)"))
def test_a_full_stop_only_where_nothing_ends(end: str) -> None:
    assert end_sentence("It rains" + end) == "It rains" + end
    assert end_sentence("It rains") == "It rains." and end_sentence("") == ""
    assert end_sentence("It rains;") == "It rains;."


def test_highlights_become_one_summary_or_a_list() -> None:
    lines = ["NEW: It rains", "READ: More", 'He said: "Yes"', "Click here for more"]
    assert reference(lines) == 'It rains. He said: "Yes"'
    assert reference(lines, bullets=True) == '- It rains\n- He said: "Yes"'


def test_a_story_from_file_to_article(tmp_path: Path) -> None:
    pytest.importorskip("ftfy")
    (article,) = iter_articles(story(tmp_path))
    assert article == Article(
        id="0a1b",
        site="cnn",
        article="The fox ran off on Monday.\n\nScroll down\n\nIt came back, he said.",
        summary='The fox came back. Owner "very glad"',
    )
    (bullets,) = iter_articles(tmp_path, bullets=True, ftfy=False)
    assert bullets.summary == "- The fox came back\n- Owner \u201cvery glad\u201d"


def test_text_is_mended_as_the_paper_did() -> None:
    pytest.importorskip("ftfy")
    assert repair("It\u00e2\u20ac\u2122s &lt;here&gt;\u00a0now") == "It's <here> now"


def test_without_ftfy_it_is_said_once_and_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cnndm, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="ftfy is not installed"):
        list(iter_articles(story(tmp_path), on_error="skip"))
    assert len(list(iter_articles(tmp_path, ftfy=False))) == 1


def test_hub_rows_lose_the_space_before_the_stop_that_the_hub_put_there(tmp_path: Path) -> None:
    row = {
        "id": "0a1b",
        "article": "London (CNN)The fox ran off . It came back .",
        "highlights": "NEW: The fox came back .\nOwner is glad.\nREAD: All about foxes .",
    }
    wanted = Article(
        id="0a1b", article="The fox ran off . It came back .", summary="The fox came back. Owner is glad."
    )
    assert article_of_row(row, ftfy=False) == wanted
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    write_records(tmp_path / "articles.jsonl", [wanted])
    for name in ("rows.jsonl", "rows.parquet", "articles.jsonl"):
        assert list(iter_articles(tmp_path / name, ftfy=False)) == [wanted]


def test_what_is_no_story_or_row_is_named(tmp_path: Path) -> None:
    story(tmp_path, "good")
    for name, text in (
        ("empty", ""),
        ("odd", "It rains.\n\n@highlight: rain\n"),
        ("bare", "@highlight\n\nRain"),
    ):
        story(tmp_path, name, text)
    (tmp_path / "cnn" / "stories" / "latin.story").write_bytes(b"caf\xe9")
    with pytest.raises(RecordError, match=r"bare.story.*article"):
        list(iter_articles(tmp_path, ftfy=False))
    report = ReadReport(tmp_path)
    (kept,) = iter_articles(tmp_path, ftfy=False, on_error="skip", report=report)
    assert kept.id == "good" and report.good == 1 and len(report.bad) == 4
    assert "begins with @highlight and goes on" in " ".join(report.bad)
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "a", "article": "It rains.", "highlights": 3}\n', encoding="utf-8"
    )
    with pytest.raises(RecordError, match=r"rows.jsonl:1"):
        list(iter_articles(tmp_path / "rows.jsonl", ftfy=False))
    for wrong in (tmp_path / "nothing", tmp_path / "cnn" / "stories" / "good.story"):
        with pytest.raises(UsageError, match="no file of articles"):
            list(iter_articles(wrong, ftfy=False))
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match=r"no \.story file"):
        list(iter_articles(tmp_path / "bare", ftfy=False))


def test_subsets_count_the_references_tokens(bpe: PreTrainedTokenizerBase) -> None:
    articles = [
        Article(id="a", article="It rains.", summary="!" * count) for count in (23, 24, 48, 49, 64, 65)
    ]
    short, long = ([len(a.summary or "") for a in articles if in_subset(bpe, a, SUBSETS[name])]
                   for name in ("filtered24to48", "filtered48to64"))  # fmt: skip
    assert short == [24, 48] and long == [48, 49, 64]
    assert [SUBSETS[name].bullets for name in ("filtered24to48", "filtered48to64")] == [False, True]


def test_articles_of_a_study_have_references_and_ids_of_their_own(tmp_path: Path) -> None:
    good = Article(id="a", article="It rains.", summary="Rain.")
    path = write_records(tmp_path / "articles.jsonl", [good, good.model_copy(update={"id": "b"})])
    assert [article.id for article in load_articles(path)] == ["a", "b"]
    for bad, what in ((good, "two articles"), (Article(id="c", article="x"), "no reference")):
        write_records(path, [good, bad])
        with pytest.raises(UsageError, match=what) as caught:
            load_articles(path)
        assert f"{path}:2" in str(caught.value)
    write_records(path, [])
    with pytest.raises(UsageError, match="no article"):
        load_articles(path)


def test_trap_published_articles_are_cleaned_and_prepared_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that names the source must see what `data cnndm` makes of it; cleaning twice would be wrong."""
    row = {"id": "a", "article": "(CNN) -- It rains.", "highlights": "Rain falls .\nNEW: It stops ."}
    folder = tmp_path / "3.0.0"
    folder.mkdir()
    (folder / "test.jsonl").write_text(json.dumps(row) + "\n")
    (plain,) = articles_at(f"{tmp_path}@3.0.0/test")
    assert (plain.article, plain.summary) == (row["article"], row["highlights"])
    monkeypatch.setattr(place, "open_source", lambda name: open_source(str(tmp_path)))
    (clean,) = articles_at("abisee/cnn_dailymail@3.0.0/test")
    assert clean == article_of_row(row) and clean.article == "It rains."
    assert clean.summary == "Rain falls. It stops."


def test_the_source_of_articles_needs_ftfy() -> None:
    def packages(cnndm: str) -> dict[str, str]:
        data = FileData(sft="a", valid1="b", valid2="c", comparisons="d", cnndm=cnndm)
        return DataSettings(data=data).packages()

    assert packages("abisee/cnn_dailymail@test") == {"cnndm": "ftfy"} and not packages("articles.jsonl")


def summeval(**scores: float) -> SummEvalRow:
    known = {"coherence": 1, "consistency": 5, "fluency": 3, "relevance": 4} | scores
    system = {"summary": "Rain.", "scores": {name: float(value) for name, value in known.items()}}
    return SummEvalRow.model_validate(
        {"id": "a", "article": "It rains.", "systems": {"M0": system, "M1": system}}
    )


def test_summeval_scores_are_stretched_to_the_papers_scale() -> None:
    first, second = summeval().ratings()
    assert (first.summary.policy, second.summary.policy) == ("lead-3", "M1")
    axes = first.summary.axes
    assert (axes.coherence, axes.accuracy, axes.coverage) == (1, 7, 5.5)
    assert axes.overall == pytest.approx(1 + 1.5 * (13 / 4 - 1))
    assert Rating.model_validate(json.loads(first.to_json())) == first
    with pytest.raises(ValidationError, match="consistency"):
        summeval(consistency=5.1)


def test_real_summeval_rows(shared: Path) -> None:
    """Lead-3 is what its name says, and its facts are the article's, as in the paper's Fig. 13."""
    rows = read_records(shared / "summeval_100x16.jsonl", SummEvalRow)
    ratings = [rating for row in rows for rating in row.ratings()]
    assert len(ratings) == 1600 and len({rating.summary.policy for rating in ratings}) == 16
    lead = [rating for rating in ratings if rating.summary.policy == "lead-3"]
    at_start = [
        words(rating.info.article or "")[: len(words(rating.summary.text))] == words(rating.summary.text)
        for rating in lead
    ]
    assert mean(at_start) > 0.9
    accuracy = {
        policy: mean(
            rating.summary.axes.accuracy or 0 for rating in ratings if rating.summary.policy == policy
        )
        for policy in {rating.summary.policy for rating in ratings}
    }
    assert accuracy["lead-3"] > 6.9 and accuracy["lead-3"] > max(accuracy.values()) - 0.05


def test_real_articles_of_the_papers_comparisons_are_clean_already(shared: Path) -> None:
    """The released articles went through these rules, so the rules must leave them as they are."""
    infos = {row.info.id: row for row in read_records(shared / "comparisons" / "cnndm0.json", Comparison)}
    articles = [row.info.article or "" for row in infos.values()]
    assert len(articles) > 20 and sum("\n\n" in text for text in articles) == len(articles)
    assert all(clean_article(text) == text for text in articles)
    references = [s.text.strip() for row in infos.values() for s in row.summaries if s.policy == "ref"]
    assert references and all(end_sentence(text) == text == reference([text]) for text in references)
