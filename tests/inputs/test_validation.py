"""Validation posts divided by the marks of the comparisons."""

from __future__ import annotations

import pytest

from tests.inputs.test_leakage import label, post
from tldr.errors import UsageError
from tldr.inputs.leakage import check_leaks, label_keys
from tldr.inputs.posts import post_keys
from tldr.inputs.validation import Divided, divide
from tldr.records import Post, Ranking


def ids(posts: list[Post]) -> list[str]:
    return [post.id for post in posts]


def divided(valid1: list[Post], labels: list[Ranking], valid2: list[Post] | None = None) -> Divided:
    found = divide(valid1, valid2 or [post("t3_test")], labels)
    assert found is not None
    return found


def test_nothing_is_divided_where_the_labels_agree_with_the_files() -> None:
    posts = [post("t3_1"), post("t3_2")]
    labels = [label("valid1", "t3_1"), label("train", "t3_2"), label("valid2", "t3_test")]
    assert divide(posts, [post("t3_test")], labels) is None
    assert divide(posts, posts, []) is None


def test_labels_find_their_posts_by_id_or_by_body() -> None:
    """... whatever the white space; posts of one body under two ids go the same way."""
    posts = [post("t3_1"), post("t3_2", "one\n\nbody"), post("t3_3", "one body"), post("t3_4")]
    labels = [
        label("valid2", "t3_1", "changed"),
        label("valid2", None, " one  body"),
        label("valid1", "t3_4"),
    ]
    found = divided(posts, labels)
    assert {name: ids(rows) for name, rows in found.posts.items()} == {
        "valid1": ["t3_4"],
        "validation_valid2": ["t3_1", "t3_2", "t3_3"],
    }
    assert found.rankings == labels and found.set_aside == []


def test_a_post_with_both_marks_selects_and_reports_nothing() -> None:
    """The id is of one post and the body of another: the label is about both."""
    posts = [post("t3_1"), post("t3_2"), post("t3_3")]
    across = label("valid2", "t3_1", "body of t3_2")
    labels = [label("valid1", "t3_1"), label("valid2", "t3_2"), across, label("valid2", "t3_3")]
    found = divided(posts, labels)
    assert ids(found.posts["valid1"]) == ["t3_1"] and ids(found.posts["validation_valid2"]) == [
        "t3_2",
        "t3_3",
    ]
    assert found.set_aside == [across]
    assert found.counts == {"posts": 3, "valid1": 0, "valid2": 2, "both": 1, "unmarked": 0} | {
        "labels_set_aside": 1
    }
    check_leaks(
        {name: post_keys(rows) for name, rows in found.posts.items()}
        | label_keys({s: [r for r in found.rankings if r.split == s] for s in ("valid1", "valid2")})
    )


def test_posts_with_both_marks_alone_leave_the_files_as_they_are() -> None:
    posts = [post("t3_1")]
    found = divided(posts, [label("valid1", "t3_1"), label("valid2", "t3_1"), label("valid2", "t3_9")], posts)
    assert found.posts == {"valid1": posts}
    assert [row.info.id for row in found.rankings] == ["t3_1", "t3_9"]
    assert [(row.info.id, row.split) for row in found.set_aside] == [("t3_1", "valid2")]


def test_one_set_given_as_both_becomes_three() -> None:
    posts = [post("t3_1"), post("t3_2"), post("t3_3")]
    found = divided(posts, [label("valid1", "t3_1"), label("valid2", "t3_2")], posts[::-1])
    assert {name: ids(rows) for name, rows in found.posts.items()} == {
        "valid1": ["t3_1"],
        "valid2": ["t3_2"],
        "validation_unmarked": ["t3_3"],
    }


def test_unmarked_posts_select_where_no_post_is_marked_valid1() -> None:
    posts = [post("t3_1"), post("t3_2")]
    found = divided(posts, [label("valid2", "t3_2"), label("valid1", "t3_elsewhere")])
    assert {name: ids(rows) for name, rows in found.posts.items()} == {
        "valid1": ["t3_1"],
        "validation_valid2": ["t3_2"],
    }
    assert found.counts["unmarked"] == 1


def test_a_set_with_no_post_left_to_select_on_is_refused() -> None:
    with pytest.raises(UsageError, match="mark every post of valid1 as valid2"):
        divide([post("t3_1")], [post("t3_test")], [label("valid2", "t3_1")])
