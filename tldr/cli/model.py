"""``import-gguf``: a checkpoint from a package or file, for machines without access to a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_gguf(
    source: Annotated[str, typer.Argument(help="A .gguf file, or an installed package that holds one.")],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint's folder.", show_default=False)],
) -> None:
    """Convert a GGUF model into a transformers checkpoint (fp32, with a pad token that is not EOS)."""
    from tldr.models.gguf import convert_gguf

    typer.echo(convert_gguf(source, out))
