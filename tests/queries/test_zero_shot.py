"""In-context examples: which posts they are, and what the model reads before the query."""

from __future__ import annotations

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from tests.texts import TEXTS
from tldr.errors import UsageError
from tldr.queries.encode import encode_texts
from tldr.queries.tokenizer import train_bpe
from tldr.queries.zero_shot import choose_examples, zero_shot_queries
from tldr.records import Post


def post(name: str, tokens: int) -> Post:
    """A post whose reference has so many tokens: the test tokenizer has merged no exclamation marks."""
    return Post(id=name, subreddit="dogs", title="My dog", post="We went out.", summary="!" * tokens)


EXAMPLES = [
    Post(
        id="1",
        subreddit="jobs",
        title="New boss",
        post="My boss.\nI said no.",
        summary="I said no to my boss.",
    ),
    Post(id="2", subreddit="r/dogs", title="Sofa", post="The sofa is gone.", summary="dog ate sofa"),
]
QUERY = Post(id="3", subreddit="dogs", title="Again", post="We went out for an hour.", summary="unseen")
WHOLE = (
    "Subreddit: r/jobs\n\nTitle: New boss\n\nMy boss.\nI said no.\n\nTL;DR: I said no to my boss."
    "\n\n=====\n\n"
    "Subreddit: r/dogs\n\nTitle: Sofa\n\nThe sofa is gone.\n\nTL;DR: dog ate sofa\n\n=====\n\n"
    "Subreddit: r/dogs\n\nTitle: Again\n\nWe went out for an hour.\n\nTL;DR:"
)


def test_trap_zero_shot_query_is_the_papers_text(bpe: PreTrainedTokenizerBase) -> None:
    (ids,) = zero_shot_queries(bpe, [QUERY], EXAMPLES, 1999)
    assert bpe.decode(ids) == WHOLE
    assert "unseen" not in bpe.decode(ids)


def test_the_window_keeps_the_query_and_the_tail_of_the_examples(bpe: PreTrainedTokenizerBase) -> None:
    (whole,) = zero_shot_queries(bpe, [QUERY], EXAMPLES, 1999)
    for window in (len(whole) - 1, len(whole) - 40):
        (ids,) = zero_shot_queries(bpe, [QUERY], EXAMPLES, window)
        assert ids == whole[-window:]  # whole[-window:] ends in the query, and later examples come last
    (alone,) = zero_shot_queries(
        bpe, [QUERY], EXAMPLES, len(encode_texts(bpe, [WHOLE.split("=====\n\n")[2]])[0])
    )
    assert bpe.decode(alone) == WHOLE.split("=====\n\n")[2]


def test_a_start_token_comes_before_the_examples() -> None:
    tokenizer = train_bpe(TEXTS, 320)
    (plain,) = zero_shot_queries(tokenizer, [QUERY], EXAMPLES, 1999)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.eos_token_id)]
    )
    assert zero_shot_queries(tokenizer, [QUERY], EXAMPLES, 1999) == [[tokenizer.eos_token_id, *plain]]
    (cut,) = zero_shot_queries(tokenizer, [QUERY], EXAMPLES, 100)
    assert cut == [tokenizer.eos_token_id, *plain[-99:]]


def test_examples_have_references_of_24_to_47_tokens(bpe: PreTrainedTokenizerBase) -> None:
    posts = [post(str(words), words) for words in (23, 24, 35, 47, 48)]
    assert [len(encode_texts(bpe, [row.summary or ""])[0]) for row in posts] == [23, 24, 35, 47, 48]
    assert {row.id for row in choose_examples(bpe, posts, 3)} == {"24", "35", "47"}
    with pytest.raises(UsageError, match=r"3 SFT posts .* 4 in-context examples") as caught:
        choose_examples(bpe, posts, 4)
    assert "evaluation.zero_shot.examples" in str(caught.value)
    assert choose_examples(bpe, [posts[1].model_copy(update={"summary": " " + (posts[1].summary or "")})], 1)


def test_examples_do_not_depend_on_the_files_order_or_size(bpe: PreTrainedTokenizerBase) -> None:
    posts = [post(f"t3_{number}", 30) for number in range(40)]
    chosen = choose_examples(bpe, posts, 5)
    assert choose_examples(bpe, posts[::-1], 5) == chosen
    assert choose_examples(bpe, posts, 4) == chosen[:4]
    assert chosen != posts[:5]
    kept = {row.id for row in chosen}
    fewer = [row for row in posts if row.id in kept or int(row.id[3:]) % 2]
    assert choose_examples(bpe, fewer, 5) == chosen
