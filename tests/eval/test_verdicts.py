"""Verdicts of people and judges as scores of a study's samples, and the headline that they carry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.claims.evidence import Evidence, headline_scorers
from eval.claims.schema import load_claims
from eval.claims.section import claims_section
from eval.claims.verdicts import shape_rows
from eval.common.paper import PAPER_FOLDER
from eval.common.study import StudyResults
from eval.preference.measure import PreferenceScorer
from eval.preference.section import preference_section, preference_table
from tests.eval.section_study import write_lines
from tests.eval.verdict_study import JUDGED, POSTS, WON, comparison, judged_study, made_study, opened, verdict


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return judged_study(tmp_path)


def shares(study: StudyResults, scorer: PreferenceScorer) -> dict[str, tuple[float, int]]:
    table = preference_table(study)
    rows = table[(table["scorer"] == scorer.name) & (table["measure"] == scorer.main_measure)]
    return {f"{row.method}-{row.size}": (row.value, row.n) for row in rows.itertuples()}


def test_each_judge_has_its_own_figure_and_numbers(folder: Path) -> None:
    study = opened(folder)
    people, judge = headline_scorers(study)
    assert (people.label, judge.label, judge.file) == ("people", "llm/x", "verdicts_llm_x")
    assert shares(study, people) == {name: (pytest.approx(won / JUDGED), JUDGED) for name, won in WON.items()}
    assert shares(study, judge) == {
        name: (pytest.approx(1 - won / JUDGED), JUDGED) for name, won in WON.items()
    }
    section = preference_section(study)
    pictures = {picture.name: picture for picture in section.pictures}
    assert list(pictures) == ["preference_verdicts_people", "preference_verdicts_llm_x", "preference_rm"]
    drawn = pictures["preference_verdicts_people"].figure.axes[0].lines
    values = [list(line.get_ydata()) for line in drawn]
    assert pytest.approx([20 / 30, 25 / 30]) in values and pytest.approx([9 / 30, 13 / 30]) in values
    said = "120 verdicts on 120 summaries of 30 posts; the sample was shown first in 50%"
    assert said in pictures["preference_verdicts_people"].caption
    assert not section.missing


def test_the_shapes_are_told_by_people_and_once_more_by_each_further_judge(folder: Path) -> None:
    study = opened(folder)
    tables = {table.name: table for table in claims_section(study).tables}
    assert "Preference is by people." in tables["claims"].caption
    text = "Human feedback (PPO) is preferred to supervised learning, all sizes together"
    value = (20 + 25 - 9 - 13) / 60
    for name, sign, said in (("claims", 1, "reproduced"), ("claims_verdicts_llm_x", -1, "not reproduced")):
        rows = tables[name].frame.set_index("claim")
        assert rows.loc[text, "verdict"] == said
        assert rows.loc[text, "ours"] == pytest.approx(sign * value) and rows.loc[text, "n"] == 60
    claims = load_claims(PAPER_FOLDER)
    on_preference = {claim.id for claim in claims.shapes if claim.on_preference}
    assert len(tables["claims_verdicts_llm_x"].frame) >= len(on_preference) > 10
    spread = next(claim for claim in claims.shapes if "copying" in str(claim.test))
    assert spread.id not in on_preference


def test_planted_labelers_come_before_people(folder: Path) -> None:
    for path in folder.glob("*/samples.jsonl"):
        text = path.read_text().replace('"rm":', '"gold": 0.0, "gold_reference": 0.0, "rm":')
        path.write_text(text)
    study = opened(folder)
    assert [one.label for one in headline_scorers(study)] == ["the planted labelers", "people", "llm/x"]


def test_several_verdicts_of_a_pair_count_by_their_share(folder: Path) -> None:
    workers = [
        comparison("ppo-s", "p0", won, first) for won, first in ((True, True), (False, False), (True, False))
    ]
    write_lines(folder / "comparisons.jsonl", workers)
    (folder / "judgements.jsonl").unlink()
    study = opened(folder)
    assert study.samples is not None
    column = study.samples.set_index(["policy", "id"])["score.verdicts people"].dropna()
    assert column.to_dict() == {("ppo-s", "p0"): pytest.approx(2 / 3)}
    assert study.verdicts.table[["answers", "shown_first"]].values.tolist() == [[3, 1]]


def test_a_verdict_that_cannot_be_placed_is_told(folder: Path) -> None:
    rows = [
        comparison("ppo-s", "p0", True, True),
        comparison("sft-s", "p0", True, True),  # greedy, or at T = 1?
        comparison("ppo-s", "p1", True, True)
        | {"summaries": [{"text": "another text", "policy": "ppo-s"}, {"text": " ref", "policy": "ref"}]},
        comparison("ppo-s", "p2", True, True, split="train"),
    ]
    write_lines(folder / "comparisons.jsonl", rows)
    study = opened(folder)
    assert study.samples is not None and study.samples["score.verdicts people"].notna().sum() == 1
    assert study.verdict_notes == [
        "1 of people's comparisons are of the split train and left out.",
        "2 of 3 summaries that people judged are no samples of this study, or their policy's name could mean "
        "several ways of sampling.",
    ]
    assert set(study.verdict_notes) <= set(preference_section(study).missing)


def test_trap_a_name_without_a_run_means_the_main_policy_and_no_variant_that_wrote_the_same(
    folder: Path,
) -> None:
    """A variant would be told by those of its texts alone that are the main policy's."""
    (main,) = folder.glob("score-s-ppo-0/samples.jsonl")
    rows = [json.loads(line) for line in main.read_text().splitlines()]
    for row in rows:
        row["tags"] |= {"variant": "shared"}
    write_lines(main, [*map(json.loads, main.read_text().splitlines()), *rows])
    study = opened(folder)
    assert study.samples is not None
    told = study.samples[study.samples["policy"] == "ppo-s"].set_index("tag.variant")
    by_people, by_judge = (told[f"score.verdicts {judge}"] for judge in ("people", "llm/x"))
    assert by_people["shared"].isna().all() and by_people[~told.index.notna()].notna().sum() == JUDGED
    assert by_judge["shared"].notna().sum() == JUDGED, "the judge names the run"


def test_an_order_that_was_not_drawn_by_chance_is_told(folder: Path) -> None:
    write_lines(folder / "comparisons.jsonl", [comparison("ppo-s", f"p{n}", True, True) for n in range(20)])
    about = opened(folder).verdicts.about("people")
    assert "shown first in 100%" in about and about.endswith("The order was not drawn by chance.")


def test_a_pair_that_a_judge_saw_in_one_order_is_left_out_and_told(folder: Path) -> None:
    both = [verdict("ppo-s", "p0", True, "score-s-ppo-0", order) for order in ([0, 1], [1, 0])]
    write_lines(folder / "judgements.jsonl", [*both, verdict("ppo-s", "p1", True, "score-s-ppo-0", [0, 1])])
    study = opened(folder)
    assert study.samples is not None
    assert study.samples.dropna(subset="score.verdicts llm/x")["id"].tolist() == ["p0"]
    assert study.verdict_notes == ["1 pairs that a judge saw in one order only are left out: ask in both."]


def test_trap_equal_ids_of_two_data_seeds_are_told_apart_by_the_posts_text(tmp_path: Path) -> None:
    runs = []
    for seed in (3, 4):
        where = tmp_path / f"w{seed}"
        made_study(where, data_seed=seed)
        data = where / "data"
        data.mkdir()
        posts = [
            {
                "id": f"p{n}",
                "subreddit": "r",
                "title": "t",
                "post": f"text of p{n} in {seed}",
                "summary": " ref",
            }
            for n in range(POSTS)
        ]
        write_lines(data / "valid2.jsonl", posts)
        (data / "DONE").write_text("{}")
        about = json.loads((where / "study.json").read_text())["runs"]
        runs += [row | {"folder": f"w{seed}/{row['folder']}"} for row in about]
        runs.append({"run": f"data-d{seed}", "stage": "data", "folder": f"w{seed}/data", "data_seed": seed})
    (tmp_path / "study.json").write_text(json.dumps({"study": "made", "runs": runs}))
    row = comparison("ppo-s", "p0", True, True)
    row["info"]["post"] = "text of p0 in 4"
    lost = comparison("ppo-s", "p0", True, True)
    write_lines(tmp_path / "comparisons.jsonl", [row, lost])
    study = opened(tmp_path)
    assert study.samples is not None
    marked = study.samples.dropna(subset="score.verdicts people")
    assert marked["id"].tolist() == ["d4:p0"] and marked["cell"].tolist() == ["d4 s0"]
    assert study.verdict_notes == ["1 of people's comparisons are on posts of no data seed and left out."]


def test_without_verdicts_nothing_changes(folder: Path) -> None:
    (folder / "comparisons.jsonl").unlink()
    (folder / "judgements.jsonl").unlink()
    study = opened(folder)
    assert study.samples is not None and not [name for name in study.samples if "verdicts" in name]
    assert headline_scorers(study) == [] and study.verdict_notes == []
    claim = next(claim for claim in load_claims(PAPER_FOLDER).shapes if claim.on_preference)
    assert shape_rows(claim, Evidence(study), 50)[0].note == "samples carry no preference"
