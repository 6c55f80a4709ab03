"""Memory and time of the models that a run samples from or scores with.

All such stages use `sample_responses` and `SummaryScorer`. Both run in one process and size their batches by
tokens, not by a setting. Under bf16 a model that is sampled from is loaded in bf16; a model that scores stays
in fp32 and runs under autocast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

from tldr.models.ladder import choose_attention
from tldr.plan.flops import Cost, PackedRow, body, decode_cost, head, plus, times
from tldr.plan.hardware import GIB, Assumed
from tldr.plan.memory import Memory, Options, encoded_together, reserve
from tldr.plan.steps import Forward, Shape, Use, peak_of
from tldr.stages.shared.batches import ATTENTION_PAIRS, INFERENCE_TOKENS
from tldr.stages.shared.sampling import sampling_tokens
from tldr.stages.shared.summary_scorer import TOGETHER


def in_one_batch(length: float, budget: int) -> int:
    """Number of rows of `length` tokens that `inference_batches` puts into one batch."""
    return max(1, int(min(budget // length, ATTENTION_PAIRS // length**2)))


@dataclass(frozen=True)
class Portion:
    """Queries of one shape that a model samples from or scores.

    Attributes:
        window: the largest numbers of tokens of a query and of each of its responses.
        mean: their mean numbers of tokens.
    """

    queries: float
    window: PackedRow
    mean: PackedRow


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model and the queries that it processes.

    Attributes:
        kind: "sample" from a policy, "score" responses by their log-probabilities under it, or "judge" them
            by a reward model or value network.
        beside: parameters of policies that stay on the device after sampling.
    """

    kind: Use
    shape: Shape
    portions: tuple[Portion, ...]
    beside: int = 0

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        return self.shape.reward if self.kind == "judge" else self.shape.policy

    def passes(self, portion: Portion) -> Iterator[Portion]:
        """The forward passes of a portion: a query's responses are scored at most `TOGETHER` at a time."""
        every = portion.window.options
        if self.kind == "sample" or every <= TOGETHER:
            yield portion
            return
        parts = {TOGETHER: every // TOGETHER} | ({every % TOGETHER: 1} if every % TOGETHER else {})
        for options, often in parts.items():
            window, mean = (replace(row, options=options) for row in (portion.window, portion.mean))
            yield Portion(portion.queries * often, window, mean)

    def together(self, part: Portion, query: float, response: float, width: int) -> int:
        """Number of queries in one batch at these lengths, with `width` bytes per number."""
        samples = self.kind == "sample"
        budget = sampling_tokens(self.shape.config, width) if samples else INFERENCE_TOKENS
        rows = in_one_batch(query + part.window.options * response, budget)
        return max(1, min(rows, round(part.queries)))

    def memory(self, part: Portion, options: Options, assumed: Assumed) -> tuple[Memory, int]:
        """Peak memory of a batch whose texts fill their windows, and the number of its queries."""
        window, samples = part.window, self.kind == "sample"
        width = options.width
        rows = self.together(part, window.query, window.response, width)
        how = Forward(
            int(window.query),
            window.options,
            int(window.response),
            bf16=options.bf16,
            attention=choose_attention("cuda" if options.cuda else "cpu"),
            encoded=encoded_together(int(window.query), rows, options) if samples else 1,
        )
        peak = peak_of(self.kind, self.shape, how, rows)
        numbers = rows * window.length * self.shape.layers * self.shape.cache
        cache = float(width * numbers) if samples else 0.0
        parts = {
            "frozen": float((width if samples else 4) * self.parameters + width * self.beside),
            "cache": cache,
            "activations": peak.working - peak.logits - cache,
            "logits": peak.logits,
        }
        phase = "sampling" if samples else "scoring"
        return Memory(parts | reserve(parts, peak.working, options, assumed), phase), rows

    def cost(self, options: Options) -> Cost:
        """Cost of all portions at mean lengths."""
        return reduce(
            plus,
            (times(self._query_cost(part, options), part.queries) for part in self._parts()),
            Cost(),
        )

    def peak(self, options: Options, assumed: Assumed) -> tuple[Memory, int]:
        """Peak memory of the portion that needs the most."""
        return _highest(self.memory(part, options, assumed) for part in self._parts())

    def _parts(self) -> Iterator[Portion]:
        for portion in self.portions:
            yield from self.passes(portion)

    def _query_cost(self, part: Portion, options: Options) -> Cost:
        if self.kind == "sample":
            # Batch sizes assume responses of full length.
            rows = self.together(part, part.mean.query, part.window.response, options.width)
            return decode_cost(self.shape, part.mean, rows, options)
        scores = 0.0 if self.kind == "judge" else head(self.shape, part.mean)
        return Cost(scoring=body(self.shape, part.mean) + scores)


@dataclass(frozen=True)
class InferenceJob:
    """A run that trains nothing: its models, one after the other (see `tldr.plan.jobs.RunJob`)."""

    models: tuple[LoadedModel, ...]

    trained = 0
    """Parameters that are trained."""

    @property
    def policy(self) -> int:
        """See `RunJob`."""
        return max(model.shape.policy for model in self.models)

    @property
    def loaded(self) -> int:
        """See `RunJob`."""
        return sum(model.parameters for model in self.models)

    def peak(self, options: Options, assumed: Assumed) -> tuple[Memory, int]:
        """See `RunJob`."""
        return _highest(model.peak(options, assumed) for model in self.models)

    def largest(self, options: Options, room: float, assumed: Assumed) -> None:
        """See `RunJob`; None: no setting determines the batch."""

    def cost(self, options: Options) -> Cost:
        """See `RunJob`."""
        return reduce(plus, (model.cost(options) for model in self.models), Cost())

    def remedies(self, options: Options, room: float, assumed: Assumed) -> Iterator[str]:
        """See `RunJob`; no setting reduces the memory of such a stage."""
        memory, _ = self.peak(options, assumed)
        yield f"one device of {memory.total / GIB:.0f} GiB for this stage, or a smaller model"


def _highest(peaks: Iterator[tuple[Memory, int]]) -> tuple[Memory, int]:
    return max(peaks, key=lambda peak: peak[0].total)
