"""The labeling page over HTTP: static files, and a JSON request for each thing that somebody does.

The secret of a link stands behind the ``#`` of its address, which browsers do not send; the page sends it in
the ``Authorization`` header. There are no cookies, so no other site can act for a labeler.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tldr.errors import DiskFullError, LabError
from tldr.label.desk import SKIP_REASONS, RefusedAnswer, Sent
from tldr.label.labelers import Labeler
from tldr.label.overview import overview
from tldr.label.project import Project
from tldr.locks import Busy
from tldr.strict_json import parse_object

WEB = Path(__file__).parent / "web"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MOST_BYTES = 64 * 1024
"""Of a request's body."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
B = TypeVar("B", bound="PageRequest")
Reply = dict[str, Any]


class PageRequest(BaseModel):
    """Base of what the page sends: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Nothing(PageRequest):
    """No content."""


class AboutTicket(PageRequest):
    """A hold on an item."""

    ticket: str


class Interpretations(AboutTicket):
    """What each summary alone seems to say, in the order shown."""

    texts: list[str]


class Answering(AboutTicket):
    """An answer and the time it took."""

    answer_id: str
    answer: dict[str, Any]
    seconds: float = Field(0.0, ge=0)
    idle: float = Field(0.0, ge=0)

    def sent(self) -> Sent:
        """The part that the desk keeps with the answer."""
        return Sent(self.ticket, self.answer_id, self.seconds, self.idle)


class Skipping(Answering):
    """A skipped item."""

    answer: dict[str, Any] = {}
    reason: str
    note: str = ""


class Counting(PageRequest):
    """A text to count."""

    text: str = Field(max_length=4000)


class StatusChange(PageRequest):
    """The owner pauses, drops or re-activates a labeler."""

    worker: str
    status: str


class HoldChange(PageRequest):
    """The owner releases an item, or keeps it back for good."""

    item: str
    held: bool


@dataclass
class Site:
    """What the handlers share."""

    project: Project
    _counted: tuple[float, int, int] = field(default=(-1e9, 0, 0))

    def routes(self) -> list[BaseRoute]:
        """Every address."""
        files = {path.name: path for path in WEB.iterdir() if path.suffix in TYPES}
        pages = [
            Route("/", _file(files["index.html"])),
            Route("/owner", _file(files["owner.html"])),
            Route("/health", self.health),
            *(Route(f"/static/{name}", _file(path)) for name, path in files.items()),
        ]
        labeler = {
            "me": self._handler(Nothing, self.me),
            "next": self._handler(Nothing, self.next),
            "interpret": self._handler(Interpretations, self.interpret),
            "renew": self._handler(AboutTicket, self.renew),
            "answer": self._handler(Answering, self.answer),
            "skip": self._handler(Skipping, self.skip),
            "undo": self._handler(Nothing, self.undo),
            "count": self._handler(Counting, self.count),
        }
        owner = {
            "owner": self._owner(Nothing, self.overview),
            "owner/labeler": self._owner(StatusChange, self.set_status),
            "owner/item": self._owner(HoldChange, self.set_held),
        }
        api = (labeler | owner).items()
        return [*pages, *(Route(f"/api/{name}", handler, methods=["POST"]) for name, handler in api)]

    async def health(self, request: Request) -> Response:
        """That the server answers."""
        return JSONResponse({"ok": True}, headers=HEADERS)

    def _handler(self, kind: type[B], act: Callable[[Labeler, B], Reply]) -> Any:
        async def handle(request: Request) -> Response:
            def work(body: bytes) -> Reply:
                who = self.project.labelers.by_secret(_secret(request))
                if who is None:
                    raise RefusedAnswer("This link is not valid. Ask for a new one.", 401)
                return act(who, _parsed(kind, body))

            return await _answered(request, work)

        return handle

    def _owner(self, kind: type[B], act: Callable[[B], Reply]) -> Any:
        async def handle(request: Request) -> Response:
            def work(body: bytes) -> Reply:
                if not self.project.labelers.is_owner(_secret(request)):
                    raise RefusedAnswer("This is not the owner's link.", 401)
                return act(_parsed(kind, body))

            return await _answered(request, work)

        return handle

    # A labeler's requests

    def me(self, who: Labeler, body: Nothing) -> Reply:
        """What the page needs to begin."""
        settings = self.project.settings
        return {
            "worker": who.worker,
            "name": who.name,
            "title": settings.title,
            "kinds": self.project.kinds,
            "instructions": self.project.instructions,
            "naive_first": settings.naive_first,
            "length": [settings.min_tokens, settings.max_tokens, self.project.desk.length.unit],
            "reasons": SKIP_REASONS,
        }

    def next(self, who: Labeler, body: Nothing) -> Reply:
        """The next item and the progress."""
        shown = self.project.desk.next(who)
        item = None if shown is None else shown.page(self.project.settings)
        return {"item": item, "progress": self._progress(who)}

    def _progress(self, who: Labeler) -> Reply:
        """The labeler's own count, and the project's, which is counted at most every five seconds."""
        now = time.monotonic()
        with self.project.database.reading() as sql:
            mine = sql.execute("SELECT count(*) FROM labels WHERE labeler=?", (who.id,)).fetchone()[0]
            if now - self._counted[0] > 5:
                done, wanted = self.project.totals(sql)
                self._counted = (now, done, wanted)
        return {"mine": mine, "done": self._counted[1], "wanted": self._counted[2]}

    def interpret(self, who: Labeler, body: Interpretations) -> Reply:
        """Keep the interpretations; reply with the post."""
        shown = self.project.desk.interpret(who, body.ticket, body.texts)
        return {"item": shown.page(self.project.settings)}

    def renew(self, who: Labeler, body: AboutTicket) -> Reply:
        """Keep an item for longer."""
        self.project.desk.renew(who, body.ticket)
        return {}

    def answer(self, who: Labeler, body: Answering) -> Reply:
        """Take an answer; it is on disk when the reply is sent."""
        return self.project.desk.answer(who, body.sent(), body.answer)

    def skip(self, who: Labeler, body: Skipping) -> Reply:
        """Skip an item."""
        self.project.desk.skip(who, body.sent(), body.reason, body.note)
        return {}

    def undo(self, who: Labeler, body: Nothing) -> Reply:
        """Take the last answer back."""
        return {
            "item": self.project.desk.undo(who).page(self.project.settings),
            "progress": self._progress(who),
        }

    def count(self, who: Labeler, body: Counting) -> Reply:
        """The length of a text."""
        return {"count": self.project.desk.length(body.text)}

    # The owner's requests

    def overview(self, body: Nothing) -> Reply:
        """Everything on the owner's page."""
        return overview(self.project)

    def set_status(self, body: StatusChange) -> Reply:
        """Pause, drop or re-activate a labeler."""
        self.project.labelers.set_status(body.worker, body.status)
        return overview(self.project)

    def set_held(self, body: HoldChange) -> Reply:
        """Release a flagged item or keep it back."""
        with self.project.database.writing() as sql:
            sql.execute(
                "UPDATE items SET held=?, flag=CASE WHEN ? THEN flag ELSE NULL END WHERE id=?",
                (int(body.held), body.held, body.item),
            )
        return overview(self.project)


def _file(path: Path) -> Any:
    async def handle(request: Request) -> Response:
        headers = HEADERS | {"Cache-Control": "no-cache"}
        return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)

    return handle


def _secret(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ").strip()


def _parsed(kind: type[B], body: bytes) -> B:
    try:
        return kind.model_validate(parse_object(body or b"{}"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RefusedAnswer(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 422) from None
    except ValueError as error:
        raise RefusedAnswer(str(error), 400) from None


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise RefusedAnswer(f"The request is larger than {MOST_BYTES} bytes.", 413)
        parts.append(part)
    return b"".join(parts)


async def _answered(request: Request, work: Callable[[bytes], Reply]) -> Response:
    """The reply of a request, or its refusal in words; `work` runs in a thread."""
    try:
        reply, status = await run_in_threadpool(work, await _body(request)), 200
    except RefusedAnswer as error:
        reply, status = {"error": error.what}, error.status
    except (DiskFullError, Busy):
        reply, status = {"error": "The server could not write: its disk is full or busy."}, 507
    except LabError as error:
        reply, status = {"error": error.what}, 400
    content = json.dumps(reply, ensure_ascii=False)
    return Response(content, status, headers=HEADERS, media_type="application/json")


def make_app(project: Project) -> Starlette:
    """The server of a project."""
    return Starlette(routes=Site(project).routes())
