"""Damaged studies: refused with file and line, or read as a second reader of the same schema reads them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fuzz.mutate import COUNTS, mutated
from tldr.errors import UsageError
from tldr.strict_yaml import read_yaml
from tldr.study.load import load_study

STUDY = b"""\
# A study
name: tiny
base: null
data: {kind: toy, sft_posts: 20, valid1_posts: 8}
ladder:
  s: {d_model: 16, layers: 1, heads: 2, context: 128}
  m: {d_model: 32, layers: 2, heads: 2, context: 128}
seeds: [0, 1]
ppo:
  beta: 0.05
  optimizer: {lr: 5e-3, warmup: 0.1}
  whiten_rewards: true
labels: {k: [2, 2]}
pretrain: {steps: 9}
lengths: {query: 80, response: 16, rm_response: 24}
variants:
  "kl-free":
    kind: ppo
    set: {beta: 0.0}
"""
REFUSED = object()
UNSURE = object()
"""What the oracle leaves to the reader: explicit tags."""
STRING = "tag:yaml.org,2002:str"


def oracle(data: bytes) -> Any:
    """The value, or `REFUSED`; plain scalars by the core schema of YAML 1.2, keys unique and text."""
    try:
        node = yaml.compose(data.decode("utf-8-sig"), Loader=yaml.BaseLoader)
        value = _value(node, ()) if node is not None else None
    except (yaml.YAMLError, ValueError, OverflowError):
        return REFUSED
    return value if isinstance(value, dict) or value is UNSURE else REFUSED


def _value(node: yaml.Node, above: tuple[yaml.Node, ...]) -> Any:
    if any(node is one for one in above):
        raise ValueError("holds itself")
    if isinstance(node, yaml.ScalarNode):
        return UNSURE if node.tag != STRING else _plain(node.value) if node.style is None else node.value
    below = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        items = [_value(item, below) for item in node.value]
        return UNSURE if node.tag != "tag:yaml.org,2002:seq" or UNSURE in items else items
    assert isinstance(node, yaml.MappingNode)
    pairs = [(_value(key, below), _value(value, below)) for key, value in node.value]
    if node.tag != "tag:yaml.org,2002:map" or any(UNSURE in pair for pair in pairs):
        return UNSURE
    keys = [key for key, _ in pairs]
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise ValueError("keys")
    return dict(pairs)


def _plain(text: str) -> Any:
    known = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
    known |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
    if text in known:
        return known[text]
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        number = float(text)
        return int(number) if re.search("[eE]", text) and number == number // 1 else number
    return text


def same(one: Any, two: Any) -> bool:
    """Equal, and of equal types: 1, 1.0 and true differ."""
    return repr(one) == repr(two)


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_study_is_refused_or_says_what_it_says(count: int, tmp_path: Path) -> None:
    rng, path = random.Random(count), tmp_path / "study.yaml"
    path.write_bytes(STUDY)
    assert load_study(path).seeds == [0, 1] and same(read_yaml(path), oracle(STUDY))
    read = loaded = 0
    for _ in range(count):
        damaged = mutated(STUDY, rng)
        path.write_bytes(damaged)
        expected = oracle(damaged)
        try:
            found: Any = read_yaml(path)
        except UsageError as error:
            assert str(path) in str(error.where) and error.what
            found = REFUSED
        assert expected is UNSURE or same(found, expected), damaged
        read += found is not REFUSED
        try:
            load_study(path)
        except UsageError as error:
            assert error.what
            continue
        loaded += 1
    assert count / 100 < loaded < read < count
    print("yaml", {"read": read, "loaded": loaded, "of": count})
