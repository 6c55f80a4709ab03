"""Self-contained HTML pages: style and script are inline and allowed by their hashes alone.

A page loads nothing. Its content security policy names the sha256 of its one style
and its one script, so text that escaped from its element could not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tldr.files import replacing


def write_page(path: Path, name: str, scripts: Sequence[str], **values: Any) -> Path:
    """Render ``templates/<name>.html.j2`` with ``base.css``, ``<name>.css`` and `scripts` inside.

    Args:
        scripts: files of ``templates``, in the order they run; together they are one script.
        values: what the template shows; text is escaped, half a surrogate pair becomes U+FFFD.

    Returns:
        `path`; the same values give the same bytes.
    """
    environment = Environment(
        loader=PackageLoader("eval.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = _asset("base.css") + _asset(f"{name}.css")
    script = "".join(map(_asset, scripts))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    text = environment.get_template(f"{name}.html.j2").render(
        style=Markup(style), script=Markup(script), policy=Markup(policy), **values
    )
    with replacing(path, durable=False) as partial:
        partial.write_bytes(text.encode("utf-8", errors="xmlcharrefreplace"))
    return path


def embedded_json(data: Any) -> Markup:
    r"""JSON for a ``<script type="application/json">``: plain ASCII, and without ``<`` nothing ends it.

    Raises:
        ValueError: NaN or an infinity, which JSON cannot hold.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _asset(name: str) -> str:
    return (files("eval.report") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
