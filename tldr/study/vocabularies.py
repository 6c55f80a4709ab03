"""Whether the sizes of a ladder write the same tokens, as far as the files at hand say so, without torch.

A reward model of another size than the policy reads the ids that the policy drew. Models that are neither in
a folder nor in the hub's cache are not compared here; the stages compare the tokenizers that they load
(`tldr.stages.shared.tokenizers.check_reads_tokens_of`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tldr.stages.reward.settings import RewardSettings
from tldr.study.folder import read_note
from tldr.study.model_size import cached_file
from tldr.study.settings import Study


def unlike(study: Study) -> Iterator[tuple[tuple[str, ...], str]]:
    """For every `reward.size` whose tokens are known to differ from a policy's: its key, and what differs."""
    places: list[tuple[tuple[str, ...], RewardSettings, list[str]]]
    places = [(("reward",), study.reward, study.policy_sizes)]
    places += [
        (("rounds", str(number), "reward"), each.reward, each.sizes or study.policy_sizes)
        for number, each in enumerate(study.rounds)
    ]
    for key, reward, sizes in places:
        if reward.size is None:
            continue
        own = _source(study, reward.size)
        for size in sizes:
            other = _source(study, size)
            if own != other and _differ(vocabulary(own), vocabulary(other)):
                yield (*key, "size"), f"size {reward.size} ({own}) and size {size} ({other})"


def _source(study: Study, size: str) -> str:
    """Where a size's tokenizer comes from; "": the study trains it."""
    return study.ladder[size].path or study.tokenizer.path or ""


def _differ(one: dict[str, int] | None, two: dict[str, int] | None) -> bool:
    return one is not None and two is not None and one != two


def vocabulary(source: str) -> dict[str, int] | None:
    """The tokens of a folder or of a model in the hub's cache, without those added later; None: not known."""
    if not source:
        return None
    for name in ("tokenizer.json", "vocab.json"):
        folder = Path(source)
        file = folder / name if folder.is_dir() else cached_file(source, name)
        found = read_note(file) if file is not None else {}
        tokens = found.get("model", {}).get("vocab") if name == "tokenizer.json" else found
        if isinstance(tokens, dict) and tokens:
            return tokens
    return None
