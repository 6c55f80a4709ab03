"""Stages that take no time, and the process that runs one: ``python fake_stages.py FOLDER``.

What a run does is told by ``behaviour.json`` in the study's folder: title -> fail | crash | die
(killed at step 2, once) | hold (until a file ``go`` appears) | wait (at step 2 until it is ended,
once) | empty | other (items of another draw). Every start and end is a line of ``events.txt``. Labels by
people are the real ones, of items that no network has written.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

from tldr.errors import LabError
from tldr.label.items import LabelItem
from tldr.label.make import info_for
from tldr.records import CandidateSummary, write_json
from tldr.settings.base import Settings
from tldr.stages.labels import LabelsInputs, people
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import named
from tldr.study import folder as folders
from tldr.study.registry import STAGES
from tldr.toy import world, writers

STEPS = 4


def event(root: Path, text: str) -> None:
    with (root / "events.txt").open("a") as out:
        out.write(f"{text}\n")


def run(ctx: RunContext[Settings, Any]) -> None:
    """Count to STEPS, keeping the count in ``state/``; write what was made and from what."""
    root, title = ctx.folder.parent, folders.RunFile.read(ctx.folder).title
    behaviour = json.loads((root / "behaviour.json").read_text()).get(title, "")
    state = ctx.folder / "state" / "step"
    first = int(state.read_text()) if state.exists() else 0
    event(root, f"start {title} {first}")
    if behaviour == "fail":
        raise LabError("no luck", where="here", remedy="try again")
    if behaviour == "crash":
        raise ZeroDivisionError("a fault")
    for step in range(first, STEPS):
        if behaviour == "die" and step == 2 and first == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        while behaviour == "hold" and not (root / "go").exists():
            time.sleep(0.02)
        while behaviour == "wait" and step == 2 and first == 0:
            time.sleep(0.02)
        state.parent.mkdir(exist_ok=True)
        state.write_text(str(step + 1))
        write_json(
            ctx.folder / "progress.json", {"done": step + 1, "total": STEPS, "seconds": 0.1, "eta": 1.0}
        )
    if getattr(ctx.settings, "kind", "") == "people":
        sys.modules["tldr.stages.labels.asking"] = asking(behaviour)
        people.run(ctx)
    if behaviour != "empty":
        made_from = {name: (path / "out.txt").read_text() for name, path in sorted(named(ctx.inputs).items())}
        (ctx.folder / "out.txt").write_text(f"{title} seed {ctx.seed} {json.dumps(made_from)}")
    event(root, f"end {title}")


def asking(behaviour: str) -> Any:
    """`tldr.stages.labels.asking` with scripted writers in place of policies."""

    def make_batch(ctx: RunContext[LabelsSettings, LabelsInputs[Path]]) -> list[LabelItem]:
        settings, writer = ctx.settings, random.Random(f"{ctx.seed}/{behaviour}")
        names = list(ctx.inputs.policies)
        made = {split: [an_item(writer, split, n, settings, names) for n in range(count)]
                for split, count in settings.items_made().items()}  # fmt: skip
        wanted = settings.items_wanted()
        first = [item for split, items in made.items() for item in items[: wanted[split]]]
        return first + [item for split, items in made.items() for item in items[wanted[split] :]]

    module: Any = types.ModuleType("tldr.stages.labels.asking")
    module.make_batch = make_batch
    return module


def an_item(
    rng: random.Random, split: str, number: int, settings: LabelsSettings, names: list[str]
) -> LabelItem:
    """A question about a post of the toy world; its summaries have the names of policies in turn."""
    post = world.draw_post(rng, f"{split}-post-{number}")
    texts: dict[str, str] = {}
    while len(texts) < settings.k[0]:
        texts.setdefault(writers.write(rng, post)[1], names[len(texts) % len(names)])
    fields = {
        "id": f"{split}-{number}",
        "kind": "comparison" if settings.k[0] == 2 else "ranking",
        "info": info_for(post),
        "summaries": [CandidateSummary(text=f" {text}", policy=name) for text, name in texts.items()],
        "batch": f"{len(names)} policies",
        "split": split,
    }
    return LabelItem.model_validate(fields)


def write_done(folder: Path, outputs: list[str]) -> None:
    """`tldr.train.checkpoint.write_done` for plain files, without waiting for torch."""
    files = {name: folder / name for name in outputs if (folder / name).is_file()}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    write_json(folder / "DONE", {"outputs": hashes})


def fake_all() -> None:
    """Put the fakes in the stages' place, in this process."""
    for name, stage in STAGES.items():
        STAGES[name] = replace(stage, module="fake_stages", modules={})
    module: Any = types.ModuleType("fake_stages")
    module.run = run
    checkpoint: Any = types.ModuleType("tldr.train.checkpoint")
    checkpoint.write_done = write_done
    sys.modules |= {"fake_stages": module, "tldr.train.checkpoint": checkpoint}


if __name__ == "__main__":
    fake_all()
    try:
        folders.execute(Path(sys.argv[1]))
    except LabError as error:
        print(error)
        sys.exit(error.exit_code)
