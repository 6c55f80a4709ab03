"""Compare the project's training steps with TRL's: same model, texts and batch sizes, in alternating rounds.

``python benchmarks/peers/run.py --out peers.jsonl``; README.md describes the comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from transformers import AutoConfig  # noqa: E402

from tldr.bench.texts import made_up_queries, made_up_responses  # noqa: E402
from tldr.plan.flops import PackedRow, plus, rollout_cost, step_cost, times  # noqa: E402
from tldr.plan.memory import Options, TrainingStep  # noqa: E402
from tldr.plan.steps import Shape, StepKind  # noqa: E402

TRL = {"sft": "1.16.0", "reward": "1.16.0", "ppo": "1.12.0"}
"""The newest release; for PPO the last one that has it."""
MODELS: dict[str, dict[str, Any]] = {
    name: {
        "model_type": "gpt_neox",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "vocab_size": vocab,
        "max_position_embeddings": 1024,
    }
    for name, (width, layers, heads, vocab) in {
        "small": (512, 6, 8, 50304),
        "tiny": (256, 4, 4, 8192),
        "test": (32, 2, 2, 512),
    }.items()
}
LENGTHS = {"query": 512, "response": 48, "rm_response": 128}
BATCH = {"sft": 8, "reward": 8, "ppo": 16}
SEED, TEXTS = 0, 512
PPO = {"epochs": 4, "response": LENGTHS["response"], "temperature": 0.7, "beta": 0.05, "micro_batch": 2}
"""`micro_batch`: queries per forward pass, the fastest of those tried (ours 1, 2, 4; TRL 2, 4, 8, 16)."""
TRL_MICRO_BATCH = 8
"""TRL's default."""
UNIT = {"sft": "tokens", "reward": "pairs", "ppo": "episodes"}
OURS = "ours"
UPDATES = {"sft": (2, 1), "reward": (2, 1), "ppo": (1, 1)}
"""Updates per round, ours and the peer's: of similar duration, each at least one batch."""


@dataclass
class Contestant:
    """A worker process; it makes a round on command and otherwise waits."""

    name: str
    process: subprocess.Popen[str]

    def round(self) -> dict[str, float]:
        """Make one round.

        Raises:
            RuntimeError: the process ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}; see above")
        row: dict[str, float] = json.loads(line)
        return row

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def environment(envs: Path, version: str) -> Path:
    """Python of a virtual environment with this TRL version and the project's torch and transformers."""
    place = envs / f"trl-{version}"
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        pins = dict(
            line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
        )
        wanted = [f"trl=={version}", *(f"{name}=={pins[name]}" for name in ("torch", "transformers"))]
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        (place / "ready").touch()
    return python


def contestants(stage: str, args: argparse.Namespace, folder: Path) -> Iterator[Contestant]:
    """Ours, TRL's default, and a faster TRL: without gradient checkpointing, or in smaller passes (PPO)."""
    peer = environment(args.envs, TRL[stage])
    script = HERE / ("trl_ppo.py" if stage == "ppo" else "trl_supervised.py")
    data = folder / f"{stage}.json"
    vocab = MODELS[args.size]["vocab_size"]
    responses = made_up_responses(TEXTS * (2 if stage == "reward" else 1), LENGTHS["response"], vocab, SEED)
    queries = made_up_queries(TEXTS, LENGTHS["query"], vocab, SEED)
    data.write_text(json.dumps({"queries": queries, "responses": responses}))
    ours, theirs = UPDATES[stage]
    default: dict[str, Any] = {"updates": theirs, "checkpointing": True}
    name, faster = "no checkpointing", default | {"checkpointing": False}
    if stage == "ppo":  # its trainer ignores that setting
        name, faster = f"{PPO['micro_batch']} queries a pass", default
        default = default | {"ppo": PPO | {"micro_batch": TRL_MICRO_BATCH}}
    lines: list[tuple[str, Path, Path, dict[str, Any]]] = [
        (OURS, Path(sys.executable), HERE / "ours.py", {"updates": ours}),
        (f"trl {TRL[stage]}", peer, script, default),
        (f"trl {TRL[stage]}, {name}", peer, script, faster),
    ]
    for name, python, code, changes in lines:
        spec = {
            "stage": stage,
            "model": MODELS[args.size],
            "data": str(data),
            "batch": BATCH[stage],
            "lengths": LENGTHS,
            "precision": "fp32",
            "seed": SEED,
            "ppo": PPO,
        } | changes
        place = folder / f"{stage}-{name}.json"
        place.write_text(json.dumps(spec))
        threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        yield Contestant(
            name,
            subprocess.Popen(
                [str(python), str(code), str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | threads | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            ),
        )


def useful_flops(stage: str, size: str) -> float:
    """Mean model FLOPs per token (SFT), pair or episode; a query counts once, padding never."""
    kinds: dict[str, StepKind] = {"sft": "response", "reward": "reward", "ppo": "ppo"}
    shape = Shape(AutoConfig.for_model(**MODELS[size]))
    vocab, options = MODELS[size]["vocab_size"], 2 if stage == "reward" else 1
    work = TrainingStep(
        kinds[stage],
        shape,
        LENGTHS["query"],
        options,
        LENGTHS["response"],
        BATCH[stage],
        frozen=(shape.policy, shape.reward),
    )
    plain = Options(bf16=False, cuda=False)
    queries = made_up_queries(TEXTS, LENGTHS["query"], vocab, SEED)
    response = LENGTHS["response"]
    if stage != "ppo":  # random policies almost never stop
        response = mean(map(len, made_up_responses(TEXTS * options, response, vocab, SEED)))
    flops, tokens = 0.0, 0.0
    for query in queries:
        row = PackedRow(len(query), options, response)
        cost = step_cost(work, plain, row)
        if stage == "ppo":
            cost = plus(times(cost, PPO["epochs"]), rollout_cost(work, row, 1, plain))
        flops, tokens = flops + cost.flops, tokens + row.length
    return flops / (tokens if stage == "sft" else len(queries))


def compare(stage: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rounds of a stage: the contestants alternate, after one warm-up round each."""
    rows: list[dict[str, Any]] = []
    unit, flops = UNIT[stage], useful_flops(stage, args.size)
    with tempfile.TemporaryDirectory() as folder:
        racers = list(contestants(stage, args, Path(folder)))
        try:
            for number in range(-1, args.rounds):
                for racer in racers:
                    row = racer.round()
                    speed = row["tokens" if stage == "sft" else "things"] / row["seconds"]
                    about = {"stage": stage, "name": racer.name, "round": number, f"{unit}_per_s": speed}
                    print(json.dumps(about), file=sys.stderr, flush=True)
                    if number >= 0:
                        rows.append(about | {"flops_per_s": speed * flops, "size": args.size} | row)
                        if args.out:
                            with args.out.open("a", encoding="utf-8") as file:
                                file.write(json.dumps(rows[-1]) + "\n")
        finally:
            for racer in racers:
                racer.end()
    return rows


def told(stage: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of the table: medians and ranges, paired ratios to each peer, fraction of the peak."""
    key = f"{UNIT[stage]}_per_s"
    speeds: dict[str, list[float]] = {}
    for row in rows:
        speeds.setdefault(row["name"], []).append(row[key])
    peak = max(row["gemm"] for row in rows if row["name"] == OURS)
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(speeds[OURS], found, strict=True)]
        share = median(row["flops_per_s"] for row in rows if row["name"] == name) / peak
        cells = [
            stage,
            name,
            f"{median(found):.4g} ({min(found):.4g}-{max(found):.4g}) {UNIT[stage]}/s",
            f"{100 * share:.0f} % of {peak / 1e9:.0f} GFLOP/s",
            "" if name == OURS else f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        ]
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "tldr-feedback" / "peers")
    parser.add_argument("--out", type=Path, help="append one JSON line per round to this file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", choices=MODELS, default="small")
    parser.add_argument("--stages", nargs="+", choices=TRL, default=list(TRL))
    args = parser.parse_args()
    lines = [
        "| stage | who | median (lowest-highest) | useful FLOPs | ours is faster by |",
        "|---|---|---|---|---|",
    ]
    for stage in args.stages:
        lines += told(stage, compare(stage, args))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
