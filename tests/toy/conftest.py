"""A small toy world, generated once."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tldr.records import Post
from tldr.toy import phrases, world
from tldr.toy.generate import generate_toy
from tldr.toy.settings import ToyData

SMALL = ToyData(seeds=[3], corpus=1500, sft_posts=400, ppo_posts=500, valid1_posts=60, valid2_posts=80)

FACTS = {
    "rel": "boyfriend",
    "verb": "sold",
    "obj": "guitar",
    "con": "rent",
    "act": "sue",
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy")
    generate_toy(SMALL, out)
    return out


@pytest.fixture
def post() -> Post:
    return Post.model_validate(
        {
            "id": "p",
            "subreddit": "self",
            "title": "need advice",
            "post": "my boyfriend sold my guitar. should i sue?"
            " years ago my boss lost my ring. i am stuck because of the rent.",
            "facts": FACTS,
        }
    )


@pytest.fixture(scope="session")
def posts() -> list[Post]:
    rng = random.Random(11)
    return [world.draw_post(rng, f"p{i}") for i in range(400)]


def in_another_process(module: str, name: str, hash_seed: str) -> Any:
    """What a mapping of a module holds in a process whose sets and hashes have another order."""
    show = f"import json; from {module} import {name}; print(json.dumps(dict({name})))"
    run = [sys.executable, "-c", show]
    env = os.environ | {"PYTHONHASHSEED": hash_seed}
    return json.loads(subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout)


def templates() -> list[str]:
    """Every sentence and title of the world, with its slots in braces."""
    groups = [group for group in vars(phrases).values() if isinstance(group, tuple)]
    return [text for group in groups for text in group if isinstance(text, str)]


def template_words() -> set[str]:
    """Every word that a template says of its own, whatever the facts."""
    return {piece for text in templates() for piece in world.pieces(re.sub(r"\{\w+\}", " ", text))}
