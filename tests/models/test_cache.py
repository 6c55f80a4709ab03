"""The preallocated cache against transformers' growing one."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from tldr.models.cache import preallocated_cache
from tldr.models.ladder import ARCHITECTURES


@pytest.mark.parametrize("room", [1, 12])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_same_logits_as_with_a_growing_cache(arch, room, make_policy):
    policy = make_policy(arch)
    ids = torch.randint(2, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    found = []
    for cache in (preallocated_cache(policy.config, room), DynamicCache(config=policy.config)):
        with torch.inference_mode():
            policy(ids[:, :4], past_key_values=cache)
            policy(ids[:, 4:7], past_key_values=cache)
            cache.batch_select_indices(torch.tensor([2, 0]))
            found.append(policy(ids[[2, 0], 7:], past_key_values=cache).logits)
        assert cache.get_seq_length() == 9
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_nothing_old_is_copied(make_policy):
    policy = make_policy()
    cache = preallocated_cache(policy.config, 6)
    places = set()
    for token in range(6):
        with torch.inference_mode():
            policy(torch.tensor([[token + 2]]), past_key_values=cache)
        places.add(cache.layers[0].keys.data_ptr())
    assert len(places) == 1


def test_under_autocast_it_holds_what_is_multiplied(make_policy):
    policy = make_policy()
    cache = preallocated_cache(policy.config, 6)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        policy(torch.tensor([[2, 3]]), past_key_values=cache)
    assert cache.layers[0].keys.dtype == torch.bfloat16
