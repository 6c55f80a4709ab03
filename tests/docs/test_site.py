"""The documentation builds without a warning, asks nothing of other servers, and names only what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tldr.doctor.examine import GROUPS
from tldr.doctor.findings import CHECKS
from tldr.stages.ppo.settings import PPOSettings
from tldr.study.settings import Study

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"^(?:tldr|eval|tests|configs|results|benchmarks|docs)/[\w./-]*\w/?$")
"""Code in running text that is a path of the repository."""
ABSENT = re.compile(r"^results/toy/(?:report|samples)\.html$|^results/compare$")
"""What `make reproduce` and commands of the pages write."""


class Page(HTMLParser):
    """What a page loads by itself, where its links go, and its ids."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        target = given.get("href") or given.get("src") or given.get("srcset")
        if tag == "a":
            self.links.append(target or "")
        elif target is not None:
            self.loads.append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    made = tmp_path_factory.mktemp("docs") / "site"
    recipe = re.search(r"^docs:.*\n\t(\w+=1) \$\(BIN\)/mkdocs (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    name, value = recipe[1].split("=")
    command = [sys.executable, "-m", "mkdocs", *recipe[2].split(), "--site-dir", str(made)]
    env = {**os.environ, name: value}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return made


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    for path, page in pages.items():
        assert page.loads, path
        for target in page.loads:
            assert not re.match(r"(?:\w+:)?//", target), f"{path.name} loads {target}"
    for style in site.rglob("*.css"):
        found = re.findall(r"url\(\s*[\"']?(?:\w+:)?//[^)]+|@import[^;]+", style.read_text(encoding="utf-8"))
        assert not found, f"{style.name}: {found}"


def test_every_link_inside_the_site_has_its_page_and_place(pages: dict[Path, Page]) -> None:
    checked = 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links are meant to be served from a root
            continue
        for link in page.links:
            if re.match(r"\w+:", link):
                continue
            file, _, place = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), f"{path.name} links to {link}"
            if place and target in pages:
                assert place in pages[target].ids, f"{path.name} links to {link}"
            checked += 1
    assert checked > 500


def test_the_references_hold_every_setting_command_and_check(site: Path, pages: dict[Path, Page]) -> None:
    settings = (site / "settings.html").read_text(encoding="utf-8")
    for kind in (Study, PPOSettings):
        for name in kind.model_fields:
            assert f"<code>{name}</code>" in settings
    assert "<td></td>" not in settings, "a setting without a meaning: write a docstring under it"
    assert {"tldr-lab-study-run", "tldr-lab-ppo", "tldr-lab-data-fetch"} <= pages[site / "commands.html"].ids
    assert not re.search(r"tldr-lab[ -]_", (site / "commands.html").read_text(encoding="utf-8"))
    assert GROUPS and {check.name for check in CHECKS} <= pages[site / "troubleshooting.html"].ids
    source = pages[site / "source" / "tldr" / "mathematics" / "rewards.py.html"]
    assert "token_rewards" in source.ids


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(p.name for p in ROOT.glob("docs/*.md"))]
)
def test_paths_and_links_of_a_page_exist(page: str) -> None:
    path = ROOT / page if page[0].isupper() else ROOT / "docs" / page
    text = path.read_text(encoding="utf-8")
    for span in re.findall(r"`([^`\n]+)`", text):
        if PLACE.match(span) and not ABSENT.match(span):
            assert (ROOT / span).exists(), f"{page}: {span}"
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert link in ("settings.md", "commands.md") or (path.parent / link).exists(), f"{page}: {link}"
