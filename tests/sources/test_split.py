from __future__ import annotations

import pytest

from tldr.errors import UsageError
from tldr.inputs.posts import post_keys
from tldr.records import Post
from tldr.sources.filter_rules import FilterOptions, split_of
from tldr.sources.split import SETS, place_of, split_posts


def posts(count: int) -> list[Post]:
    return [Post(id=f"t3_{n}", subreddit="s", title="t", post=f"body {n}", summary="x") for n in range(count)]


def test_trap_more_posts_move_none_to_another_split() -> None:
    few, many = (split_posts(posts(n), valid1=0.1, valid2=0.2) for n in (200, 2000))
    for name in SETS:
        assert [p.id for p in many[name]][: len(few[name])] == [p.id for p in few[name]]
    assert 1300 < len(many["sft"]) < 1500 and 150 < len(many["valid1"]) < 250
    assert sum(map(len, many.values())) == 2000


def test_the_filter_and_the_split_place_a_post_alike() -> None:
    options = FilterOptions(valid=0.3, test=0.3)
    for post in posts(50):
        place = place_of(post.id)
        assert split_of(post.id, options) == ("valid" if place < 0.3 else "test" if place < 0.6 else "train")


def test_posts_of_labels_are_left_out_by_id_and_by_body() -> None:
    all_posts = posts(100)
    by_id = all_posts[3].model_copy(update={"post": "another text"})
    by_body = all_posts[4].model_copy(update={"id": "another"})
    sets = split_posts(all_posts, valid1=0.2, valid2=0.2, apart=post_keys([by_id, by_body]))
    left = {post.id for rows in sets.values() for post in rows}
    assert left == {post.id for post in all_posts} - {"t3_3", "t3_4"}


@pytest.mark.parametrize("valid1, valid2", [(0.5, 0.5), (0.0, 0.0)])
def test_shares_that_leave_nothing_are_refused(valid1: float, valid2: float) -> None:
    with pytest.raises(UsageError, match="leave no set"):
        split_posts(posts(9), valid1=valid1, valid2=valid2)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(UsageError, match="1 posts leave none for"):
        split_posts(posts(1), valid1=0.3, valid2=0.3)
