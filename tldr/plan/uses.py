"""Models that a run loads to sample from them or to score with them: their memory and time.

What such a stage does is told by the code that all of them share: `sample_responses` and `Scorer` make their
batches by tokens, not by a setting, in one process. What is sampled from is loaded in bf16 where that is the
precision; what scores is fp32, and bf16 is autocast's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

from tldr.models.ladder import choose_attention
from tldr.plan.flops import Cost, Row, body, decode_cost, head, plus, times
from tldr.plan.hardware import GIB, Assumed
from tldr.plan.memory import Memory, Options, encoded_together, reserve
from tldr.plan.steps import Forward, Shape, Use, peak_of
from tldr.stages.shared.batches import ATTENTION_PAIRS, INFERENCE_TOKENS
from tldr.stages.shared.sampling import sampling_tokens
from tldr.stages.shared.summary_scorer import TOGETHER


def in_one_batch(length: float, budget: int) -> int:
    """Rows of so many tokens that `inference_batches` puts together."""
    return max(1, int(min(budget // length, ATTENTION_PAIRS // length**2)))


@dataclass(frozen=True)
class Portion:
    """Queries that a model is asked about alike.

    Attributes:
        window: tokens at most of a query and of each of its responses.
        mean: the same on average.
    """

    queries: float
    window: Row
    mean: Row


@dataclass(frozen=True)
class Model:
    """A model that is loaded, and what it is asked.

    Attributes:
        kind: "sample" from a policy, "score" responses by their log-probabilities under it, or "judge" them
            by a reward model or value network.
        beside: parameters of policies that were sampled from and stay on the device meanwhile.
    """

    kind: Use
    shape: Shape
    portions: tuple[Portion, ...]
    beside: int = 0

    @property
    def parameters(self) -> int:
        """The model's."""
        return self.shape.reward if self.kind == "judge" else self.shape.policy

    def passes(self, portion: Portion) -> Iterator[Portion]:
        """A portion as it goes through the model: responses of a query are scored a few at a time."""
        every = portion.window.options
        if self.kind == "sample" or every <= TOGETHER:
            yield portion
            return
        parts = {TOGETHER: every // TOGETHER} | ({every % TOGETHER: 1} if every % TOGETHER else {})
        for options, often in parts.items():
            window, mean = (replace(row, options=options) for row in (portion.window, portion.mean))
            yield Portion(portion.queries * often, window, mean)

    def together(self, part: Portion, query: float, response: float, width: int) -> int:
        """Queries of one batch at these lengths, with numbers of `width` bytes."""
        samples = self.kind == "sample"
        budget = sampling_tokens(self.shape.config, width) if samples else INFERENCE_TOKENS
        rows = in_one_batch(query + part.window.options * response, budget)
        return max(1, min(rows, round(part.queries)))

    def memory(self, part: Portion, options: Options, assumed: Assumed) -> tuple[Memory, int]:
        """The peak while a batch is sampled or scored whose texts fill their windows, and its queries."""
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
        """All portions, at mean lengths."""
        return reduce(
            plus,
            (times(self._query_cost(part, options), part.queries) for part in self._parts()),
            Cost(),
        )

    def peak(self, options: Options, assumed: Assumed) -> tuple[Memory, int]:
        """The portion that needs most."""
        return _highest(self.memory(part, options, assumed) for part in self._parts())

    def _parts(self) -> Iterator[Portion]:
        for portion in self.portions:
            yield from self.passes(portion)

    def _query_cost(self, part: Portion, options: Options) -> Cost:
        if self.kind == "sample":
            # Batches are made for responses of full length.
            rows = self.together(part, part.mean.query, part.window.response, options.width)
            return decode_cost(self.shape, part.mean, rows, options)
        scores = 0.0 if self.kind == "judge" else head(self.shape, part.mean)
        return Cost(scoring=body(self.shape, part.mean) + scores)


@dataclass(frozen=True)
class Used:
    """A run that trains nothing: its models, one after the other (see `tldr.plan.jobs.Job`)."""

    models: tuple[Model, ...]

    trained = 0
    """Parameters that are trained."""

    @property
    def policy(self) -> int:
        """See `Job`."""
        return max(model.shape.policy for model in self.models)

    @property
    def loaded(self) -> int:
        """See `Job`."""
        return sum(model.parameters for model in self.models)

    def peak(self, options: Options, assumed: Assumed) -> tuple[Memory, int]:
        """See `Job`."""
        return _highest(model.peak(options, assumed) for model in self.models)

    def largest(self, options: Options, room: float, assumed: Assumed) -> None:
        """See `Job`: the batch is no setting."""

    def cost(self, options: Options) -> Cost:
        """See `Job`."""
        return reduce(plus, (model.cost(options) for model in self.models), Cost())

    def remedies(self, options: Options, room: float, assumed: Assumed) -> Iterator[str]:
        """See `Job`: no setting makes such a stage smaller."""
        memory, _ = self.peak(options, assumed)
        yield f"one device of {memory.total / GIB:.0f} GiB for this stage, or a smaller model"


def _highest(peaks: Iterator[tuple[Memory, int]]) -> tuple[Memory, int]:
    return max(peaks, key=lambda peak: peak[0].total)
