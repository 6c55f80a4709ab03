"""A made-up study of unscored policies that people and a judge compared with the references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from tests.eval.section_study import Made, write_lines

WON = {"sft-s": 9, "sft-m": 13, "ppo-s": 20, "ppo-m": 25}
"""Of 30 judged posts, by people."""
JUDGED, POSTS = 30, 40


def sample(policy: str, post: str, run: str, **more: Any) -> dict[str, Any]:
    method, size = policy.split("-")
    scores = {"rm": 1.0, "rm_reference": 0.0}
    return {
        "id": post, "policy": policy, "run": run, "temperature": 0.0, "text": f" {policy} on {post}",
        "tokens": 5, "tags": {"method": method, "size": size}, "scores": scores,
    } | more  # fmt: skip


def verdict(name: str, post: str, won: bool, run: str, order: list[int]) -> dict[str, Any]:
    text = f" {name.removesuffix('-t0')} on {post}"
    return {
        "id": post, "policies": [name, "reference"], "order": order, "judge": "llm/x", "runs": [run],
        "verdict": "A" if won == (order == [0, 1]) else "B", "texts": [text, " the reference"],
    }  # fmt: skip


def comparison(name: str, post: str, won: bool, first: bool, **more: Any) -> dict[str, Any]:
    own = {"text": f" {name.removesuffix('-t0')} on {post} ", "policy": name}
    sides = [own, {"text": " the reference", "policy": "ref"}]
    return {
        "info": {"id": post, "post": f"text of {post}", "subreddit": "r"},
        "summaries": sides if first else sides[::-1],
        "choice": int(won != first), "worker": "w1", "batch": "b", "split": "valid2",
    } | more  # fmt: skip


def named(policy: str) -> str:
    """SFT is sampled at two temperatures, so a judge's name of it needs one."""
    return f"{policy}-t0" if policy.startswith("sft") else policy


def made_study(folder: Path, data_seed: int | None = None) -> list[dict[str, Any]]:
    """Policies of two sizes, SFT also at T = 1; returns people's comparisons with the reference."""
    made = Made(folder, POSTS, data_seed=data_seed)
    people = []
    for policy, won in WON.items():
        method, size = policy.split("-")
        where, rows = made.run("score", size, method=method), []
        for number, post in enumerate(made.posts):
            rows.append(sample(policy, post, where.name))
            if method == "sft":
                rows.append(sample(policy, post, where.name, temperature=1.0, text=" warm"))
            if number < JUDGED:
                people.append(comparison(named(policy), post, number < won, number % 2 == 0))
        write_lines(where / "samples.jsonl", rows)
    made.close()
    return people


def judged_study(folder: Path) -> Path:
    """A study that people judged, and a judge who always says the opposite."""
    write_lines(folder / "comparisons.jsonl", made_study(folder))
    write_lines(
        folder / "judgements.jsonl",
        [
            verdict(named(policy), f"p{number}", number >= won, f"score-{size}-{method}-0", order)
            for policy, won in WON.items()
            for method, size in [policy.split("-")]
            for number in range(JUDGED)
            for order in ([0, 1], [1, 0])
        ],
    )
    return folder


def opened(folder: Path) -> StudyResults:
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=50)
