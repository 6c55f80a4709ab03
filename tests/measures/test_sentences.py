"""Splitting texts into sentences."""

from __future__ import annotations

from tldr.measures.sentences import sentences


def test_sentences_end_at_marks_and_lines() -> None:
    assert sentences("It rains! Why? \nNo. 3\n\nOver.") == ["It rains!", "Why?", "No.", "3", "Over."]


def test_a_quote_after_the_mark_belongs_to_the_sentence() -> None:
    assert sentences('He said "no." She left.') == ['He said "no."', "She left."]
