"""The claims of the papers with this study's verdicts, the first section of the report."""

from __future__ import annotations

import pandas as pd

from eval.claims.evidence import Evidence, headline_scorers
from eval.claims.numbers import number_rows
from eval.claims.schema import CLAIMS_FILE, load_claims
from eval.claims.verdicts import COLUMNS, SYMBOLS, ClaimRow, row_table, shape_rows, shown_value, step_table
from eval.common import beside
from eval.common.beside import CommittedReport, compared
from eval.common.cells import values_of
from eval.common.runs import incomplete
from eval.common.study import Section, StudyResults, Table, once, without
from eval.preference.measure import PreferenceScorer

INTRO = (
    "The papers' claims, tested on this study. A shape is reproduced where the whole 95 % interval of every "
    "required step lies on the claimed side. A cell is a draw of the data with a training seed; the effect "
    "is computed in each cell, paired wherever the posts are the same, and every cell counts the same. With "
    "several cells the interval is a t interval over the cells' own effects; with one cell, one draw, it is "
    "over posts and says nothing of another draw. The value shown is that of the weakest step. A number is "
    "compared only where data and model size (within a quarter) are the paper's."
)


@once
def claim_rows(study: StudyResults) -> list[ClaimRow]:
    """Every claim's verdict: shapes, then numbers.

    Raises:
        UsageError: a broken file of claims, or a verdict whose provenance is missing.
    """
    claims, evidence = load_claims(study.paper), Evidence(study)
    shapes = [row for claim in claims.shapes for row in shape_rows(claim, evidence, study.draws)]
    return shapes + [row for rule in claims.numbers for row in number_rows(rule, evidence)]


def claims_section(study: StudyResults) -> Section:
    """Claims with verdicts; the table ``claims`` is what ``claims.csv`` holds."""
    section = Section("claims", "Claims", INTRO, missing=incomplete(study.runs))
    if not (study.paper / CLAIMS_FILE).is_file():
        return without(section, "No file of claims beside the published numbers.")
    rows = claim_rows(study)
    table = row_table(rows)
    headline = next(iter(headline_scorers(study)), None)
    # A part of a split claim (its id has an @) is shown, but counts only with its whole.
    whole = table[~table["id"].str.contains("@")]
    counts = [f"{_counted(whole[whole['kind'] == kind])} of {name}" for kind, name in KINDS.items()]
    told = table[(table["kind"] == "shape") | (table["verdict"] != "not run here")]
    silent = table[~table.index.isin(told.index)]
    by = "" if headline is None else f" Preference is by {headline.label}."
    caption, visible = f"Verdicts: {'; '.join(counts)}.{by}", shown(told)
    if study.beside is not None:
        visible, said = _beside(visible, told, study.beside)
        caption += f" {said}"
    section.tables.append(Table("claims", table[COLUMNS], caption, visible))
    steps = step_table(rows)
    if len(steps):
        section.tables.append(Table("claim_steps", steps, STEPS, _steps_shown(steps)))
    for scorer in headline_scorers(study)[1:]:
        section.tables.append(_by(study, scorer))
    if len(silent):
        caption = f"{len(silent)} published numbers without a counterpart in this study, with the reason."
        section.tables.append(Table("claims_not_run", silent[COLUMNS], caption, shown(silent)))
    return section


def _by(study: StudyResults, scorer: PreferenceScorer) -> Table:
    """The shapes of preference once more, by the verdicts of people or another judge."""
    claims, evidence = load_claims(study.paper), Evidence(study, scorer)
    shapes = [claim for claim in claims.shapes if claim.on_preference]
    table = row_table([row for claim in shapes for row in shape_rows(claim, evidence, study.draws)])
    whole = table[~table["id"].str.contains("@")]
    caption = (
        f"The shapes of preference by {scorer.label}: {_counted(whole)}. {study.verdicts.about(scorer.label)}"
    )
    return Table(f"claims_{scorer.file}", table[COLUMNS], caption, shown(table))


def _beside(visible: pd.DataFrame, table: pd.DataFrame, other: CommittedReport) -> tuple[pd.DataFrame, str]:
    """The readable claims with a column of the committed report's values, and where they differ.

    Values are compared where both are of the same step: the weakest one may be another elsewhere.
    """
    theirs = other.table("claims")
    if theirs is None or "step" not in theirs:
        return visible, f"{other.name} has no claims that name their steps, to set these beside."
    keys = ["claim", "kind", "paper", "step"]
    own, theirs = (
        frame.dropna(subset=["ours"]).rename(columns={"ours": "value"}) for frame in (table, theirs)
    )
    both = compared(own, theirs, keys)
    texts = {
        (row.claim, row.kind, row.paper): f"{row.verdict}: {row.value:.3f} [{row.low:.3f}, {row.high:.3f}], "
        + ("1 cell" if row.cells == 1 else f"{row.cells:.0f} cells")
        for row in theirs.itertuples()
    }
    out = set(zip(both.loc[both["outside"], "claim"], both.loc[both["outside"], "kind"], strict=True))
    column = [
        texts.get((row.claim, row.kind, row.paper), "")
        + ("; outside" if (row.claim, row.kind) in out else "")
        for row in table.itertuples()
    ]
    visible.insert(list(visible).index("unit"), other.name, column)
    if theirs["cells"].max() < 2:
        return visible, f"Beside {other.name}: {beside.ALONE}."
    # A part of a split claim that is its whole's weakest step is the same value.
    single = both.drop_duplicates(["value", "other"])
    return visible, beside.told(single, list(single["claim"]), other.name)


STEPS = (
    "Every step that a shape requires, with the effect in each cell. The whole interval must lie above 0; "
    "with a margin above minus it, and where both ways are asked below it as well."
)


def _steps_shown(steps: pd.DataFrame) -> pd.DataFrame:
    """One readable row per step."""
    margins = zip(steps["margin"], steps["two_sided"], strict=True)
    return pd.DataFrame(
        {
            "claim": steps["claim"],
            "step": steps["step"],
            "ours": [shown_value(row) for row in steps.itertuples()],
            "margin": [
                f"{size:g}" + (" either way" if both else "") if size else "" for size, both in margins
            ],
            "unit": steps["unit"],
            "holds": steps["holds"].map({True: "yes", False: "no"}),
            "holds_in": steps["holds_in"].astype(str) + " of " + steps["cells"].astype(str),
            "cell_values": [
                "; ".join(f"{cell} {value:.3f}" for cell, value in values_of(text).items())
                for text in steps["cell_values"]
            ],
        }
    )


KINDS = {"shape": "the shapes", "number": "the numbers"}


def _counted(table: pd.DataFrame) -> str:
    counts = table["verdict"].value_counts()
    return ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in SYMBOLS)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """One readable row per claim: verdict as symbol and word, place and tag, our value with its interval."""
    shape = table["kind"] == "shape"
    return pd.DataFrame(
        {
            "mark": table["verdict"].map(SYMBOLS),
            "verdict": table["verdict"],
            "claim": table["claim"],
            "paper": table["paper"].where(shape, table["paper"] + ", " + table["where"])
            + " ["
            + table["tag"]
            + "]",
            "ours": [shown_value(row) for row in table.itertuples()],
            "unit": table["unit"],
            **{
                name: table[name].map(lambda count: "" if pd.isna(count) else str(count))
                for name in ("n", "cells", "holds_in")
            },
            "note": table["note"],
            "source": table["source"],
            "runs": table["runs"],
        }
    )
