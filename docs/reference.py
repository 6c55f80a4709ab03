"""Reference pages written from the code: settings, commands, checks of the doctor, source files.

Nothing here imports torch.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
import typer.cli
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tldr.cli.main import app
from tldr.doctor.examine import GROUPS
from tldr.doctor.findings import CHECKS, Check
from tldr.label.make import ItemPlan
from tldr.label.settings import LabelSettings
from tldr.settings.base import Settings
from tldr.sources.filter_rules import FilterOptions
from tldr.stages.shared.declaration import is_needed
from tldr.study.registry import STAGES
from tldr.study.settings import Study
from tldr.study.slurm import Resources

ROOT = Path(__file__).parents[1]
GENERATED = "<!-- Generated from the code at build time by docs/reference.py. -->\n\n"


# Settings

ROOTS: dict[type[Settings], str] = {
    Study: "A study file",
    FilterOptions: "`tldr-lab data filter --set`",
    LabelSettings: "`label.yaml` of a labeling folder",
    ItemPlan: "`tldr-lab label items --set`",
    Resources: "Resources of `tldr-lab study submit`",
}
"""The classes that a file or a command reads, and what reads them."""


def settings_page() -> str:
    """Every setting: key, type, default and docstring, class by class."""
    lines = [
        "# Settings reference",
        GENERATED,
        "Every setting of a study file, with its type and default. A dotted key such as `ppo.beta` works in",
        "a study file and after `--set`. *one per size* means that a map from the ladder's sizes to values",
        "is accepted as well: `lr: {s: 5.0e-4, l: 3.0e-4}`. Unknown keys and wrong types are errors.",
        "",
        "In the descriptions, P is the paper (Stiennon et al. 2020), N+ is Huang et al. 2024, and OAI is the",
        "code that the paper's authors released.",
        "",
    ]
    shown: set[type[Settings]] = set()
    for root, title in ROOTS.items():
        lines += [f"## {title}" + " { #" + _slug(title) + " }", ""]
        if root in shown:
            lines += [f"The settings of [{root.__name__}](#{root.__name__.lower()}), above.", ""]
        for kind in _reachable(root, shown):
            lines += _settings_section(kind)
    return "\n".join(lines)


def _reachable(kind: type[Settings], shown: set[type[Settings]]) -> Iterator[type[Settings]]:
    """The class and every settings class its fields hold, each once over the whole page."""
    if kind in shown:
        return
    shown.add(kind)
    yield kind
    for hint in get_type_hints(kind, include_extras=True).values():
        for inner in _settings_in(hint):
            yield from _reachable(inner, shown)


def _settings_in(hint: Any) -> Iterator[type[Settings]]:
    if isinstance(hint, type) and issubclass(hint, Settings):
        yield hint
    for part in get_args(hint):
        yield from _settings_in(part)


def _settings_section(kind: type[Settings]) -> list[str]:
    hints = get_type_hints(kind, include_extras=True)
    docs = field_docs(kind)
    about = re.split(r"\n\s*Attributes:", inspect.getdoc(kind) or "")[0].strip()
    lines = [f"### {kind.__name__} {{ #{kind.__name__.lower()} }}", "", about, ""]
    lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        meaning = re.sub(r"\bNone\b", "null", docs.get(name) or _of_inner(hints[name]))
        cells = [f"`{name}`", type_text(hints[name]), default_text(field), meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return [*lines, ""]


def _of_inner(hint: Any) -> str:
    """First sentence about the one settings class that a field holds; of several the types say it."""
    inner = list(_settings_in(hint))
    text = inspect.getdoc(inner[0]) if len(inner) == 1 else None
    return re.split(r"(?<=[.])(?<!App[.])\s", text or "", maxsplit=1)[0].replace("\n", " ")


def field_docs(kind: type[Settings]) -> dict[str, str]:
    """The docstring under each field, of the class or of the nearest base that has one."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not (issubclass(base, Settings) and base is not Settings):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        assert isinstance(tree.body[0], ast.ClassDef)
        body = tree.body[0].body
        for node, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = after.value if isinstance(after, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    docs[node.target.id] = inspect.cleandoc(text.value)
        for name, text_ in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(base) or "", re.M):
            docs.setdefault(name, re.sub(r"\s+", " ", text_))
    return docs


_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}
_BOUNDS: list[tuple[Any, str, str]] = [(Gt, "gt", ">"), (Ge, "ge", ">="), (Lt, "lt", "<"), (Le, "le", "<=")]


def type_text(hint: Any) -> str:
    """A type as a reader of a study file sees it; settings classes are links to their tables."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_text(parts[0]) + _bounds(parts[1:])
    if origin in (Union, types.UnionType):
        values = [get_args(part)[1] for part in parts if get_origin(part) is dict]
        per_size = any(value in parts for value in values)
        texts = [type_text(part) for part in parts if not (per_size and get_origin(part) is dict)]
        if per_size:
            texts[0] += ", or one per size"
        return "; or ".join(texts) if per_size and len(texts) > 1 else " or ".join(texts)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is list or (origin is tuple and parts[-1] is ...):
        return f"list of {type_text(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(type_text(part) for part in parts)}]"
    if origin is dict:
        return f"map from {type_text(parts[0])} to {type_text(parts[1])}"
    if isinstance(hint, type) and issubclass(hint, Settings):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return _NAMES[hint]


def _bounds(metadata: Iterable[Any]) -> str:
    """The limits in the metadata of an annotated type, as in `` > 0``."""
    found: list[str] = []
    for part in metadata:
        for one in part.metadata if isinstance(part, FieldInfo) else [part]:
            found += [
                f" {sign} {getattr(one, key):g}" for kind, key, sign in _BOUNDS if isinstance(one, kind)
            ]
            if isinstance(one, MinLen):
                found.append(f" (at least {one.min_length})")
            assert not isinstance(one, MaxLen)
    return "".join(found[:1] + [f",{text}" for text in found[1:]])


def default_text(field: FieldInfo) -> str:
    """A field's default: of nested settings what differs from their class's own defaults."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "**required**"
    if isinstance(value, Settings):
        plain = {
            name: one.get_default(call_default_factory=True) for name, one in type(value).model_fields.items()
        }
        changed = {name: getattr(value, name) for name, one in plain.items() if getattr(value, name) != one}
        return ", ".join(f"`{name}: {_plain(one)}`" for name, one in changed.items()) or "its defaults"
    return f"`{_plain(value)}`" if value != "" else "empty"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z]+", "-", text.lower()).strip("-")


# Commands


def commands_page() -> str:
    """Every command that `--help` shows, as typer documents it."""
    root: Any = typer.main.get_command(app)
    lines = [
        "# Command reference",
        GENERATED,
        "What `tldr-lab COMMAND --help` prints. Settings after `--set` are those of the",
        "[settings reference](settings.md).",
        "",
    ]
    for words, command in _leaves(root, ("tldr-lab",)):
        context = typer.Context(command, info_name=words[-1])
        *before, name = words
        text = typer.cli.get_docs_for_click(
            obj=command, ctx=context, name=name, call_prefix=" ".join(before), indent=1
        )
        stage = STAGES.get(words[-1].replace("-", "_")) if len(words) == 2 else None
        if stage is not None:
            kind = stage.settings.__name__
            text += f"\n`--set` takes the settings of [{kind}](settings.md#{kind.lower()}).\n"
        lines.append(text.replace("```console\n$ ", "```text\n").replace("\\n\\n", "\n\n"))
    return "\n".join(lines)


def _leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command under a group with the words that call it; hidden ones are left out."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        if not inner.hidden:
            yield from _leaves(inner, (*words, name))


# Stages


def stages_table() -> str:
    """Every stage with what it reads and makes, from the declarations; an input in brackets is optional."""
    lines = ["| stage | what it does | reads | makes |", "|---|---|---|---|"]
    for name, stage in sorted(STAGES.items(), key=lambda item: _ORDER.index(item[0])):
        reads = [field.name if is_needed(field) else f"({field.name})" for field in stage.fields()]
        lines.append(f"| `{name}` | {stage.help} | {', '.join(reads) or '-'} | {stage.makes.name} |")
    return "\n".join(lines)


_ORDER = "data pretrain sft labels reward epoch ppo best_of_n sample score judge pairs ratings".split()


# Checks of the doctor


def checks_text() -> str:
    """A section for each stage, with its checks: what is healthy, why it matters, what to do."""
    assert GROUPS, "importing the groups registers their checks"
    lines = [GENERATED]
    everywhere = [check for check in CHECKS if len(check.stages) > 4]
    lines += _checks_section("Any stage", everywhere)
    left = [check for check in CHECKS if check not in everywhere]
    for title, belongs in _GROUPS.items():
        own = [check for check in left if belongs(set(check.stages))]
        left = [check for check in left if check not in own]
        lines += _checks_section(title, own)
    return "\n".join(lines)


_GROUPS: dict[str, Callable[[set[str]], bool]] = {
    "Data and labels": lambda stages: bool(stages & {"data", "labels"}),
    "Training": lambda stages: {"pretrain", "sft"} <= stages,
    "SFT": lambda stages: stages == {"sft"},
    "Reward model": lambda stages: "reward" in stages,
    "PPO": lambda stages: stages == {"ppo"},
    "Samples": lambda stages: True,
}
"""Title -> which checks stand under it, by their stages; the first that fits."""


def _checks_section(title: str, checks: list[Check]) -> list[str]:
    lines = [f"## {title}", ""]
    for check in checks:
        healthy = (inspect.getdoc(check.look) or "").split("\n\n")[0].replace("\n", " ")
        where = "every stage" if len(check.stages) > 4 else ", ".join(f"`{stage}`" for stage in check.stages)
        lines += [f"### {check.name} {{ #{check.name} }}", ""]
        lines += [f"- **Healthy:** {healthy}", f"- **Why it matters:** {check.why}"]
        lines += [f"- **What to do:** {check.remedy}", f"- **Looks at:** {where}"]
        lines += ["- Runs only with `--models`."] * check.models + [""]
    return lines


# Source files


def source_page(path: Path) -> str:
    """A source file as a page; in Python every top-level definition and method is a heading to link to."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    lines = ["---", "search: {exclude: true}", "hide: [navigation]", "---", f"# `{name}`", ""]
    language = {".py": "python", ".yaml": "yaml", ".yml": "yaml"}.get(path.suffix, "text")
    rows = text.splitlines()
    marks = [(1, "", 0), *(_definitions(ast.parse(text).body) if language == "python" else [])]
    for (first, title, level), (last, *_) in zip(marks, [*marks[1:], (len(rows) + 1, "", 0)], strict=True):
        if title:
            named = "" if "__" in title else f" {{ #{title} }}"  # Markdown reads __init__ as bold
            lines += [f"{'#' * level} `{title}`{named}", ""]
        chunk = "\n".join(rows[first - 1 : last - 1]).rstrip()
        lines += [f'````{language} linenums="{first}"', chunk, "````", ""]
    return "\n".join(lines)


def _definitions(body: list[ast.stmt], inside: str = "") -> Iterator[tuple[int, str, int]]:
    """First line, name and heading level of each function and class, decorators included."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            yield first, inside + node.name, 3 if inside else 2
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, f"{node.name}.")
