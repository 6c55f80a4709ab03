"""What comparisons of systems on news need besides the measures of any text (P App. D)."""

from __future__ import annotations

import re
from collections import Counter

from tldr.measures.sentences import sentences

_QUOTES = {"``": '"', "''": '"', "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "`": "'"}
_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]"}
_QUOTE, _BRACKET = (re.compile("|".join(map(re.escape, table))) for table in (_QUOTES, _BRACKETS))
_BEFORE = re.compile(r" +(?=[.,;:!?%)\]]|n't\b|'(?:s|re|ve|ll|d|m)\b)")
_AFTER = re.compile(r"(?<=[(\[$\u00a3]) +")
_WORD = re.compile(r"[^\W\d_]+")


def normalised(text: str, article: str = "") -> str:
    """A summary in lower case with the capitals put back, and its punctuation in one style.

    The paper did so to every system's CNN/DM summaries before people rated them, as T5's tokens tell
    it from the others (App. D, footnote: "lower-case, then heuristically re-capitalise"); its
    heuristic is unpublished, this one is ours. Quotes become straight, Penn Treebank tokens are joined
    (``do n't , -LRB-``); the first word of a sentence, ``I``, and the words that `article` capitalises
    more often than not inside its sentences get their capitals.

    Args:
        article: what was summarized; without it no names are known.
    """
    plain = _QUOTE.sub(lambda found: _QUOTES[found.group()], " ".join(text.split())).lower()
    plain = _BRACKET.sub(lambda found: _BRACKETS[found.group()], plain)
    plain = _AFTER.sub("", _BEFORE.sub("", plain))
    names = _names(article) | {"i": "I"}
    named = _WORD.sub(lambda found: names.get(found.group(), found.group()), plain)
    return " ".join(_capitalised(sentence) for sentence in sentences(named))


def _names(article: str) -> dict[str, str]:
    """Lower-case word -> its commonest form, for words that are mostly capitalised within sentences."""
    forms: dict[str, Counter[str]] = {}
    for sentence in sentences(article):
        for word in _WORD.findall(sentence)[1:]:
            forms.setdefault(word.lower(), Counter())[word] += 1
    commonest = {word: counts.most_common(1)[0][0] for word, counts in forms.items()}
    return {word: form for word, form in commonest.items() if form != word}


def _capitalised(sentence: str) -> str:
    first = _WORD.search(sentence)
    if first is None:
        return sentence
    start = first.start()
    return sentence[:start] + sentence[start].upper() + sentence[start + 1 :]
