"""Reward-model and SFT losses, and their gradients on a tiny model, against TRL's own trainers.

TRL 1.16 no longer has PPO (removed after 1.12); `test_rl_oracle.py` stands in for it.
"""

from __future__ import annotations

import pytest
import torch

from tldr.mathematics.losses import kway_loss, pair_accuracy, response_loss

PAD, EOS, VOCABULARY = 0, 1, 23


@pytest.fixture(scope="module")
def trl():
    yield pytest.importorskip("trl")
    # the trainers leave accelerate's process-wide state behind, which another test's precision would meet
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def tokenizer(trl):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<eos>": EOS} | {f"w{i}": i for i in range(2, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<eos>")),
        pad_token="<pad>",
        eos_token="<eos>",
    )


def tiny(kind):
    import transformers

    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        pad_token_id=PAD,
        eos_token_id=EOS,
        num_labels=1,
    )
    return getattr(transformers, kind).from_config(config)


def arguments(folder):
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert any(grad.abs().max() > 1e-4 for grad in found.values())
    return found


def assert_same(model, theirs, ours):
    torch.testing.assert_close(ours.detach(), theirs.detach(), atol=1e-6, rtol=1e-5)
    expected, found = gradients(model, theirs), gradients(model, ours)
    assert expected.keys() == found.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_reward_loss_is_trls(trl, tokenizer, tmp_path):
    from datasets import Dataset

    rows = Dataset.from_list(
        [
            {"chosen_ids": [5, 6, 7, 8, EOS], "rejected_ids": [5, 6, 9, EOS]},
            {"chosen_ids": [4, 10, EOS], "rejected_ids": [4, 11, 12, 13, 14, EOS]},
            {"chosen_ids": [15, 16, 17, EOS], "rejected_ids": [15, 18, EOS]},
            {"chosen_ids": [3, EOS], "rejected_ids": [3, 2, 20, EOS]},
        ]
    )
    model = tiny("AutoModelForSequenceClassification")
    trainer = trl.RewardTrainer(
        model=model,
        args=trl.RewardConfig(**arguments(tmp_path)),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    model.train()
    inputs = trainer.data_collator(list(rows))
    theirs = trainer.compute_loss(model, dict(inputs))

    # the four comparisons as rankings of two, the winner now first, now second
    chosen, rejected = model(**inputs).logits.squeeze(-1).chunk(2)
    scores = torch.stack([chosen, rejected], dim=1)
    ranks = torch.tensor([[1, 2]] * 4)
    scores = torch.where(torch.tensor([[True], [False]] * 2), scores, scores.flip(1))
    ranks = torch.where(torch.tensor([[True], [False]] * 2), ranks, ranks.flip(1))
    both = torch.ones(4, 2, dtype=torch.bool)
    assert_same(model, theirs, kway_loss(scores, ranks, both))
    correct, pairs = pair_accuracy(scores.detach(), ranks, both)
    assert (correct.sum() / pairs.sum()).item() == pytest.approx(trainer._metrics["train"]["accuracy"][-1])


def test_response_loss_is_trls(trl, tokenizer, tmp_path):
    from datasets import Dataset

    rows = Dataset.from_list(
        [
            {"input_ids": [5, 6, 7, 8, 9, EOS], "labels": [-100, -100, -100, 8, 9, EOS]},
            {"input_ids": [4, 10, EOS], "labels": [-100, 10, EOS]},
            {"input_ids": [15, 16, 17, 2, 3, 4, 19, EOS], "labels": [-100] * 6 + [19, EOS]},
        ]
    )
    model = tiny("AutoModelForCausalLM")
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**arguments(tmp_path)),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    model.train()
    inputs = trainer.data_collator(list(rows))
    theirs = trainer.compute_loss(model, dict(inputs))

    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    targets = inputs["input_ids"][:, 1:, None]
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, targets).squeeze(-1)
    mask = inputs["labels"][:, 1:] != -100
    assert mask.sum() == 7
    assert_same(model, theirs, response_loss(logprobs, mask))
