"""Tokenizers, special tokens and windows: what one stage writes, the next must read alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldr.doctor.findings import Sight, check
from tldr.doctor.folders import Examined

TRAINED = ("pretrain", "sft", "reward", "ppo")
READ_BY = (*TRAINED, "labels", "best_of_n", "sample", "score", "pairs")


@dataclass(frozen=True)
class Special:
    """EOS and pad ids of a saved model and of the tokenizer beside it; None where a file is silent."""

    tokenizer_eos: int | None
    tokenizer_pad: int | None
    model_eos: tuple[int, ...]
    model_pad: int | None


def special(folder: Path) -> Special:
    """Read a checkpoint's files as they are: loading a tokenizer would mend what is looked for."""
    names, model = _json(folder / "tokenizer_config.json"), _json(folder / "config.json")
    tokenizer = _json(folder / "tokenizer.json")
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}

    def id_of(role: str) -> int | None:
        token = names.get(role)
        return ids.get(token.get("content") if isinstance(token, dict) else token)

    eos = model.get("eos_token_id")
    several = () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)
    return Special(id_of("eos_token"), id_of("pad_token"), several, model.get("pad_token_id"))


def _json(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return data


@check(
    *TRAINED,
    why="With a pad that is EOS the end is masked away with the padding: policies never learn to stop, "
    "and a reward model reads its score at the wrong token.",
    remedy="Give the tokenizer a pad of its own (as `tldr.queries.tokenizer` does) and train again.",
)
def pad_eos(run: Examined) -> Iterator[Sight]:
    """Pad is not EOS, and model and tokenizer mean the same tokens by both."""
    for name in ("checkpoint", "value"):
        found = special(run.folder / name)
        if found.tokenizer_eos is not None and found.tokenizer_pad == found.tokenizer_eos:
            yield Sight(run, "fault", f"{name}/: the tokenizer's pad is its EOS", "two tokens")
        if found.model_eos and found.tokenizer_eos not in (None, *found.model_eos):
            seen = f"{name}/: EOS is {found.tokenizer_eos} to the tokenizer, {found.model_eos} to the model"
            yield Sight(run, "fault", seen, "one id")
        scores = run.stage == "reward" or name == "value"
        if scores and found.tokenizer_pad is not None and found.model_pad != found.tokenizer_pad:
            seen = f"{name}/: pad is {found.tokenizer_pad} to the tokenizer, {found.model_pad} to the model"
            yield Sight(run, "fault", seen, "one id, not the EOS")


@check(
    *READ_BY,
    why="The same post is other tokens to the one model than to the other.",
    remedy="Train both from one tokenizer: start the run again from parents of one study.",
)
def tokenizer(run: Examined) -> Iterator[Sight]:
    """A run's tokenizer is that of every run that it reads; the first run that has another is to blame."""
    if (seen := _other_tokenizer(run)) and not any(map(_other_tokenizer, run.parents.values())):
        yield Sight(run, "fault", seen, "the same tokenizer in every stage")


def _other_tokenizer(run: Examined) -> str:
    mine = _content(run)
    theirs = {name: found for name, one in run.parents.items() if (found := _content(one)) is not None}
    if mine is None:
        return f"{', '.join(theirs)} have different ones" if len(set(theirs.values())) > 1 else ""
    return ", ".join(f"another one than its {name}" for name, found in theirs.items() if found != mine)


def _content(run: Examined) -> str | None:
    """What a tokenizer makes of a text; how it last padded or cut, and with what, is no part of it."""
    for place in ("checkpoint", "tokenizer"):
        if (path := run.folder / place / "tokenizer.json").is_file():
            data, names = _json(path), _json(path.with_name("tokenizer_config.json"))
            does = {key: data[key] for key in data if key not in ("truncation", "padding")}
            roles = {role: names.get(role) for role in ("bos_token", "eos_token")}
            return json.dumps([does, roles, bool(names.get("add_bos_token"))])
    return None


@check(
    *READ_BY,
    why="A post is cut at another place in the one stage than in the other, or a window cuts what the "
    "other stage was trained to write.",
    remedy="Set `lengths` once, in the study file, and run the stages that differ again.",
)
def windows(run: Examined) -> Iterator[Sight]:
    """Windows are those of the runs that it reads; the first run that has others is to blame."""
    if (seen := _other_windows(run)) and not any(map(_other_windows, run.parents.values())):
        yield Sight(run, "fault", seen, "the same windows in every stage")


def _other_windows(run: Examined) -> str:
    mine = run.file.lengths.model_dump()
    found = {
        name: {key: value for key, value in one.file.lengths.model_dump().items() if mine[key] != value}
        for name, one in run.parents.items()
        if one.stage != "data"  # its texts are whole
    }
    return ", ".join(
        f"{key} {mine[key]}, but {value} in its {name}"
        for name, other in found.items()
        for key, value in other.items()
    )
