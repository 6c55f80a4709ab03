"""Names of policies in OpenAI's released comparisons and ratings, read as far as the paper explains them.

A name joins what the policy is with ``_``: ``sup4_6b_t0.7`` is the fourth supervised model, of 6.7B
parameters, sampled at temperature 0.7; ``sup4_ppo_rm3_kl10`` was trained from ``sup4`` on the reward model
``rm3`` to a KL of 10 nats. Sources: the release's README and files, and Tables 9 and 10 of the paper.
Whatever does not fit exactly is not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from eval.common.pairs import REFERENCE
from eval.common.tables import human_count

PARAMS = {"6b": 6.7e9, "12b": 12.9e9}
"""Sizes in names, as Fig. 1 plots them."""
_UNNAMED = 1.3e9
"""``sup4`` without a size. Those of older generations are not known for certain."""
_NEWEST = 4

FIG1 = ("pretrained", "sft", "ppo")
"""The methods of Fig. 1."""

OTHERS = {
    "ref": REFERENCE,
    "reference": REFERENCE,
    "title": "title",
    "lead2": "lead-2",
    "lead3": "lead-3",
    "t5": "t5",
    "humaneditor": "human_editor",
}
"""Summaries that no model of the paper wrote -> their method; names are compared without separators."""

_FINAL = {(1.3e9, "rm4"): 18.0, (6.7e9, "rm4_6b"): 14.0}
"""The two PPO policies that the paper reports, by parameters and reward model, with their KL (Table 9)."""

_SUP, _RM = r"sup(?P<generation>[1-4])(?:_(?P<size>6b|12b))?", r"(?P<reward_model>rm[1-4](?:_6b)?)"
_KL, _T = r"(?:_kl(?P<kl>[0-9]+(?:\.[0-9]+)?))?", r"(?:_t(?P<temperature>[0-9]+(?:\.[0-9]+)?|\.[0-9]+))?"
_FORMS = [
    ("pretrained", re.compile(rf"pretrain(?:_(?P<size>6b|12b))?{_T}")),
    ("sft", re.compile(rf"{_SUP}{_T}")),
    ("ppo", re.compile(rf"{_SUP}_ppo_{_RM}{_KL}{_T}")),
    ("ppo", re.compile(rf"(?P<size>6b)_ppo_{_RM}{_KL}{_T}")),
    ("best_of_n", re.compile(rf"{_SUP}_bo(?P<best_of>[1-9][0-9]*)_{_RM}{_T}")),
]


@dataclass(frozen=True)
class ReleasedPolicy:
    """What a released name says of a policy.

    Attributes:
        name: as in the file. method: the project's name of the method, or one of `OTHERS`.
        params: parameters; None where neither the name nor the paper states them.
        temperature: None where the name states none, which does not mean 0.
        best_of: N of best-of-N. kl: KL from the supervised policy, nats.
        reward_model: the one it was trained on or chosen by. generation: n of ``supn``.
    """

    name: str
    method: str
    params: float | None = None
    temperature: float | None = None
    best_of: int = 1
    kl: float | None = None
    reward_model: str = ""
    generation: int | None = None

    @property
    def size(self) -> str:
        """Parameters as a word, "6.7B"; "" where they are not known."""
        return human_count(self.params)

    @property
    def variant(self) -> str:
        """What sets it apart from the policies of Fig. 1: an older start, another reward model or KL."""
        old = self.generation is not None and self.generation < _NEWEST
        parts = [_model(self.name)] if old else []
        if self.method == "ppo":
            key = (self.params or 0.0, self.reward_model)
            if old or key not in _FINAL or self.kl not in (None, _FINAL[key]):
                parts += [self.reward_model] + ([] if self.kl is None else [f"kl{self.kl:g}"])
        return " ".join(parts)


def read_policy(name: str) -> ReleasedPolicy | None:
    """A released policy's name, read; None where it is not understood.

    Upper case and ``-`` are read as lower case and ``_``, as in ``6B-ppo_rm4_6B-kl14``.
    """
    plain = re.sub(r"[-_ ]+", "_", name.strip().lower())
    if (other := OTHERS.get(plain.replace("_", ""))) is not None:
        return ReleasedPolicy(name, other)
    for method, form in _FORMS:
        if found := form.fullmatch(plain):
            return _policy(name, method, found.groupdict())
    return None


def _policy(name: str, method: str, parts: dict[str, str | None]) -> ReleasedPolicy:
    generation, size = parts.get("generation"), parts.get("size")
    params = PARAMS[size] if size else _UNNAMED if generation == str(_NEWEST) else None
    return ReleasedPolicy(
        name,
        method,
        # Only the sizes of the newest generation are stated.
        params=params if generation in (None, str(_NEWEST)) else None,
        temperature=_number(parts.get("temperature")),
        best_of=int(parts.get("best_of") or 1),
        kl=_number(parts.get("kl")),
        reward_model=parts.get("reward_model") or "",
        generation=int(generation) if generation else None,
    )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _model(name: str) -> str:
    """The supervised model at the beginning of a name: "sup3_6b"."""
    found = re.match(_SUP, re.sub(r"[-_ ]+", "_", name.strip().lower()))
    return found.group() if found else ""


def policy_columns(names: pd.Series[str]) -> pd.DataFrame:
    """What the names say, as `eval.common.tables.group_columns` and `eval.common.tables.summarise` take it.

    Returns:
        On the names' index: ``tag.method`` ("" where the name is not understood), ``tag.size``,
        ``tag.params``, ``tag.variant``, ``tag.scorer`` (the reward model that chose a best-of-N), ``n``,
        ``temperature`` and ``top_p``.
    """
    rows = {}
    for name in names.unique():
        read = read_policy(name) or ReleasedPolicy(name, "")
        rows[name] = {
            "tag.method": read.method,
            "tag.size": read.size,
            "tag.params": read.params,
            "tag.variant": read.variant,
            "tag.scorer": read.reward_model if read.method == "best_of_n" else "",
            "n": read.best_of,
            "temperature": read.temperature,
            "top_p": 1.0,
        }
    numbers = {"tag.params": float, "temperature": float, "n": int}
    table = pd.DataFrame.from_dict(rows, orient="index").astype(numbers)
    return table.loc[names.tolist()].set_index(names.index)


def drawn_by_size(names: Iterable[str]) -> list[ReleasedPolicy]:
    """The policies of Fig. 1 among the names: of each of its methods and sizes one, without variants.

    It is the one at the lowest temperature that a name states; where none does, the one without. Names that
    spell the same policy differently are all given.
    """
    known = [read for name in sorted(set(names)) if (read := read_policy(name)) is not None]
    plain = [one for one in known if one.method in FIG1 and one.params and not one.variant]
    lowest: dict[tuple[str, float | None], float] = {}
    for one in plain:
        key = (one.method, one.params)
        lowest[key] = min(lowest.get(key, float("inf")), _heat(one))
    return [one for one in plain if _heat(one) == lowest[one.method, one.params]]


def _heat(one: ReleasedPolicy) -> float:
    return float("inf") if one.temperature is None else one.temperature
