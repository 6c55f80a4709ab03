"""The project's frame: floors, packaging, pins, and the table of traps."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

FLOORS = {
    "errors": 0, "files": 0, "interrupts": 0, "locks": 0, "pinned": 0, "records": 0, "settings": 0,
    "strict_json": 0, "strict_yaml": 0,
    "measures": 1, "mathematics": 1, "inputs": 1, "queries": 1, "judge": 1,
    "toy": 2, "models": 2, "sources": 2,
    "train": 3, "label": 3, "stages": 4, "study": 5,
    "plan": 6, "doctor": 6, "bench": 6, "cli": 7,
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Every module named in the file's imports, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return names


def is_cost(path: Path) -> bool:
    """Whether a file is a stage's ``cost.py``. It belongs to the plan's floor: nothing below imports it."""
    return path.name == "cost.py" and path.parent.parent == ROOT / "tldr" / "stages"


@pytest.mark.parametrize("package", [name for name, floor in FLOORS.items() if floor])
def test_a_floor_imports_only_what_lies_below(package: str) -> None:
    for path in sorted((ROOT / "tldr" / package).rglob("*.py")):
        floor = FLOORS["plan"] if is_cost(path) else FLOORS[package]
        parts = {name.split(".")[1] for name in imported(path) if name.startswith("tldr.")}
        above = {p for p in parts & set(FLOORS) if FLOORS[p] > floor}
        assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}"
        if package != "cli":
            assert not {name for name in imported(path) if name.split(".")[0] == "eval"}, path


def test_no_stage_imports_another_stages_folder() -> None:
    for path in sorted((ROOT / "tldr" / "stages").rglob("*.py")):
        owner = path.relative_to(ROOT / "tldr" / "stages").parts[0]
        stages = {name.split(".")[2] for name in imported(path) if name.startswith("tldr.stages.")}
        assert not stages - {owner, "shared"}, f"{path.relative_to(ROOT)} imports {sorted(stages)}"


def test_no_file_but_the_plan_imports_a_stages_cost() -> None:
    for path in sorted((ROOT / "tldr").rglob("*.py")):
        costs = {name for name in imported(path) if re.match(r"tldr\.stages\.\w+\.cost", name)}
        assert not costs, f"{path.relative_to(ROOT)} imports {sorted(costs)}"


USERS_OF_SOURCES = ("tldr/sources/", "tldr/stages/data/", "tldr/cli/", "tldr/study/hashes.py")


def test_sources_are_for_the_data_stage_the_commands_and_the_identity_of_inputs() -> None:
    for path in sorted((ROOT / "tldr").rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(USERS_OF_SOURCES):
            assert not {name for name in imported(path) if name.startswith("tldr.sources")}, place


def test_every_package_and_its_data_are_in_the_wheel() -> None:
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("tldr", "eval")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == there | {"eval.published"}
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package, folder in {
        "eval.report": "eval/report",
        "eval.rouge": "eval/rouge",
        "tldr.sources": "tldr/sources",
        "tldr.plan": "tldr/plan",
        "tldr.label.web": "tldr/label/web",
        "eval.published": "results/paper",
    }.items():
        for glob in data[package]:
            assert list((ROOT / folder).glob(glob)), f"{package}: nothing is {glob}"


def test_every_direct_dependency_is_pinned_and_nothing_else() -> None:
    def name(requirement: str) -> str:
        return re.split(r"[<>=!~\[ ]", requirement)[0].lower()

    project = PROJECT["project"]
    direct = {name(line) for line in project["dependencies"]}
    direct |= {name(line) for extra in project["optional-dependencies"].values() for line in extra}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert {name(line) for line in pins} == direct
    # a pin with a local version, such as torch's +cpu, would install on one kind of machine alone
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)


def test_trap_table_names_every_trap_test_and_no_other() -> None:
    text = (ROOT / "docs" / "traps.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", text))
    there = {
        (str(path.relative_to(ROOT / "tests")), found)
        for path in (ROOT / "tests").rglob("test_*.py")
        for found in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert not named - there, f"no such test: {sorted(named - there)}"
    traps = {place for place in there if place[1].startswith("test_trap_") and place[0] != "test_frame.py"}
    assert not traps - named, f"not in docs/traps.md: {sorted(traps - named)}"
