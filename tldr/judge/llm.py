"""A language model as a judge: any OpenAI-compatible endpoint.

Every pair is asked about in both orders, each axis by itself, at temperature 0. An answer is saved
when it arrives (`tldr.judge.cache`), so no verdict is paid for twice and a killed run can go on.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tldr.errors import LabError
from tldr.judge.budget import Budget, CostEstimate, Price, estimated_tokens
from tldr.judge.cache import Answer, Cache, JudgeQuestion
from tldr.judge.endpoint import AgainError, Connection, Endpoint, RefusedError, UnansweredError
from tldr.judge.pairs import ORDERS, SummaryPair
from tldr.judge.prompt import Axis, build_prompt, parse_verdict
from tldr.records import Judgement

_LONGEST_WAIT = 600.0
"""Seconds; a question stays unanswered if the endpoint asks for a longer pause."""
_FAILURES_IN_A_ROW = 10
"""After this many questions without an answer the rest are not asked."""
_LOOKED_AT = 20
"""Answers after which a judge is stopped if nearly all are invalid: enough to tell, and cheap."""
_MOST_INVALID = 0.9
"""Share of invalid answers; a pair counts with two valid ones, so fewer than 1 % of pairs would."""


@dataclass(frozen=True)
class Limits:
    """Limits of a judge's requests and cost.

    Attributes:
        max_cost: dollars that the questions may cost, those that are paid already included.
        concurrency: requests at once. attempts: for one question.
        backoff: seconds before the second attempt; doubled for each further one up to a minute.
        answer_tokens: at most this many tokens of answer; a longer answer is cut, and invalid.
        retry_invalid: ask questions again whose answer in the cache holds no verdict.
    """

    max_cost: float | None = None
    concurrency: int = 8
    attempts: int = 8
    backoff: float = 0.5
    answer_tokens: int = 200
    retry_invalid: bool = False


@dataclass(frozen=True)
class _Asked:
    """A question about a pair."""

    pair: SummaryPair
    axis: Axis
    order: tuple[int, int]
    question: JudgeQuestion


class _Verdicts:
    """How many answers there are, and how many of them hold no verdict; safe for threads."""

    def __init__(self) -> None:
        self.answers = self.invalid = 0
        self.last = ""
        self._guard = threading.Lock()

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        with self._guard:
            self.answers += 1
            if parse_verdict(answer.text) == "invalid":
                self.invalid += 1
                self.last = answer.text

    @property
    def useless(self) -> bool:
        """Whether nearly all answers are invalid."""
        return self.answers >= _LOOKED_AT and self.invalid > _MOST_INVALID * self.answers


class LLMJudge:
    """Judges by asking a model; see `tldr.judge.prompt` for what it asks and how it reads."""

    def __init__(self, endpoint: Endpoint, cache: Cache, price: Price, limits: Limits = Limits()):
        self.endpoint, self.cache, self.price, self.limits = endpoint, cache, price, limits
        self.retries = 0
        self._stop = threading.Event()
        self._failures = 0
        self._verdicts = _Verdicts()
        self._tokens_per_estimate = 1.0

    @property
    def name(self) -> str:
        """``openai:MODEL``."""
        return f"openai:{self.endpoint.connection.model}"

    def estimate(self, pairs: Sequence[SummaryPair], axes: Sequence[Axis]) -> CostEstimate:
        """The cost of judging these pairs, without the answers that the cache holds."""
        questions = {asked.question.key: asked.question for asked in self._questions(pairs, axes)}
        kept = self.cache.known(questions.values())
        known = self._usable(kept)
        paid = sum(self._cost(questions[key], answer) for key, answer in kept.items())
        open_ones = [question for key, question in questions.items() if key not in known]
        return CostEstimate(
            questions=len(questions),
            answered=len(known),
            prompt_tokens=sum(map(self._prompt_tokens, open_ones)),
            answer_tokens=self.limits.answer_tokens * len(open_ones),
            cost=sum(map(self._at_most, open_ones)),
            paid=paid,
        )

    def judge(self, pairs: Sequence[SummaryPair], axes: Sequence[Axis]) -> Iterator[Judgement]:
        """As `eval.judge.pairs.Judge`: cached answers first, then new ones as they arrive.

        Raises:
            RefusedError: the endpoint refuses every question.
            LabError: the money is spent, questions got no answer, or nearly all answers are invalid; what
                was answered is kept.
        """
        asked: dict[str, list[_Asked]] = {}
        for one in self._questions(pairs, axes):
            asked.setdefault(one.question.key, []).append(one)
        questions = {key: same[0].question for key, same in asked.items()}
        kept = self.cache.known(questions.values())
        known = self._usable(kept)
        self.cache.forget(questions[key] for key in kept if key not in known)
        self._verdicts = _Verdicts()
        for key, answer in known.items():
            self._verdicts.add(answer)
            yield from self._judgements(asked[key], answer)
        self._stop.clear()
        if self._verdicts.useless:
            self._stop.set()
        self._failures = 0
        spent = sum(self._cost(questions[key], answer) for key, answer in kept.items())
        budget = Budget(self.limits.max_cost, spent)
        lost: list[str] = []
        refused: RefusedError | None = None
        unasked = 0
        pool = ThreadPoolExecutor(self.limits.concurrency)
        try:
            futures: dict[Future[Answer | None], str] = {
                pool.submit(self._answer, question, budget): key
                for key, question in questions.items()
                if key not in known
            }
            for future in as_completed(futures):
                try:
                    reply = future.result()
                except UnansweredError as error:
                    lost.append(str(error))
                    continue
                except RefusedError as error:
                    refused = error
                    continue
                if reply is None:
                    unasked += 1
                else:
                    yield from self._judgements(asked[futures[future]], reply)
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)  # open requests finish, and their answers are kept
        if refused is not None:
            raise refused
        self._tell(lost, unasked, len(questions), budget)

    def _usable(self, kept: Mapping[str, Answer]) -> dict[str, Answer]:
        """Of the answers in the cache, those that are not asked for again, by key."""
        again = self.limits.retry_invalid
        return {
            key: answer
            for key, answer in kept.items()
            if not (again and parse_verdict(answer.text) == "invalid")
        }

    def _questions(self, pairs: Sequence[SummaryPair], axes: Sequence[Axis]) -> Iterator[_Asked]:
        for pair in pairs:
            for axis in axes:
                for order in ORDERS:
                    a, b = (pair.texts[side] for side in order)
                    prompt = build_prompt(pair.post, a, b, axis)
                    question = self.endpoint.connection.question(prompt, self.limits.answer_tokens)
                    yield _Asked(pair, axis, order, question)

    def _judgements(self, asked: Sequence[_Asked], answer: Answer) -> Iterator[Judgement]:
        verdict = parse_verdict(answer.text)
        for one in asked:
            sha = one.question.prompt_sha
            yield one.pair.judgement(self.name, one.order, verdict, one.axis, raw=answer.text, prompt_sha=sha)

    def _answer(self, question: JudgeQuestion, budget: Budget) -> Answer | None:
        """The answer, after as many attempts as allowed; None if the run stops first.

        Raises:
            UnansweredError: every attempt failed. RefusedError: as `Endpoint.ask`.
        """
        if self._stop.is_set():
            return None
        with self.cache.claim(question):
            answer = self.cache.get(question)  # another process may have asked meanwhile
            if answer is not None:
                return answer
            try:
                answer = self._ask(question, budget)
            except UnansweredError:
                self._failures += 1
                if self._failures >= _FAILURES_IN_A_ROW:
                    self._stop.set()
                raise
            except BaseException:
                self._stop.set()
                raise
        self._failures = 0
        if answer is not None:
            self._verdicts.add(answer)
            if self._verdicts.useless:
                self._stop.set()
        return answer

    def _ask(self, question: JudgeQuestion, budget: Budget) -> Answer | None:
        reserved = self._at_most(question)
        for attempt in range(1, self.limits.attempts + 1):
            if not budget.reserve(reserved):
                self._stop.set()
                return None
            cost = 0.0
            try:
                answer = self.endpoint.ask(question)
                self.cache.put(question, answer)
                cost = self._cost(question, answer)
                return answer
            except AgainError as error:
                cost = reserved if error.billed else 0.0
                pause, reason = self._pause(error, attempt), str(error)
            finally:
                budget.settle(reserved, cost)
            if attempt == self.limits.attempts or pause > _LONGEST_WAIT:
                raise UnansweredError(f"{reason} (attempt {attempt})")
            self.retries += 1
            if self._stop.wait(pause):
                return None
        return None

    def _pause(self, error: AgainError, attempt: int) -> float:
        """Seconds to the next attempt: what the endpoint asks for, at least the doubled backoff."""
        backoff = min(self.limits.backoff * 2.0 ** (attempt - 1), 60.0)
        return max(backoff * random.uniform(0.5, 1.0), error.wait or 0.0)

    def _prompt_tokens(self, question: JudgeQuestion) -> int:
        """From the prompt's length, and more where the endpoint has counted more than that before."""
        return math.ceil(estimated_tokens(question.prompt) * self._tokens_per_estimate)

    def _at_most(self, question: JudgeQuestion) -> float:
        return self.price.of(self._prompt_tokens(question), self.limits.answer_tokens)

    def _cost(self, question: JudgeQuestion, answer: Answer) -> float:
        """Dollars an answer cost; where the endpoint counted no tokens, at most."""
        prompt, written = answer.prompt_tokens, answer.answer_tokens
        if prompt is not None:
            ratio = prompt / estimated_tokens(question.prompt)
            self._tokens_per_estimate = max(self._tokens_per_estimate, ratio)
        return self.price.of(
            self._prompt_tokens(question) if prompt is None else prompt,
            self.limits.answer_tokens if written is None else written,
        )

    def _tell(self, lost: Sequence[str], unasked: int, questions: int, budget: Budget) -> None:
        """Raise if questions are open."""
        kept = f"all answers are kept in {self.cache.path}"
        if lost:
            raise LabError(
                f"{len(lost) + unasked} of {questions} questions got no answer; the last: {lost[-1]}",
                where=self.endpoint.connection.url,
                remedy=f"run it again: {kept}",
            )
        seen = self._verdicts
        if unasked and seen.useless:
            raise LabError(
                f"{seen.invalid} of {seen.answers} answers ({seen.invalid / seen.answers:.0%}) hold no "
                f"verdict, so {unasked} of {questions} questions were not asked; the last: "
                f"{seen.last[:200]!r}",
                where=self.endpoint.connection.url,
                remedy="take another model, or --retry-invalid once the endpoint answers as the prompt asks: "
                + kept,
            )
        if unasked:
            raise LabError(
                f"the maximum cost is reached: ${budget.spent:.4f} spent, {unasked} of {questions} "
                "questions open",
                remedy=f"raise it (--max-cost, or max_cost of a study's judge) and run it again: {kept}",
            )


@contextmanager
def asking(connection: Connection, cache: Path, price: Price, limits: Limits) -> Iterator[LLMJudge]:
    """A judge at an endpoint, with its cache of answers open.

    Raises:
        UsageError: as for `Endpoint` and `Cache`.
    """
    with closing(Endpoint(connection)) as endpoint, closing(Cache(cache)) as answers:
        yield LLMJudge(endpoint, answers, price, limits)
