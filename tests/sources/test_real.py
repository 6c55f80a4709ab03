"""The real rows: the paper's windows and patterns hold token for token. Skipped where they are absent."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from transformers import PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.inputs.posts import check_disjoint, load_comparisons, load_posts, post_keys
from tldr.queries.encode import decode_response, encode_queries, encode_responses, encode_texts
from tldr.queries.formats import format_query
from tldr.queries.zero_shot import newline_ids
from tldr.records import Post, write_records
from tldr.sources.filter import judge
from tldr.sources.filter_rules import FilterOptions
from tldr.sources.raw import Chunk
from tldr.stages.data import DataInputs
from tldr.stages.data import stage as data_stage
from tldr.stages.data.settings import DataSettings, FileData, TokenizerSpec
from tldr.stages.labels import LabelsInputs
from tldr.stages.labels import stage as labels_stage
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.shared.context import RunContext

SELECT_OR_REPORT = ("valid1", "valid2", "validation_valid2", "validation_unmarked")


@pytest.fixture(scope="module")
def posts(shared: Path) -> list[Post]:
    return load_posts(shared / "tldr_posts.jsonl")


def test_gpt2_tokens_are_openais(gpt2: PreTrainedTokenizerBase) -> None:
    ids = encode_texts(gpt2, ["Hello world! TL;DR: it works"])[0]
    assert ids == [15496, 995, 0, 24811, 26, 7707, 25, 340, 2499]
    assert {198, 628} <= newline_ids(gpt2)  # one newline and two


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
    assert max(map(len, encoded)) == 48
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


def test_real_posts_and_labels_that_overlap_pass_the_stages(
    posts: list[Post], shared: Path, tmp_path: Path
) -> None:
    """Batch13 as it is, but that labels about posts not at hand train: a third of all its posts."""
    labels = load_comparisons(shared / "comparisons" / "batch13.json")
    marked = {split: {row.info.id for row in labels if row.split == split} for split in ("valid1", "valid2")}
    named = {post.id for post in posts}
    outside = sorted({row.info.id or "" for row in labels} - named)
    training = set(outside[: len(marked["valid1"] | marked["valid2"]) // 3])
    unmarked = [post for post in posts if post.id not in marked["valid1"] | marked["valid2"]]
    parts = {"sft": unmarked[:500], "valid2": unmarked[500:700]}
    parts["valid1"] = [post for post in posts if post.id not in {p.id for p in unmarked[:700]}]
    files = {name: str(write_records(tmp_path / f"{name}.jsonl", rows)) for name, rows in parts.items()}
    rows = [row.model_copy(update={"split": "train"}) if row.info.id in training else row for row in labels]
    files["comparisons"] = str(write_records(tmp_path / "labels.jsonl", rows))

    data = FileData.model_validate(files)
    tokenizer = TokenizerSpec(path=str(shared / "gpt2-tokenizer"))
    for folder in (tmp_path / "data", tmp_path / "labels"):
        folder.mkdir()
    settings = DataSettings(data=data, tokenizer=tokenizer)
    data_stage.run(RunContext(settings, tmp_path / "data", DataInputs()))
    labels_stage.run(
        RunContext(LabelsSettings(), tmp_path / "labels", inputs=LabelsInputs(data=tmp_path / "data"))
    )
    counts = json.loads((tmp_path / "data" / "manifest.json").read_text())["validation"]
    assert counts == {"posts": len(parts["valid1"]), "unmarked": len(unmarked) - 700} | {
        "valid1": 57, "valid2": 180, "both": 0, "labels_set_aside": 0, "paper_selected": 1913,
    }  # fmt: skip
    ids = {name: {p.id for p in load_posts(tmp_path / "data" / f"{name}.jsonl")} for name in SELECT_OR_REPORT}
    assert ids["validation_valid2"] == marked["valid2"] & named
    assert ids["valid1"] == marked["valid1"] & named
    assert ids["validation_unmarked"] == {p.id for p in unmarked[700:]}
    for split in ("train", "valid1", "valid2"):
        written = load_comparisons(tmp_path / "labels" / f"{split}.jsonl")
        assert written == [row for row in rows if row.split == split]


def test_real_evaluation_batches_alone_hold_nothing_to_train_on(
    posts: list[Post], shared: Path, tmp_path: Path
) -> None:
    for name, part in (("sft", posts[:1]), ("valid1", posts[1:2]), ("valid2", posts[2:3])):
        write_records(tmp_path / f"{name}.jsonl", part)
    write_records(tmp_path / "rankings.jsonl", load_comparisons(shared / "comparisons" / "batch13.json"))
    with pytest.raises(UsageError, match="the comparisons hold none of split train"):
        labels_stage.run(RunContext(LabelsSettings(), tmp_path / "out", inputs=LabelsInputs(data=tmp_path)))


def reference_encoder(folder: Path) -> Callable[[str], list[int]]:
    """GPT-2's encoder written out plainly: byte alphabet, the pattern, merges by rank."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    letters = {b: chr(b) for b in shown} | {b: chr(256 + n) for n, b in enumerate(hidden)}
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    ranks = {tuple(line.split()): n for n, line in enumerate(x for x in lines[1:] if x)}
    words = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    @cache
    def merged(word: str) -> list[int]:
        parts = [letters[b] for b in word.encode()]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: ranks.get(pair, 1 << 30))
            if best not in ranks:
                break
            joined: list[str] = []
            for part in parts:
                # a merge is never the left half of another of the same round
                if joined and (joined[-1], part) == best:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined
        return [vocab[part] for part in parts]

    return lambda text: [id for word in words.findall(text) for id in merged(word)]


def test_gpt2_tokens_equal_an_independent_encoders(
    posts: list[Post], shared: Path, gpt2: PreTrainedTokenizerBase
) -> None:
    encode = reference_encoder(shared / "gpt2-tokenizer")
    texts = [format_query(post) + f" {post.summary}" for post in posts[:1000]]
    assert encode_texts(gpt2, texts) == [encode(text) for text in texts]


def test_the_filter_keeps_what_the_papers_kept(
    posts: list[Post], shared: Path, gpt2: PreTrainedTokenizerBase
) -> None:
    """Parsed anew, character by character; our own patterns would remove a few that the paper kept."""
    rows = [
        {"id": p.id, "subreddit": p.subreddit, "title": p.title, "body": f"{p.post}\n\nTL;DR: {p.summary}"}
        for p in posts
    ]
    chunk = Chunk("\n".join(map(json.dumps, rows)).encode(), 1, 0, 0)
    judged = judge(chunk, "real", FilterOptions(), gpt2)
    share = {rule: n / len(posts) for rule, n in Counter(judged.fates).items()}
    assert not judged.bad
    assert share.pop("kept") > 0.98
    assert share.pop("summary_tokens") < 0.001
    assert share.pop("no_tldr") < 0.001  # a post that is nothing but "*"
    assert set(share) == {"title_update", "suicide", "sexual", "profanity"}
    assert all(value < 0.006 for value in share.values())
    texts = {json.loads(row.query)["id"]: json.loads(row.query)["post"] for row in judged.kept}
    assert all(texts[post.id] == post.post for post in posts if post.id in texts)
