"""Further reporting sets: a table each for ROUGE and for the reward model, apart from the main tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.further.section import further_section
from tldr.records import Post, Sample, write_json, write_records

LISTED = {"stage": "score", "size": "s", "seed": 0}


def write_study(folder: Path) -> StudyResults:
    """One policy: half of its summaries of test posts are their references, which only those beat."""
    rows = [{"run": "data", "stage": "data", "folder": "data"}]
    write_json(folder / "data" / "DONE", {})
    for dataset, share in (("", 0), ("test", 2)):
        posts = [
            Post(id=f"{dataset}{n}", subreddit="r", title="t", post="One cat.", summary=f"The cat left {n}.")
            for n in range(8)
        ]
        write_records(folder / "data" / f"{dataset or 'valid2'}.jsonl", posts)
        name = f"score-{dataset or 'main'}"
        tags = {"method": "sft", "size": "s", "params": 1e6} | ({"dataset": dataset} if dataset else {})
        samples = []
        for number, post in enumerate(posts):
            same = share > 0 and number % share == 0
            text = post.summary if same else "Boss asked."
            scores = {"rm": 1.0 if same else -1.0, "rm_reference": 0.0}
            how = {"temperature": 0.0, "tokens": 3, "stopped": True, "scores": scores, "tags": tags}
            samples.append(Sample(id=post.id, policy="sft-s", run=name, text=f" {text}", **how))
        write_records(folder / name / "samples.jsonl", samples)
        write_json(folder / name / "DONE", {})
        rows.append({"run": name, "folder": name, "dataset": dataset, **LISTED})
    write_json(folder / "study.json", {"runs": rows})
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=50)


def test_each_further_set_has_its_own_rouge_and_preference(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    section = further_section(study)
    assert [table.name for table in section.tables] == ["rouge_test", "preference_test"]
    rouge, preferred = (table.frame.set_index("measure")["value"] for table in section.tables)
    assert rouge["rouge1_f"] == pytest.approx(0.5) and preferred["preference"] == 0.5
    assert "8 test posts" in section.tables[0].caption
    assert study.samples is not None and set(study.samples["score.rm"]) == {-1.0}


def test_without_further_sets_the_section_says_so(tmp_path: Path) -> None:
    write_study(tmp_path)
    (tmp_path / "score-test" / "DONE").unlink()
    assert further_section(StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=50)).missing == [
        "Not run here."
    ]
