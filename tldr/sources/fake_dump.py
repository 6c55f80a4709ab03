"""A synthetic raw dump with planted rule violations, to try and time the filter without the real dump.

Rows have the schema of Webis-TLDR-17 and about its lengths (270 words a post, 28 a summary). Each row
is built for removal by one rule or by none. The shares are about the paper's: 3.2 % pass all rules.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tldr.files import replacing
from tldr.sources.filter_rules import table2

SHARES = {
    "comment": 0.5,
    "subreddit": 0.31,
    "kept": 0.032,
    "summary_tokens": 0.045,
    "query_tokens": 0.05,
    "no_tldr": 0.03,
    "title_update": 0.008,
    "duplicate": 0.006,
    "sexual": 0.005,
    "suicide": 0.004,
    "profanity": 0.006,
    "summary_update": 0.003,
    "bad_line": 0.001,
}
"""Fate -> share of the rows."""

WORDS = (
    "the a my his her our their this that one some every new old little big good bad long short same other "
    "friend mother father sister brother boss dog cat car house job money school work family party phone "
    "dinner week month year night morning time day life door room street town city trip wedding birthday "
    "was is has had went came said told asked wanted needed tried thought knew found left stayed called "
    "and but because so when after before while then now never always often maybe really very almost still "
    "with without for from about over under into through back home away again together alone here there "
    "happy sad tired angry sorry afraid sure late early ready free busy quiet strange kind nice hard easy"
).split()

MARKERS = ("TL;DR: ", "tl;dr ", "**TL;DR:** ", "TLDR - ", "*Tl;dr*: ", "TL:DR; ", "tl dr: ")
ELSEWHERE = ("funny", "pics", "gaming", "AskScience", "leagueoflegends", "Fitness", "trees", "atheism")
EXPLICIT = "porn orgasm dildo semen vagina hentai"


def fake_rows(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield ``(fate, line)``; the fate is the rule meant to remove the row, or ``kept``."""
    rng = random.Random(seed)
    text = _Text(rng)
    bodies: list[str] = []
    fates = rng.choices(list(SHARES), list(SHARES.values()), k=count)
    for number, fate in enumerate(fates):
        if fate == "duplicate" and not bodies:
            fate = "kept"
        row = text.row(number, fate)
        if fate == "duplicate":
            row["body"] = rng.choice(bodies)
        elif fate != "bad_line" and len(bodies) < 1000:
            bodies.append(row["body"])
        line = json.dumps(row)
        yield fate, line[: len(line) // 2] if fate == "bad_line" else line


def write_fake_dump(path: str | Path, count: int, seed: int = 0) -> Counter[str]:
    """Write `count` lines to `path`, compressed if it ends in .gz.

    Returns:
        Number of rows planted per fate.
    """
    planted: Counter[str] = Counter()
    path = Path(path)
    with replacing(path) as partial, partial.open("wb") as raw:
        stream = gzip.GzipFile(path.name, "wb", fileobj=raw) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(stream, encoding="utf-8") as out:
            for fate, line in fake_rows(count, seed):
                planted[fate] += 1
                out.write(line + "\n")
    return planted


class _Text:
    """Texts assembled from a pool of sentences, fast enough for millions of rows."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.sentences = [self._sentence(rng.randint(6, 18)) for _ in range(5000)]
        self.subreddits, weights = list(table2()), list(table2().values())
        self.draw_subreddit: Callable[[], str] = lambda: rng.choices(self.subreddits, weights)[0]

    def _sentence(self, words: int) -> str:
        return " ".join(self.rng.choices(WORDS, k=words)).capitalize() + "."

    def row(self, number: int, fate: str) -> dict[str, Any]:
        """A row that breaks the rule `fate` and none before it."""
        rng = self.rng
        sentences = 80 if fate == "query_tokens" else max(3, min(28, round(rng.lognormvariate(2.9, 0.5))))
        parts = rng.choices(self.sentences, k=sentences)
        for at in range(4, sentences, 4):
            parts[at] = "\n\n" + parts[at]
        title = self._sentence(8)[:-1]
        summary = self._sentence(rng.randint(26, 34))
        if fate == "suicide":
            parts[1] = "He spoke of suicide."
        elif fate == "sexual":
            parts[1] = f"It was all {EXPLICIT}."
        elif fate == "title_update":
            title = rng.choice(("[UPDATE] ", "Update: ", "Edit: ")) + title
        elif fate == "summary_update":
            summary = rng.choice(("Edit: ", "UPDATE ", "P.S. ")) + summary
        elif fate == "profanity":
            summary = "Shit, fuck this fucking bitch of an asshole, fuck " + summary
        elif fate == "summary_tokens":
            summary = self._sentence(rng.choice((5, 10, 60, 80)))
        content = " ".join(parts)
        marker = "" if fate == "no_tldr" else rng.choice(MARKERS)
        body = f"{content}\n\n{marker}{summary}"
        row = {
            "author": f"user{number % 9973}",
            "body": body,
            "normalizedBody": body,
            "subreddit": rng.choice(ELSEWHERE) if fate == "subreddit" else self.draw_subreddit(),
            "subreddit_id": "t5_2qh1i",
            "id": f"t3_{number:06x}",
            "content": content,
            "summary": summary,
        }
        if fate == "comment":
            row["id"] = f"c{number:06x}"
        else:
            row["title"] = title
        return row
