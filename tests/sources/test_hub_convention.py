"""White space: what a set's convention is, and which sets may be used together."""

from __future__ import annotations

import pytest

from tests.sources.test_hub_sources import COMPARISON
from tldr.errors import UsageError
from tldr.records import Article, Comparison, Post
from tldr.sources.hub.convention import convention, same_convention


def several(post: str, summary: str, n: int = 25) -> list[Post]:
    return [Post(id=str(i), subreddit="s", title="t", post=post, summary=summary) for i in range(n)]


def test_trap_copies_with_and_without_blank_lines_are_not_mixed() -> None:
    kept, collapsed = convention(several("a\n\nb", "s")), convention(several("a\nb", "s"))
    assert (kept.paragraph_style, collapsed.paragraph_style) == ("kept", "collapsed")
    labels = convention([Comparison.model_validate(COMPARISON)] * 25)
    assert same_convention({"sft": kept, "valid2": kept, "comparisons": labels}) == []
    with pytest.raises(UsageError, match=r"sft: blank lines collapsed \(0 of 25 texts\).*valid2: .*kept"):
        same_convention({"sft": collapsed, "valid2": kept})
    with pytest.raises(UsageError, match="cannot be mixed"):
        same_convention({"sft": collapsed, "comparisons": labels})
    # too few texts of several lines say nothing, and articles are no posts
    few = convention([*several("a\nb", "s", 19), *several("one line", "s", 50)])
    assert few.paragraph_style is None
    news = convention([Article(id=str(i), article="a\nb") for i in range(30)])
    assert same_convention({"sft": kept, "valid1": few, "cnndm": news}) == []
    mixed = convention([*several("a\n\nb", "s", 10), *several("a\nb", "s", 30)])
    assert "sft: some texts keep" in same_convention({"sft": mixed})[0]


def test_leading_spaces_are_compared_among_sets_of_a_kind() -> None:
    bare, spaced = convention(several("a", "s")), convention(several("a", " s"))
    labels = convention([Comparison.model_validate(COMPARISON)])
    assert (bare.leading_share, spaced.leading_share, labels.leading_share) == (0.0, 1.0, 0.5)
    assert same_convention({"sft": bare, "comparisons": labels}) == []
    (note,) = same_convention({"sft": bare, "valid1": spaced})
    assert "sft 0%, valid1 100%" in note
