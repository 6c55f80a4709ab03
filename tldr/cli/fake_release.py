"""``data fake-release``: OpenAI's release in miniature, to try presets and clusters without any data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tldr.sources.fake_release import FakeRelease


def fake_release_command(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.", show_default=False)],
    divide: Annotated[int, typer.Option("--divide", min=1, help="Divide the numbers of rows by this.")] = 50,
    words: Annotated[int, typer.Option("--words", min=30, help="Mean words of a post.")] = 270,
    study: Annotated[
        list[Path] | None,
        typer.Option(help="Also write this study with its amounts divided; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
) -> None:
    """Write a miniature of OpenAI's release from generated text, and tiny random models by known names.

    DIR/plain has the files as on OpenAI's server, DIR/hub the hub's copies, and DIR/home is an HF_HOME in
    which the data and the models are found offline under their names. --study adds DIR/NAME.yaml, which runs
    a preset on them to its end.
    """
    import yaml

    from tldr.bench.divided import Divisors, divided
    from tldr.locks import lock_beside, locked
    from tldr.sources.fake_hub import write_fake_hub
    from tldr.sources.fake_release import ReleaseSize, fake_release

    out.mkdir(parents=True, exist_ok=True)
    with locked(lock_beside(out), "writing this miniature", where=out):
        release = fake_release(ReleaseSize(divide, words), seed)
        for name, place in write_fake_hub(release, out).items():
            typer.echo(f"{name}: {place}")
        typer.echo(f"{_write_models(release, out, seed)} models: {out / 'home' / 'hub'}")
        by = Divisors(rows=divide)
        for preset in study or ():
            made = divided(preset, by)
            head = f"# {preset.name} with its amounts divided: {by.told()}.\n"
            place = out / preset.name
            place.write_text(head + yaml.safe_dump(made, sort_keys=False), encoding="utf-8")
            typer.echo(f"HF_HOME={(out / 'home').resolve()} HF_HUB_OFFLINE=1 tldr-lab study run {place}")


def _write_models(release: FakeRelease, out: Path, seed: int) -> int:
    """Write the models into the cache and return their number."""
    from transformers.utils import logging

    from tldr.bench.fake_models import fake_models
    from tldr.queries.formats import format_query
    from tldr.records import Post
    from tldr.sources.fake_hub import keep_model

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    posts = [Post.model_validate(row) for row in release.posts["train"][:500]]
    texts = [f"{format_query(post)} {post.summary}" for post in posts]
    staging, made = out / "models", 0
    shutil.rmtree(staging, ignore_errors=True)
    for name, folder in fake_models(texts, staging, seed):
        keep_model(folder, name, out / "home" / "hub")
        made += 1
    shutil.rmtree(staging)
    return made
