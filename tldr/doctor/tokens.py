"""Checks of tokenizers, special tokens and windows, which must agree between stages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldr.doctor.findings import Observation, check
from tldr.doctor.folders import Examined

TRAINED = ("pretrain", "sft", "reward", "ppo")
READ_BY = (*TRAINED, "labels", "epoch", "best_of_n", "sample", "score", "pairs")


@dataclass(frozen=True)
class SpecialTokens:
    """EOS and pad ids of a saved model and of its tokenizer; None if a file does not state one."""

    tokenizer_eos: int | None
    tokenizer_pad: int | None
    model_eos: tuple[int, ...]
    model_pad: int | None


def special_tokens(folder: Path) -> SpecialTokens:
    """Read a checkpoint's files directly: loading the tokenizer would repair the errors to be found."""
    names, model = _json(folder / "tokenizer_config.json"), _json(folder / "config.json")
    tokenizer = _json(folder / "tokenizer.json")
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}

    def id_of(role: str) -> int | None:
        token = names.get(role)
        return ids.get(token.get("content") if isinstance(token, dict) else token)

    eos = model.get("eos_token_id")
    several = () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)
    return SpecialTokens(id_of("eos_token"), id_of("pad_token"), several, model.get("pad_token_id"))


def _json(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return data


@check(
    *TRAINED,
    why="If pad is EOS, the EOS is masked with the padding: policies never learn to stop, "
    "and a reward model reads its score at the wrong token.",
    remedy="Give the tokenizer its own pad token (as `tldr.queries.tokenizer` does) and train again.",
)
def pad_eos(run: Examined) -> Iterator[Observation]:
    """Pad is not EOS, and model and tokenizer agree on both tokens."""
    for name in ("checkpoint", "value"):
        found = special_tokens(run.folder / name)
        if found.tokenizer_eos is not None and found.tokenizer_pad == found.tokenizer_eos:
            yield Observation(
                run, "fault", f"{name}/: the tokenizer's pad is its EOS", "two different tokens"
            )
        if found.model_eos and found.tokenizer_eos not in (None, *found.model_eos):
            seen = f"{name}/: EOS is {found.tokenizer_eos} in the tokenizer, {found.model_eos} in the model"
            yield Observation(run, "fault", seen, "one id")
        scores = run.stage == "reward" or name == "value"
        if scores and found.tokenizer_pad is not None and found.model_pad != found.tokenizer_pad:
            seen = f"{name}/: pad is {found.tokenizer_pad} in the tokenizer, {found.model_pad} in the model"
            yield Observation(run, "fault", seen, "one id, not the EOS")


@check(
    *READ_BY,
    why="The two models read different tokens for the same post.",
    remedy="Train both with one tokenizer: start the run again from parents of one study.",
)
def tokenizer(run: Examined) -> Iterator[Observation]:
    """A run has the tokenizer of every run that it reads; the first run with another one is at fault."""
    if (seen := _other_tokenizer(run)) and not any(map(_other_tokenizer, run.parents.values())):
        yield Observation(run, "fault", seen, "the same tokenizer in every stage")


def _other_tokenizer(run: Examined) -> str:
    mine = _content(run)
    theirs = {name: found for name, parent in run.parents.items() if (found := _content(parent)) is not None}
    if mine is None:
        return f"{', '.join(theirs)} have different tokenizers" if len(set(theirs.values())) > 1 else ""
    return ", ".join(
        f"the tokenizer differs from its {name}" for name, found in theirs.items() if found != mine
    )


def _content(run: Examined) -> str | None:
    """What determines a tokenizer's output; its last padding and truncation settings do not count."""
    for place in ("checkpoint", "tokenizer"):
        if (path := run.folder / place / "tokenizer.json").is_file():
            data, names = _json(path), _json(path.with_name("tokenizer_config.json"))
            does = {key: data[key] for key in data if key not in ("truncation", "padding")}
            roles = {role: names.get(role) for role in ("bos_token", "eos_token")}
            return json.dumps([does, roles, bool(names.get("add_bos_token"))])
    return None


@check(
    *READ_BY,
    why="The two stages cut a post at different places, or a window cuts summaries that the other stage was "
    "trained to write.",
    remedy="Set `lengths` once, in the study file, and run the stages that differ again.",
)
def windows(run: Examined) -> Iterator[Observation]:
    """A run has the windows of the runs that it reads; the first run with others is at fault."""
    if (seen := _other_windows(run)) and not any(map(_other_windows, run.parents.values())):
        yield Observation(run, "fault", seen, "the same windows in every stage")


def _other_windows(run: Examined) -> str:
    mine = run.file.lengths.model_dump()
    found = {
        name: {key: value for key, value in parent.file.lengths.model_dump().items() if mine[key] != value}
        for name, parent in run.parents.items()
        if parent.stage != "data"  # its texts are not cut
    }
    return ", ".join(
        f"{key} {mine[key]}, but {value} in its {name}"
        for name, other in found.items()
        for key, value in other.items()
    )
