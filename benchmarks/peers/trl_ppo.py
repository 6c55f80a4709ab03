"""TRL's PPOTrainer (in the last release that has it), used as in its documentation."""

from __future__ import annotations

from datasets import Dataset
from rounds import Rounds
from trl.experimental.ppo import PPOConfig, PPOTrainer
from trl_common import Steps, arguments, classifier, policy, tokenizer


class Iterations(Steps):
    """One step is an iteration; counts its episodes."""

    def on_step_end(self, args, state, control, **rest) -> None:  # type: ignore[no-untyped-def]
        self.counts["things"] += args.batch_size
        super().on_step_end(args, state, control, **rest)


def main() -> None:
    rounds = Rounds()
    settings = rounds.spec["ppo"]
    micro_batch = settings["micro_batch"]
    config = PPOConfig(
        **arguments(rounds, micro_batch),
        gradient_accumulation_steps=rounds.spec["batch"] // micro_batch,
        total_episodes=10**6,
        num_ppo_epochs=settings["epochs"],
        num_mini_batches=1,
        response_length=settings["response"],
        temperature=settings["temperature"],
        kl_coef=settings["beta"],
        stop_token="eos",
        num_sample_generations=0,
    )
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer(rounds.spec["model"]["vocab_size"]),
        model=policy(rounds),
        ref_model=policy(rounds),
        reward_model=classifier(rounds),
        value_model=classifier(rounds),
        train_dataset=Dataset.from_dict({"input_ids": rounds.data["queries"]}),
        callbacks=[Iterations(rounds)],
    )
    trainer.train()


if __name__ == "__main__":
    main()
