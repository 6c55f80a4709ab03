"""A vocabulary padded beyond its tokenizer: pad and ids without a token have no probability."""

from __future__ import annotations

import math

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tldr.models.generate import generate
from tldr.models.ladder import ARCHITECTURES, load_policy, save_policy
from tldr.models.packed import PackedBatch, response_logprobs
from tldr.models.vocabulary import mask_ids, unwritable_ids, writable_ids
from tldr.queries.tokenizer import load_tokenizer

EOS, NEVER = 0, 10_000
OWNED = 31
"""The tokenizer has the ids 0 to 30, the model's vocabulary 40: the new pad is 31."""
MASKED = list(range(OWNED, 40))


@pytest.fixture
def short_tokenizer(tmp_path):
    words = {"<|endoftext|>": EOS} | {f"w{i}": i for i in range(1, OWNED)}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w2")), eos_token="<|endoftext|>"
    )
    made.save_pretrained(tmp_path / "short")
    return load_tokenizer(tmp_path / "short")


def plain(policy, tokens):
    """Log-probabilities (L,V) of plain transformers, with the masked logits at -inf."""
    logits = policy(torch.tensor([tokens])).logits[0].detach().clone()
    logits[:, MASKED] = -math.inf
    return logits


def padded(make_policy, arch, short_tokenizer, tmp_path, **how):
    """A policy on disk that likes its masked ids best, as it is loaded for the tokenizer, and plain."""
    policy = make_policy(arch, **how)
    with torch.no_grad():
        policy.get_output_embeddings().weight[MASKED] *= 3
    folder = save_policy(policy, short_tokenizer, tmp_path / "policy", "card")
    return load_policy(folder, short_tokenizer).eval(), AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_packed_logprobs_and_entropy_equal_plain_transformers_with_masked_logits(
    arch, make_policy, short_tokenizer, tmp_path, batch
):
    assert short_tokenizer.pad_token_id == OWNED and unwritable_ids(short_tokenizer, 40) == MASKED
    ours, theirs = padded(make_policy, arch, short_tokenizer, tmp_path)
    response = batch.response.clamp(max=OWNED - 1)
    kept = PackedBatch(batch.query, batch.query_mask, response, batch.response_mask)
    logprobs, entropy = response_logprobs(ours, kept, 0.7, entropy=True)
    for b, k in batch.response_mask.any(-1).nonzero().tolist():
        query = kept.query[b][kept.query_mask[b]].tolist()
        answer = response[b, k][kept.response_mask[b, k]].tolist()
        n = len(answer)
        wanted = (plain(theirs, query + answer)[len(query) - 1 : -1] / 0.7).log_softmax(-1)
        torch.testing.assert_close(
            logprobs[b, k, :n], wanted[torch.arange(n), torch.tensor(answer)], atol=1e-5, rtol=0
        )
        terms = (wanted.exp() * wanted).nan_to_num(nan=0.0)
        torch.testing.assert_close(entropy[b, k, :n], -terms.sum(-1), atol=1e-5, rtol=0)
    (logprobs.sum() + entropy.sum()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in ours.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_decoding_never_draws_pad_or_an_id_without_a_token(
    arch, make_policy, short_tokenizer, tmp_path, batch
):
    ours, theirs = padded(make_policy, arch, short_tokenizer, tmp_path)
    how = {"max_new_tokens": 8, "eos_id": NEVER, "pad_id": OWNED}
    seed = torch.Generator().manual_seed(0)
    free = generate(
        theirs, batch.query, batch.query_mask, n=20, temperature=1.0, top_p=1.0, generator=seed, **how
    )
    assert set(free.response.flatten().tolist()) & set(MASKED), "the model would draw them"
    for temperature, top_p in ((1.0, 1.0), (0.7, 0.9), (0.0, 1.0)):
        drawn = generate(
            ours,
            batch.query,
            batch.query_mask,
            n=20,
            temperature=temperature,
            top_p=top_p,
            generator=torch.Generator().manual_seed(0),
            **how,
        )
        assert not set(drawn.response.flatten().tolist()) & set(MASKED)
        assert torch.isfinite(drawn.logprobs).all()
        packed = PackedBatch(batch.query, batch.query_mask, drawn.response, drawn.mask)
        again = response_logprobs(ours, packed, temperature or 1.0)
        torch.testing.assert_close(drawn.logprobs, again.detach(), atol=1e-5, rtol=0)


def test_plain_generate_of_the_checkpoint_suppresses_them_too(make_policy, short_tokenizer, tmp_path, batch):
    ours, theirs = padded(make_policy, "gpt_neox", short_tokenizer, tmp_path)
    settings = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": NEVER, "pad_token_id": OWNED}
    written = theirs.generate(batch.query, attention_mask=batch.query_mask.long(), **settings)
    how = {"n": 1, "temperature": 0.0, "top_p": 1.0, "eos_id": NEVER, "pad_id": OWNED, "max_new_tokens": 6}
    drawn = generate(ours, batch.query, batch.query_mask, **how)
    assert torch.equal(written[:, batch.query.shape[1] :], drawn.response[:, 0])
    assert theirs.generation_config.suppress_tokens == MASKED


def test_the_card_names_the_masked_ids(make_policy, short_tokenizer, tokenizer, tmp_path):
    def card(of):
        return (save_policy(make_policy(), of, tmp_path / "saved", "SFT.") / "README.md").read_text()

    assert card(short_tokenizer).startswith("SFT.\n\nThe model has logits for ids that are no text")
    assert "without a token): 31-39." in card(short_tokenizer)
    assert "without a token): 1." in card(tokenizer), "the pad of a whole vocabulary"
    tokenizer.pad_token_id = None
    assert card(tokenizer) == "SFT."


def test_a_sampler_with_logits_of_its_own_is_told_what_can_be_written(make_policy):
    policy = make_policy()
    assert writable_ids(policy) is None
    mask_ids(policy, MASKED)
    assert writable_ids(policy) == list(range(OWNED))
