"""What mkdocs asks while it builds: generated pages, figures of the committed results, links into the code.

A page links to a file of the repository by its path, with a name in the file where there is one:
``[text](../tldr/mathematics/kl.py#token_kl)``. The file becomes a page of the site (a figure is copied), so
the strict build fails where the file or the name is gone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import reference  # noqa: E402

OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+)(#[\w.]+)?\)")
"""A link out of ``docs/``: the file's path in the repository, and a name in it."""
GENERATED = {"settings.md": reference.settings_page, "commands.md": reference.commands_page}
INSERTED = {
    "<!-- the checks of the doctor -->": reference.checks_text,
    "<!-- the stages -->": reference.stages_table,
}
"""Comment in a page -> what stands there in the built page."""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the files that pages link to."""
    texts = [file.content_string for file in files.documentation_pages()]
    for name, page in GENERATED.items():
        files.append(File.generated(config, name, content=page()))
    for name in sorted({match[1] for text in texts for match in OUTSIDE.finditer(text)}):
        path = ROOT / name
        if not path.is_file():
            raise PluginError(f"a page links to {name}, which is no file")
        if path.suffix == ".png":
            files.append(File.generated(config, place_in_site(name), abs_src_path=str(path)))
        else:
            files.append(File.generated(config, place_in_site(name), content=reference.source_page(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links out of ``docs/`` at the files' places in the site, and fill in what the code says."""
    for comment, text in INSERTED.items():
        if comment in markdown:
            markdown = markdown.replace(comment, text())
    return OUTSIDE.sub(lambda match: f"]({place_in_site(match[1])}{match[2] or ''})", markdown)


def place_in_site(name: str) -> str:
    """Where a file of the repository lies in the site."""
    return name if name.endswith(".png") else f"source/{name}.md"
