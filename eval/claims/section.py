"""The claims of the papers with this study's verdicts, the first section of the report."""

from __future__ import annotations

import pandas as pd

from eval.claims.evidence import Evidence
from eval.claims.numbers import number_rows
from eval.claims.schema import CLAIMS_FILE, load_claims
from eval.claims.verdicts import COLUMNS, SYMBOLS, ClaimRow, row_table, shape_rows
from eval.common.study import Section, StudyResults, Table, once, without

INTRO = (
    "The papers' claims, tested on this study. A shape is reproduced where the whole 95 % interval of every "
    "required step lies on the claimed side. The intervals are over posts and paired wherever the posts are "
    "the same; seeds are pooled. The value shown is that of the weakest step. A number is compared only "
    "where data and model size (within a quarter) are the paper's."
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
    section = Section("claims", "Claims", INTRO)
    if not (study.paper / CLAIMS_FILE).is_file():
        return without(section, "No file of claims beside the published numbers.")
    table = row_table(claim_rows(study))
    # A part of a split claim (its id has an @) is shown, but counts only with its whole.
    whole = table[~table["id"].str.contains("@")]
    counts = [f"{_counted(whole[whole['kind'] == kind])} of {name}" for kind, name in KINDS.items()]
    told = table[(table["kind"] == "shape") | (table["verdict"] != "not run here")]
    silent = table[~table.index.isin(told.index)]
    section.tables.append(Table("claims", table[COLUMNS], f"Verdicts: {'; '.join(counts)}.", shown(told)))
    if len(silent):
        caption = f"{len(silent)} published numbers without a counterpart in this study, with the reason."
        section.tables.append(Table("claims_not_run", silent[COLUMNS], caption, shown(silent)))
    return section


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
            "ours": [_cell(row) for row in table.itertuples()],
            "unit": table["unit"],
            "n": table["n"].map(lambda count: "" if pd.isna(count) else str(count)),
            "note": table["note"],
            "source": table["source"],
            "runs": table["runs"],
        }
    )


def _cell(row: object) -> str:
    value, low, high = (getattr(row, name) for name in ("ours", "low", "high"))
    if pd.isna(value):
        return ""
    return f"{value:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]")
