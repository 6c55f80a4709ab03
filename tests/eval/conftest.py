"""A small fake study on disk, as the stages leave one behind, and the real data where present."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tldr.records import Post, Sample, write_json, write_records

SIZES = {"s": 35_000, "m": 170_000, "l": 830_000}
SKILL = {"pretrained": -1.6, "sft": -0.5, "ppo": 0.6}
WORDS = ["cat", "dog", "boss", "friend", "city", "late", "money", "letter", "asked", "left", "lost", "never"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data files; tests that need it are skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("TLDR_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("real data not at hand: set TLDR_SHARED_DATA")
    return folder


def make_posts(count: int) -> list[Post]:
    draw = random.Random(1)
    return [
        Post(
            id=f"p{number}",
            subreddit="r",
            title=" ".join(draw.choices(WORDS, k=5)),
            post=". ".join(" ".join(draw.choices(WORDS, k=9)) for _ in range(4)) + ".",
            summary=" ".join(draw.choices(WORDS, k=12)),
        )
        for number in range(count)
    ]


def make_sample(post: Post, method: str, size: str, seed: int, temperature: float, **tags: Any) -> Sample:
    """A sample whose planted preference follows from its method, its size and chance."""
    draw = random.Random(f"{post.id} {method} {size} {seed} {temperature} {tags}")
    skill = SKILL.get(method, 0.2) + 0.35 * list(SIZES).index(size) - 0.5 * temperature
    reference, gold = draw.gauss(0, 1), skill + draw.gauss(0, 1)
    text = " ".join(draw.choices(WORDS, k=draw.randint(6, 16)))
    return Sample(
        id=post.id,
        policy=f"{method}-{size}",
        run=f"score-{method}-{size}-{seed}",
        seed=seed,
        temperature=temperature,
        n=int(tags.get("best_of", 1)),
        text=text,
        tokens=len(text.split()) + 1,
        stopped=draw.random() < 0.95,
        logprob=-20 + draw.gauss(0, 3),
        logprob_sft=-24 + draw.gauss(0, 3),
        scores={
            "gold": gold,
            "gold_reference": reference,
            "gold_preference": 1 / (1 + math.exp(reference - gold)),
            "rm": gold + draw.gauss(0, 0.5),
            "rm_reference": reference + draw.gauss(0, 0.5),
        },
        tags={"method": method, "size": size, "params": SIZES[size], **tags},
    )


def ppo_row(update: int, level: float, draw: random.Random) -> dict[str, float]:
    share = update / 30
    return {
        "update": update,
        "episodes": update * 256,
        "score": level * (1 - math.exp(-3 * share)) + draw.gauss(0, 0.05),
        "reward": 0.8 * level * (1 - math.exp(-3 * share)) + draw.gauss(0, 0.05),
        "kl": 4 * share + draw.gauss(0, 0.1),
        "entropy": 1.2 - 0.4 * share + draw.gauss(0, 0.02),
        "length": 18 + 6 * share + draw.gauss(0, 0.3),
        "explained_variance": 0.7 * (1 - math.exp(-5 * share)) + draw.gauss(0, 0.03),
        "eos_rate": 0.95,
    }


class Fake:
    """A study folder that grows run by run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.runs: list[dict[str, Any]] = []

    def run(
        self, stage: str, *parts: str | int, size: str = "", seed: int | None = None, **parents: str
    ) -> Path:
        """Add a finished run and give its folder."""
        name = "-".join(map(str, (stage, *parts, *([size, seed] if size else []))))
        row = {
            "run": name,
            "stage": stage,
            "folder": f"runs/{name}",
            "size": size,
            "seed": seed,
            "variant": "",
        }
        self.runs.append(row | {"params": SIZES.get(size), "key": f"key-{name}", "parents": parents})
        where = self.folder / "runs" / name
        where.mkdir(parents=True)
        write_json(where / "DONE", {})
        return where

    def add_seed(self, posts: list[Post], size: str, seed: int) -> None:
        """Reward model, PPO, samples with and without scores, best-of-N."""
        place = list(SIZES).index(size)
        accuracy = 0.55 + 0.02 * math.log(SIZES[size] / 1e4) + 0.01 * seed
        evaluation = {"valid1_accuracy": accuracy + 0.01, "valid2_accuracy": accuracy, "n": 500}
        evaluation |= {"label_agreement": 0.74, "reference_mean": 0.0}
        write_json(self.run("reward", size=size, seed=seed) / "evaluation.json", evaluation)
        draw = random.Random(f"{size}{seed}")
        lines = [json.dumps(ppo_row(update, 1 + 0.3 * place, draw)) + "\n" for update in range(1, 31)]
        (self.run("ppo", size=size, seed=seed) / "metrics.jsonl").write_text("".join(lines))
        for method in SKILL:
            samples = [make_sample(post, method, size, seed, heat) for post in posts for heat in (0.0, 0.7)]
            sampled = self.run("sample", method, size=size, seed=seed)
            unscored = [sample.model_copy(update={"scores": {}}) for sample in samples]
            write_records(sampled / "samples.jsonl", unscored)
            parents = {"reward": f"reward-{size}-{seed}", "samples": sampled.name}
            scored = self.run("score", method, size=size, seed=seed, **parents)
            write_records(scored / "samples.jsonl", samples)
        best = [make_sample(post, "best_of_n", size, seed, 0.7, best_of=16, scorer="rm") for post in posts]
        write_records(self.run("best_of_n", size=size, seed=seed) / "samples.jsonl", best)


def make_study(folder: Path, posts: int = 40, seeds: int = 2) -> Path:
    """Write a whole study: data, reward, ppo, sample and score runs, best-of-N, ``study.json``."""
    fake, post_list = Fake(folder), make_posts(posts)
    write_records(fake.run("data") / "valid2.jsonl", post_list)
    for size in SIZES:
        for seed in range(seeds):
            fake.add_seed(post_list, size, seed)
    write_json(folder / "study.json", {"study": "fake", "runs": fake.runs})
    return folder


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"))
