"""Verdicts in a study's folder, as scores of its samples: what people or a judge prefer to the reference.

With them every figure and shape that a scorer gives (Figs. 1, 8, 10) is drawn by people or by a judge, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from eval.common.pairs import REFERENCE, load_comparisons, read_judgements
from eval.common.runs import StudyRun, StudyRuns, in_worlds, study_posts
from eval.judge.measure import answers, combined, complete, pair_of
from tldr.records import Judgement

JUDGEMENTS = "judgements*.jsonl"
"""At the top of a study's folder: verdicts of judges, each pair in both orders."""
JUDGED = "judgements.jsonl"
"""In the folder of a run of the stage `judge`."""
COMPARED = "comparisons.jsonl"
"""In the folder of such a run whose judges are people."""
POOL_JUDGED, POOL_COMPARED = "pool_judgements.jsonl", "pool_comparisons.jsonl"
"""The same of the best of pools, which are no samples of a policy of the study."""
COMPARISONS = "comparisons*.jsonl"
"""At the top of a study's folder: people's choices in OpenAI's fields, in one order or several."""
PEOPLE = "people"
PREFIX = "verdicts "
"""A judge's scores are ``score.verdicts <judge>``."""

_COLUMNS = ["judge", "id", "policy", "text", "runs", "preferred", "answers", "shown_first"]


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on pairs of a sample and the reference of its post.

    Attributes:
        table: a row each judge, sample and file's runs: ``judge``, ``id`` (post), ``policy`` (as the judge
            names it), ``text`` ("" where the file has none), ``runs``, ``preferred`` (share for the sample,
            0..1), ``answers`` (their number) and ``shown_first`` (in how many the sample was shown first).
        notes: what was left out, with the reason.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    @property
    def judges(self) -> list[str]:
        """People first, then by name."""
        return sorted(self.table["judge"].unique(), key=lambda name: (name != PEOPLE, name))

    def about(self, judge: str) -> str:
        """How many verdicts there are, and whether the order shown was as good as random."""
        rows = self.table[self.table["judge"] == judge]
        total, first = int(rows["answers"].sum()), int(rows["shown_first"].sum())
        chance = binomtest(first, total).pvalue
        odd = " The order was not drawn by chance." if chance < 0.001 else ""
        return (
            f"{total:,} verdicts on {len(rows):,} summaries of {rows['id'].nunique():,} posts; the sample "
            f"was shown first in {first / total:.0%} (p = {chance:.2g} if by chance).{odd}"
        )


def read_verdicts(study: StudyRuns) -> Verdicts:
    """Those of a study's judges and of its folder (`JUDGEMENTS`, `COMPARISONS`), on the criterion "overall".

    People's comparisons of the split "train" made the reward model and are left out. So are pairs that a
    judge saw in one order only. Pairs of two samples are other measures' business (`eval.judge.measure`).

    Raises:
        RecordError: a bad line, named ``file:line``.
    """
    notes: list[str] = []
    parts = [pd.DataFrame(columns=_COLUMNS)]
    files = [*sorted(study.folder.glob(JUDGEMENTS)), *judge_files(study)]
    judgements = [
        row for path in files for row in in_worlds(read_judgements(path), study) if row.axis == "overall"
    ]
    both = complete(judgements)
    if alone := len(set(map(pair_of, judgements)) - set(map(pair_of, both))):
        notes.append(f"{alone:,} pairs that a judge saw in one order only are left out: ask in both.")
    if both:
        parts.append(_of_judges(both))
    for path in sorted(study.folder.glob(COMPARISONS)):
        parts.append(_of_people(load_comparisons(path).assign(runs=path.stem), study, notes))
    for run in study.finished("judge"):
        if (file := run.folder / COMPARED).is_file():
            parts.append(_of_run(run, file, "samples-", study, notes))
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    return Verdicts(table, notes)


def read_pool_verdicts(study: StudyRuns) -> pd.DataFrame:
    """Verdicts of a study's judges on the best of its pools, as `Verdicts.table`; ``runs`` are the pools."""
    notes: list[str] = []
    parts = [pd.DataFrame(columns=_COLUMNS)]
    for run in study.finished("judge"):
        if (file := run.folder / POOL_JUDGED).is_file():
            rows = complete(in_worlds(read_judgements(file), study))
            parts += [_of_judges(rows)] if rows else []
        if (file := run.folder / POOL_COMPARED).is_file():
            parts.append(_of_run(run, file, "pool-", study, notes))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def _of_run(run: StudyRun, file: Path, made_by: str, study: StudyRuns, notes: list[str]) -> pd.DataFrame:
    """Choices of people whom a run asked about its inputs of a prefix."""
    rows = load_comparisons(file)
    made = " ".join(source for name, source in run.parents.items() if name.startswith(made_by))
    rows = rows.assign(id=run.post_ids(rows["id"]), runs=made)
    return _of_people(rows, study, notes, placed=True)


def judge_files(study: StudyRuns) -> list[Path]:
    """The verdicts of the judges that the study itself asked (its setting `judges`)."""
    files = [run.folder / JUDGED for run in study.finished("judge")]
    return [file for file in files if file.is_file()]


def _of_judges(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Both orders of each pair together; pairs with an invalid answer are left out."""
    both = combined(answers(judgements)).dropna(subset="preferred")
    return _oriented(both.assign(answers=2, shown_first=1))


def _of_people(
    rows: pd.DataFrame, study: StudyRuns, notes: list[str], *, placed: bool = False
) -> pd.DataFrame:
    """Their choices; ids are found by the posts' texts unless they are `placed` in their world already."""
    trained = rows["split"] == "train"
    if trained.any():
        notes.append(f"{int(trained.sum()):,} of people's comparisons are of the split train and left out.")
    rows = rows[~trained].assign(judge=PEOPLE, answers=1)
    rows["shown_first"] = ((rows["second"] == REFERENCE) == rows["shown_in_order"]).astype(int)
    worlds = {run.world for run in study.runs if run.world}
    if worlds and len(rows) and not placed:
        rows, lost = _in_their_worlds(rows, study)
        if lost:
            notes.append(f"{lost:,} of people's comparisons are on posts of no data seed and left out.")
    return _oriented(rows)


def _in_their_worlds(rows: pd.DataFrame, study: StudyRuns) -> tuple[pd.DataFrame, int]:
    """Rows with the ids of a study of several data seeds, found by the post's text; how many have none."""
    posts = study_posts(study)
    known = {} if posts is None else {text.strip(): one for one, text in posts["post"].items()}
    ids = rows["post"].str.strip().map(known)
    return rows.assign(id=ids).dropna(subset="id"), int(ids.isna().sum())


def _oriented(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs with the reference turned so that the sample comes first; equal ones added up."""
    pairs = pairs[(pairs["first"] == REFERENCE) != (pairs["second"] == REFERENCE)]
    turned = pairs["first"] == REFERENCE
    table = pairs.assign(
        policy=pairs["first"].where(~turned, pairs["second"]),
        text=pairs["first_text"].where(~turned, pairs["second_text"]).fillna("").str.strip(),
        preferred=pairs["preferred"].where(~turned, 1 - pairs["preferred"]),
    )
    table["preferred"] *= table["answers"]
    keys = ["judge", "id", "policy", "text", "runs"]
    summed = table.groupby(keys, sort=False, as_index=False)[["preferred", "answers", "shown_first"]].sum()
    summed["preferred"] /= summed["answers"]
    return summed[_COLUMNS]


def with_verdicts(samples: pd.DataFrame, verdicts: Verdicts) -> tuple[pd.DataFrame, list[str]]:
    """Samples with each judge's scores, and what could not be placed.

    ``score.verdicts <judge>`` is the share of verdicts that prefer the sample to the reference, and with
    ``_reference`` its complement; missing where the judge did not see the sample. A verdict belongs to the
    samples of its post with its text, of the policy and way of sampling that it names, and of the runs that
    it names where the study has them. A name that could mean two ways of sampling places nothing. Without
    runs, a name means the main policy: variants have its name too, and those of their texts that happen to
    be the main policy's would be no fair part of theirs.
    """
    notes = list(verdicts.notes)
    named = _ways(samples)
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    keys = zip(samples["id"], samples["policy"], samples["temperature"], samples["top_p"], strict=True)
    for place, (post, *way) in enumerate(keys):
        for name in named[_way(*way)]:
            places[str(post), name].append(place)
    texts, runs = samples["text"].str.strip().to_numpy(), samples["run"].to_numpy()
    known, variant = set(runs), _is_variant(samples)
    columns = {}
    for judge in verdicts.judges:
        rows = verdicts.table[verdicts.table["judge"] == judge]
        sums, counts, lost = np.zeros(len(samples)), np.zeros(len(samples)), 0
        for row in rows.to_dict("records"):
            of_runs = set(row["runs"].split()) & known
            found = [
                place
                for place in places.get((row["id"], row["policy"]), [])
                if row["text"] in ("", texts[place])
                and (runs[place] in of_runs if of_runs else not variant[place])
            ]
            lost += not found
            sums[found] += row["preferred"] * row["answers"]
            counts[found] += row["answers"]
        if lost:
            notes.append(
                f"{lost:,} of {len(rows):,} summaries that {judge} judged are no samples of this study, or "
                "their policy's name could mean several ways of sampling."
            )
        with np.errstate(invalid="ignore"):
            columns[f"score.{PREFIX}{judge}"] = sums / counts
    shares = pd.DataFrame(columns, index=samples.index).dropna(axis=1, how="all")
    rest = (1 - shares).add_suffix("_reference")
    return pd.concat([samples, shares, rest], axis=1), notes


def _is_variant(samples: pd.DataFrame) -> npt.NDArray[np.bool_]:
    column = "tag.variant"
    given = samples[column] if column in samples else pd.Series("", index=samples.index)
    return (given.fillna("") != "").to_numpy()


_Way = tuple[str, float | None, float | None]
"""A policy, its temperature and top-p."""


def _way(policy: str, temperature: float, top_p: float) -> _Way:
    heat, mass = (None if pd.isna(one) else float(one) for one in (temperature, top_p))
    return policy, heat, mass


def _ways(samples: pd.DataFrame) -> dict[_Way, list[str]]:
    """Each way of sampling with the names that mean it and no other: ``sft-m-t0.7-p0.9`` or less."""
    distinct = samples[["policy", "temperature", "top_p"]].drop_duplicates()
    names: dict[_Way, list[str]] = {}
    for row in distinct.itertuples(index=False):
        way = _way(*row)
        heat, mass = (
            "" if one is None else f"-{letter}{one:g}" for one, letter in zip(way[1:], "tp", strict=True)
        )
        names[way] = list(dict.fromkeys(way[0] + end for end in ("", heat, mass, heat + mass)))
    meant = pd.Series([name for several in names.values() for name in several]).value_counts()
    return {way: [name for name in several if meant[name] == 1] for way, several in names.items()}


def judged(samples: pd.DataFrame) -> Iterator[str]:
    """The judges whose verdicts samples carry (`with_verdicts`), people first."""
    for column in samples.columns:
        name = str(column).removeprefix(f"score.{PREFIX}")
        if name != column and not name.endswith("_reference"):
            yield name
