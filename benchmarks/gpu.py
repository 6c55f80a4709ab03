"""Check bf16 against fp32 and measure the speed of all stages on a GPU; writes ``results/speed/``.

``python benchmarks/gpu.py`` measures OPT-1.3B and OPT-6.7B with random weights on the first GPU (half an
hour on a Hopper GPU); ``--tiny`` does the same with a toy model on any device, in a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from rich.console import Console  # noqa: E402

from tldr.bench.agree import BOUNDS, agreement  # noqa: E402
from tldr.bench.measure import ERROR, BenchRow, Case  # noqa: E402
from tldr.bench.run import STAGES, cases, measured  # noqa: E402
from tldr.bench.table import table_of  # noqa: E402
from tldr.study.load import load_study  # noqa: E402
from tldr.study.settings import Study  # noqa: E402

OPT = ROOT / "configs"
LINES: list[tuple[str, list[str], list[str]]] = [
    # study, stages, settings
    ("opt-1.3b", ["sft", "reward"], []),
    ("opt-1.3b", ["ppo"], ["ppo.batch=256"]),
    ("opt-1.3b", ["ppo"], ["ppo.batch=256", "ppo.gradient_checkpointing=false", "ppo.frozen_dtype=bf16"]),
    ("opt-6.7b", ["sft", "reward"], ["sft.batch=32", "reward.batch=16"]),
    ("opt-6.7b", ["ppo"], []),
]
"""The cases to measure; batches are smaller than the paper's where a round would take minutes."""
TINY = """
name: tiny
data: {kind: files, sft: a.jsonl, valid1: b.jsonl, valid2: c.jsonl, comparisons: d.jsonl, corpus: e.jsonl}
tokenizer: {vocab_size: 512}
lengths: {query: 64, response: 16, rm_response: 32}
ladder: {t: {arch: opt, d_model: 32, layers: 2, heads: 2, context: 128}}
pretrain: {}
sft: {batch: 8}
reward: {batch: 4}
ppo: {batch: 8, epochs: 2, micro_batch: 4}
"""


def studies(tiny: bool) -> Iterator[tuple[Study, list[str]]]:
    """The studies to measure, each with its stages."""
    if not tiny:
        for name, stages, settings in LINES:
            yield load_study(OPT / f"{name}.yaml", settings), stages
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.yaml"
        path.write_text(TINY, encoding="utf-8")
        yield load_study(path), list(STAGES)


def checked(study: Study) -> list[BenchRow]:
    """Compare bf16 with fp32 in one step of every stage, on a model of this study's shape."""
    found = [case for case in cases(study, STAGES, 1, 1) if isinstance(case, Case)]
    return [agreement(case) for case in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure and write; returns 1 if bf16 is outside its bounds or nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="use a toy model, on any device")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "speed")
    args = parser.parse_args(arguments)
    if not args.tiny and not torch.cuda.is_available():
        parser.error("no GPU found; --tiny runs the same on a CPU")
    args.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=200)

    def keep(name: str, row: dict[str, Any]) -> None:
        with (args.out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    wrong = 0
    first, _ = next(studies(args.tiny))
    for row in checked(first):
        keep("agreement.jsonl", row)
        wrong += not row["within"]
        console.print(
            f"{row['stage']}: bf16 against fp32 {'within' if row['within'] else 'OUTSIDE'} {BOUNDS}: {row}"
        )
    results: list[BenchRow] = []
    for study, stages in studies(args.tiny):
        for case in cases(study, stages, args.rounds, 1):
            for row in [case] if isinstance(case, dict) else measured(case):
                results.append(row)
                keep("gpu.jsonl", row)
    console.print(table_of(results))
    return int(bool(wrong) or all(ERROR in row for row in results))


if __name__ == "__main__":
    raise SystemExit(main())
