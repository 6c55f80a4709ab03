"""Query formats, truncation and response rules on made-up texts; the real rows are in test_real.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.texts import TEXTS, encode_query, encode_response
from tldr.errors import RecordError, UsageError
from tldr.queries import encode
from tldr.queries.encode import decode_response, encode_queries, encode_responses, encode_texts, start_tokens
from tldr.queries.formats import CNNDM_TRANSFER, TLDR, TLDR_ZERO_SHOT, QueryFormat, format_query
from tldr.queries.tokenizer import train_bpe
from tldr.queries.zero_shot import example_context, fill_left, newline_ids
from tldr.records import Article, Info, Post

POST = Post(id="t3_1", subreddit="dogs", title="My {dog}", post="First.\n\nSecond line.", summary="a dog")
ARTICLE = Article(id="a1", title="not in the query", article="One.\n\nTwo.", summary="Three.")


def oracle(
    tokenizer: PreTrainedTokenizerBase, record: Post, limit: int, fmt: QueryFormat
) -> list[int] | None:
    """The paper's rule as written: cut, encode all again, look; None where nothing is left."""
    body = record.post
    while True:
        text = format_query(record.model_copy(update={"post": body}), fmt)
        ids = encode_texts(tokenizer, [text])[0]
        if len(ids) <= limit:
            return ids
        body = body[: body.rindex("\n")] if "\n" in body else body[:-1]
        if not body:
            return None


def neox() -> PreTrainedTokenizerBase:
    """Pythia's kind: NFC, runs of spaces as added tokens, trained like GPT-2's."""
    tokenizer = train_bpe(TEXTS, 290)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken(" " * n, normalized=False) for n in (2, 3, 5)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def digits() -> PreTrainedTokenizerBase:
    """SmolLM2's kind: single digits set apart before GPT-2's pattern."""
    tokenizer = train_bpe(TEXTS, 300)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def unsplit() -> PreTrainedTokenizerBase:
    """A BPE without pre-tokenization: "a a a a a a!" and a newline is one token, without it twelve."""
    merges = [("!", "\n")]
    while len(merges) < 12:
        left, right = merges[-1]
        merges.append((" " if left != " " and len(merges) > 1 else "a", left + right))
    vocab = {
        c: i for i, c in enumerate([*map(chr, range(32, 127)), "\n", "é", "\u0301", "\t", "\u00a0", "—"])
    }
    for left, right in merges:
        vocab[left + right] = len(vocab)
    vocab["<e>"] = len(vocab)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<e>"))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")


TOKENIZERS = {"gpt2-like": train_bpe(TEXTS, 330), "neox": neox(), "digits": digits(), "unsplit": unsplit()}


def test_formats_are_the_papers() -> None:
    assert (
        format_query(POST) == "SUBREDDIT: r/dogs\n\nTITLE: My {dog}\n\nPOST: First.\n\nSecond line.\n\nTL;DR:"
    )
    assert format_query(POST, TLDR_ZERO_SHOT) == (
        "Subreddit: r/dogs\n\nTitle: My {dog}\n\nFirst.\n\nSecond line.\n\nTL;DR:"
    )
    assert format_query(ARTICLE) == "One.\n\nTwo.\n\nTL;DR:"


def test_info_rows_format_like_their_posts() -> None:
    info = Info(id="x", subreddit="r/dogs", title="My {dog}", post="First.\n\nSecond line.")
    assert format_query(info) == format_query(POST)
    assert format_query(Info(article="One.\n\nTwo.")) == format_query(ARTICLE)


@pytest.mark.parametrize(
    ("record", "fmt", "what"),
    [
        (Info(id="x", post="words"), None, "no 'subreddit'"),
        (ARTICLE, TLDR, "no 'subreddit'"),
        (POST, CNNDM_TRANSFER, "no 'article'"),
        (Info(id="x", subreddit="a", title="b", post=""), TLDR, "no 'post'"),
    ],
)
def test_a_missing_field_is_named(record: Post | Info, fmt: QueryFormat | None, what: str) -> None:
    with pytest.raises(RecordError, match=what):
        format_query(record, fmt)


def test_trap_query_ends_without_space_and_response_starts_with_one(bpe: PreTrainedTokenizerBase) -> None:
    query = encode_query(bpe, POST, 512)
    response = encode_response(bpe, "a dog", 48)
    assert bpe.decode(query).endswith("TL;DR:")
    assert bpe.decode(response[:-1]) == " a dog"
    # the two parts are the tokens of the whole, which a space on the wrong side would break
    assert query + response[:-1] == encode_texts(bpe, [format_query(POST) + " a dog"])[0]


@pytest.mark.parametrize("text", ["a dog", " a dog", "  a dog"])
def test_trap_comparison_summaries_have_zero_one_or_two_leading_spaces(
    bpe: PreTrainedTokenizerBase, text: str
) -> None:
    assert encode_response(bpe, text, 48) == [*encode_texts(bpe, [" a dog"])[0], bpe.eos_token_id]


def test_trap_truncation_cuts_the_post_at_its_last_newline_then_by_character(
    bpe: PreTrainedTokenizerBase,
) -> None:
    post = POST.model_copy(update={"post": "one two three\nfour\nfive"})

    def tokens(body: str) -> list[int]:
        return encode_texts(bpe, [format_query(post.model_copy(update={"post": body}))])[0]

    whole, without_five, first = (
        tokens(b) for b in ("one two three\nfour\nfive", "one two three\nfour", "one two three")
    )
    assert encode_query(bpe, post, len(whole)) == whole
    assert encode_query(bpe, post, len(whole) - 1) == without_five
    assert encode_query(bpe, post, len(without_five) - 1) == first
    shorter = next(t for n in range(12, 0, -1) if len(t := tokens("one two three"[:n])) < len(first))
    assert encode_query(bpe, post, len(first) - 1) == shorter


def test_trap_title_and_subreddit_are_never_cut(bpe: PreTrainedTokenizerBase) -> None:
    post = Post(id="t3_9", subreddit="dogs", title="long\n" * 30, post="body")
    with pytest.raises(RecordError, match=r"t3_9: .*does not fit into 40 tokens"):
        encode_query(bpe, post, 40)


def test_a_post_that_would_be_emptied_is_refused(bpe: PreTrainedTokenizerBase) -> None:
    post = POST.model_copy(update={"post": "\nall of it is on the second line"})
    bare = len(encode_texts(bpe, [format_query(post).replace(post.post, "")])[0])
    with pytest.raises(RecordError, match="however much of its post"):
        encode_query(bpe, post, bare + 2)


@settings(max_examples=150)
@given(
    body=st.lists(
        st.sampled_from([*"ab \n\n'1.é—\u00a0\t", "dog ", "the\n", "ab ab\n", "e\u0301", "  "]),
        min_size=1,
        max_size=60,
    )
    .map("".join)
    .filter(str.strip),  # a blank post is no record
    limit=st.integers(12, 90),
    name=st.sampled_from(sorted(TOKENIZERS)),
    fmt=st.sampled_from([TLDR, TLDR_ZERO_SHOT]),
)
def test_truncation_equals_the_rule_as_written(body: str, limit: int, name: str, fmt: QueryFormat) -> None:
    record = Post(id="t3_1", subreddit="d", title="ab 1", post=body)
    expected = oracle(TOKENIZERS[name], record, limit, fmt)
    if expected is None:
        with pytest.raises(RecordError):
            encode_query(TOKENIZERS[name], record, limit, fmt)
    else:
        assert encode_query(TOKENIZERS[name], record, limit, fmt) == expected


def test_no_jump_where_a_longer_text_may_have_fewer_tokens() -> None:
    post = Post(id="t3_1", subreddit="d", title="ab", post="a a a a a a!\nz\nz")
    kept = post.model_copy(update={"post": "a a a a a a!\nz"})
    expected = encode_texts(TOKENIZERS["unsplit"], [format_query(kept)])[0]
    assert encode_query(TOKENIZERS["unsplit"], post, len(expected)) == expected


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_only_tokenizers_that_split_at_blanks_may_jump(name: str) -> None:
    assert encode._splits_before_blanks(TOKENIZERS[name], "plain") == (name != "unsplit")
    assert encode._splits_before_blanks(TOKENIZERS[name], "e\u0301") == (name in ("gpt2-like", "digits"))


def test_an_added_token_across_a_blank_forbids_the_jump() -> None:
    tokenizer = train_bpe(TEXTS, 300)
    tokenizer.add_tokens([AddedToken("the sofa")])
    assert not encode._splits_before_blanks(tokenizer, "plain")


@pytest.mark.parametrize("glue", [" ", "\n"])
def test_a_very_long_post_is_encoded_few_times(
    bpe: PreTrainedTokenizerBase, glue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, then for each halving of its 60,000 words' ends, then for the few cuts that may fit."""
    post = POST.model_copy(update={"post": glue.join(["the sofa, again"] * 20_000)})
    encoded: list[int] = []

    def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
        encoded.append(len(texts))
        assert len(encoded) <= 40, "one cut at a time takes tens of thousands"
        return encode_texts(tokenizer, texts)

    monkeypatch.setattr("tldr.queries.encode.encode_texts", encode)
    ids = encode_query(bpe, post, 512)
    assert 500 < len(ids) <= 512


def test_a_batch_is_its_rows(bpe: PreTrainedTokenizerBase) -> None:
    posts = [POST, POST.model_copy(update={"post": "many words\n" * 50})]
    assert encode_queries(bpe, posts, 100) == [encode_query(bpe, p, 100) for p in posts]
    assert encode_queries(bpe, [], 100) == []
    texts = ["a dog", "", " the sofa" * 30]
    assert encode_responses(bpe, texts, 9) == [encode_response(bpe, t, 9) for t in texts]


def test_responses_too_long_keep_their_start_and_end_in_eos(bpe: PreTrainedTokenizerBase) -> None:
    full = encode_response(bpe, "the sofa is gone and we went out", 99)
    assert encode_response(bpe, "the sofa is gone and we went out", len(full)) == full
    assert encode_response(bpe, "the sofa is gone and we went out", 5) == [*full[:4], bpe.eos_token_id]


@pytest.mark.parametrize("limit", [1, 0, -3])
def test_trap_a_window_without_room_for_eos_is_an_error(bpe: PreTrainedTokenizerBase, limit: int) -> None:
    with pytest.raises(UsageError, match="no room"):
        encode_response(bpe, "a dog", limit)


def test_trap_special_tokens_in_a_post_stay_text(bpe: PreTrainedTokenizerBase) -> None:
    post = POST.model_copy(update={"post": "before <|endoftext|> after <|pad|>"})
    assert not {bpe.eos_token_id, bpe.pad_token_id} & set(encode_query(bpe, post, 512))
    assert encode_response(bpe, "so <|endoftext|> it", 48).count(bpe.eos_token_id) == 1


def test_decoding_stops_at_the_first_eos_or_pad(bpe: PreTrainedTokenizerBase) -> None:
    ids = encode_response(bpe, "a dog", 48)
    assert decode_response(bpe, ids) == (" a dog", True)
    assert decode_response(bpe, [*ids, *ids, bpe.pad_token_id]) == (" a dog", True)
    assert decode_response(bpe, ids[:-1]) == (" a dog", False)
    assert decode_response(bpe, [*ids[:-1], bpe.pad_token_id]) == (" a dog", False)
    assert decode_response(bpe, [bpe.eos_token_id]) == ("", True)
    assert decode_response(bpe, []) == ("", False)


@given(text=st.text(max_size=30))
def test_responses_survive_the_round_trip(text: str) -> None:
    tokenizer = TOKENIZERS["gpt2-like"]
    decoded, stopped = decode_response(tokenizer, encode_response(tokenizer, text, 1000))
    assert stopped
    assert decoded == (" " + text.lstrip(" ") if text.strip() else "")
    assert encode_response(tokenizer, decoded, 1000) == encode_response(tokenizer, text, 1000)


def test_trap_zero_shot_responses_stop_at_a_newline() -> None:
    merged = train_bpe(["a dog\n\n"] * 3, 300)
    newline, two = (encode_texts(merged, [text])[0] for text in ("\n", "\n\n"))
    assert len(newline) == len(two) == 1 and newline != two
    assert newline_ids(merged) == {*newline, *two}


def test_zero_shot_examples_fill_the_left_and_the_last_survive(bpe: PreTrainedTokenizerBase) -> None:
    context = example_context([POST, POST])
    example = format_query(POST, TLDR_ZERO_SHOT) + " a dog\n\n=====\n\n"
    assert context == example * 2
    query = encode_query(bpe, POST, 200, TLDR_ZERO_SHOT)
    ids = encode_texts(bpe, [context])[0]
    assert fill_left(query, ids, len(query) + 7) == ids[-7:] + query
    assert fill_left(query, ids, len(query)) == query
    with pytest.raises(RecordError, match="needs a summary"):
        example_context([POST.model_copy(update={"summary": None})])


def test_a_start_token_is_put_first_and_counted() -> None:
    tokenizer = train_bpe(TEXTS, 300)
    plain = encode_query(tokenizer, POST, 512)
    assert start_tokens(tokenizer) == []
    tokenizer.bos_token = "<|endoftext|>"  # OPT's is its EOS
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.eos_token_id)]
    )
    assert encode_query(tokenizer, POST, len(plain) + 1) == [tokenizer.eos_token_id, *plain]
    assert len(encode_query(tokenizer, POST, len(plain))) <= len(plain)
