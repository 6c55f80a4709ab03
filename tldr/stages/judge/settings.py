"""Settings of a study's judges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from tldr.errors import UsageError
from tldr.judge.budget import Price
from tldr.judge.endpoint import OPENAI_URL
from tldr.label.settings import LabelSettings
from tldr.records import Sample
from tldr.settings.base import Name, NonNegative, Positive, Settings, Share, Unit

OF_KIND: dict[str, tuple[str, ...]] = {
    "reward": ("path", "variant"),
    "openai": ("model", "base_url", "price", "max_cost", "concurrency", "timeout"),
    "people": ("unanswered", "page"),
}
"""Settings that one kind of judge alone has."""
NO_VERDICT = ("price", "max_cost", "concurrency", "timeout")
"""Settings that change no verdict, and so are no part of a run's name."""


class JudgeSettings(Settings):
    """A judge of every policy's summaries against the references, each pair in both orders."""

    newer: ClassVar[tuple[str, ...]] = ("pool_share",)
    kind: Literal["reward", "openai", "people"]
    """reward: a reward model that learned from other posts' labels than those that policies were trained
    against. openai: a language model at an OpenAI-compatible endpoint. people: on a page
    (`tldr-lab label serve`), each pair once, in an order drawn by chance. The toy world's planted labelers
    judge in any case."""
    posts: PositiveInt = 500
    """Posts whose summaries are judged, the same for every policy, chosen by a hash of their ids; a higher
    number only adds posts."""
    temperatures: list[NonNegative] | None = None
    """Only samples at these temperatures are judged; null: all."""
    further: bool = False
    """Judge the samples of variants and earlier rounds, too (Figs. 5 and 11)."""
    pool_share: Unit = 0.0
    """Judge best-of-N, too (Fig. 7), on this share of the posts of each size's largest pool that `posts`
    allows: by every chooser the best of the first 1, 2, 4, ... samples, each text once, whatever
    `temperatures` is. 0: not."""

    path: str | None = None
    """Reward: a run's folder or a checkpoint of a reward model from elsewhere."""
    variant: Name | None = None
    """Reward: a variant of kind reward of this study, at the largest size that it has."""

    model: str | None = None
    """OpenAI: the model's name at the endpoint."""
    base_url: str = OPENAI_URL
    """OpenAI: the endpoint; its key is the environment's OPENAI_API_KEY."""
    price: str | None = None
    """OpenAI: dollars for a million tokens of prompt and of answer, such as ``0.15/0.60``; ``0/0`` for your
    own server."""
    max_cost: NonNegative | None = None
    """OpenAI: dollars that the verdicts of one seed may cost. The run fails when it is reached; with a higher
    limit it goes on from there."""
    concurrency: PositiveInt = 8
    """OpenAI: requests at once."""
    timeout: Annotated[Positive, Field(ge=0.1)] = 60.0
    """OpenAI: seconds for one request."""

    unanswered: Share = 0.05
    """People: share of the questions that may stay open when the run goes on, as labelers may skip some."""
    page: LabelSettings = LabelSettings()
    """People: the page on which they judge. All but `labelers_per_item` may be changed while they do."""

    def naming(self) -> dict[str, Any]:
        """As of `Settings`, without the settings that change no verdict and those of other kinds."""
        other = {name for kind, names in OF_KIND.items() if kind != self.kind for name in names}
        values = super().naming()
        values["page"] = {"labelers_per_item": self.page.labelers_per_item}
        return {name: value for name, value in values.items() if name not in {*NO_VERDICT, *other}}

    def packages(self) -> dict[str, str]:
        """The client that asks an endpoint."""
        return {"kind": "openai"} if self.kind == "openai" else {}

    @property
    def per_million(self) -> Price:
        """The price of kind openai."""
        assert self.price is not None
        return Price.parse(self.price)

    def judged(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples at the temperatures that are judged."""
        return [one for one in samples if self.temperatures is None or one.temperature in self.temperatures]

    def pool_posts(self, posts: int) -> int:
        """On how many of a pool's posts best-of-N is judged."""
        return max(1, round(self.pool_share * min(self.posts, posts))) if self.pool_share else 0

    @model_validator(mode="after")
    def _of_one_kind(self) -> JudgeSettings:
        for kind, names in OF_KIND.items():
            for name in names if kind != self.kind else ():
                if getattr(self, name) != type(self).model_fields[name].get_default():
                    raise ValueError(f"{name} is for judges of kind {kind}, but the kind is {self.kind}")
        return self

    @model_validator(mode="after")
    def _complete(self) -> JudgeSettings:
        if self.kind == "reward":
            if (self.path is None) == (self.variant is None):
                raise ValueError("a judge of kind reward needs either a path or a variant")
            return self
        if self.kind == "people":
            return self
        if self.model is None or self.price is None:
            raise ValueError("a judge of kind openai needs a model and its price (0/0 for your own server)")
        try:
            price = self.per_million
        except UsageError as error:
            raise ValueError(f"price {error.what}, such as 0.15/0.60") from None
        if self.max_cost is None and (price.prompt or price.answer):
            raise ValueError("a judge of kind openai that costs something needs max_cost")
        return self
