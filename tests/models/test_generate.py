from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from tldr.errors import UsageError
from tldr.models.attention import BLOCKED
from tldr.models.generate import _alike, generate, pick
from tldr.models.ladder import ARCHITECTURES
from tldr.models.packed import PackedBatch, response_logprobs

EOS, PAD, NEVER = 0, 1, 10_000
ATTENTIONS = ["eager", "sdpa", BLOCKED]


def draw(policy, batch, **changes):
    settings = {
        "n": 1,
        "max_new_tokens": 12,
        "temperature": 1.0,
        "top_p": 1.0,
        "eos_id": EOS,
        "pad_id": PAD,
        "generator": torch.Generator().manual_seed(7),
    }
    return generate(policy, batch.query, batch.query_mask, **settings | changes)


def packed(batch, drawn):
    return PackedBatch(batch.query, batch.query_mask, drawn.response, drawn.mask)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_greedy_equals_transformers_generate(arch, make_policy, batch):
    policy = make_policy(arch)
    free = draw(policy, batch, temperature=0.0, eos_id=NEVER)
    eos = int(free.response[0, 0, 4])  # a token that greedy decoding comes to
    ours = draw(policy, batch, temperature=0.0, eos_id=eos)
    theirs = policy.generate(
        batch.query,
        attention_mask=batch.query_mask.long(),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=eos,
        pad_token_id=PAD,
    )[:, batch.query.shape[1] :]
    assert torch.equal(ours.response[:, 0], theirs)
    assert ours.stopped[0, 0] and int(ours.mask[0, 0].sum()) <= 5


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trap_rollout_logprobs_at_another_temperature(arch, attention, make_policy, batch):
    policy = make_policy(arch)
    policy.set_attn_implementation(attention)
    drawn = draw(policy, batch, n=3, temperature=0.7)
    again = response_logprobs(policy, packed(batch, drawn), temperature=0.7)
    torch.testing.assert_close(drawn.logprobs, again.detach(), atol=1e-5, rtol=0)
    other = response_logprobs(policy, packed(batch, drawn), temperature=1.0)
    assert (drawn.logprobs - other).abs().max() > 0.1


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_queries_encoded_a_few_at_a_time_give_the_same(arch, attention, make_policy, batch, monkeypatch):
    """In whatever order they lie: the rows of the cache and the logits come back to their places."""
    policy = make_policy(arch)
    policy.set_attn_implementation(attention)
    found = []
    for positions in (1, 3 * batch.query.shape[1], 10**6):
        monkeypatch.setattr("tldr.models.generate.ENCODED", {"cpu": positions})
        found.append(draw(policy, batch, n=2, eos_id=NEVER))
    for one in found[:-1]:
        assert torch.equal(one.response, found[-1].response)
        torch.testing.assert_close(one.logprobs, found[-1].logprobs, atol=1e-5, rtol=0)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 100))
def test_slices_of_like_lengths_cover_all_and_stay_within_the_limit(lengths, most):
    lengths.sort()
    slices = list(_alike(lengths, most))
    assert [i for part in slices for i in range(part.start, part.stop)] == list(range(len(lengths)))
    for part, after in zip(slices, [*slices[1:], None], strict=True):
        rows = part.stop - part.start
        assert rows == 1 or rows * lengths[part.stop - 1] <= most
        assert after is None or (rows + 1) * lengths[part.stop] > most, "one more row would have fitted"


def test_logprobs_are_of_the_untruncated_distribution(make_policy, batch):
    policy = make_policy()
    for changes in ({"top_p": 0.5, "temperature": 0.8}, {"temperature": 0.0}):
        drawn = draw(policy, batch, n=2, **changes)
        again = response_logprobs(policy, packed(batch, drawn), temperature=changes["temperature"] or 1.0)
        torch.testing.assert_close(drawn.logprobs, again.detach(), atol=1e-5, rtol=0)


def first_token(policy, batch, n, **changes):
    """Counts (V,) of n first tokens, and the exact logits they come from."""
    one = PackedBatch(batch.query[1:2], batch.query_mask[1:2], batch.response[1:2], batch.response_mask[1:2])
    drawn = draw(policy, one, n=n, max_new_tokens=1, **changes)
    tokens = one.query[one.query_mask].unsqueeze(0)
    return torch.bincount(drawn.response.flatten(), minlength=40), policy(tokens).logits[0, -1].detach()


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_sampled_frequencies_match_the_softmax(temperature, make_policy, batch):
    n = 4000
    counts, logits = first_token(make_policy(), batch, n, temperature=temperature)
    expected = (logits / temperature).double().softmax(-1) * n
    assert expected.min() >= 5  # what the test asks of every cell
    assert chisquare(counts.numpy(), expected.numpy()).pvalue > 0.001


def test_top_p_keeps_the_nucleus_at_the_temperature(make_policy, batch):
    n, top_p, temperature = 4000, 0.6, 0.8
    counts, logits = first_token(make_policy(), batch, n, temperature=temperature, top_p=top_p)
    probabilities, order = (logits / temperature).double().softmax(-1).sort(descending=True)
    size = int((probabilities.cumsum(0) < top_p).sum()) + 1
    assert 1 < size < 40
    assert counts[order[size:]].sum() == 0
    wanted = probabilities[:size] / probabilities[:size].sum() * n
    assert chisquare(counts[order[:size]].numpy(), wanted.numpy()).pvalue > 0.001


def test_pick_inverts_the_cumulative_distribution():
    logits = torch.tensor([0.0, 0.5, 0.2, 0.3, 0.0]).log().expand(6, -1)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.69, 0.71, 1 - 2**-53], dtype=torch.float64)
    tokens, logprobs = pick(logits, uniform, 1.0, 1.0)
    assert tokens.tolist() == [1, 1, 2, 2, 3, 3]  # never 0 or 4, whose probability is 0
    torch.testing.assert_close(logprobs, torch.tensor([0.5, 0.5, 0.2, 0.2, 0.3, 0.3]).log())
    # top_p 0.7 keeps 0.5 and 0.3 in this order: 0.625 of the mass is token 1.
    assert pick(logits, uniform, 1.0, 0.7)[0].tolist() == [1, 1, 1, 3, 3, 3]
    assert pick(logits, uniform, 1.0, 1e-9)[0].tolist() == [1] * 6  # never empty


def test_stops_at_eos_and_masks_after_it(make_policy, batch):
    policy = make_policy()
    free = draw(policy, batch, n=4, eos_id=NEVER)
    assert not free.stopped.any() and free.mask.all() and free.response.shape == (3, 4, 12)
    eos = int(free.response[0, 0, 2])
    drawn = draw(policy, batch, n=4, eos_id=eos)
    assert drawn.stopped[0, 0]
    for b in range(3):
        for k in range(4):
            whole = free.response[b, k].tolist()
            kept = whole[: whole.index(eos) + 1] if eos in whole else whole
            assert drawn.response[b, k][drawn.mask[b, k]].tolist() == kept
            assert bool(drawn.stopped[b, k]) == (eos in whole)
    assert (drawn.response[~drawn.mask] == PAD).all() and (drawn.logprobs[~drawn.mask] == 0).all()


@pytest.mark.parametrize("n", [1, 5])
def test_leaving_out_what_has_stopped_changes_nothing(n, make_policy, batch):
    """A third of the vocabulary stops a response, so rows and slots fall away at many steps."""
    policy, stops = make_policy("opt"), set(range(2, 15))
    wide = batch.select(torch.tensor([0, 1, 2] * 4))
    free = draw(policy, wide, n=n, eos_id=NEVER)
    drawn = draw(policy, wide, n=n, stop_ids=stops, eos_id=EOS)
    after_stop = torch.isin(free.response, torch.tensor([EOS, *stops])).cumsum(-1)
    kept = torch.cat([torch.ones_like(after_stop[..., :1]), (after_stop == 0)[..., :-1]], dim=-1).bool()
    width = drawn.mask.shape[-1]
    assert torch.equal(drawn.mask, kept[..., :width]) and not kept[..., width:].any()
    assert torch.equal(drawn.response[drawn.mask], free.response[kept])
    torch.testing.assert_close(drawn.logprobs[drawn.mask], free.logprobs[kept], atol=1e-5, rtol=0)


def test_loop_ends_when_all_have_stopped(make_policy, batch):
    policy, calls = make_policy(), []
    policy.register_forward_hook(lambda *_: calls.append(1))
    drawn = draw(policy, batch, stop_ids=range(40))
    assert len(calls) == 1 and drawn.response.shape == (3, 1, 1) and drawn.stopped.all()


def test_each_query_is_encoded_once(make_policy, batch):
    policy, seen = make_policy(), []
    policy.base_model.embed_in.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape))
    draw(policy, batch, n=4, max_new_tokens=3, eos_id=NEVER)
    assert seen == [batch.query.shape, (3, 4), (3, 4)]


def test_same_seed_same_samples_and_the_generator_moves_on(make_policy, batch):
    policy = make_policy()
    assert torch.equal(draw(policy, batch, n=2).response, draw(policy, batch, n=2).response)
    one = torch.Generator().manual_seed(7)
    first, second = (draw(policy, batch, n=2, generator=one).response for _ in range(2))
    assert first.shape != second.shape or not torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
def test_training_mode_checkpointing_and_grad_are_left_alone(make_policy, batch):
    """Gradient checkpointing in training mode drops the cache: tokens would be drawn without a past."""
    policy = make_policy().eval()
    expected = draw(policy, batch, n=2)
    policy.train()
    policy.gradient_checkpointing_enable()
    drawn = draw(policy, batch, n=2)
    assert policy.training and torch.equal(drawn.response, expected.response)
    parts = (drawn.response, drawn.mask, drawn.logprobs, drawn.stopped)
    assert not any(part.is_inference() or part.requires_grad for part in parts)
    ratio = (response_logprobs(policy, packed(batch, drawn)) - drawn.logprobs).exp()
    (ratio * drawn.mask).sum().backward()  # autograd keeps what was drawn
    assert policy.base_model.embed_in.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "changes",
    [{"n": 0}, {"max_new_tokens": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}],
)
def test_settings_out_of_range(changes, make_policy, batch):
    with pytest.raises(UsageError, match="cannot sample"):
        draw(make_policy(), batch, **changes)


def test_beyond_the_context(make_policy, batch):
    policy = make_policy(context=16)
    draw(policy, batch, max_new_tokens=11)
    with pytest.raises(UsageError, match="have 17 tokens together, the model's context is 16"):
        draw(policy, batch, max_new_tokens=12)
