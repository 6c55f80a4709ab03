"""The real rows: the paper's windows and patterns hold token for token. Skipped where they are absent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from tldr.data.formats import (
    TLDR_ZERO_SHOT,
    decode_response,
    encode_queries,
    encode_responses,
    encode_texts,
    format_query,
    stop_token,
)
from tldr.data.sources import check_disjoint, load_comparisons, load_posts, post_keys
from tldr.data.tokenizer import window_report
from tldr.records import Post


@pytest.fixture(scope="module")
def posts(shared: Path) -> list[Post]:
    return load_posts(shared / "tldr_posts.jsonl")


def test_gpt2_tokens_are_openais(gpt2: PreTrainedTokenizerBase) -> None:
    ids = encode_texts(gpt2, ["Hello world! TL;DR: it works"])[0]
    assert ids == [15496, 995, 0, 24811, 26, 7707, 25, 340, 2499]
    assert stop_token(gpt2, TLDR_ZERO_SHOT) == 198


def test_real_queries_fit_untruncated_and_read_as_the_paper_wrote_them(
    posts: list[Post], shared: Path, gpt2: PreTrainedTokenizerBase
) -> None:
    posts = posts + load_posts(shared / "tldr_queries.jsonl")
    queries = encode_queries(gpt2, posts, 512)
    assert max(map(len, queries)) == 512
    pattern = re.compile(r"SUBREDDIT: r/(\w+)\n\nTITLE: (.*?)\n\nPOST: (.+)\n\nTL;DR:", re.DOTALL)
    for post, ids in zip(posts, queries, strict=True):
        text = gpt2.decode(ids)
        assert text == format_query(post)
        found = pattern.fullmatch(text)
        assert found and found.groups() == (post.subreddit.removeprefix("r/"), post.title, post.post)


def test_real_references_lie_in_the_window_counted_with_space_and_eos(
    posts: list[Post], gpt2: PreTrainedTokenizerBase
) -> None:
    references = [post.summary or "" for post in posts]
    encoded = encode_responses(gpt2, references, 1000)
    assert sum(24 <= len(ids) <= 48 for ids in encoded) / len(encoded) >= 0.996
    assert window_report(gpt2, references).largest == 48
    for text, ids in zip(references, encoded, strict=True):
        assert decode_response(gpt2, ids) == (" " + text, True)


@pytest.mark.parametrize(("name", "rows"), [("batch13", 850), ("cnndm0", 437), ("edit_b2_eval_test", 5)])
def test_real_comparisons_load(shared: Path, gpt2: PreTrainedTokenizerBase, name: str, rows: int) -> None:
    rankings = load_comparisons(shared / "comparisons" / f"{name}.json")
    assert len(rankings) == rows
    assert all(row.info.id and sorted(row.rank) == [1, 2] for row in rankings)
    queries = encode_queries(gpt2, [row.info for row in rankings[:100]], 512)
    assert all(gpt2.decode(ids).endswith("TL;DR:") for ids in queries)
    assert all("r/r/" not in gpt2.decode(ids) for ids in queries)


def test_real_validation_halves_share_no_post(shared: Path) -> None:
    rankings = load_comparisons(shared / "comparisons" / "batch13.json")
    halves = [post_keys(r for r in rankings if r.split == split) for split in ("valid1", "valid2")]
    assert all(halves)
    check_disjoint({"valid1": halves[0]}, {"valid2": halves[1]})
