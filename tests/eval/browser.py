"""A real browser for tests of pages."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no chromium or google-chrome on PATH"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --hide-scrollbars"
).split()

HOSTILE = "\n".join(
    (
        "</script><script>document.body.dataset.owned = 1</script>",
        '"onload="document.body.dataset.owned = 2',
        "<img src=x onerror='document.body.dataset.owned = 3'>",
        "<!--<script>",
        "-->]]><svg/onload=document.body.dataset.owned=4>",
        "&lt;b&gt; {{ 7*7 }} ${7*7}",
        "line\u2028separator, \u202eright to left\u202c, nul\x00nul, \U0001f600",
    )
)


class Body(HTMLParser):
    """The attributes of a page's body."""

    def __init__(self, text: str):
        super().__init__()
        self.data: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            self.data = {name.removeprefix("data-"): value or "" for name, value in attrs}


@dataclass
class Browser:
    """Chromium without a window; every call is a new browser that knows nothing of the last."""

    profiles: Path

    def run(self, page: str, *flags: str, size: str = "1200,900") -> tuple[str, list[str]]:
        """What the browser wrote out, and what its console complained of."""
        profile = self.profiles / str(len(list(self.profiles.iterdir())))
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"--window-size={size}", *flags, page]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
        errors = done.stderr.decode("utf-8", "replace").splitlines()
        return done.stdout.decode("utf-8", "replace"), [line for line in errors if "CONSOLE" in line]

    def drive(self, page: Path, script: str, *flags: str, address: str = "", bare: bool = False) -> Any:
        """Run a script in a copy of the page, and return what it put into ``out``.

        Args:
            bare: without the page's content security policy, as a browser that knows none would.
        """
        text = page.read_text(encoding="utf-8")
        script = f"(async () => {{ const out = {{}}; {TOOLS} {script}; tell(out); }})();"
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        text = text.replace("script-src ", f"script-src 'sha256-{digest}' ")
        if bare:
            text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        copy = page.with_name(f"driven-{digest[:6].replace('/', '_')}-{bare}.html")
        copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        dom, errors = self.run(f"{copy.as_uri()}{address}", "--dump-dom", *flags)
        data = Body(dom).data
        assert errors == [] and "owned" not in data
        assert "out" in data, "the driving script ends"
        return json.loads(data["out"])


TOOLS = r"""
const $ = (query) => document.querySelector(query);
const texts = (query) => [...document.querySelectorAll(query)].map((node) => node.textContent);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const key = (name, node = document.body) =>
  node.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
const set = (query, value) => {
  const node = $(query);
  if (node.type === "checkbox") node.checked = value; else node.value = value;
  node.dispatchEvent(new Event(node.type === "search" ? "input" : "change", { bubbles: true }));
};
const tell = (out) => {
  document.body.dataset.out = JSON.stringify(out).replace(
    /[^\x20-\x7e]/g, (letter) => "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
};
"""
VIRTUAL = "--virtual-time-budget=6000"
