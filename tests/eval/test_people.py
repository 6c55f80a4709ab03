"""People's labels and ratings drawn as the paper's figures: the numbers are recomputed from the raw rows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from typer.testing import CliRunner, Result

from eval.common.pairs import comparison_pairs, load_comparisons, read_ratings
from eval.common.paper import PAPER_FOLDER
from eval.common.study import Picture, Section
from eval.report.people import Drawing, people_section, reference_labels
from tldr.cli.main import app
from tldr.errors import UsageError
from tldr.records import Comparison, Rating
from tldr.sources.fake_release import ReleaseSize, fake_release, write_plain

VALID2 = Drawing(("valid2",), PAPER_FOLDER, 50)
FIG1 = {
    "Human feedback (PPO)": ["sup4_ppo_rm4_t.7", "sup4_6b_ppo_rm4_6b_kl14"],
    "Supervised": ["sup4_t0.7", "sup4_6b_t0.7", "sup4_12b_t0.7"],
    "Pretrained only": ["pretrain_6b_t.7"],
}
"""The names in the miniature and the real files that belong to Fig. 1, by size."""
Row = dict[str, Any]


def label(first: str, second: str, choice: int, post: str = "p", **more: Any) -> Row:
    info = {"id": post, "post": f"words of {post}"}
    sides = [{"text": f" {policy} says", "policy": policy} for policy in (first, second)]
    row = {"info": info, "summaries": sides, "choice": choice, "worker": "w", "batch": "b", "split": "valid2"}
    return row | more


def drawn(rows: Iterable[Row], ratings: Iterable[Row] = (), drawing: Drawing = VALID2) -> Section:
    pairs = [Comparison.model_validate(row) for row in rows]
    rated = [Rating.model_validate(row) for row in ratings]
    return people_section(comparison_pairs(pairs) if pairs else None, rated, drawing)


def picture(section: Section, name: str) -> Picture:
    return next(one for one in section.pictures if one.name == name)


def sheet(section: Section, name: str) -> pd.DataFrame:
    return next(one.frame for one in section.tables if one.name == name)


def points(axis: Axes) -> dict[str, list[tuple[float, float, float]]]:
    """Method, as the legend begins -> value, low and high of each point from left to right."""
    found = {}
    for bar in axis.containers:
        line, _, (segments,) = bar.lines
        ends = [(part[0][1], part[1][1]) for part in segments.get_segments()]
        found[bar.get_label().split(":")[0]] = [
            (y, *end) for y, end in zip(line.get_ydata(), ends, strict=True)
        ]
    return found


def raw_shares(rows: Iterable[Row], *, news: bool, split: str = "valid2") -> dict[str, list[int]]:
    """Policy -> 1 where it was chosen and 0 where the reference was, read from the rows themselves."""
    shares = defaultdict(list)
    for row in rows:
        names = [side["policy"] for side in row["summaries"]]
        if row["split"] == split and ("article" in row["info"]) == news and names.count("ref") == 1:
            shares[names[1 - names.index("ref")]].append(int(names[row["choice"]] != "ref"))
    return shares


def expected_points(shares: dict[str, list[int]]) -> dict[str, list[float]]:
    known = {method: [name for name in names if name in shares] for method, names in FIG1.items()}
    return {
        method: [float(np.mean(shares[name])) for name in names] for method, names in known.items() if names
    }


SIX = [
    label("sup4_6b_t0.7", "ref", 0, "p1"),
    label("ref", "sup4_6b_t0.7", 1, "p2"),
    label("ref", "sup4_6b_t0.7", 0, "p3"),
    label("sup4_6b_t0.7", "ref", 1, "p4"),
    label("sup4_6b_t0.7", "ref", 0, "p5"),
    label("ref", "sup4_6b_t0.7", 1, "p6"),
]


def test_six_labels_by_hand() -> None:
    """Chosen on p1, p2, p5 and p6: 4 of 6. Wilson's interval of 4 of 6 is 30.0 % to 90.3 %."""
    aside = [
        label("sup4_6b_t0.7", "ref", 1, "p7", split="valid1"),
        label("sup4_6b_t0.7", "ref", 1, "p7", split="train"),
        label("sup4_6b_t0.7", "sup4_t0.7", 1, "p8"),
        label("ref", "ref", 1, "p8"),
        label("sup4_6b_t0.7", "ref", 1, "a", info={"id": "a", "article": "words"}),
    ]
    section = drawn([*SIX, *aside])
    row = sheet(section, "people_preference").iloc[0]
    assert (row["value"], row["n"], row["posts"]) == (pytest.approx(2 / 3), 6, 6)
    assert (row["low"], row["high"]) == (pytest.approx(0.3000, abs=1e-4), pytest.approx(0.9032, abs=1e-4))
    assert (row["method"], row["params"], row["temperature"], row["scorer"]) == ("sft", 6.7e9, 0.7, "people")
    one = picture(section, "people_preference")
    ours, theirs = one.figure.axes
    assert points(ours) == {"Supervised": [pytest.approx((row["value"], row["low"], row["high"]))]}
    published = points(theirs)["Human feedback (PPO)"]
    assert [value for value, _, _ in published] == [0.607, 0.701]
    assert (
        "labels in valid2: 6 of 6 posts; set aside: 2 that compare nothing with the reference, "
        "1 of train, 1 of valid1" in one.caption
    )
    assert "sup4_6b_t0.7 (6.7B, T = 0.7) 66.7% [30.0%, 90.3%], 6 labels (6 posts)" in one.caption
    assert "95 % intervals over posts" in one.caption and "T = 0, digitised" in one.caption
    legend = [text.get_text() for text in one.figure.legends[0].get_texts()]
    assert legend[0] == "Supervised: T = 0.7; n = 6" and legend.count("Supervised") == 0
    articles = sheet(section, "people_preference_articles").iloc[0]
    assert (articles["value"], articles["n"]) == (0, 1), "news is apart"
    assert len(picture(section, "people_preference_articles").figure.axes) == 1, (
        "the paper has no such figure"
    )


def test_other_splits_are_drawn_on_request_alone() -> None:
    rows = [*SIX, label("sup4_6b_t0.7", "ref", 1, "p7", split="valid1")]
    both = drawn(rows, drawing=Drawing(("valid1", "valid2"), PAPER_FOLDER, 50))
    assert sheet(both, "people_preference")["value"].tolist() == [pytest.approx(4 / 7)]
    assert "labels in valid1 and valid2: 7 of 7 posts" in picture(both, "people_preference").caption
    with pytest.raises(UsageError, match="no split valid3"):
        Drawing(("valid3",), PAPER_FOLDER, 50)


def test_two_workers_on_a_pair_are_not_two_posts() -> None:
    once = sheet(drawn(SIX), "people_preference").iloc[0]
    twice = sheet(drawn([*SIX, *(row | {"worker": "v"} for row in SIX)]), "people_preference").iloc[0]
    assert (twice["value"], twice["n"], twice["posts"]) == (once["value"], 12, 6)
    assert twice["low"] <= once["low"] and twice["high"] >= once["high"]


def test_rows_without_ids_are_told_apart_by_their_posts() -> None:
    rows = [row | {"info": {"post": f"words {number // 2}"}} for number, row in enumerate(SIX)]
    assert sheet(drawn(rows), "people_preference").iloc[0]["posts"] == 3


def test_of_several_temperatures_the_lowest_is_drawn_and_the_others_are_named() -> None:
    hot = [label("ref", "sup4_6b_t1", 0, f"p{n}") for n in range(4)]
    spelled = [label("ref", "sup4_6b_t.7", 1, f"q{n}") for n in range(2)]
    section = drawn([*SIX, *hot, *spelled])
    one = picture(section, "people_preference")
    assert [value for value, _, _ in points(one.figure.axes[0])["Supervised"]] == [pytest.approx(6 / 8)]
    assert "sup4_6b_t.7 and sup4_6b_t0.7 (6.7B, T = 0.7) 75.0%" in one.caption
    assert "In the table alone (other temperatures, variants, no known size): sup4_6b_t1." in one.caption
    table = sheet(section, "people_preference").set_index("policy")
    assert table.loc["sup4_6b_t1", ["value", "n"]].tolist() == [0, 4] and len(table) == 3


def test_a_name_that_is_not_understood_is_listed_and_not_drawn() -> None:
    section = drawn([*SIX, label("mystery_12b", "ref", 0), label("sup3", "ref", 0)])
    table = next(one for one in section.tables if one.name == "people_preference")
    mystery = table.frame.set_index("policy").loc["mystery_12b"]
    assert mystery["method"] == "" and np.isnan(mystery["params"]) and mystery["value"] == 1
    said = "Not understood, so without method and size: mystery_12b."
    one = picture(section, "people_preference")
    assert said in table.caption and said in one.caption and "no known size): sup3." in one.caption
    assert set(points(one.figure.axes[0])) == {"Supervised"}
    alone = drawn([label("mystery_12b", "ref", 0), label("mystery_12b", "sup4", 0)])
    assert alone.pictures == [] and len(alone.tables) == 1
    assert "(mystery_12b). Head to head: mystery_12b preferred to reference in 100.0%" in alone.undrawn[0]


def test_without_a_reference_the_head_to_head_is_told() -> None:
    rows = [label("sup4_t0.7", "sup4_ppo_rm4_t.7", int(n < 3), f"p{n}") for n in range(4)]
    section = drawn([*rows, label("sup4", "ref", 0, split="train")])
    assert section.tables == [] and section.pictures == []
    (said,) = section.undrawn
    assert said.startswith(
        "people_preference: no label of valid2 compares a policy with the reference of posts "
        "(labels: 1 of train, 4 of valid2). Head to head: sup4_ppo_rm4_t.7 preferred to sup4_t0.7 in 75.0% ["
    )
    (same,) = drawn([label("sup4", "sup4", 0)]).undrawn
    assert same.endswith("Head to head: both summaries of every pair are of one policy.")


def rating(policy: str, overall: int | None, post: str, *, news: bool, **more: Any) -> Row:
    info = {"id": post, "article" if news else "post": f"words of {post}"}
    axes = {"overall": overall, "coverage": 3, "coherence": None, "accuracy": 7}
    text = "x" * (100 + 20 * len(post))
    row = {"info": info, "summary": {"text": text, "policy": policy, "axes": axes}, "worker": "w"}
    return row | {"batch": "tldraxis1", "split": "valid2"} | more


def test_axes_that_were_not_rated_count_for_nothing() -> None:
    rows = [rating("sup4_t0.7", value, f"p{n}", news=False) for n, value in enumerate([2, None, 4])]
    rows += [rating("sup4_t0.7", 7, "q", news=False, split="test"), rating("other", 5, "p1", news=False)]
    section = drawn([], rows)
    table = sheet(section, "people_ratings").set_index(["policy", "measure"])
    assert table.loc[("sup4_t0.7", "overall"), ["value", "n"]].tolist() == [3, 2]
    assert table.loc[("sup4_t0.7", "coverage"), ["value", "n"]].tolist() == [3, 3]
    assert "coherence" not in set(table.index.get_level_values(1))
    one = picture(section, "people_ratings")
    assert "ratings in valid2: 4 of 3 posts; set aside: 1 of test" in one.caption
    assert "Not understood, so without method and size: other." in one.caption
    rows_drawn = [text.get_text() for text in one.figure.axes[0].get_yticklabels()]
    assert rows_drawn == ["sup4_t0.7 (n = 2)", "other (n = 1)"]
    (said,) = drawn([], rows, Drawing(("valid1",), PAPER_FOLDER, 50)).undrawn
    assert said == "people_ratings: no rating of valid1 (1 of test, 4 of valid2)"


def test_news_by_size_and_length_has_the_coldest_models_and_the_baselines() -> None:
    rows = [
        rating(policy, value + n % 2, "a" * (1 + n % 5) + str(n), news=True, batch="cnndm1")
        for policy, value in {"ref": 5, "lead-3": 6, "sup4_6b_t0.3": 4, "sup4_6b_t1": 1, "sup2": 1}.items()
        for n in range(12)
    ]
    section = drawn([], rows)
    assert section.undrawn == []
    one = picture(section, "people_ratings_articles_by_size")
    ours = one.figure.axes[0]
    assert {name: part[0][0] for name, part in points(ours).items()} == {"Supervised": 4.5}
    levels = {line.get_label(): line.get_ydata()[0] for line in ours.lines if len(line.get_ydata()) == 2}
    assert {name: levels[name] for name in ("reference", "lead-3")} == {"reference": 5.5, "lead-3": 6.5}
    assert "sup2" not in levels and "no known size): sup2, sup4_6b_t1." in one.caption
    assert "sup4_6b_t0.3 4.50 [" in one.caption and "over articles" in one.caption
    lengths = picture(section, "people_ratings_articles_by_length").figure.axes[0]
    assert {bar.get_label() for bar in lengths.containers} == {"reference", "lead-3", "sup4_6b_t0.3"}
    few = drawn([], [row for row in rows if row["summary"]["policy"] == "sup2"])
    assert [said.split(":")[0] for said in few.undrawn] == [
        "people_ratings_articles_by_size",
        "people_ratings_articles_by_length",
    ]


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    write_plain(fake_release(ReleaseSize(60, 40), seed=1), folder)
    return folder / "dataset"


def lines(files: Iterable[Path]) -> list[Row]:
    return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n") if line]


def test_the_miniatures_figures_are_its_rows(miniature: Path) -> None:
    files = sorted((miniature / "comparisons").glob("*.json"))
    axes = sorted((miniature / "axis_evals").glob("*.json"))
    section = people_section(load_comparisons(files), read_ratings(axes), VALID2)
    assert section.undrawn == []
    rows = lines(files)
    for news, name in ((False, "people_preference"), (True, "people_preference_articles")):
        shares = raw_shares(rows, news=news)
        table = sheet(section, name).set_index("policy")
        assert table["n"].to_dict() == {policy: len(hits) for policy, hits in shares.items()}
        assert table["value"].to_dict() == pytest.approx(
            {name: np.mean(hits) for name, hits in shares.items()}
        )
        shown = points(picture(section, name).figure.axes[0])
        values = {method: [value for value, _, _ in part] for method, part in shown.items()}
        assert values == {method: pytest.approx(means) for method, means in expected_points(shares).items()}
    for news, name in ((False, "people_ratings"), (True, "people_ratings_articles")):
        rated = defaultdict(list)
        for row in lines(axes):
            if row["split"] == "valid2" and ("article" in row["info"]) == news:
                policy = row["summary"]["policy"].replace("ref", "reference")
                rated[policy].append(row["summary"]["axes"]["coverage"])
        means = {policy: np.mean([one for one in found if one]) for policy, found in rated.items()}
        table = sheet(section, name).query("measure == 'coverage'").set_index("policy")
        assert table["value"].to_dict() == pytest.approx(means)
        panel = picture(section, name).figure.axes[1]
        assert sorted(bar.lines[0].get_xdata()[0] for bar in panel.containers) == pytest.approx(
            sorted(means.values())
        )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_command_writes_figures_with_their_captions(miniature: Path, tmp_path: Path) -> None:
    labels = ("--comparisons", miniature / "comparisons" / "cnndm0.json")
    ratings = ("--ratings", miniature / "axis_evals" / "tldraxis1.json")
    done = run(*labels, *ratings, "--draws", 50, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    names = ["people_preference_articles", "people_ratings"]
    assert [path.stem for path in sorted(tmp_path.glob("*.png"))] == names
    page = (tmp_path / "figures.md").read_text()
    for name in names:
        assert (tmp_path / f"{name}.svg").is_file() and (tmp_path / f"{name}.csv").is_file()
        assert f"![{name}]({name}.png)" in page
    assert "pretrain\\_6b\\_t.7" in page and str(tmp_path / "figures.md") in done.stdout
    bare = run(*labels)
    assert bare.exit_code == 0 and "people_" not in bare.output, "without a folder there are no figures"
    wrong = run(*labels, "--out", tmp_path, "--split", "dev")
    assert wrong.exit_code == 2 and "no split dev" in wrong.stderr


def test_what_is_not_drawn_is_said(miniature: Path, tmp_path: Path) -> None:
    done = run("--comparisons", miniature / "comparisons" / "batch13.json", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert (
        "not drawn: people_preference: no label of valid2 compares a policy with the reference" in done.stderr
    )
    assert not list(tmp_path.glob("*.png")) and not (tmp_path / "figures.md").exists()


def test_real_news_labels_are_drawn_and_real_posts_told_head_to_head(shared_data: Path) -> None:
    folder = shared_data / "comparisons"
    files = [folder / f"{name}.json" for name in ("batch13", "cnndm0", "edit_b2_eval_test")]
    section = people_section(load_comparisons(files), [], VALID2)
    shares = raw_shares(lines(files), news=True)
    shown = points(picture(section, "people_preference_articles").figure.axes[0])
    values = {method: [value for value, _, _ in part] for method, part in shown.items()}
    assert values == {method: pytest.approx(means) for method, means in expected_points(shares).items()}
    assert sum(map(len, values.values())) == 3
    caption = picture(section, "people_preference_articles").caption
    assert "temperature not in the name" in caption and "set aside: 216 that compare nothing" in caption
    assert "labels in valid2: 221 of 45 news articles" in caption
    wins = [
        row["summaries"][row["choice"]]["policy"] == "sup4_12b_t0.7"
        for row in lines(files[:1])
        if row["split"] == "valid2"
    ]
    (said,) = section.undrawn
    assert f"sup4_12b_t0.7 preferred to sup4_ppo_rm4_t.7 in {np.mean(wins):.1%} [" in said
    assert f"of {len(wins)} labels" in said and "(human_editor)" in said
    assert sheet(section, "people_preference")["policy"].tolist() == ["human_editor"]


def test_labels_against_the_reference_are_turned_to_the_policy() -> None:
    rows = reference_labels(comparison_pairs([Comparison.model_validate(row) for row in SIX]))
    assert rows["preferred"].tolist() == [1, 1, 0, 0, 1, 1] and set(rows["policy"]) == {"sup4_6b_t0.7"}
