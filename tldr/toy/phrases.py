"""The toy language: slots, their values, and every sentence of the world as a template.

Each value is one lower-case word and belongs to one slot, so a stated fact can be found in any
text by looking words up. Sentences end with their own full stop or question mark.
"""

from __future__ import annotations

from types import MappingProxyType


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


SLOTS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "rel": _words(
            "boyfriend girlfriend brother sister mother father roommate"
            " boss cousin neighbor uncle aunt landlord wife"
        ),
        "verb": _words(
            "sold lost burned painted dropped washed borrowed"
            " wrecked pawned ruined buried traded scratched mailed"
        ),
        "obj": _words("guitar laptop camera bike couch jacket watch phone piano lamp tent ring boat mirror"),
        "con": _words("rent lease exam wedding baby visa debt storm surgery contract flu trial funeral loan"),
        "act": _words("forgive sue confront report ignore call leave pay wait quit argue lie beg hide"),
    }
)
"""Who, did what, to what; what ties the author's hands; the act asked about."""

VAGUE: MappingProxyType[str, str] = MappingProxyType({"obj": "stuff", "act": "act"})
"""Slot -> the word that stands for any of its values and states none."""

SUBREDDITS: tuple[tuple[str, float], ...] = (
    ("relationships", 0.4),
    ("AskReddit", 0.2),
    ("Advice", 0.1),
    ("tifu", 0.1),
    ("self", 0.1),
    ("jobs", 0.1),
)
"""Names from the whitelist of the paper's Table 2, with the share of posts."""

# --- posts -----------------------------------------------------------------------------------

POST_EVENT = (
    "my {rel} went and {verb} my {obj}.",
    "my {obj} got {verb} by my {rel}.",
)
POST_CON = ("then there is the {con}.", "i can not move with the {con}.")
POST_ACT = ("so should i {act} or not?", "would it be bad to {act}?")
POST_DISTRACTOR = (
    "years ago my {rel} went and {verb} my {obj}.",
    "years ago my {obj} got {verb} by my {rel}.",
    "people said i should {act}.",
    "it is not about the {con} at all.",
)
POST_FILLER = ("sorry for my bad english.", "this is a throwaway.", "i am new here.")
TITLES = (
    "my {rel} {verb} my {obj}",
    "my {rel} and my {obj}",
    "should i {act}?",
    "stuck because of the {con}",
    "what about my {obj}",
    "need advice",
    "not sure what to do",
)

# --- references ------------------------------------------------------------------------------

EVENT_OPENERS = ("", "so ", "basically ", "in short ", "ok so ", "found out ")
EVENT = ("my {rel} {verb} my {obj}.", "my {obj} was {verb} by my {rel}.")
EVENT_VAGUE = ("my {rel} did a bad thing.",)
CON = ("i am stuck because of the {con}.", "the {con} makes it hard.")
ACT = ("should i {act}?", "is it wrong to {act}?")
FLUFF = (
    "any advice would help a lot.",
    "thanks for reading all of this.",
    "sorry for the wall of text.",
    "i just had to tell someone.",
)

# --- the pretraining corpus --------------------------------------------------------------------

RAW_TLDR = (
    "my {rel} is the worst.",
    "my {obj} is gone lol.",
    "so my {rel} did a bad thing.",
    "help.",
    "just read it.",
    "life is hard.",
    "in short no idea what to do.",
    "found out the {con} is bad.",
    "basically people are weird lol.",
    "ok so thanks for reading.",
)
RAW_CLOSING = FLUFF
COMMENT_EVENT = (
    "so your {rel} {verb} your {obj}?",
    "op said my {rel} {verb} my {obj}.",
)
COMMENT_CON = ("stuck because of the {con} is bad.", "the {con} makes it hard.")
COMMENT_ACT = ("you should {act}.", "it is not wrong to {act}.")
