"""The known data sets: their location, the records they hold, and their known sizes.

Sizes: P Table 2 and App. A (116,722 = the sum of Table 2, and with the validation posts the paper's
123,169); the data sets' own cards; `unsure` names the numbers that no card confirms.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tldr.errors import UsageError
from tldr.sources.filter_rules import table2

CONVERTED = "refs/convert/parquet"
"""The hub's own Parquet copy of a data set whose loading script today's `datasets` refuses."""
UNSURE = 0.01
"""Relative difference allowed between a number of rows and an unverified known size."""


@dataclass(frozen=True)
class KnownSource:
    """One published set.

    Attributes:
        gives: the record that a row becomes.
        rows: split -> known number of rows; a split's name is its files' (`tldr.sources.hub.layout`).
        unsure: splits whose size is approximate and not verified; a difference of 1 % is accepted.
        table2: the split that P Table 2 counts by subreddit.
        revision: of the hub's repository.
        keep: pattern of the repository's files that belong to the set.
        rename: what files call a split -> its name here.
        base, files: for files outside the hub, their base URL and their paths.
    """

    name: str
    gives: str
    rows: Mapping[str, int]
    note: str
    unsure: frozenset[str] = frozenset()
    table2: str | None = None
    revision: str = "main"
    keep: str = r".*\.parquet"
    rename: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    files: tuple[str, ...] = ()

    def split(self, name: str) -> str:
        """The split that files of this name hold."""
        return self.rename.get(name, name)

    def keeps(self, path: str) -> bool:
        """Whether a file of the repository belongs to the set."""
        return re.fullmatch(self.keep, path) is not None

    def differences(self, split: str, rows: int, subreddits: Mapping[str, int]) -> list[str]:
        """How a split differs from its known size, and from Table 2 if that counts it."""
        told = []
        expected = self.rows.get(split)
        slack = UNSURE * expected if expected and split in self.unsure else 0
        if expected is not None and abs(rows - expected) > slack:
            told.append(f"{split}: {rows:,} rows, known to be {expected:,} ({rows - expected:+,})")
        if split == self.table2:
            table = table2()
            names = sorted(table.keys() | subreddits.keys(), key=lambda name: (-table.get(name, 0), name))
            gaps = {name: subreddits.get(name, 0) - table.get(name, 0) for name in names}
            if parts := [f"r/{name} {gap:+,}" for name, gap in gaps.items() if gap]:
                more = f" and {len(parts) - 8} more" if len(parts) > 8 else ""
                told.append(f"{split}: rows by subreddit differ from Table 2: {', '.join(parts[:8])}{more}")
        return told


TLDR_3 = {"train": 116_722, "valid": 6_447, "test": 6_553}
_TLDR_3_HUB = {"train": 116_722, "validation": 6_447, "test": 6_553}
BATCHES = (
    *(f"batch{number}" for number in (*range(3, 21), 22)),
    *("batch0_cnndm", "cnndm0", "cnndm2", "edit_b2_eval_test"),
)
AXES = ("cnndm1", "cnndm3", "cnndm4", "tldraxis1", "tldraxis2")

_ALL = (
    KnownSource(
        "openai/summarize_from_feedback",
        "Comparison, Rating",
        {
            "comparisons/train": 92_858,
            "comparisons/validation": 86_086,
            "axis/test": 6_313,
            "axis/validation": 8_585,
        },
        "The paper's labels. The final RM trained on 64,832 of the train rows; which ones is not known.",
        unsure=frozenset({"comparisons/validation", "axis/test", "axis/validation"}),
        revision=CONVERTED,
    ),
    KnownSource(
        "vwxyzjn/summarize_from_feedback_tldr_3_filtered",
        "Post",
        _TLDR_3_HUB,
        "The paper's SFT posts with ids, text as released.",
        table2="train",
    ),
    KnownSource(
        "trl-lib/tldr",
        "Post",
        _TLDR_3_HUB,
        "The same posts as formatted queries: no ids. Summaries begin with a space.",
        table2="train",
    ),
    KnownSource(
        "CarperAI/openai_summarize_tldr",
        "Post",
        TLDR_3,
        "The same posts as queries in a format of their own (single newlines): no ids.",
        table2="train",
    ),
    KnownSource(
        "CarperAI/openai_summarize_comparisons",
        "Comparison",
        {"train": 92_534, "test": 83_629, "valid1": 33_082, "valid2": 50_715},
        "Pairs without ids, workers, policies, confidence. test mixes valid1 with valid2.",
    ),
    KnownSource(
        "webis/tldr-17",
        "raw row",
        {"train": 3_848_330},
        "Raw dump, for `data filter`. The hub's rows (script, converted Parquet) lack titles and the "
        "Parquet is partial, so its zip is read; a dump without titles has no top-level posts.",
        keep=r"data/corpus-webis-tldr-17\.zip",
        rename={"corpus-webis-tldr-17": "train", "partial-train": "train"},
    ),
    KnownSource(
        "abisee/cnn_dailymail",
        "Article",
        {"train": 287_113, "validation": 13_368, "test": 11_490},
        "CNN/DM 3.0.0, text as published, before cleaning.",
        keep=r"3\.0\.0/.*\.parquet",
        rename={f"3.0.0/{split}": split for split in ("train", "validation", "test")},
    ),
    KnownSource(
        "openai-files",
        "Post, Comparison, Rating",
        {f"tldr_3_filtered/{split}": rows for split, rows in TLDR_3.items()},
        "OpenAI's own JSON lines by URL. The body-filtered PPO queries are no longer online.",
        table2="tldr_3_filtered/train",
        base="https://openaipublic.blob.core.windows.net/summarize-from-feedback",
        files=(
            *(f"datasets/tldr_3_filtered/{split}.jsonl" for split in TLDR_3),
            *(f"dataset/comparisons/{batch}.json" for batch in BATCHES),
            *(f"dataset/axis_evals/{batch}.json" for batch in AXES),
        ),
    ),
)
CATALOG = {source.name: source for source in _ALL}


def known_source(name: str) -> KnownSource:
    """The set of this name.

    Raises:
        UsageError: there is none; with the nearest name.
    """
    if name in CATALOG:
        return CATALOG[name]
    close = difflib.get_close_matches(name, CATALOG, n=1, cutoff=0.5)
    raise UsageError(
        f"'{name}' is neither a known source nor a folder"
        + (f"; did you mean '{close[0]}'?" if close else ""),
        remedy="`tldr-lab data sources` lists the known ones",
    )
