"""ROUGE as a module of Hugging Face `evaluate`: the numbers of `eval.rouge.measure`, loaded from this folder.

>>> import evaluate, eval.rouge
>>> rouge = evaluate.load(str(eval.rouge.METRIC))
>>> rouge.compute(predictions=["the cat sat"], references=["the cat lay"])["rouge1"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets  # type: ignore[import-untyped]
import evaluate  # type: ignore[import-untyped]
import numpy.typing as npt

from eval.common.stats import bootstrap_means
from eval.rouge.measure import VARIANTS, Backend, resolve_backend, rouge
from tldr.errors import UsageError

DESCRIPTION = """ROUGE-1, -2, -L and -Lsum of rouge-score, averaged over all pairs, with a seeded interval.

Unlike the module `rouge` of the hub it gives the mean, not the middle of an unseeded bootstrap."""

USAGE = """
Args:
    predictions, references: texts, one reference a prediction.
    rouge_types: some of rouge1, rouge2, rougeL, rougeLsum, rouge_mean (of R-1, R-2 and R-L); all by default.
    use_stemmer: Porter stemming; off by default.
    split_sentences: put a newline after each sentence, which rougeLsum needs.
    use_aggregator: False gives a list with one value per pair.
    clusters: what each pair belongs to, such as its post: the interval resamples these whole.
    draws, seed: of the bootstrap.
    backend: "auto", "rouge-score" or "rouge-score-rs".
Returns:
    A dictionary: <type> (F), <type>_low and <type>_high (95 % interval of F), <type>_precision and
    <type>_recall (not of rouge_mean); pairs, stemmer and backend.
"""


class Rouge(evaluate.Metric):  # type: ignore[misc]
    """See `USAGE`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries",
            inputs_description=USAGE,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        *,
        rouge_types: Sequence[str] = (*VARIANTS, "rouge_mean"),
        use_stemmer: bool = False,
        split_sentences: bool = False,
        use_aggregator: bool = True,
        clusters: npt.ArrayLike | None = None,
        draws: int = 2000,
        seed: int = 0,
        backend: Backend = "auto",
    ) -> dict[str, Any]:
        if unknown := set(rouge_types) - {*VARIANTS, "rouge_mean"}:
            raise UsageError(
                f"no such ROUGE: {', '.join(sorted(unknown))}",
                remedy=f"choose from {', '.join(VARIANTS)}, rouge_mean",
            )
        scores = rouge(
            references, predictions, stemmer=use_stemmer, split_sentences=split_sentences, backend=backend
        )
        columns = {name: "rouge_mean" if name == "rouge_mean" else f"{name}_f" for name in rouge_types}
        if not use_aggregator:
            return {name: scores[column].tolist() for name, column in columns.items()}
        estimates = bootstrap_means(scores[[*columns.values()]], clusters, draws=draws, seed=seed)
        result: dict[str, Any] = {}
        for (name, column), one in zip(columns.items(), estimates, strict=True):
            result |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
            if column != "rouge_mean":
                result[f"{name}_precision"] = float(scores[f"{name}_p"].mean())
                result[f"{name}_recall"] = float(scores[f"{name}_r"].mean())
        return result | {
            "pairs": len(scores),
            "stemmer": use_stemmer,
            "backend": resolve_backend(backend),
        }
