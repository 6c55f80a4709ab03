"""A study as jobs: sbatch files, what is submitted, and jobs that run, fail, are ended and go on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study.conftest import FAKE, Lab
from tldr.errors import LabError, UsageError
from tldr.records import write_json
from tldr.study import job as jobs
from tldr.study import slurm
from tldr.study.launch import Launch
from tldr.study.prepare import write_run
from tldr.study.runs import needed_for
from tldr.study.slurm import Allocation, Needs, Resources, first_host
from tldr.study.submit import JobFile, JobId, Submission, command_for, dependency, submit_slurm, unfinished

CONFIGS = Path(__file__).parents[2] / "configs"
SEEDS = "seeds=[0,1]"


@pytest.fixture
def lab(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Stages are fake in the processes that jobs start; the jobs are real, as is the code's version."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    made = Lab(config, tmp_path / "runs" / "tiny")
    made.behave()
    return made


def submission(
    lab: Lab, *overrides: str, only: str = "sft", resources: Resources | None = None
) -> Submission:
    study, runs = lab.load(*overrides)
    return Submission(
        study, needed_for(runs, only), lab.root, lab.files, resources or Resources(), program=FAKE
    )


def wait_until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


# What sbatch is told


def test_what_jobs_wait_for() -> None:
    data, alone = JobId("1"), [JobId("2"), JobId("3")]
    array = [JobId("4", task) for task in range(3)]
    assert dependency([[]]) == ""
    assert dependency([[data, *alone]]) == "afterok:1:2:3"
    assert dependency([[array[1], data]]) == "afterok:1:4_1"
    # each task of an array waits for the same one of another
    assert dependency([[data, job] for job in array]) == "afterok:1,aftercorr:4"
    # tasks that are done, or not the same, hold up all
    assert dependency([[data], [data, array[1]]]) == "afterok:1:4_1"
    assert dependency([[array[1]], [array[2]]]) == "afterok:4_1:4_2"
    assert dependency([[array[0], array[1]], [array[0], array[1]]]) == "afterok:4_0:4_1"
    assert [JobId.parse(text) for text in ("4", "4_2")] == [JobId("4"), array[2]]
    assert str(array[2]) == "4_2"


def test_the_sbatch_files_of_a_dry_run(lab: Lab) -> None:
    path = CONFIGS / "slurm" / "example.yaml"
    overrides = [
        "options.constraint=h100",
        "stages.sft.mem=1T",
        'setup=["module load cuda"]',
        "partition=fast",
    ]
    said: list[str] = []
    made = submission(lab, SEEDS, resources=Resources.read(path, overrides))
    assert submit_slurm(made, said.append, dry=True) == 9
    assert [text.split(":")[0] for text in said] == [
        "# data", "# pretrain-s", "# pretrain-m", "# sft-s", "# sft-m"
    ]  # fmt: skip
    text = re.sub(r"sft-s-[0-9a-f]{10}\.json", "sft-s-HASH.json", said[3])
    text = re.sub(r"(sft-s-s[01])-[0-9a-f]{10}", r"\1-KEY", text)
    folder = lab.root / "jobs"
    assert (
        text
        == f"""# sft-s: sft-s-s0-KEY, sft-s-s1-KEY
#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --constraint=h100
#SBATCH --cpus-per-task=64
#SBATCH --dependency=afterok:data,aftercorr:pretrain-s
#SBATCH --error={folder}/%A_%a_0_log.err
#SBATCH --gpus-per-node=8
#SBATCH --job-name=tiny-sft-s
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=1T
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output={folder}/%A_%a_0_log.out
#SBATCH --partition=fast
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --time=240

# setup
module load cuda

# command
srun --unbuffered --output {folder}/%A_%a_%t_log.out --error {folder}/%A_%a_%t_log.err --cpus-per-task=64 \
{shlex.quote(sys.executable)} -m tldr _job {folder}/sft-s-HASH.json
"""
    )
    assert "--dependency" not in said[0] and "--array" not in said[0] and "gpus" not in said[0]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu: 1", r"res.yaml:1: gpu: unknown key 'gpu'; did you mean 'gpus'\?"),
        ("stages: {ppo: {tme: 5}}", r"stages.ppo.tme: unknown key 'tme'; did you mean 'time'\?"),
        ("stages: {pppo: {time: 5}}", r"no stage 'pppo'; did you mean 'ppo'\?"),
        ("mem: lots", r"mem: found \"lots\", expected"),
        ("stages: {ppo: {time: 2}}", r"stages.ppo: told to save 120 s before the limit, which is 120 s"),
        ("options: {array: 0-3}", "the option 'array' of sbatch cannot be set here"),
    ],
)
def test_resources_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "res.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Resources.read(path)


def test_a_stage_has_its_own_keys_over_those_of_all() -> None:
    found = Resources.read(None, ["gpus=2", "time=99", "stages.ppo.time=7", "stages.ppo.gpus=0"])
    assert found.of("sft") == Needs(gpus=2, time=99)
    assert found.of("ppo") == Needs(gpus=0, time=7)


def test_machines_and_gpus_are_those_of_the_launch_file(lab: Lab) -> None:
    launch = Launch.read(CONFIGS / "accelerate" / "16gpu-fsdp2-multinode.yaml")
    study, runs = lab.load()
    made = Submission(study, runs, lab.root, lab.files, Resources(gpus=8), launch)
    by_stage = {run.stage: run for run in runs}
    assert [made.machines(by_stage[stage]) for stage in ("data", "sft", "ppo", "score")] == [1, 2, 2, 2]
    assert made.needs(by_stage["ppo"]).gpus == 8
    made = Submission(study, runs, lab.root, lab.files, Resources(gpus=4), launch)
    with pytest.raises(UsageError, match="4 GPUs for 8 processes on a machine"):
        made.needs(by_stage["ppo"])
    # What samples or scores may also have one GPU and one process.
    assert made.needs(by_stage["score"]).gpus == 4 and made.machines(by_stage["score"]) == 1
    assert made.job([by_stage["score"]], "j")[0].launch == ""


# What is submitted


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with stand-ins: sbatch keeps its file and counts from 100, up to 5 jobs
    where `full` is; squeue tells the file `queue`; scontrol keeps its arguments; srun runs its command."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    scripts = {
        "sbatch": 'n=$((100 + $(ls sent | wc -l)))\n[ -e full ] && { echo "queue is full" >&2; exit 1; }\n'
        'cp "$FILE" sent/$n; echo "Submitted batch job $n"',
        "squeue": 'echo "$*" >> asked; cat queue',
        "scontrol": 'echo "$*" >> control',
        "srun": 'while :; do\ncase "$1" in --output|--error) shift 2;; -*) shift;; *) exec "$@";; esac\ndone',
    }
    for name, text in scripts.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nFILE=$(realpath "$1" 2>/dev/null)\ncd {folder}\n{text}\n')
        script.chmod(0o755)
    (folder / "sent").mkdir()
    (folder / "queue").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def sent(cluster: Path, number: int) -> dict[str, str]:
    """Options of an sbatch file by name, and its job's file."""
    text = (cluster / "sent" / str(number)).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    return options | {"file": shlex.split(text)[-1]}


def test_each_job_is_submitted_after_those_it_needs_and_once(lab: Lab, cluster: Path) -> None:
    said: list[str] = []
    assert submit_slurm(submission(lab, SEEDS), said.append) == 9
    batches = {options["job-name"]: options for options in (sent(cluster, n) for n in range(100, 105))}
    assert {name: options.get("dependency", "") for name, options in batches.items()} == {
        "tiny-data": "",
        "tiny-pretrain-s": "afterok:100",
        "tiny-pretrain-m": "afterok:100",
        "tiny-sft-s": "afterok:100,aftercorr:101",
        "tiny-sft-m": "afterok:100,aftercorr:102",
    }
    assert [options.get("array") for options in batches.values()] == [None, *["0-1%2"] * 4]
    file = JobFile.read(Path(batches["tiny-sft-m"]["file"]))
    assert [name.rpartition("-")[0] for name in file.runs] == ["sft-m-s0", "sft-m-s1"]
    assert file.study == lab.load(SEEDS)[0]

    everything = ["100", *(f"{n}_{task}" for n in range(101, 105) for task in (0, 1))]
    (cluster / "queue").write_text("\n".join(everything))
    assert submit_slurm(submission(lab, SEEDS), said.append) == 0
    assert len(list((cluster / "sent").iterdir())) == 5
    assert "9 runs have a job already" in said

    # data is done; one pretraining failed, and the jobs that needed it were taken from the queue
    lab.make(SEEDS, only="data")
    write_json(lab.root / file_runs(lab, "pretrain-s-s1")[0] / "FAILED", {"what": "no luck"})
    (cluster / "queue").write_text("101_0\n102_0\n102_1\n103_0\n104_0\n104_1\n")
    said.clear()
    assert submit_slurm(submission(lab, SEEDS), said.append) == 2
    assert [line for line in said if "failed before" in line and "no luck" in line]
    assert "array" not in sent(cluster, 105) and "dependency" not in sent(cluster, 105)
    assert sent(cluster, 106)["dependency"] == "afterok:105"


def file_runs(lab: Lab, title: str) -> list[str]:
    return [run.name for run in lab.load(SEEDS)[1] if run.title == title]


def test_what_was_submitted_before_sbatch_refused_is_not_submitted_again(lab: Lab, cluster: Path) -> None:
    def stop(text: str) -> None:
        if "101" in text:
            (cluster / "full").touch()

    with pytest.raises(LabError, match="tiny-pretrain-m: sbatch refuses it: queue is full"):
        submit_slurm(submission(lab), stop)
    (cluster / "full").unlink()
    (cluster / "queue").write_text("100\n101\n")
    assert submit_slurm(submission(lab), print) == 3
    assert sent(cluster, 102)["dependency"] == "afterok:100"
    assert sent(cluster, 103)["dependency"] == "afterok:100:101"


def test_without_slurm_nothing_is_submitted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"sbatch, srun, squeue not found(.|\n)*here: tldr-lab study run"):
        submit_slurm(submission(lab), print)
    assert not (lab.root / "jobs").exists()


def test_what_another_runner_is_at_holds_up_what_needs_it(lab: Lab) -> None:
    made = submission(lab)
    pretrain = next(run for run in made.runs if run.title == "pretrain-s-s0")
    lab.behave(**{"pretrain-s-s0": "hold"})
    other = None
    try:
        process = [*FAKE, str(write_run(made.runs[0], made.study, lab.root))]
        assert subprocess.run(process).returncode == 0
        other = subprocess.Popen([*FAKE, str(write_run(pretrain, made.study, lab.root))])
        wait_until(lambda: "start pretrain-s-s0 0" in lab.events())
        said: list[str] = []
        assert [run.title for run in unfinished(made, {}, said.append)] == ["pretrain-m-s0", "sft-m-s0"]
        assert [line.split(":")[1] for line in said] == [
            " another process is at work on it",
            f" it needs {pretrain.name}",
        ]
    finally:
        if other:
            other.kill()
            other.wait()


# Jobs


def carry_out(cluster: Path) -> dict[str, tuple[int, str]]:
    """Run the jobs that were sent, each if those it waits for ended well; exit code and stderr by name."""
    ended: dict[str, tuple[int, str]] = {}
    well: set[str] = set()
    for number in sorted(path.name for path in (cluster / "sent").iterdir()):
        options = sent(cluster, int(number))
        if set(re.findall(r"\d+", options.get("dependency", ""))) <= well:
            command = ["bash", str(cluster / "sent" / number)]
            job = subprocess.run(
                command, env=os.environ | {"SLURM_JOB_ID": number}, stderr=subprocess.PIPE, text=True
            )
            ended[options["job-name"]] = job.returncode, job.stderr
            well |= {number} if job.returncode == 0 else set()
    return ended


def test_jobs_run_parents_first_and_only_once(lab: Lab, cluster: Path) -> None:
    assert submit_slurm(submission(lab), print) == 5
    ended = carry_out(cluster)
    assert len(ended) == 5 and {code for code, _ in ended.values()} == {0}, ended
    events = [line.rsplit(" ", 1)[0] if line.startswith("start") else line for line in lab.events()]
    assert sorted(events) == sorted(
        f"{word} {run.title}" for word in ("start", "end") for run in submission(lab).runs
    )
    for size in ("s", "m"):
        assert events.index(f"end pretrain-{size}-s0") < events.index(f"start sft-{size}-s0")
    assert events[:2] == ["start data", "end data"]
    assert submit_slurm(submission(lab), print) == 0
    assert len(list((cluster / "sent").iterdir())) == 5


def test_a_failed_job_stops_those_that_need_it_and_no_others(lab: Lab, cluster: Path) -> None:
    lab.behave(**{"pretrain-s-s0": "fail"})
    assert submit_slurm(submission(lab), print) == 5
    ended = carry_out(cluster)
    assert {title: status.state for title, status in lab.states().items() if title.startswith(("p", "s"))
            and status.state != "waiting"} == {
        "pretrain-s-s0": "failed", "pretrain-m-s0": "done", "sft-m-s0": "done"
    }  # fmt: skip
    assert "tiny-sft-s" not in ended and len(ended) == 4
    code, log = ended["tiny-pretrain-s"]
    name = lab.folder("pretrain-s-s0").name
    assert code == 1
    assert f"error: {name}: failed: here: no luck; not started for it: sft-s-s0-" in log
    said: list[str] = []
    assert submit_slurm(submission(lab), said.append) == 2
    assert [line for line in said if line.startswith(f"failed before  {name}: here: no luck")]


def test_a_stale_run_is_made_again_by_its_job(lab: Lab, cluster: Path) -> None:
    made = submission(lab, only="data")
    command = [*FAKE, str(write_run(made.runs[0], made.study, lab.root))]
    assert subprocess.run(command).returncode == 0
    assert submit_slurm(submission(lab, only="data"), print) == 0
    out = lab.folder("data") / "out.txt"
    before = out.read_text()
    out.write_text("edited")
    said: list[str] = []
    assert submit_slurm(submission(lab, only="data"), said.append) == 1
    assert f"stale, made again  {made.runs[0].name}: out.txt changed since it was done" in said
    assert carry_out(cluster)["tiny-data"][0] == 0
    (aside,) = (lab.root / "set-aside").iterdir()
    assert (aside / "out.txt").read_text() == "edited" and out.read_text() == before
    assert lab.states()["data"].state == "done"


def saved(lab: Lab) -> str:
    """The step of the data run's state; nothing before there is one."""
    path = lab.folder("data") / "state" / "step"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("signum", "state", "requeued"),
    [
        (signal.SIGTERM, "RUNNING", True),  # a pre-emption
        (signal.SIGTERM, "COMPLETING", False),  # cancelled, or queued again by the cluster
        (signal.SIGUSR2, "COMPLETING", True),  # the time limit is near
    ],
)
def test_a_job_of_a_cluster_that_is_ended(
    lab: Lab, cluster: Path, signum: signal.Signals, state: str, requeued: bool
) -> None:
    lab.behave(data="wait")
    made = submission(lab, SEEDS, only="data")
    submit_slurm(made, print)
    (cluster / "queue").write_text(state)
    names = {"SLURM_JOB_ID": "100"}
    command = shlex.split(command_for(Path(sent(cluster, 100)["file"])))
    job = subprocess.Popen(command, env=os.environ | names)
    wait_until(lambda: lab.events() and saved(lab) == "2")
    job.send_signal(signum)
    assert job.wait(60) == 143
    control = cluster / "control"
    assert (control.read_text() if control.exists() else "") == ("requeue 100\n" if requeued else "")
    assert lab.states(SEEDS)["data"].why == "interrupted, will resume"
    assert subprocess.run(command, env=os.environ | names).returncode == 0
    assert lab.events() == ["start data 0", "start data 2", "end data"]


def test_a_study_changed_since_is_refused_by_its_job(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    made = submission(lab, only="data")
    file, path = made.job(made.runs[:1], "data")
    write_json(path, file.model_copy(update={"runs": ["data-0000000000"]}).model_dump(mode="json"))
    with pytest.raises(UsageError, match=r"data-0000000000: its settings or its data were changed after"):
        jobs.run_job(path)


def test_the_launcher_of_a_job(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "SLURM_JOB_ID": "30007",
        "SLURM_NODEID": "1",
        "SLURM_JOB_NODELIST": "n[3,7]",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    launch = Launch.read(CONFIGS / "accelerate" / "16gpu-fsdp2-multinode.yaml")
    study, runs = lab.load()
    made = Submission(study, runs, lab.root, lab.files, Resources(), launch, FAKE)
    by_stage = {run.stage: run for run in runs}
    file, _ = made.job([by_stage["ppo"]], "any")
    command, env = jobs._command(file, by_stage["ppo"], Allocation.read())
    options = " ".join(command[3:])
    assert options == (
        f"--config_file {launch.config} --main_process_port 30007 --machine_rank 1 --main_process_ip n3 "
        "-m tldr _run"
    )
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    command, env = jobs._command(file, by_stage["data"], Allocation.read())
    assert command == list(FAKE)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n3", "n3"),
        ("n[3,7]", "n3"),
        ("n[03-12,20],m1", "n03"),
        ("a,b[1-2]", "a"),
        ("r[1-2]n[08-9]-ib", "r1n08-ib"),
    ],
)
def test_the_first_machine_of_a_job(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_the_task_of_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UsageError, match="this is not a SLURM job"):
        Allocation.read()
    values = {"JOB_ID": "41", "ARRAY_JOB_ID": "40", "ARRAY_TASK_ID": "2", "RESTART_COUNT": "3"}
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    here = Allocation.read()
    assert (here.number, here.name, here.task, here.restarts) == (41, "40_2", 2, 3)
