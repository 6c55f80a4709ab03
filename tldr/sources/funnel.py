"""The rows that each rule of the filter removed, compared with the paper's numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tldr.sources.filter_rules import RULES, table2

PAPER_QUERIES, PAPER_POSTS = 287_790, 123_169
"""P App. A: posts filtered by body, and by summary too (training and validation; 6,553 test posts on top)."""
QUERY_BIN = 32
"""Width of the histogram of query lengths, in tokens."""


@dataclass
class Funnel:
    """Counts of one filter run.

    Attributes:
        rows: lines that are not blank, including bad ones.
        removed: rule -> rows it removed; also ``bad_line``.
        splits: ``queries/train`` and so on -> rows written.
        subreddits: the same sets without split -> subreddit -> rows; posts of the training split alone
            as ``posts/train``, to be set beside the paper's Table 2.
        query_tokens: lower end of the bin -> queries.
        summary_tokens: reference length (leading space and EOS included) -> SFT posts.
    """

    rows: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    subreddits: dict[str, Counter[str]] = field(default_factory=dict)
    query_tokens: Counter[int] = field(default_factory=Counter)
    summary_tokens: Counter[int] = field(default_factory=Counter)

    @property
    def posts(self) -> int:
        """SFT posts."""
        return self.after(RULES[-1])

    @property
    def queries(self) -> int:
        """PPO queries."""
        return self.after("query_tokens")

    def after(self, rule: str) -> int:
        """Rows left after the rule."""
        gone = ("bad_line", *RULES[: RULES.index(rule) + 1])
        return self.rows - sum(self.removed[name] for name in gone)

    def to_json(self) -> dict[str, Any]:
        """All counts as plain JSON, with the derived ones."""
        # not asdict: it cannot copy a Counter
        derived = {"queries": self.queries, "posts": self.posts, "rules": self.rules()}
        return {**vars(self), **derived}

    def rules(self) -> list[dict[str, Any]]:
        """Each rule in order with rows in, removed and out; unreadable lines first."""
        left, rows = self.rows, []
        for rule in ("bad_line", *RULES):
            out = left - self.removed[rule]
            rows.append({"rule": rule, "in": left, "removed": self.removed[rule], "out": out})
            left = out
        return rows

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Funnel:
        """The funnel that `to_json` wrote."""
        return cls(
            rows=data["rows"],
            removed=Counter(data["removed"]),
            splits=Counter(data["splits"]),
            subreddits={name: Counter(counts) for name, counts in data["subreddits"].items()},
            query_tokens=Counter({int(k): n for k, n in data["query_tokens"].items()}),
            summary_tokens=Counter({int(k): n for k, n in data["summary_tokens"].items()}),
        )

    def to_markdown(self) -> str:
        """The report: rules, splits, subreddits beside Table 2, length histograms."""
        return "\n\n".join(
            (
                "# Filter funnel",
                _table(("rule", "in", "removed", "out", "paper"), self._rule_rows()),
                "Rules whose patterns the paper left unpublished (`no_tldr`, `title_update`, `suicide`, "
                "`sexual`, `summary_update`, `profanity`) are this project's own.",
                "## Splits",
                _table(("set", "rows"), sorted(self.splits.items())),
                "## Training posts by subreddit",
                _table(("subreddit", "rows", "%", "paper", "paper %"), self._subreddit_rows()),
                "## Query length in tokens",
                _table(("from", "queries"), sorted(self.query_tokens.items())),
                "## Reference length in tokens, leading space and EOS included",
                _table(("tokens", "posts"), sorted(self.summary_tokens.items())),
            )
        )

    def _rule_rows(self) -> list[tuple[object, ...]]:
        paper = {"query_tokens": PAPER_QUERIES, "summary_tokens": PAPER_POSTS}
        return [(*row.values(), paper.get(row["rule"], "")) for row in self.rules()]

    def _subreddit_rows(self) -> list[tuple[object, ...]]:
        ours, paper = self.subreddits.get("posts/train", Counter()), table2()
        here, there = max(sum(ours.values()), 1), sum(paper.values())
        return [
            (
                name,
                ours[name],
                f"{ours[name] / here:.2%}",
                paper.get(name, ""),
                f"{paper.get(name, 0) / there:.2%}",
            )
            for name in sorted({*ours, *paper}, key=lambda name: (-paper.get(name, 0), name))
        ]


def _table(
    header: tuple[str, ...], rows: list[tuple[object, ...]] | list[tuple[str, int]] | list[tuple[int, int]]
) -> str:
    def cell(value: object) -> str:
        return f"{value:,}" if isinstance(value, int) else str(value)

    lines = [header, ("---", *["---:"] * (len(header) - 1)), *(tuple(map(cell, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
