"""TRL's SFTTrainer and RewardTrainer, used as in their documentation, on pre-tokenized texts."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from rounds import Rounds
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl_common import Steps, arguments, classifier, policy, tokenizer

ENDLESS = 10**6


def main() -> None:
    rounds = Rounds()
    steps = Steps(rounds)
    queries, responses = rounds.data["queries"], rounds.data["responses"]
    sft = rounds.spec["stage"] == "sft"
    kind: Any = SFTTrainer if sft else RewardTrainer

    class Counting(kind):
        """Counts each step's real tokens and examples (a pair is two rows)."""

        def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            mask = inputs["attention_mask"]
            steps.counts["tokens"] += float(mask.sum())
            steps.counts["things"] += len(mask) / (1 if sft else 2)
            return super().training_step(model, inputs, *args, **kwargs)

    shared = arguments(rounds) | {"max_steps": ENDLESS}
    if sft:
        columns = {
            "input_ids": [query + response for query, response in zip(queries, responses, strict=True)],
            "completion_mask": [
                [0] * len(query) + [1] * len(response)
                for query, response in zip(queries, responses, strict=True)
            ],
        }
        config: Any = SFTConfig(**shared, completion_only_loss=True)
    else:
        columns = {
            f"{name}_ids": [query + response for query, response in zip(queries, part, strict=True)]
            for name, part in (("chosen", responses[::2]), ("rejected", responses[1::2]))
        }
        config = RewardConfig(**shared)
    trainer = Counting(
        model=policy(rounds) if sft else classifier(rounds),
        args=config,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer(rounds.spec["model"]["vocab_size"]),
        callbacks=[steps],
    )
    trainer.train()


if __name__ == "__main__":
    main()
