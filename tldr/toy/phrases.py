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
        "when": _words(
            "monday tuesday thursday friday saturday sunday summer winter spring autumn night week month year"
        ),
        "con": _words("rent lease exam wedding baby visa debt storm surgery contract flu trial funeral loan"),
        "feel": _words(
            "angry hurt guilty jealous confused ashamed lonely scared tired worried numb upset bitter calm"
        ),
        "act": _words("forgive sue confront report ignore call leave pay wait quit argue lie beg hide"),
    }
)
"""Who, did what, to what, when; what ties the author's hands; the feeling; the act asked about."""

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
    "my {rel} {verb} my {obj} last {when}.",
    "last {when} my {rel} {verb} my {obj}.",
    "my {obj} was {verb} by my {rel} last {when}.",
)
POST_CON = ("i am stuck because of the {con}.", "the {con} makes it hard.")
POST_FEEL = ("i feel {feel}.", "now i am so {feel}.")
POST_ACT = ("should i {act}?", "is it wrong to {act}?")
POST_DISTRACTOR = (
    "years ago my {rel} {verb} my {obj}.",
    "years ago my {obj} was {verb} by my {rel}.",
    "people said i should {act}.",
    "at first i was so {feel}.",
    "it is not about the {con} at all.",
)
POST_FILLER = ("sorry for my bad english.", "this is a throwaway.", "i am new here.")
TITLES = (
    "my {rel} {verb} my {obj}",
    "my {rel} and my {obj}",
    "i feel {feel} about my {rel}",
    "should i {act}?",
    "i feel {feel}",
    "stuck because of the {con}",
    "what about my {obj}",
    "need advice",
    "not sure what to do",
)

# --- references ------------------------------------------------------------------------------

EVENT_OPENERS = ("", "so ", "basically ", "in short ", "ok so ", "well ", "turns out ", "found out ")
EVENT = (
    "my {rel} {verb} my {obj} last {when}.",
    "last {when} my {rel} {verb} my {obj}.",
)
EVENT_UNDATED = ("my {rel} {verb} my {obj}.",)
EVENT_VAGUE = ("my {rel} did a bad thing.",)
CON = ("i am stuck because of the {con}.", "the {con} makes it hard.")
FEEL = ("i feel {feel}.", "now i am so {feel}.")
ACT = ("should i {act}?", "is it wrong to {act}?")
LAZY_OPENING = "it is a long story and i do not know what to do anymore."
FLUFF = (
    "any advice would help a lot.",
    "thanks for reading all of this.",
    "sorry for the wall of text.",
    "i just had to tell someone.",
)

# --- the pretraining corpus --------------------------------------------------------------------

RAW_COMMON = "my {rel} and my {obj} lol."
RAW_TLDR = (
    "my {rel} is the worst.",
    "my {obj} is gone lol.",
    "so my {rel} did a bad thing.",
    "help.",
    "just read it.",
    "life is hard.",
    "it is a long story.",
    "in short no idea what to do.",
    "found out the {con} is bad.",
    "basically people are weird lol.",
    "well i am {feel}.",
    "ok thanks for reading.",
)
RAW_CLOSING = (LAZY_OPENING, *FLUFF)
COMMENT_EVENT = (
    "so your {rel} {verb} your {obj} last {when}?",
    "op said my {rel} {verb} my {obj} last {when}.",
    "last {when} your {rel} {verb} your {obj}?",
)
COMMENT_CON = ("stuck because of the {con} is bad.", "the {con} makes it hard.")
COMMENT_FEEL = ("you feel {feel}.", "i would be so {feel} too.")
COMMENT_ACT = ("you should {act}.", "it is not wrong to {act}.")
