"""Train a few steps, sample or score in this process and print its peak memory: bytes in use, bytes resident.

``python measure.py '{"kind": "ppo", "spec": {...}, ...}'``: run by the tests in a process of its own.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn

from tldr.bench.texts import bare_tokenizer
from tldr.models.ladder import build_policy
from tldr.models.packed import PackedBatch, response_logprobs, response_scores, response_values
from tldr.models.reward import reward_from_policy, value_from_reward
from tldr.settings.models import ModelSpec
from tldr.stages.reward.algorithm import freeze_lowest
from tldr.stages.sft.algorithm import response_loss
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import as_model
from tldr.stages.shared.sampling import Sampling, sample_responses
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.train.processes import make_accelerator
from tldr.train.stepper import Loss, Stepper

VOCAB = 8192


def status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


class Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2` (malloc.h)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


class InUse(threading.Thread):
    """The most bytes that malloc had given out and not got back, looked at a thousand times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._libc = ctypes.CDLL(None)
        self._libc.mallinfo2.restype = Mallinfo
        self.peak, self.ended = 0, False

    def now(self) -> int:
        """Bytes now."""
        info = self._libc.mallinfo2()
        return int(info.uordblks + info.hblkhd)

    def run(self) -> None:
        """Until it is told to end."""
        while not self.ended:
            self.peak = max(self.peak, self.now())
            time.sleep(0.001)


def loss_of(kind: str):  # type: ignore[no-untyped-def]
    """The stage's loss over the same forward passes."""

    def reward(parts: nn.ModuleDict, batch: PackedBatch) -> Loss:
        scores = response_scores(as_model(parts["reward"]), batch)
        difference = scores[:, 0] - scores[:, 1]
        return Loss(-nn.functional.logsigmoid(difference).sum(), len(batch), tokens=batch.tokens)

    def ppo(parts: nn.ModuleDict, batch: PackedBatch) -> Loss:
        logprobs, entropy = response_logprobs(as_model(parts["policy"]), batch, 0.7, entropy=True)
        values = response_values(as_model(parts["value"]), batch)
        total = (logprobs - logprobs.detach()).exp().sum() + values.square().sum()
        return Loss(total, batch.response_mask.sum(), batch.tokens, {"entropy": entropy.detach().sum()})

    return {"response": response_loss, "reward": reward, "ppo": ppo}[kind]


def train(case: dict) -> None:  # type: ignore[type-arg]
    """A few optimizer steps of a stage's models on a batch of the case's shape."""
    policy = build_policy(ModelSpec(**case["spec"]), vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
    modules: dict[str, nn.Module] = {"policy": policy}
    if case["kind"] != "response":
        start = policy
        if "value_spec" in case:  # a reward model of another size than the policy
            spec = ModelSpec(**case["value_spec"])
            start = build_policy(spec, vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
        value = value_from_reward(reward_from_policy(start, seed=0, pad_id=1))
        del start
        modules = {"reward": value} if case["kind"] == "reward" else {"policy": policy, "value": value}
        freeze_lowest(value, case.get("frozen_layers", 0.0))
    del policy
    for module in modules.values():
        module.train(False)
    shape = (case["rows"], case["options"], case["response"])
    batch = PackedBatch(
        torch.randint(2, VOCAB, (case["rows"], case["query"])),
        torch.ones(case["rows"], case["query"], dtype=torch.bool),
        torch.randint(2, VOCAB, shape),
        torch.ones(shape, dtype=torch.bool),
    )
    settings = SFTSettings(gradient_checkpointing=case["checkpointing"])
    stepper = Stepper(make_accelerator(case["precision"]), modules, settings, seed=0)
    for _ in range(3):
        stepper.step(loss_of(case["kind"]), [batch] * case["micro_batches"])


def use(case: dict) -> None:  # type: ignore[type-arg]
    """Sample from a policy, or score by one or by a reward model, as the stages without training do."""
    policy = build_policy(ModelSpec(**case["spec"]), vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
    device, tokenizer = Device.open(case["precision"]), bare_tokenizer()
    queries = torch.randint(2, VOCAB, (case["rows"], case["query"])).tolist()
    if case["kind"] == "sample":
        torch.nn.Module.to(policy, torch.bfloat16 if case["precision"] == "bf16" else torch.float32)
        how, window = Sampling(n=case["options"]), case["response"]
        sample_responses(policy, tokenizer, queries, how, max_new_tokens=window, seed=0, device=device)
        return
    responses = torch.randint(2, VOCAB, (case["rows"], case["options"], case["response"])).tolist()
    scorer = SummaryScorer(tokenizer, queries, responses, device)
    if case["kind"] == "score":
        scorer.logprobs(policy)
        return
    reward = reward_from_policy(policy, seed=0, pad_id=1)
    del policy
    scorer.rewards(reward)


def main(case: dict) -> dict[str, int]:  # type: ignore[type-arg]
    """Bytes above what a process holds that did the same with a tiny model: code loaded, threads started."""
    small = {"d_model": 16, "heads": 2, "layers": 1}
    specs = {name: case[name] | small for name in ("spec", "value_spec") if name in case}
    tiny = specs | {"rows": 1, "query": 8, "response": 4}
    work = use if case["kind"] in ("sample", "score", "judge") else train
    work(case | tiny)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    watch = InUse()
    in_use, resident = watch.now(), status("VmRSS")
    watch.start()
    work(case)
    watch.ended = True
    return {"in_use": watch.peak - in_use, "resident": status("VmHWM") - resident}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
