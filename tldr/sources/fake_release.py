"""OpenAI's release in miniature, from generated text: same files, same fields, same relations between them.

What the release is known for and a plain random file would lack (P App. A, OAI README, the loader script of
the hub, and the real rows of batch13, cnndm0 and edit_b2_eval_test):

- Of the validation posts, some are labelled valid1, some valid2, a few both, and the rest not at all. Most
  labels of the evaluation are about posts in none of the three files.
- Posts are labelled in several batches, and pairs by several workers. Many pairs are two samples of one
  policy.
- Not every batch has every split: batch13 only evaluates.
- Early batches have no confidence and some later rows a null; the slider is signed and never 5.
- The edit batch has no ids, ``r/`` before the subreddit, and texts without the leading space, as some of the
  samples of news.
- Any axis of a rating may be null, and some have the optional ``compatible``.

Numbers of rows are the known ones divided (`tldr.sources.hub.catalog`). How they spread over batches is not
published; here they spread evenly.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from typing import Any

from tldr.files import replacing
from tldr.sources.fake_dump import WORDS
from tldr.sources.filter_rules import table2
from tldr.sources.hub.catalog import AXES, BATCHES, CATALOG, TLDR_3

Row = dict[str, Any]

NEWS_BATCHES = ("batch0_cnndm", "cnndm0", "cnndm2")
EDIT_BATCH = "edit_b2_eval_test"
REDDIT_BATCHES = tuple(name for name in BATCHES if name not in (*NEWS_BATCHES, EDIT_BATCH))
EVALUATION_BATCHES = ("batch13",)
"""Reddit batches without the split train."""
UNSURE_BATCHES = ("batch3", "batch4")
"""Batches whose rows have no confidence."""
ROWS = {"train": 92_858, "valid1": 33_082, "valid2": 50_715, "cnndm": 2_284, "axis": 14_898}
"""Rows of the release by split, those of CNN/DM and of the axis files
(N+ detail 10, and the card of the re-export by mnoukhov)."""
SELECTED = 1_913 / 6_447
"""Share of the validation posts that are labelled valid1; half of the others are labelled valid2."""
IN_VALIDATION = 1 / 3
"""Share of the evaluation's labelled posts that are validation posts (batch13: 57 of 172, 180 of 543)."""
LABELLED_TRAIN = 0.8
"""Share of the posts labelled for training that are SFT posts."""
TWICE = 0.25
"""Share of the labelled posts that another batch labels again."""

POLICIES = {
    "early": ("ref", "sup1", "sup2", "sup2_bo8_rm1", "sup3", "sup3_ppo_rm1", "sup3_bo63_rm2"),
    "late": (
        "ref", "title", "sup4_t0.7", "sup4_6b_t0.7", "sup4_12b_t0.7", "pretrain_6b_t.7", "sup4_ppo_rm3_kl10",
        "sup4_ppo_rm3_kl22", "sup4_bo128_rm3", "sup4_ppo_rm4_t.7", "sup4_6b_ppo_rm4_6b_kl14",
    ),
    "batch13": ("sup4_ppo_rm4_t.7", "sup4_12b_t0.7"),
    "news": ("ref", "pretrain_6b_t.7", "sup4_6b_t0.7", "sup4_6b_ppo_rm4_6b_kl14", "T5", "lead-3"),
    "edit": ("human_editor", "sup4_6b_t0.7", "ref"),
}  # fmt: skip
"""Names in the form of the release: temperature and KL stand in them."""
QUALITY = {"ref": 0.6, "human_editor": 0.8, "title": 0.35, "lead-3": 0.8, "T5": 0.7}
"""Share of a summary's words that are the post's, by policy; `_quality` has the others."""


def _quality(policy: str) -> float:
    if policy in QUALITY:
        return QUALITY[policy]
    trained = "ppo" in policy or "bo" in policy
    return (0.7 if trained else 0.2 if policy.startswith("pretrain") else 0.45) + 0.1 * ("6b" in policy)


@dataclass(frozen=True)
class ReleaseSize:
    """How small the miniature is.

    Attributes:
        divide: every number of rows is divided by it.
        words: mean words of a post; 270 in the raw dump.
    """

    divide: int = 50
    words: int = 270

    def rows(self, count: float, least: int = 1) -> int:
        """A number of rows of the release, divided."""
        return max(least, round(count / self.divide))


@dataclass
class FakeRelease:
    """The rows of the miniature, by path below the server's address."""

    posts: dict[str, list[Row]]
    comparisons: dict[str, list[Row]]
    axes: dict[str, list[Row]]
    articles: list[Row]
    """CNN/DM's test split as the hub has it. Not on OpenAI's server."""

    def files(self) -> dict[str, list[Row]]:
        """Path, as in the catalog's ``openai-files``, -> rows."""
        return (
            {f"datasets/tldr_3_filtered/{name}.jsonl": rows for name, rows in self.posts.items()}
            | {f"dataset/comparisons/{name}.json": rows for name, rows in self.comparisons.items()}
            | {f"dataset/axis_evals/{name}.json": rows for name, rows in self.axes.items()}
        )


def fake_release(size: ReleaseSize, seed: int = 0) -> FakeRelease:
    """The whole miniature; the same seed and size give the same rows."""
    return _Writer(size, random.Random(seed)).release()


def write_plain(release: FakeRelease, folder: Path) -> list[Path]:
    """Write the files as they lie on OpenAI's server: JSON lines, those of labels in ``.json`` files."""
    written = []
    for path, rows in release.files().items():
        with replacing(folder / path) as partial, partial.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        written.append(folder / path)
    return written


@dataclass
class _Marked:
    """The posts that the labels are about: SFT posts to train on, validation posts by mark, and posts that
    are in none of the three files, by split."""

    train: list[Row]
    valid1: list[Row]
    valid2: list[Row]
    both: list[Row]
    outside: dict[str, list[Row]] = field(default_factory=dict)


class _Writer:
    """Writes posts, then labels of them."""

    def __init__(self, size: ReleaseSize, rng: random.Random):
        self.size, self.rng = size, rng
        self.number = 0
        self.subreddits, self.weights = list(table2()), list(table2().values())
        self.workers = [
            "".join(rng.choices("ABCDEFGHJKMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz0123456789", k=30))
            for _ in range(27)
        ]

    def release(self) -> FakeRelease:
        posts = {
            name: [self.post() for _ in range(self.size.rows(count, 4))] for name, count in TLDR_3.items()
        }
        marked = self.mark(posts["train"], posts["valid"])
        labels = self.reddit(marked) | self.news() | self.edits(marked)
        comparisons = {name: labels[name] for name in BATCHES}
        ratings = self.ratings(marked, posts["test"])
        return FakeRelease(posts, comparisons, ratings, self.published_articles())

    # Texts

    def sentence(self, words: int) -> str:
        return " ".join(self.rng.choices(WORDS, k=words)).capitalize() + "."

    def body(self) -> str:
        words = max(24, round(self.size.words * self.rng.lognormvariate(-0.1, 0.45)))
        parts: list[str] = []
        made = 0
        while made < words:
            length = self.rng.randint(6, 18)
            parts.append(("\n\n" if parts and self.rng.random() < 0.2 else " ") + self.sentence(length))
            made += length
        return "".join(parts).strip()

    def post(self) -> Row:
        self.number += 1
        body = self.body()
        return {
            "id": f"t3_{self.number + 46_656:x}",
            "subreddit": self.rng.choices(self.subreddits, self.weights)[0],
            "title": self.sentence(8)[:-1],
            "post": body,
            "summary": self.summary(body, "ref", self.rng.randint(26, 34)),
        }

    def summary(self, body: str, policy: str, words: int) -> str:
        """Words of the post in their order, with others among them: the more, the worse the policy."""
        source = body.split()[: 2 * words] or list(WORDS)
        kept = [word for word in source if self.rng.random() < 0.5]
        share = _quality(policy)
        made = [
            kept[at % len(kept)] if kept and self.rng.random() < share else self.rng.choice(WORDS)
            for at in range(words)
        ]
        return " ".join(made).rstrip(".").capitalize() + "."

    # Who is labelled

    def mark(self, train: Sequence[Row], valid: Sequence[Row]) -> _Marked:
        """Divide the validation posts by the mark that the labels will give them."""
        order = self.rng.sample(list(valid), len(valid))
        first = max(1, round(SELECTED * len(order)))
        second = max(1, (len(order) - first) // 2)
        both = max(1, first // 20)
        marked = _Marked(list(train), order[:first], order[first : first + second], order[:both])
        outside = {
            "train": self.size.rows(ROWS["train"] / 3 * (1 - LABELLED_TRAIN)),
            "valid1": round(len(marked.valid1) * (1 / IN_VALIDATION - 1)),
            "valid2": round(len(marked.valid2) * (1 / IN_VALIDATION - 1)),
        }
        marked.outside = {split: [self.post() for _ in range(count)] for split, count in outside.items()}
        return marked

    def about(self, marked: _Marked, split: str) -> Iterator[Row]:
        """Posts to label, without end: every one comes once before one comes twice."""
        inside = {"train": marked.train, "valid1": marked.valid1, "valid2": marked.valid2 + marked.both}
        share = LABELLED_TRAIN if split == "train" else IN_VALIDATION
        while True:
            own, other = (self.rng.sample(rows, len(rows)) for rows in (inside[split], marked.outside[split]))
            while own or other:
                first = own and (not other or self.rng.random() < share)
                yield (own if first else other).pop()

    # Labels

    def reddit(self, marked: _Marked) -> dict[str, list[Row]]:
        """The Reddit batches: a share of the posts is labelled again in the next batch."""
        made: dict[str, list[Row]] = {}
        queues = {split: self.about(marked, split) for split in ("train", "valid1", "valid2")}
        again: dict[str, list[Row]] = {split: [] for split in queues}
        for batch in REDDIT_BATCHES:
            rows: list[Row] = []
            for split in queues:
                batches = len(REDDIT_BATCHES) - (len(EVALUATION_BATCHES) if split == "train" else 0)
                if split == "train" and batch in EVALUATION_BATCHES:
                    continue
                wanted = self.size.rows(ROWS[split] / batches, 2)
                repeated = [again[split].pop() for _ in range(min(len(again[split]), max(1, wanted // 4)))]
                posts = iter(repeated)
                found: list[Row] = []
                while len(found) < wanted:
                    post = next(posts, None) or next(queues[split])
                    if self.rng.random() < TWICE or not found:
                        again[split].append(post)
                    found += self.pairs(_info(post), post["summary"], batch, split)
                rows += found[:wanted]
            made[batch] = self.rng.sample(rows, len(rows))
        return made

    def pairs(self, info: Row, reference: str | None, batch: str, split: str) -> list[Row]:
        """The labels of one pair: mostly one, sometimes of several workers, as where researchers check."""
        summaries = self.candidates(info, reference, batch)
        count = self.rng.randint(2, 5) if self.rng.random() < 0.06 else 1
        workers = self.rng.sample(self.workers, count)
        better = [_overlap(one["text"], info.get("post") or info["article"]) for one in summaries]
        rows = []
        for worker in workers:
            choice = int(self.rng.random() < 1 / (1 + exp(-8 * (better[1] - better[0]))))
            rows.append(
                {
                    "info": info,
                    "split": split,
                    "summaries": summaries,
                    "choice": choice,
                    "worker": worker,
                    "batch": batch,
                    "extra": self.extra(batch, choice),
                }
            )
        return rows

    def candidates(self, info: Row, reference: str | None, batch: str) -> list[Row]:
        """Two summaries; in many pairs both are of one policy."""
        kind = "news" if batch in NEWS_BATCHES else "edit" if batch == EDIT_BATCH else batch
        early = batch in REDDIT_BATCHES[:4]
        names = POLICIES.get(kind, POLICIES["early" if early else "late"])
        two = self.rng.sample(names, 2)
        if kind not in POLICIES and self.rng.random() < 0.4:
            two = [self.rng.choice([name for name in names if name not in ("ref", "title")])] * 2
        note = None if kind == "edit" or self.rng.random() < 0.2 else "ok"
        lead = "" if kind == "edit" else " "
        made = []
        for policy in two:
            text = reference if policy == "ref" and reference else None
            text = info["title"] if policy == "title" else text
            body = info.get("post") or info["article"]
            text = text or self.summary(body, policy, self.rng.randint(16, 36))
            bare = kind == "news" and policy.startswith(("pretrain", "sup")) and self.rng.random() < 0.03
            made.append({"text": ("" if bare else lead) + text, "policy": policy, "note": note})
        return made

    def extra(self, batch: str, choice: int) -> Row:
        """The signed slider: below 5 for the first summary, above for the second."""
        if batch in UNSURE_BATCHES:
            return {}
        if self.rng.random() < 0.02:
            return {"confidence": None}
        return {"confidence": self.rng.randint(6, 9) if choice else self.rng.randint(1, 4)}

    def article(self) -> Row:
        self.number += 1
        id = "".join(self.rng.choices("0123456789abcdef", k=40))
        return {"id": id, "site": "dailymail", "title": self.sentence(9)[:-1], "article": self.body()}

    def published_articles(self) -> list[Row]:
        """Articles with their highlights, one sentence a line: text as published, before cleaning."""
        made = []
        for _ in range(self.size.rows(CATALOG["abisee/cnn_dailymail"].rows["test"], 4)):
            article = self.article()
            lines = [self.summary(article["article"], "ref", 14).removesuffix(".") + " ." for _ in range(3)]
            text = f"(CNN) -- {article['article']}"
            made.append({"id": article["id"], "article": text, "highlights": "\n".join(lines)})
        return made

    def news(self) -> dict[str, list[Row]]:
        """The CNN/DM batches: several workers for most pairs, and evaluation alone."""
        made: dict[str, list[Row]] = {}
        for batch in NEWS_BATCHES:
            rows: list[Row] = []
            while len(rows) < self.size.rows(ROWS["cnndm"] / len(NEWS_BATCHES), 4):
                article = self.article()
                reference = self.summary(article["article"], "ref", 40)
                split = "valid1" if batch == "batch0_cnndm" and self.rng.random() < 0.3 else "valid2"
                rows += self.pairs(article, reference, batch, split)
            made[batch] = rows
        return made

    def edits(self, marked: _Marked) -> dict[str, list[Row]]:
        """The edit batch: no ids. One of its rows is about a validation post, found by its body alone."""
        rows: list[Row] = []
        for number in range(5):
            split, post = ("valid1", marked.valid1[-1]) if number == 0 else ("valid2", self.post())
            info = {"post": post["post"], "title": post["title"], "subreddit": f"r/{post['subreddit']}"}
            rows += self.pairs(info, post["summary"], EDIT_BATCH, split)[:1]
        return {EDIT_BATCH: rows}

    # Ratings

    def ratings(self, marked: _Marked, test: Sequence[Row]) -> dict[str, list[Row]]:
        """The axis files: each rating is one worker's of one summary."""
        sources = {"test": list(test), "valid1": marked.valid1, "valid2": marked.valid2}
        made: dict[str, list[Row]] = {}
        for name in AXES:
            rows: list[Row] = []
            while len(rows) < self.size.rows(ROWS["axis"] / len(AXES), 8):
                split = self.rng.choices(["test", "valid1", "valid2"], [42, 14, 44])[0]
                news = name.startswith("cnndm")
                post = self.article() if news else self.rng.choice(sources[split])
                rows += [self.rating(post, name, split, news) for _ in range(self.rng.choice([1, 1, 2]))]
            made[name] = rows
        return made

    def rating(self, post: Row, batch: str, split: str, news: bool) -> Row:
        body = post["article"] if news else post["post"]
        policy = self.rng.choice(POLICIES["news" if news else "late"])
        text = post.get("summary") if policy == "ref" else post["title"] if policy == "title" else None
        text = text or self.summary(body, policy, self.rng.randint(18, 34))
        good = _overlap(text, body)
        axes: Row = {
            axis: None if self.rng.random() < 0.02 else self.likert(good)
            for axis in ("overall", "accuracy", "coverage", "coherence")
        }
        if self.rng.random() < 0.5:
            axes["compatible"] = self.rng.random() < 0.9
        summary = {"text": f" {text}", "policy": policy, "note": "ok", "axes": axes}
        info = post if news else _info(post)
        worker = self.rng.choice(self.workers)
        return {"info": info, "split": split, "summary": summary, "worker": worker, "batch": batch}

    def likert(self, good: float) -> int:
        """A mark of 1 to 7 for a summary of which this share of words is the post's."""
        return max(1, min(7, round(self.rng.gauss(2 + 4.5 * good, 1))))


def _info(post: Mapping[str, Any]) -> Row:
    return {name: post[name] for name in ("id", "post", "title", "subreddit")}


def _overlap(text: str, body: str) -> float:
    """Share of the text's words that the beginning of the post has."""
    words = text.lower().split()
    return sum(word in set(body.lower().split()[:60]) for word in words) / max(1, len(words))
