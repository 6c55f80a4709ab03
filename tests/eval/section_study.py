"""A made-up study with a KL sweep, reward models on fewer labels, pools, probes and both value networks.

Scores are drawn from a planted truth: the weak reward model likes what is good and, with nothing to
stop it, something that is not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from tldr.records import write_json

SIZES = {"s": 15_000, "m": 150_000}
LABELS = {"": 12_000, "n750": 750}
SKILL = {("s", ""): 0.9, ("m", ""): 1.6, ("s", "n750"): 0.5, ("m", "n750"): 0.8}
"""How much of the truth a reward model's score holds, against noise of 1."""
BETAS = {"kl-0.3": 0.3, "kl-0.1": 0.1, "kl-0.03": 0.03, "kl-0.01": 0.01, "kl-0": 0.0}
KLS = {"kl-0.3": 0.8, "kl-0.1": 3.0, "kl-0.03": 9.0, "kl-0.01": 25.0, "kl-0": 60.0}
PROBES = ("human-improved edit", "original vs reversed roles", "title vs title twice")

Json = dict[str, Any]


def expit(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


class Made:
    """A study folder that grows run by run."""

    def __init__(self, folder: Path, posts: int, seed: int = 0, data_seed: int | None = None):
        self.folder, self.posts, self.seed = folder, [f"p{n}" for n in range(posts)], seed
        self.data_seed = data_seed
        self.end = str(seed) if data_seed is None else f"d{data_seed}-{seed}"
        self.runs: list[Json] = []
        self.rng = np.random.default_rng(seed if data_seed is None else [data_seed, seed])

    def run(self, stage: str, size: str = "", variant: str = "", method: str = "", **more: Any) -> Path:
        """Add a finished run; `settings` and `parents` as keywords. Its name is its parts joined."""
        name = "-".join(filter(None, (stage, size, method, variant, self.end)))
        where = self.folder / name
        where.mkdir(parents=True)
        row = {"run": name, "stage": stage, "folder": name, "size": size, "seed": self.seed}
        row |= {} if self.data_seed is None else {"data_seed": self.data_seed}
        parents = {key: f"{parent}-{self.end}" for key, parent in more.get("parents", {}).items()}
        self.runs.append(row | {"variant": variant, "params": SIZES.get(size), "parents": parents})
        write_json(where / "run.json", {"run": name, "settings": more.get("settings", {})})
        write_json(where / "DONE", {})
        return where

    def sample(self, post: str, gold: float, **more: Any) -> Json:
        return {
            "id": post, "policy": "p", "run": "made", "seed": self.seed, "temperature": 1.0,
            "text": " words of it", "tokens": int(20 + 4 * self.rng.normal()), **more,
        } | {"scores": {"gold": gold, **more.get("scores", {})}}  # fmt: skip

    def close(self) -> StudyResults:
        write_json(self.folder / "study.json", {"study": "made", "runs": self.runs})
        return StudyResults(load_runs(self.folder), PAPER_FOLDER, draws=200)


def write_lines(path: Path, rows: list[Json]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def add_rewards(made: Made) -> None:
    for size, variant in SKILL:
        where = made.run("reward", size, variant, settings={"limit": LABELS[variant]})
        evaluation = {
            "valid1_accuracy": 0.66,
            "valid2_accuracy": 0.65,
            "valid1_pairs": 500,
            "valid2_pairs": 500,
        }
        write_json(
            where / "evaluation.json",
            evaluation | {"label_agreement": 0.74, "train_rankings": LABELS[variant]},
        )


def comparison(made: Made, post: str, batch: str, gap: float, choice: int, confidence: int | None) -> Json:
    """Two summaries whose planted scores differ by `gap` (the first's minus the second's)."""
    sides: list[Json] = []
    for place, gold in enumerate((gap / 2, -gap / 2)):
        scores = {
            f"rm_{'_'.join(filter(None, key))}": skill * gold + made.rng.normal()
            for key, skill in SKILL.items()
        }
        text = " word" * int(10 + 3 * gold + 2 * made.rng.normal() ** 2)
        sides.append({"text": text, "policy": ("sft", "ref")[place], "scores": scores | {"gold": gold}})
    extra = {} if confidence is None else {"extra": {"confidence": confidence}}
    info = {"id": post, "post": "a post", "subreddit": f"r{int(post[1:]) % 3}"}
    return {
        "info": info, "summaries": sides, "choice": choice, "worker": "w", "batch": batch, "split": "valid2",
    } | extra  # fmt: skip


def add_pairs(made: Made) -> None:
    parents = {
        f"reward-{'_'.join(filter(None, key))}": "-".join(filter(None, ("reward", *key))) for key in SKILL
    }
    where, valid2, probes = made.run("pairs", parents=parents), [], []
    for post in made.posts:
        for batch in ("b1", "b2"):
            gap = float(made.rng.normal(scale=1.5))
            choice = int(made.rng.random() > expit(gap))
            confidence = (4 if choice == 0 else 6) + (1 - 2 * (choice == 0)) * int(min(3, abs(gap)))
            valid2.append(comparison(made, post, batch, gap, choice, confidence))
        for place, probe in enumerate(PROBES):
            probes.append(comparison(made, post, probe, (2.0, 1.0, -0.6)[place], 0, None))
    write_lines(where / "valid2.jsonl", valid2)
    write_lines(where / "probes.jsonl", probes)


def policy_samples(made: Made, kl: float, size: str, tags: Json, *, scored: bool = True) -> list[Json]:
    """Gold rises and falls with d = sqrt(KL), the weak model's score only rises."""
    d, rows = np.sqrt(kl), []
    for number, post in enumerate(made.posts):
        rng = np.random.default_rng([made.seed, number])  # the same post is as hard for all policies
        easy, reference = rng.normal(size=2)
        gold = -0.8 + 0.5 * easy + d * (0.55 - 0.22 * np.log(d) if d else 0) + 0.3 * made.rng.normal()
        proxy = -0.5 + 0.4 * easy + 0.6 * d + 0.3 * made.rng.normal()
        scores = {"gold_reference": reference, "gold_preference": expit(gold - reference)}
        if scored:
            scores |= {"rm": proxy, "rm_reference": 0.3 * reference}
        ratio = kl + (0.3 + 0.2 * d) * made.rng.normal() if kl else 0.0
        logprobs = {"logprob": -20.0, "logprob_sft": -20.0 - ratio}
        rows.append(made.sample(post, gold, tags={"size": size, **tags}, scores=scores, **logprobs))
    return rows


def add_sweep(made: Made, size: str = "m", *, start_by_own_model: bool = True) -> None:
    made.run("sft", size)
    reward = f"reward-{size}-n750" if start_by_own_model else f"reward-{size}"
    parents = {"policy": f"sft-{size}", "reward": reward}
    where = made.run("score", size, method="sft", parents=parents)
    warm = policy_samples(made, 0.0, size, {"method": "sft", "params": SIZES[size]})
    cold = [row | {"temperature": 0.0, "logprob": -5.0} for row in warm]
    nucleus = [row | {"top_p": 0.9, "logprob": -5.0} for row in warm]
    write_lines(where / "samples.jsonl", cold + warm + nucleus)
    for variant, beta in BETAS.items():
        parents = {"policy": f"sft-{size}", "reference": f"sft-{size}", "reward": f"reward-{size}-n750"}
        trained = made.run("ppo", size, variant, parents=parents, settings={"beta": beta, "temperature": 0.7})
        write_lines(trained / "rollouts.jsonl", rollouts(made, size, KLS[variant]))
        write_lines(trained / "metrics.jsonl", metrics(KLS[variant], 1.0))
        parents = {"policy": f"ppo-{size}-{variant}", "reward": f"reward-{size}-n750"}
        where = made.run("score", size, variant, method="ppo", parents=parents)
        tags = {"method": "ppo", "params": SIZES[size], "variant": variant}
        write_lines(where / "samples.jsonl", policy_samples(made, KLS[variant], size, tags))


def rollouts(made: Made, size: str, kl: float) -> list[Json]:
    return [
        row
        for iteration, share in ((1, 0.0), (5, 0.2), (9, 0.5), (13, 0.8), (16, 1.0))
        for row in policy_samples(made, share * kl, size, {"iteration": iteration})
    ]


def metrics(kl: float, level: float) -> list[Json]:
    return [
        {
            "update": update, "episodes": update * 256, "score": level * (1 - np.exp(-update / 5)) - 0.5,
            "reward": level * (1 - np.exp(-update / 5)) - 0.6, "kl": kl * update / 16,
            "length": 25.0 + update, "entropy": 1.2 - 0.03 * update, "explained_variance": 0.6 - 1 / update,
        }
        for update in range(1, 17)
    ]  # fmt: skip


def add_value_networks(made: Made, size: str = "m") -> None:
    for variant, network in (("", "separate"), ("shared", "shared")):
        parents = {"policy": f"sft-{size}", "reference": f"sft-{size}", "reward": f"reward-{size}"}
        settings = {"beta": 0.05, "temperature": 0.7, "value_network": network}
        where = made.run("ppo", size, variant, parents=parents, settings=settings)
        write_lines(where / "metrics.jsonl", metrics(4.0, 1.4 if network == "separate" else 1.0))
        write_lines(where / "rollouts.jsonl", rollouts(made, size, 4.0 if network == "separate" else 2.5))


def add_pool(made: Made, size: str = "m", n: int = 16, variant: str = "pool") -> None:
    parents = {"policy": f"sft-{size}", "reward": f"reward-{size}"}
    parents |= {f"reward-{size}": f"reward-{size}", f"reward-{size}_n750": f"reward-{size}-n750"}
    settings = {"n": n, "temperature": 0.7}
    where, rows = made.run("best_of_n", size, variant, parents=parents, settings=settings), []
    for post in made.posts:
        reference = made.rng.normal()
        for gold in made.rng.normal(size=n) - 0.6:
            main = 0.8 * gold + 0.6 * made.rng.normal()
            scores = {
                "rm": main, f"rm_{size}": main, f"rm_{size}_n750": 0.4 * gold + 0.8 * made.rng.normal(),
                "rouge": float(np.clip(0.3 + 0.02 * gold + 0.08 * made.rng.normal(), 0, 1)),
                "gold_reference": reference, "gold_preference": expit(gold - reference),
            }  # fmt: skip
            rows.append(made.sample(post, gold, temperature=0.7, scores=scores))
    write_lines(where / "pool.jsonl", rows)


def whole_study(folder: Path, posts: int = 60, n: int = 16) -> StudyResults:
    """Everything, at one seed."""
    made = Made(folder, posts)
    add_rewards(made)
    add_pairs(made)
    add_sweep(made)
    add_value_networks(made)
    for size in SIZES:
        add_pool(made, size, n)
    return made.close()
