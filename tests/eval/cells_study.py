"""A made-up study of several cells: two data seeds with equal post ids and different posts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eval.claims.schema import CLAIMS_FILE
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from tests.eval.section_study import (
    SIZES,
    Made,
    add_pairs,
    add_pool,
    add_rewards,
    add_sweep,
    expit,
    write_lines,
)
from tldr.records import write_json

Cell = tuple[int, int]
"""Data seed and training seed."""
CELLS: tuple[Cell, ...] = ((3, 0), (3, 1), (4, 0), (4, 1))
SKILL = {"pretrained": -1.2, "sft": -0.4, "ppo": 0.5}
METHODS = tuple(SKILL)


def post_text(data_seed: int, number: int) -> str:
    """The post p<number> of a data seed; no two data seeds share a word of it."""
    return f"d{data_seed}word{number} d{data_seed}more{number} d{data_seed}end{number}."


def add_data(folder: Path, data_seed: int, posts: int) -> dict[str, Any]:
    name = f"data-{data_seed}"
    (folder / name).mkdir(parents=True)
    rows = [
        {
            "id": f"p{number}",
            "subreddit": "r",
            "title": f"title {number}",
            "post": post_text(data_seed, number),
            "summary": f"d{data_seed}word{number} d{data_seed}more{number}",
        }
        for number in range(posts)
    ]
    write_lines(folder / name / "valid2.jsonl", rows)
    write_json(folder / name / "DONE", {})
    return {"run": name, "stage": "data", "folder": name, "seed": None, "data_seed": data_seed}


def add_policies(made: Made, methods: Sequence[str] = METHODS, sizes: Sequence[str] = tuple(SIZES)) -> None:
    """Samples at T = 0 that repeat their post's first word; each cell has a luck of its own."""
    for size in sizes:
        for method in methods:
            trained = made.run(method, size)
            luck = 0.3 * float(made.rng.normal())
            where = made.run(
                "score", size, method=method, parents={"policy": f"{trained.name[: -len(made.end) - 1]}"}
            )
            rows = []
            for number, post in enumerate(made.posts):
                reference = np.random.default_rng([made.data_seed or 0, number]).normal()
                gold = SKILL[method] + 0.3 * (size == "m") + luck + float(made.rng.normal())
                scores = {"gold_reference": reference, "gold_preference": expit(gold - reference)}
                scores |= {"rm": gold + 0.3 * float(made.rng.normal()), "rm_reference": reference}
                text = f"d{made.data_seed}word{number}" + " and so on" * int(made.rng.integers(1, 4))
                tags = {"method": method, "size": size, "params": SIZES[size]}
                more = {"temperature": 0.0, "text": text, "stopped": True, "scores": scores, "tags": tags}
                rows.append(made.sample(post, gold, **more) | {"policy": f"{method}-{size}"})
            write_lines(where / "samples.jsonl", rows)


def one_claim(folder: Path) -> Path:
    """A folder of published numbers whose only claim is that PPO is preferred to supervised learning."""
    shutil.copytree(PAPER_FOLDER, folder)
    claims = yaml.safe_load((folder / CLAIMS_FILE).read_text(encoding="utf-8"))
    shapes = [claim for claim in claims["shapes"] if claim["id"] == "rl-over-supervised"]
    text = yaml.safe_dump({"numbers": [], "shapes": shapes})
    (folder / CLAIMS_FILE).write_text(text, encoding="utf-8")
    return folder


def cells_study(
    folder: Path, cells: Sequence[Cell] = CELLS, *, posts: int = 30, whole: bool = False, draws: int = 100
) -> StudyResults:
    """Policies of every cell; with `whole` also reward models, pairs, a sweep and pools."""
    rows = [add_data(folder, data_seed, posts) for data_seed in dict.fromkeys(data for data, _ in cells)]
    for data_seed, seed in cells:
        made = Made(folder, posts, seed, data_seed)
        add_policies(made, METHODS if not whole else ("pretrained", "ppo"))
        if whole:
            add_rewards(made)
            add_pairs(made)
            add_sweep(made)
            for size in SIZES:
                add_pool(made, size, 8)
        rows += made.runs
    write_json(folder / "study.json", {"study": "cells", "runs": rows})
    return StudyResults(load_runs(folder), one_claim(folder / "paper"), draws=draws)


def unfinished(study: StudyResults, run: str) -> StudyResults:
    """The same study with one run not finished."""
    next(one for one in study.runs.runs if one.run == run).folder.joinpath("DONE").unlink()
    return StudyResults(load_runs(study.runs.folder), study.paper, study.draws)
