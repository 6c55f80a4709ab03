"""Truncation equals the rule as written, whatever the tokenizer and the script, in few encodings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tokenizers import Regex as Pattern
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.texts import TEXTS, encode_query
from tldr.errors import RecordError
from tldr.queries import encode
from tldr.queries.formats import CNNDM_TRANSFER, TLDR, QueryFormat, format_query
from tldr.queries.tokenizer import train_bpe
from tldr.records import Article, Post

EOS = "<|endoftext|>"
CHINESE = "我的狗吃了沙发我们出去了一个小时回来的时候沙发已经没有了老板要我星期天工作我说不行怎么办呢中国人民"
THAI = "สุนัขของฉันกินโซฟาเราออกไปหนึ่งชั่วโมงน้ำใจคนไทย"
EMOJI = "👨‍👩‍👧‍👦👍🏽🏳️‍🌈❤️🐕🛋️🇨🇭🤷🏿‍♂️"
MARKS = "e\u0301a\u0308n\u0303o\u0302\u0323Å\u212bﬁ"
CORPUS = [
    *TEXTS,
    *(CHINESE, THAI) * 2,
    EMOJI,
    MARKS,
    "中国人民。中国人民。我的狗。",
    "ha" * 30,
    "=" * 40,
    "1234567890" * 3,
]


def fast(backend: Tokenizer) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS)


def gpt2() -> PreTrainedTokenizerBase:
    """Byte-level, as GPT-2; trained on all scripts, so tokens lie across characters."""
    return train_bpe(CORPUS, 700)


def qwen() -> PreTrainedTokenizerBase:
    """NFC, a pattern of its own that puts newlines to punctuation, then bytes."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    steps = [
        pre_tokenizers.Split(Pattern(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*CORPUS, "end.\n\n" * 5], trainer)
    return fast(backend)


def llama() -> PreTrainedTokenizerBase:
    """A sentencepiece BPE: a blank first, no words set apart, unknown characters as bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Split(Pattern("▁+[^▁]*"), "isolated")
    values = [f"<0x{value:02X}>" for value in range(256)]
    special = ["<unk>", EOS, *values]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    trained.train_from_iterator(CORPUS[:-6], trainer)
    backend = Tokenizer.from_str(trained.to_str())
    model = backend.model
    model.byte_fallback, model.fuse_unk = True, True
    backend.pre_tokenizer = None
    return fast(backend)


def unigram(nfkc: bool) -> PreTrainedTokenizerBase:
    """A sentencepiece unigram model; with NFKC it makes one blank of several, and of newlines."""
    backend = Tokenizer(models.Unigram())
    if nfkc:
        steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Pattern(" {2,}"), " ")]
        backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<unk>", EOS], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return fast(backend)


TOKENIZERS: dict[str, PreTrainedTokenizerBase] = {
    "gpt2": gpt2(),
    "qwen": qwen(),
    "llama": llama(),
    "unigram": unigram(nfkc=False),
    "unigram-nfkc": unigram(nfkc=True),
}


def as_written(tokenizer: PreTrainedTokenizerBase, record: Post, limit: int, fmt: QueryFormat) -> list[int]:
    """The paper's rule: cut, encode all again, look; [] where nothing is left."""
    body = record.post
    while body:
        text = format_query(record.model_copy(update={"post": body}), fmt)
        if len(ids := encode.encode_texts(tokenizer, [text])[0]) <= limit:
            return ids
        body = body[: body.rindex("\n")] if "\n" in body else body[:-1]
    return []


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of texts of every call of the tokenizer."""
    plain, calls = encode.encode_texts, list[int]()

    def count(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
        calls.append(len(texts))
        return plain(tokenizer, texts)

    with monkeypatch.context() as patch:
        patch.setattr(encode, "encode_texts", count)
        yield calls


PARTS = [
    *(*CHINESE[:12], "中国人民", "。", *THAI[:10], "한", "\u1112\u1161", "ж"),
    *(*EMOJI, "👨‍👩‍👧‍👦", *MARKS, "e\u0301"),
    *("the sofa", " dog", "it's", "don\u2019t", "ha", "haha", "=", "====", "12", "1", "."),
    *(".\n", "\n", "\n\n", " ", "  ", "\t", "\u00a0", "\u3000"),
]


def made(draw: random.Random) -> str:
    """A body of one or more scripts; half of them without a newline."""
    some = draw.sample(PARTS, draw.randint(1, 12))
    if draw.random() < 0.5:
        some = [part for part in some if "\n" not in part] or ["a"]
    body = "".join(draw.choices(some, k=draw.randint(1, 60)))
    return body if body.strip() else "a"


def agrees(name: str, draw: random.Random) -> bool:
    """Whether one drawn body is cut as the rule says; False if it was not too long."""
    tokenizer, body = TOKENIZERS[name], made(draw)
    record = Post(id="t3_1", subreddit="d", title="ab", post=body)
    whole = len(encode.encode_texts(tokenizer, [format_query(record)])[0])
    bare = len(encode.encode_texts(tokenizer, [format_query(record).replace(body, "a")])[0])
    limit = draw.randint(min(bare, whole) - 1, whole)
    expected = as_written(tokenizer, record, limit, TLDR)
    if expected:
        found = encode_query(tokenizer, record, limit)
    else:
        found = []
        with pytest.raises(RecordError):
            encode_query(tokenizer, record, limit)
    assert found == expected, (name, body, limit)
    return limit < whole


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_truncation_of_any_script_equals_the_rule_as_written(name: str) -> None:
    draw = random.Random(18)
    assert sum(agrees(name, draw) for _ in range(60)) > 30


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_truncation_of_many_bodies_equals_the_rule_as_written(name: str) -> None:
    draw = random.Random(7)
    assert sum(agrees(name, draw) for _ in range(4000)) > 2000


BODIES: dict[str, Callable[[], str]] = {
    "chinese": lambda: "".join(random.Random(1).choices(CHINESE, k=5000)),
    "thai": lambda: "".join(random.Random(2).choices(THAI, k=5000)),
    "emoji": lambda: "".join(random.Random(3).choices([*EMOJI, "👨‍👩‍👧‍👦"], k=4000)),
    "marks": lambda: "".join(random.Random(4).choices(["e\u0301", "a\u0308", "x", "o\u0302\u0323"], k=3000)),
    "one letter": lambda: "a" * 5000,
    "laughter": lambda: "ha" * 3000,
    "digits": lambda: "".join(random.Random(5).choices("0123456789", k=5000)),
    "line": lambda: "=" * 5000,
    "words": lambda: " ".join(random.Random(6).choices("the sofa is gone we went out boss".split(), k=4000)),
    "newlines": lambda: "the sofa\n" * 3000,
    "blank lines": lambda: "the sofa" + "\n" * 3000 + "gone",
    "ascii": lambda: "".join(random.Random(8).choices("abcdefghijklmnopqrstuvwxyz", k=5000)),
}


@pytest.mark.parametrize("body", sorted(BODIES))
@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_a_long_post_of_any_script_is_encoded_a_few_dozen_times(
    name: str, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    article = Article(id="a", title="t", article=BODIES[body]())
    with counted(monkeypatch) as calls:
        ids = encode_query(TOKENIZERS[name], article, 200, CNNDM_TRANSFER)
    assert sum(calls) <= 48, calls
    assert len(ids) <= 200
