"""Score samples: RM of sample and reference, log-probabilities under policy and SFT, gold, token traces."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.queries.encode import encode_queries, encode_responses
from tldr.records import Article, DocumentLoss, Post, Sample, read_records, write_records
from tldr.stages.score import ScoreRun
from tldr.stages.score.algorithm import Optimised, end_with_eos, in_order, post_of, token_traces
from tldr.stages.shared.corpus import CORPUS_HELD_OUT, read_corpus
from tldr.stages.shared.declaration import named
from tldr.stages.shared.device import Device
from tldr.stages.shared.gold import gold_scores, has_gold
from tldr.stages.shared.language import document_nats, encode_documents
from tldr.stages.shared.networks import open_policy, open_reward
from tldr.stages.shared.reporting import is_pretrained, policy_queries, reporting_set
from tldr.stages.shared.summary_scorer import SummaryScorer, TokenIds, sample_ids
from tldr.stages.shared.tokenizers import check_reads_tokens_of, open_tokenizer, pad_id
from tldr.train.metrics import Progress

CORPUS_LOSS = "corpus_loss.jsonl"
LOGPROBS = {"policy": "logprob", "sft": "logprob_sft"}


def run(ctx: ScoreRun) -> None:
    """Write ``samples.jsonl`` with scores filled in, and ``tokens.jsonl`` for the first way of sampling.

    Inputs: ``samples`` (file or run folder), ``data`` (``valid2.jsonl`` or ``cnndm.jsonl``), and
    any of ``policy``, ``sft``, ``reward``, ``ppo`` (a PPO run, for its value network and its KL
    coefficient); what is not given is not scored. Scores are named ``rm``, ``rm_reference``, ``gold``,
    ``gold_reference``, ``gold_preference`` and ``gold_<axis>``. Where the data has a held-out corpus,
    ``corpus_loss.jsonl`` has the policy's loss on it.
    """
    samples = read_records(_samples_file(ctx.inputs.samples), Sample)
    scored = SamplesByPost(ctx, samples)
    names = [name for name in (*LOGPROBS, "reward") if name in scored.places]
    progress = Progress(ctx.folder, total=len(names) + 1)
    tokens: dict[str, list[list[float]]] = {}
    scores: list[dict[str, float]] = [dict(sample.scores) for sample in samples]
    for done, name in enumerate(names, start=1):
        if name == "reward":
            for row, more in zip(scores, scored.rewards(), strict=True):
                row.update(more)
        else:
            tokens[LOGPROBS[name]] = scored.token_logprobs(name)
        progress.update(done)
    if has_gold(scored.posts):
        for sample, post, row in zip(samples, scored.posts, scores, strict=True):
            assert isinstance(post, Post)
            row.update(gold_scores(post, sample.text, sample.stopped is not False))
    rows = [
        sample.model_copy(
            update={name: sum(values[i]) for name, values in tokens.items()} | {"scores": scores[i]}
        )
        for i, sample in enumerate(samples)
    ]
    write_records(ctx.folder / "samples.jsonl", rows)
    if ctx.inputs.policy is not None and "dataset" not in ctx.tags:
        write_corpus_loss(ctx.folder, ctx.inputs.policy, ctx.inputs.data, scored.device)
    if "logprob" in tokens:
        values = scored.token_values() if _value_folder(ctx) else None
        assert ctx.inputs.policy is not None
        tokenizer = open_tokenizer(ctx.inputs.policy)
        traces = token_traces(rows, tokens, values, _optimised(ctx), tokenizer, ctx.lengths)
        write_records(ctx.folder / "tokens.jsonl", traces)


def write_corpus_loss(folder: Path, policy: Path, data: Path, device: Device) -> None:
    """Write ``corpus_loss.jsonl``: the cross-entropy of a policy on every document of the held-out corpus.
    Without such a corpus nothing is written."""
    if not (data / CORPUS_HELD_OUT).exists():
        return
    tokenizer = open_tokenizer(policy)
    model = open_policy(policy, device, tokenizer)
    context = int(model.config.max_position_embeddings)
    documents = encode_documents(read_corpus(data, CORPUS_HELD_OUT), tokenizer, context)
    nats = document_nats(model, documents, pad_id(tokenizer), device)
    pairs = zip(documents, nats, strict=True)
    losses = [DocumentLoss(nats=sum_, tokens=len(document.ids) - 1) for document, sum_ in pairs]
    write_records(folder / CORPUS_LOSS, losses)


class SamplesByPost:
    """The samples grouped by post, so that each query is encoded once for all of its samples."""

    def __init__(self, ctx: ScoreRun, samples: list[Sample]):
        self.ctx, self.samples, self.device = ctx, samples, Device.open(ctx.precision, shared=True)
        self.places: dict[str, Path] = named(ctx.inputs)
        known = {post.id: post for post in reporting_set(ctx)}
        self.posts = [post_of(sample, known) for sample in samples]
        groups: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            groups.setdefault(sample.id, []).append(index)
        self.groups = list(groups.values())

    def _scorer(self, name: str, references: bool = False) -> SummaryScorer:
        """Queries and responses in the tokens of an input's model; the reference comes last."""
        tokenizer, lengths = open_tokenizer(self.places[name]), self.ctx.lengths
        first = [self.posts[group[0]] for group in self.groups]
        responses = [
            [sample_ids(self.samples[index], tokenizer, lengths) for index in group] for group in self.groups
        ]
        if name == "policy":
            return SummaryScorer(
                tokenizer, policy_queries(self.ctx, tokenizer, first), responses, self.device
            )
        if is_pretrained(self.ctx):
            end_with_eos(tokenizer, responses)
        if references:
            if self.ctx.inputs.policy is not None and any(sample.response_ids for sample in self.samples):
                policy = self.ctx.inputs.policy
                reward = self.places[name]
                check_reads_tokens_of(reward, policy, open_tokenizer(policy), "score.reward")
            if any(len(ids) > lengths.rm_response for row in responses for ids in row):
                raise UsageError(
                    "a sample is longer than the reward model's window", where="lengths.rm_response"
                )
            for row, post in zip(responses, first, strict=True):
                row += self._reference(tokenizer, post)
        return SummaryScorer(
            tokenizer, encode_queries(tokenizer, first, lengths.query), responses, self.device
        )

    def _reference(self, tokenizer: PreTrainedTokenizerBase, post: Post | Article) -> list[TokenIds]:
        window = self.ctx.lengths.rm_response
        return [] if post.summary is None else encode_responses(tokenizer, [post.summary], window)

    def token_logprobs(self, name: str) -> list[list[float]]:
        """Log-probability of every token of every sample under one of the policies."""
        scorer = self._scorer(name)
        policy = open_policy(self.places[name], self.device, scorer.tokenizer)
        return in_order(self.groups, scorer.token_logprobs(policy))

    def token_values(self) -> list[list[float]]:
        """Value of every token of every sample under the PPO run's value network."""
        folder = _value_folder(self.ctx)
        assert folder is not None
        return in_order(self.groups, self._scorer("ppo").token_values(open_reward(folder, self.device)))

    def rewards(self) -> list[dict[str, float]]:
        """Reward-model score of every sample and of its post's reference."""
        rows = self._scorer("reward", references=True).rewards(
            open_reward(self.places["reward"], self.device)
        )
        values: list[dict[str, float]] = [{} for _ in self.samples]
        for group, row in zip(self.groups, rows, strict=True):
            reference = {"rm_reference": row[-1]} if len(row) > len(group) else {}
            for index, score in zip(group, row, strict=False):
                values[index] = {"rm": score} | reference
        return values


def _value_folder(ctx: ScoreRun) -> Path | None:
    folder = ctx.inputs.ppo / "value" if ctx.inputs.ppo is not None else None
    return folder if folder is not None and folder.is_dir() else None


def _optimised(ctx: ScoreRun) -> Optimised | None:
    """What the PPO run optimised in its last iteration, by its log and its ``config.json``."""
    path = ctx.inputs.ppo / "metrics.jsonl" if ctx.inputs.ppo is not None else None
    if path is None or not path.is_file():
        return None
    beta = float(json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["beta"])
    config = path.with_name("config.json")
    if not config.is_file():  # of a PPO stage that was called by hand
        return Optimised(beta)
    rule = json.loads(config.read_text(encoding="utf-8"))["settings"]["eos"]
    return Optimised(beta, rule["missing"], float(rule["value"]))


def _samples_file(place: Path) -> Path:
    return place / "samples.jsonl" if place.is_dir() else place
