"""The cost of judging: an estimate before, and a limit that holds while many requests are open."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from tldr.errors import UsageError

_BYTES_PER_TOKEN = 3.0
"""English takes some 4.3 bytes a token; fewer here, so that estimates err upwards."""
_CHAT_TOKENS = 16
"""Tokens that a chat template adds."""


def estimated_tokens(prompt: str) -> int:
    """Tokens of a prompt, from its length in bytes; meant to be too many rather than too few."""
    return math.ceil(len(prompt.encode()) / _BYTES_PER_TOKEN) + _CHAT_TOKENS


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens of prompt and of answer."""

    prompt: float
    answer: float

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read ``PROMPT/ANSWER``, such as ``0.15/0.60``.

        Raises:
            UsageError: not two numbers, or one below 0.
        """
        try:
            prompt, answer = (float(part) for part in text.split("/"))
        except ValueError:
            prompt = answer = math.nan
        if not (0 <= prompt < math.inf and 0 <= answer < math.inf):
            raise UsageError(
                f"{text!r} is not a price",
                where="--price",
                remedy="give dollars for a million tokens of prompt and of answer, such as 0.15/0.60",
            )
        return cls(prompt, answer)

    def of(self, prompt_tokens: float, answer_tokens: float) -> float:
        """Dollars for these numbers of tokens."""
        return (self.prompt * prompt_tokens + self.answer * answer_tokens) / 1e6


@dataclass(frozen=True)
class CostEstimate:
    """The estimated cost of a run.

    Attributes:
        questions: different ones; `answered`: how many of them the cache can answer.
        prompt_tokens, answer_tokens, cost: of those still to be asked, at most (tokens, dollars).
        paid: dollars that the answered ones cost when they were asked.
    """

    questions: int
    answered: int
    prompt_tokens: int
    answer_tokens: int
    cost: float
    paid: float


class Budget:
    """Dollars spent and dollars reserved for open requests; together never more than `limit`.

    The most that a request may cost is reserved before it is sent, and its cost is settled after.
    """

    def __init__(self, limit: float | None, spent: float = 0.0):
        self.limit = math.inf if limit is None else limit
        self.spent = spent
        self._open = 0
        self._held = 0.0
        self._changed = threading.Condition()

    def reserve(self, cost: float) -> bool:
        """Set `cost` aside; False if it does not fit, even after every open request is settled."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(cost) or not self._open)
            if not self._fits(cost):
                return False
            self._open += 1
            self._held += cost
            return True

    def settle(self, reserved: float, cost: float) -> None:
        """Give back what was `reserved` for a request, and count what it cost."""
        with self._changed:
            self._open -= 1
            self._held = self._held - reserved if self._open else 0.0
            self.spent += cost
            self._changed.notify_all()

    def _fits(self, cost: float) -> bool:
        return cost == 0 or self.spent + self._held + cost <= self.limit * (1 + 1e-12)
