"""The command line: what it runs, how it tells errors, how fast it starts."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from eval.common.runs import StudyRuns
from tests.study.conftest import FAKE, TINY, Lab, config, lab, same_code
from tldr.cli import study as study_commands
from tldr.cli.main import app
from tldr.errors import LabError
from tldr.settings.models import Lengths, ModelSpec
from tldr.sources.fake_hub import keep_model
from tldr.stages.sft import SFTInputs
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import Stage, named
from tldr.study.folder import RunFile, locked
from tldr.study.registry import STAGES
from tldr.study.runner import Runner

__all__ = ["config", "lab", "same_code"]  # fixtures

ROOT = Path(__file__).parents[2]
ALONE = sorted(stage.name for stage in STAGES.values() if stage.alone)
Tell = Callable[..., Result]


@pytest.fixture
def tell() -> Tell:
    """Call the command line in this process."""
    runner = CliRunner()
    return lambda *args: runner.invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})


def shell(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tldr", *map(str, args)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=120
    )


def test_trap_help_waits_for_no_torch() -> None:
    """Every command's help is shown without torch, transformers or pandas."""
    code = (
        "import sys\nfrom tldr.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    commands: list[list[str]] = [[], ["sft"], ["study", "run"]]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_the_commands(tell: Tell) -> None:
    shown = tell("--help").output
    for name in ("study", "data", "report", *(stage.replace("_", "-") for stage in ALONE)):
        assert name in shown
    assert "_run" not in shown


@pytest.mark.parametrize("stage", ALONE)
def test_every_stage_has_its_inputs_as_options(tell: Tell, stage: str) -> None:
    shown = tell(stage.replace("_", "-"), "--help").output
    single = [field.name for field in STAGES[stage].fields() if field.metadata["prefix"] is None]
    for option in (*single, "out", "seed", "set"):
        assert f"--{option} " in shown
    required = tell(stage.replace("_", "-"), "--out", "x")
    assert required.exit_code == 2


def test_errors_are_two_lines_on_stderr_with_their_code(config: Path) -> None:
    done = shell("study", "status", config, "--set", "ppo.bata=1")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(
        f"error: {config} with --set: ppo.bata: unknown key 'bata'; did you mean 'beta'?\n  -> "
    )
    assert "Traceback" not in done.stderr
    assert "Traceback" in shell("study", "status", config, "--set", "ppo.bata=1", TLDR_DEBUG="1").stderr
    assert shell("study", "run", config.with_name("none.yaml")).returncode == 2
    assert shell("study", "run").returncode == 2


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            LabError("bad luck", where="there", remedy="try again"),
            1,
            "error: there: bad luck\n  -> try again",
        ),
        (ZeroDivisionError("a fault"), 1, "error: ZeroDivisionError: a fault\n  -> set TLDR_DEBUG=1"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_codes(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, config: Path, error: BaseException, code: int, told: str
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(study_commands, "load_study", fail)
    result = tell("study", "status", config)
    assert result.exit_code == code
    assert told in result.stderr and "Traceback" not in result.stderr


def test_a_study_from_run_to_clean(tell: Tell, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_commands, "Runner", functools.partial(Runner, command=FAKE))
    place = ("--runs", lab.root.parent)
    ran = tell("study", "run", lab.config, "--only", "pretrain", "--jobs", 2, *place)
    assert ran.exit_code == 0, ran.output
    assert "pretrain-m-s0" in ran.output and "sft" not in ran.output
    listing = json.loads((lab.root / "study.json").read_text())
    asked = set(STAGES) - {"epoch", "pairs", "ratings", "judge"}  # this study has none
    assert {run["stage"] for run in listing["runs"]} == asked, "all runs, not only those wanted"

    shown = tell("study", "status", lab.config, "--set", "pretrain.batch=8", *place)
    assert shown.exit_code == 0
    assert "1 done" in shown.output and "2 stale" in shown.output and "batch 16 -> 8" in shown.output

    clean = ("study", "clean", lab.config, "--set", "pretrain.batch=8", *place)
    refused = CliRunner().invoke(app, list(map(str, clean)), input="n\n")
    assert refused.exit_code == 0 and len(list(lab.root.glob("pretrain-*"))) == 2
    assert "deleted 2 runs" in tell(*clean, "--yes").output
    assert not list(lab.root.glob("pretrain-*")) and list(lab.root.glob("data-*"))
    assert "nothing to delete" in tell(*clean).output
    assert "deleted 1 runs" in tell(*clean, "--all", "--yes").output


def test_a_failed_run_is_exit_1(tell: Tell, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_commands, "Runner", functools.partial(Runner, command=FAKE))
    lab.behave(data="fail")
    ran = tell("study", "run", lab.config, "--only", "data", "--runs", lab.root.parent)
    assert ran.exit_code == 1
    assert "here: no luck" in ran.output and "log.txt" in ran.output


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--only", "rewards"], "did you mean 'reward'"),
        (["--jobs", "0"], "jobs"),
        (["--set", "beta=1"], "unknown key"),
    ],
)
def test_usage_errors_of_a_study(tell: Tell, lab: Lab, args: list[str], told: str) -> None:
    result = tell("study", "run", lab.config, "--runs", lab.root.parent, *args)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, lab: Lab, policy: Path) -> list[RunContext[Any]]:
    """The contexts that stages are called with; they write one file."""
    calls: list[RunContext[Any]] = []

    def stage(ctx: RunContext[Any]) -> None:
        calls.append(ctx)
        (ctx.folder / "out.txt").write_text("made")

    monkeypatch.setattr(Stage, "load", lambda self, settings: stage)
    return calls


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the model org/name, which has been fetched from the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return keep_model(tmp_path / "model", "org/name", tmp_path / "hub")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "sft.jsonl").write_text("{}\n")
    return folder


def test_a_stage_alone_is_given_what_a_study_would_give_it(
    tell: Tell, given: list[RunContext[Any]], policy: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    args = ["sft", "--policy", "org/name", "--data", data, "--out", out, "--seed", 3]
    sets = [
        "--set",
        "optimizer.lr=5e-5",
        "--set",
        "lengths.query=64",
        "--set",
        "tags.size=s",
        "--set",
        "precision=fp32",
    ]
    result = tell(*args, *sets)
    assert result.exit_code == 0, result.output
    (ctx,) = given
    assert ctx.settings == SFTSettings.model_validate(
        {"optimizer": SFTSettings().optimizer.model_copy(update={"lr": 5e-5})}
    )
    assert ctx.inputs == SFTInputs(policy=policy, data=data)
    assert RunFile.read(out).inputs["policy"] == f"org/name@{policy.name}"
    assert (ctx.folder, ctx.seed, ctx.lengths, ctx.precision) == (out, 3, Lengths(query=64), "fp32")
    assert (ctx.tags, ctx.run, ctx.model) == ({"size": "s"}, "mine", None)
    assert (out / "DONE").exists()

    assert "is already done" in tell(*args, *sets).output and len(given) == 1
    other = tell(*args, "--set", "optimizer.lr=1e-4", *sets[2:])
    assert other.exit_code == 2 and "contains another run: optimizer.lr 5e-05 -> 0.0001" in other.stderr
    (data / "sft.jsonl").write_text("{ }\n")
    assert "its data changed" in tell(*args, *sets).stderr


def test_a_stopped_stage_goes_on(
    tell: Tell, given: list[RunContext[Any]], data: Path, tmp_path: Path
) -> None:
    args = ["sft", "--policy", "org/name", "--data", data, "--out", tmp_path / "mine"]
    tell(*args)
    (tmp_path / "mine" / "DONE").unlink()
    assert tell(*args).exit_code == 0
    assert len(given) == 2


def test_pretraining_alone_names_its_model(
    tell: Tell, given: list[RunContext[Any]], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    assert tell("pretrain", "--data", data, "--out", out, "--set", "model.d_model=32").exit_code == 0
    assert given[0].model == ModelSpec(d_model=32)


def test_a_finished_run_is_an_input_by_its_outputs(
    tell: Tell, given: list[RunContext[Any]], data: Path, tmp_path: Path
) -> None:
    parent = tmp_path / "parent"
    tell("sft", "--policy", "org/name", "--data", data, "--out", parent)
    out = tmp_path / "mine"
    args = [
        "sample",
        "--policy",
        parent,
        "--data",
        data,
        "--out",
        out,
        "--set",
        "tags={method: sft, size: s}",
    ]
    assert tell(*args).exit_code == 0
    (parent / "log.txt").write_text("not an output")
    assert "is already done" in tell(*args).output
    (parent / "DONE").unlink()
    unfinished = tell(*args[:-4], "--out", tmp_path / "new")
    assert unfinished.exit_code == 2 and "an unfinished run" in unfinished.stderr


def test_score_needs_no_models(tell: Tell, given: list[RunContext[Any]], data: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_text("")
    assert tell("score", "--samples", samples, "--data", data, "--out", tmp_path / "mine").exit_code == 0
    assert set(named(given[0].inputs)) == {"samples", "data"}


MISTAKES: dict[str, tuple[list[str], str]] = {
    "nearest key": (["--set", "optimizer.ir=1"], "did you mean 'lr'"),
    "another stage's key": (["--set", "beta=0.1"], "unknown key 'beta'"),
    "wrong type": (["--set", "epochs=many"], '--set: epochs: found "many", expected a valid number'),
    "one size": (["--set", "epochs={s: 1}"], "one size"),
    "windows": (["--set", "lengths.rm_response=8"], "rm_response is shorter than response"),
    "no data": (["--data", "nowhere"], "the data does not exist"),
    "no policy": (["--policy", "./nowhere"], "no such file or folder"),
    "negative seed": (["--seed", "-1"], "seed"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_a_stage_alone(
    tell: Tell, given: list[RunContext[Any]], data: Path, tmp_path: Path, name: str
) -> None:
    args, told = MISTAKES[name]
    result = tell("sft", "--policy", "org/name", "--data", data, "--out", tmp_path / "mine", *args)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not given and not (tmp_path / "mine").exists()


def test_a_folder_with_other_things_is_left_alone(
    tell: Tell, given: list[RunContext[Any]], data: Path
) -> None:
    result = tell("sft", "--policy", "org/name", "--data", data, "--out", data)
    assert result.exit_code == 2 and "contains no run" in result.stderr
    assert not given and [path.name for path in data.iterdir()] == ["sft.jsonl"]


def test_toy_data(tell: Tell, given: list[RunContext[Any]], tmp_path: Path) -> None:
    args = ["--set", "data.sft_posts=7", "--set", "tokenizer.vocab_size=300"]
    assert tell("data", "toy", "--out", tmp_path / "toy", *args).exit_code == 0
    settings = given[0].settings
    assert (settings.data.kind, settings.data.sft_posts, settings.tokenizer.vocab_size) == ("toy", 7, 300)
    assert tell("data", "toy", "--out", tmp_path / "two", "--set", "data.posts=7").exit_code == 2


def test_run_one_folder(tell: Tell, lab: Lab, tmp_path: Path) -> None:
    lab.make(only="data")
    folder = lab.folder("data")
    (folder / "DONE").unlink()
    with locked(folder):
        assert tell("_run", folder).exit_code == 75
    assert tell("_run", folder).exit_code == 0
    assert (folder / "DONE").exists()
    assert tell("_run", tmp_path).exit_code == 2


def test_the_report_is_made_from_the_study_folder(
    tell: Tell, lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def build_report(*args: object, **kwargs: object) -> str:
        calls.append((args, kwargs))
        return "the/report.html"

    module: Any = types.ModuleType("eval.report.build")
    module.build_report = build_report
    monkeypatch.setitem(sys.modules, "eval.report.build", module)
    result = tell("report", lab.config, "--runs", lab.root.parent, "--set", "evaluation.bootstrap=50")
    assert result.exit_code == 0 and "the/report.html" in result.output
    (runs, out), kwargs = calls[0]
    assert isinstance(runs, StudyRuns) and (runs.folder, out) == (lab.root, lab.root / "report")
    about = {"title": "tiny", "description": "", "synthetic": True, "draws": 50}
    assert kwargs == about | {"judgements": [], "beside": None}
    assert (lab.root / "study.json").exists()

    assert tell("report", lab.root, "--out", tmp_path / "out", "--beside", tmp_path).exit_code == 0
    about = {"title": "tiny", "judgements": [], "beside": tmp_path}
    assert calls[1] == ((lab.root, tmp_path / "out"), about)
    missing = tell("report", lab.config, "--runs", tmp_path / "none")
    assert missing.exit_code == 2 and "has not been run" in missing.stderr


def test_a_real_stage_in_a_real_process(tmp_path: Path) -> None:
    """No fakes: the data stage of a study, its DONE written and read, then nothing left to do."""
    config = tmp_path / "tiny.yaml"
    sizes = "corpus: 60, sft_posts: 12, ppo_posts: 14, valid1_posts: 6, valid2_posts: 6"
    config.write_text(TINY.replace("corpus: 10", sizes) + "tokenizer: {vocab_size: 300}\n")
    args = ("study", "run", config, "--only", "data", "--runs", tmp_path / "runs")
    done = shell(*args)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "runs" / "tiny").glob("data-*")
    assert (folder / "tokenizer" / "tokenizer.json").exists()
    assert "torch" in json.loads((folder / "environment.json").read_text())["packages"]
    assert "1 of 1 runs are already done" in shell(*args).stdout
