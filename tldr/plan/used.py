"""The stages that sample from models or score with them and train nothing, as jobs.

Each function names a stage's models in the order in which it loads them, and counts what they are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import factorial

from tldr.plan.counts import Counts
from tldr.plan.flops import Row
from tldr.plan.steps import Shape, Use
from tldr.plan.uses import Model, Portion, Used
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.data.settings import FileData
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.pairs.settings import PairsSettings
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.shared.reporting import NEWS
from tldr.stages.shared.reporting import ways_of_sampling as ways
from tldr.stages.shared.settings import EvaluationSettings
from tldr.study.graph import Run
from tldr.toy.edits import EDITS

PROBED = 13
"""Different texts of a post's ten probes (`tldr.stages.pairs.probes`), where the post allows them all."""


def used(run: Run, counts: Counts) -> Used | None:
    """A run's models and what they are asked; None where it loads none."""
    stage = _STAGES.get(run.stage)
    models = tuple(stage(_Asked(run, counts))) if stage else ()
    return Used(models) if models else None


@dataclass(frozen=True)
class _Asked:
    """A run, and the study that it is of."""

    run: Run
    counts: Counts

    def shape(self, name: str) -> Shape:
        """Of an input's model; one from elsewhere is the rung's own."""
        runs = self.run.parents[name].runs
        spec = runs[0].model if runs else self.run.model
        assert spec is not None
        return self.counts.shape(spec)

    def inputs(self, *prefixes: str) -> list[str]:
        """Names of the models among the inputs that begin so, in the order of loading."""
        return sorted(name for name in self.run.parents if name.startswith(prefixes))

    def model(self, kind: Use, name: str, *portions: Portion, beside: int = 0) -> Model:
        """An input's model and its portions."""
        return Model(kind, self.shape(name), portions, beside)

    def portion(self, queries: float, options: int, response: int | None = None) -> Portion:
        """Posts in the study's format, with responses no longer than the policy's if not said otherwise."""
        lengths = self.counts.study.lengths
        window = Row(lengths.query, options, response or lengths.response)
        return Portion(queries, window, self.counts.typical(window))

    def reported(self, posts: int | None) -> int:
        """Posts or articles that are reported on, at most so many."""
        every = self.counts.posts(self.run.dataset or "valid2")
        return every if posts is None else min(posts, every)

    def asked_of(self, settings: EvaluationSettings, options: int) -> Portion:
        """The posts as the run's own policy reads them: behind examples, where it is asked zero-shot."""
        portion = self.portion(self.reported(settings.posts), options)
        if self.run.dataset == NEWS:
            return self._filled(portion, self.counts.study.lengths.query)  # articles fill the window
        zero_shot = settings.zero_shot if self.run.method == "pretrained" else None
        if zero_shot is None:
            return portion
        shown = (zero_shot.examples + 1) * self.counts.assumed.query
        return self._filled(portion, zero_shot.query_tokens, shown)

    def _filled(self, portion: Portion, query: int, tokens: float = float("inf")) -> Portion:
        window, mean = portion.window, portion.mean
        return Portion(
            portion.queries,
            Row(query, window.options, window.response),
            Row(min(tokens, query), mean.options, mean.response),
        )


def _sample(asked: _Asked) -> Iterator[Model]:
    settings = asked.run.settings
    assert isinstance(settings, EvaluationSettings)
    portion = asked.asked_of(settings, 1)
    every = [portion] * len(ways(settings, asked.run.method))
    yield asked.model("sample", "policy", *every)


def _score(asked: _Asked) -> Iterator[Model]:
    settings, parents = asked.run.settings, asked.run.parents
    assert isinstance(settings, EvaluationSettings)
    sampled = parents["samples"].runs[0]
    drawn = sampled.settings
    assert isinstance(drawn, EvaluationSettings | BestOfNSettings)
    options = len(drawn.scorers if isinstance(drawn, BestOfNSettings) else ways(drawn, sampled.method))
    settings = settings.model_copy(update={"posts": drawn.posts})
    plain = asked.asked_of(settings.model_copy(update={"zero_shot": None}), options)
    yield asked.model("score", "policy", asked.asked_of(settings, options))
    yield asked.model("score", "sft", plain)
    window = asked.counts.study.lengths.rm_response  # the reference is scored beside the samples
    judged = asked.portion(plain.queries, options + 1, window)
    yield asked.model("judge", "reward", judged)
    trained = parents["ppo"].runs[0].settings if "ppo" in parents else None
    if isinstance(trained, PPOSettings) and _keeps_value(trained):
        yield asked.model("judge", "ppo", plain)


def _keeps_value(settings: PPOSettings) -> bool:
    return settings.algorithm == "ppo" and settings.value_network == "separate" and settings.save_value


def _best_of_n(asked: _Asked) -> Iterator[Model]:
    settings = asked.run.settings
    assert isinstance(settings, BestOfNSettings)
    portion = asked.portion(asked.reported(settings.posts), settings.n)
    policy = asked.model("sample", "policy", portion)
    yield policy
    for name in asked.inputs("reward"):
        yield asked.model("judge", name, portion, beside=policy.parameters)


def _labels(asked: _Asked) -> Iterator[Model]:
    settings, policies = asked.run.settings, asked.inputs("policy-")
    assert isinstance(settings, LabelsSettings)
    questions = settings.pairs + settings.valid_pairs
    shares = policy_slots(settings)
    for name in policies:  # none where labels are given
        each = questions / len(policies)
        yield asked.model("sample", name, *(asked.portion(shares[n] * each, n) for n in sorted(shares) if n))


def policy_slots(settings: LabelsSettings) -> dict[int, float]:
    """How many of a question's summaries the policy writes -> share of the questions.

    A slot is the reference's, a writer's or the policy's by their shares; of several references all but one
    become the policy's.
    """
    low, high = settings.k
    reference, writer = settings.reference_share, settings.writer_share
    shares: dict[int, float] = {}
    for k in range(low, high + 1):
        for references, writers in product(range(k + 1), repeat=2):
            others = k - references - writers
            if others < 0:
                continue
            orders = factorial(k) // (factorial(references) * factorial(writers) * factorial(others))
            chance = reference**references * writer**writers * (1 - reference - writer) ** others
            slots = k - writers - min(references, 1)
            shares[slots] = shares.get(slots, 0.0) + orders * chance / (high - low + 1)
    return shares


def _pairs(asked: _Asked) -> Iterator[Model]:
    settings, study = asked.run.settings, asked.counts.study
    assert isinstance(settings, PairsSettings)
    every, policies = asked.counts.posts("valid2"), asked.inputs("policy-")
    probed = min(settings.posts, every)
    toy = not isinstance(study.data, FileData)
    drawn = 2 * len(policies) if toy else 0
    texts = PROBED + (2 * len(EDITS) if toy else 0) + drawn
    if toy:
        for name in policies:
            yield asked.model("sample", name, asked.portion(probed, 2))
    # Questions go round the posts; of given labels it is not known how many there are: one a post.
    questions = study.labels.valid_pairs - study.labels.valid_pairs // 2 if toy else every
    labelled = min(questions, every)
    shown = round(questions / max(labelled, 1) * sum(study.labels.k) / 2)
    window = study.lengths.rm_response
    portions = (
        asked.portion(labelled - min(probed, labelled), shown, window),
        asked.portion(min(probed, labelled), shown + texts, window),
        asked.portion(probed - min(probed, labelled), texts, window),
    )
    for name in asked.inputs("reward-", "sft-"):
        kind: Use = "judge" if name.startswith("reward-") else "score"
        yield asked.model(kind, name, *(portion for portion in portions if portion.queries))


_STAGES: dict[str, Callable[[_Asked], Iterator[Model]]] = {
    "labels": _labels,
    "best_of_n": _best_of_n,
    "sample": _sample,
    "score": _score,
    "pairs": _pairs,
}
