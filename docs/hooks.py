"""What mkdocs asks while it builds: generated pages, figures of the committed results, links into the code.

A page links to a source file with ``[text](src:tldr/mathematics/kl.py#token_kl)``. The file becomes a page of
the site, so the strict build fails where the file or the name is gone.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import reference  # noqa: E402

SOURCE = re.compile(r"\]\(src:([^)#]+)(#[^)]+)?\)")
FIGURE = re.compile(r"\]\((figures/[\w.]+\.png)\)")
FIGURES = ROOT / "results" / "toy"
CHECKS = "<!-- the checks of the doctor -->"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the source files and figures that pages name."""
    texts = [file.content_string for file in files.documentation_pages()]
    for name, page in {"settings.md": reference.settings_page, "commands.md": reference.commands_page}.items():
        files.append(File.generated(config, name, content=page()))
    for name in sorted({match[1] for text in texts for match in SOURCE.finditer(text)}):
        if not (ROOT / name).is_file():
            raise PluginError(f"a page links to {name}, which does not exist")
        page_text = reference.source_page(ROOT / name)
        files.append(File.generated(config, _source_page(name), content=page_text))
    for name in sorted({match[1] for text in texts for match in FIGURE.finditer(text)}):
        files.append(File.generated(config, name, abs_src_path=str(FIGURES / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links into the code at the pages of the source files, and fill in the doctor's checks."""
    here = posixpath.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        return f"]({posixpath.relpath(_source_page(match[1]), here or '.')}{match[2] or ''})"

    return SOURCE.sub(link, markdown.replace(CHECKS, reference.checks_text() if CHECKS in markdown else ""))


def _source_page(name: str) -> str:
    return f"source/{name}.md"
