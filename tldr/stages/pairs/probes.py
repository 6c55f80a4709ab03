"""Probes of a reward model: a good model prefers the first of two texts about a post (P 4.3, App. G.6).

They are made from posts by rules: shuffled sentences, another post's title, swapped roles. They need no
labeler: the paper's tables define which text is better.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from tldr.measures.sentences import lead, sentences
from tldr.records import CandidateSummary, Comparison, Info, Post

QUESTION = "What should I do?"
_ROLES = (
    "husband wife", "boyfriend girlfriend", "mother father", "mom dad", "brother sister", "son daughter",
    "uncle aunt", "man woman", "boy girl", "guy girl", "he she", "himself herself", "boss employee",
    "landlord tenant", "teacher student",
)  # fmt: skip
SWAP = {a: b for pair in _ROLES for a, b in (pair.split(), pair.split()[::-1])}
_WORD = re.compile(r"[A-Za-z]+")


def swap_roles(text: str) -> str:
    """Every word of a pair of roles replaced by the other, capitals kept (``My wife`` -> ``My husband``)."""

    def other(match: re.Match[str]) -> str:
        word = match.group()
        swapped = SWAP.get(word.lower(), word)
        return swapped.capitalize() if word[0].isupper() else swapped

    return _WORD.sub(other, text)


def _shuffled(rng: random.Random, parts: Sequence[str]) -> list[str]:
    """Another order of at least two different parts, or the same parts where there is none."""
    new = list(parts)
    while len(set(parts)) > 1 and new == list(parts):
        rng.shuffle(new)
    return new


ProbeTexts = tuple[str, str]
"""The better text and the worse one."""


class Prober:
    """Makes the pairs of each probe.

    Args:
        posts: posts with references; titles are drawn from all of them.
    """

    def __init__(self, posts: Sequence[Post], seed: int):
        self.posts = posts
        self.rng = random.Random(seed)
        self.titles: dict[str, list[str]] = {}
        for post in posts:
            self.titles.setdefault(post.subreddit, []).append(post.title)
        self.all_titles = [post.title for post in posts]

    def pairs(self, post: Post) -> Iterator[tuple[str, ProbeTexts]]:
        """Every probe that the post allows: its name, and the better and the worse text."""
        for name, make in self._probes().items():
            better, worse = (text.strip() for text in make(post))
            if better and worse and better != worse:
                yield name, (better, worse)

    def _probes(self) -> dict[str, Callable[[Post], ProbeTexts]]:
        return {
            "lead-3 vs shuffled lead-3": lambda post: self._shuffle(sentences(post.post)[:3]),
            "random 3 vs shuffled random 3": lambda post: self._shuffle(self._three(post)),
            "title vs random title": lambda post: (post.title, self.rng.choice(self.all_titles)),
            "title vs random title, same subreddit": lambda post: (
                post.title,
                self.rng.choice(self.titles[post.subreddit]),
            ),
            "title vs title twice": lambda post: (post.title, f"{post.title} {post.title}"),
            "original vs reversed roles": lambda post: (post.summary or "", swap_roles(post.summary or "")),
            "reference vs reference and question": lambda post: (
                post.summary or "",
                f"{(post.summary or '').strip()} {QUESTION}",
            ),
            "reference vs lead-2": lambda post: (post.summary or "", lead(post.post)),
            "reference vs lead-3": lambda post: (post.summary or "", lead(post.post, 3)),
            "reference vs random 3": lambda post: (post.summary or "", " ".join(self._three(post))),
        }

    def _shuffle(self, parts: list[str]) -> ProbeTexts:
        return " ".join(parts), " ".join(_shuffled(self.rng, parts))

    def _three(self, post: Post) -> list[str]:
        """Three sentences of the post in its own order."""
        parts = sentences(post.post)
        return [parts[i] for i in sorted(self.rng.sample(range(len(parts)), min(3, len(parts))))]


def as_comparison(post: Post, probe: str, pair: ProbeTexts) -> Comparison:
    """A probe's pair as a comparison: `batch` is the probe, `choice` 0 the better text."""
    info = Info.model_validate(post.model_dump(exclude={"summary"}, exclude_unset=True))
    names = ("better", "worse")
    return Comparison(
        info=info,
        summaries=[CandidateSummary(text=" " + text, policy=n) for text, n in zip(pair, names, strict=True)],
        choice=0,
        worker="probe",
        batch=probe,
        split="valid2",
    )
