"""One request to an OpenAI-compatible endpoint: its answer, or an error that says whether to retry."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from tldr.errors import LabError, UsageError
from tldr.judge.cache import Answer, JudgeQuestion

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
_PASSING = {408, 409, 425, 429}
"""Statuses below 500 that a later attempt may avoid."""
_REFUSALS = {401, 403, 404}
"""Statuses that every other question would get as well."""


class RefusedError(LabError):
    """The endpoint will answer no question: wrong key, wrong model, no money left."""


class UnansweredError(Exception):
    """This question gets no answer."""


class AgainError(Exception):
    """This attempt failed, but another one may succeed.

    Attributes:
        wait: seconds that the endpoint asks to wait, None if it did not say.
        billed: the attempt may have been billed anyway.
    """

    def __init__(self, reason: str, *, wait: float | None = None, billed: bool = False):
        super().__init__(reason)
        self.wait = wait
        self.billed = billed


class _Message(BaseModel):
    """`content` is a text or a list of parts; whatever else it is, it was paid for and is kept as it came."""

    content: Any = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """The answer's text, or the whole content in JSON where no text can be read from it."""
        if self.content is None:
            return self.refusal or ""
        if isinstance(self.content, str):
            return self.content or self.refusal or ""
        parts = self.content if isinstance(self.content, list) else []
        texts = [text for part in parts if (text := _text_of(part)) is not None]
        return "".join(texts) if texts else self.refusal or json.dumps(self.content)


def _text_of(part: Any) -> str | None:
    """The text of one part of a message; None for a part of another kind, such as an image or a thought."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type", "text") not in ("text", "output_text"):
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    """The fields that are read of a chat completion; all others are ignored."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: Any = None


@dataclass(frozen=True)
class Connection:
    """The address of a model.

    Attributes:
        timeout: seconds for one attempt.
    """

    model: str
    url: str = OPENAI_URL
    timeout: float = 60.0

    def question(self, prompt: str, answer_tokens: int) -> JudgeQuestion:
        """The question for a prompt: temperature 0, at most `answer_tokens` tokens of answer."""
        parameters = {"temperature": 0.0, "max_tokens": answer_tokens}
        return JudgeQuestion(self.model, self.url.rstrip("/"), prompt, parameters)


class Endpoint:
    """Asks a model. The key comes from the environment alone; it is in no message and no answer.

    Raises:
        UsageError: openai is not installed, no key where one is needed, or a URL that holds one.
    """

    def __init__(self, connection: Connection):
        try:
            import openai
        except ImportError:
            raise UsageError(
                "asking an endpoint needs the openai package", remedy="pip install 'tldr-feedback[judge]'"
            ) from None
        url = urlsplit(connection.url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise UsageError(
                "not an endpoint's address: http(s)://HOST/PATH, with no key in it",
                where="--base-url",
                remedy=f"put the key into {KEY_VARIABLE}",
            )
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not self._key and connection.url == OPENAI_URL:
            raise UsageError(f"no key for {OPENAI_URL}", remedy=f"put it into {KEY_VARIABLE}")
        self.connection = connection
        self._limit = "max_tokens"
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=connection.url,
            timeout=connection.timeout,
            max_retries=0,  # the judge retries, after checking the budget before every attempt
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def ask(self, question: JudgeQuestion) -> Answer:
        """One attempt.

        Raises:
            AgainError, UnansweredError, RefusedError: as they say.
        """
        try:
            content = self._complete(question)
        except self._openai.APIStatusError as error:
            raise self._of_status(error) from None
        except self._openai.APIError as error:
            # A connection that was never made was not billed; one that broke or timed out may be.
            never = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            reason = f"{error.message} {error.__cause__ or ''}".strip()
            raise AgainError(self._reason(reason), billed=not never) from None
        try:
            completion = _Completion.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            reason = f"not a chat completion: {place}{': ' if place else ''}{first['msg']}"
            raise AgainError(self._reason(reason), billed=True) from None
        message, written = completion.choices[0].message, _count(completion.usage, "completion_tokens")
        if written is None and not isinstance(message.content, str | list | dict | None):
            # Neither a message nor a bill: a broken server rather than an unusual answer.
            raise AgainError("not a chat completion: content is neither text nor parts", billed=True)
        return Answer(self._without_key(message.text), _count(completion.usage, "prompt_tokens"), written)

    def _complete(self, question: JudgeQuestion) -> bytes:
        """The body of the answer. After a refusal of `max_tokens` it is `max_completion_tokens`.

        Raises:
            openai.APIError: as its client does.
        """
        limit = self._limit
        try:
            return self._request(question, limit)
        except self._openai.BadRequestError as error:
            if limit != "max_tokens" or not _refuses_max_tokens(error):
                raise
        self._limit = "max_completion_tokens"
        return self._request(question, self._limit)

    def _request(self, question: JudgeQuestion, limit: str) -> bytes:
        answer_tokens: dict[str, Any] = {limit: int(question.parameters["max_tokens"])}
        response = self._client.chat.completions.with_raw_response.create(
            model=question.model,
            messages=[{"role": "user", "content": question.prompt}],
            temperature=question.parameters["temperature"],
            **answer_tokens,
        )
        content: bytes = response.content
        return content

    def _of_status(self, error: Any) -> Exception:
        status = int(error.status_code)
        reason = self._reason(f"{status}: {error.message}")
        out_of_money = error.code == "insufficient_quota"
        if status in _REFUSALS or out_of_money:
            remedy = f"check the model's name, --base-url and {KEY_VARIABLE}"
            return RefusedError(f"the endpoint answers {reason}", where=self.connection.url, remedy=remedy)
        if status in _PASSING or status >= 500:
            return AgainError(reason, wait=_retry_after(error.response.headers.get("retry-after")))
        return UnansweredError(reason)

    def _without_key(self, text: str) -> str:
        """`text` with the key taken out, in case the endpoint sends it back."""
        return text.replace(self._key, "[key]") if self._key else text

    def _reason(self, text: str) -> str:
        """An error on one short line; some endpoints send whole pages."""
        return " ".join(self._without_key(text).split())[:300]


def _refuses_max_tokens(error: Any) -> bool:
    """Whether a refusal is about this parameter: an endpoint names it as such, or in its message."""
    return error.param == "max_tokens" or re.search(r"\bmax_tokens\b", str(error.message)) is not None


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else None


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3)."""
    if not header:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
        return max((when - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
