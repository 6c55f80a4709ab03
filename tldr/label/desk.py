"""The desk gives items to labelers and takes their answers, each in one transaction.

Every order of events is allowed: an answer sent twice, from two windows, after its lease, after it was taken
back. A ticket names one labeler's hold on one item. An answer's own id, chosen by the page, makes sending it
again harmless.
"""

from __future__ import annotations

import json
import random
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tldr.errors import LabError
from tldr.label.answers import ANSWERS, DemonstrationAnswer, TaskAnswer, agreement
from tldr.label.assign import has_room, held_item, next_item
from tldr.label.database import Database
from tldr.label.items import LabelItem
from tldr.label.labelers import Labeler, recount
from tldr.label.lengths import TextLength
from tldr.label.settings import LabelSettings

SKIP_REASONS = {
    "cannot-tell": "I cannot tell",
    "broken": "The text is broken or not in my language",
    "personal": "It shows personal data (a name, an address, a number)",
    "disturbing": "It is disturbing",
    "other": "Another reason",
}
"""Reason -> its words. Personal data hold the item back for the owner; disturbing texts get a warning."""
DISTURBING = "Another labeler found this text disturbing."


class RefusedAnswer(LabError):
    """A request that the desk does not grant; the page shows the words.

    Args:
        status: the HTTP status.
    """

    def __init__(self, what: str, status: int):
        super().__init__(what)
        self.status = status


@dataclass(frozen=True)
class Sent:
    """What a page sends with an answer: its ticket, the answer's id, active and idle seconds."""

    ticket: str
    answer_id: str
    seconds: float = 0.0
    idle: float = 0.0


@dataclass(frozen=True)
class Shown:
    """An item as one labeler sees it: texts in the order shown, no names, no ids."""

    ticket: str
    item: LabelItem
    order: Sequence[int]
    before: list[str] | None
    previous: TaskAnswer | None = None
    warning: str | None = None

    def page(self, settings: LabelSettings) -> dict[str, Any]:
        """What the page gets. A post that must wait for the interpretations is not in it."""
        info = self.item.info
        waits = self.item.kind == "comparison" and settings.naive_first and self.before is None
        post = {"subreddit": info.subreddit, "title": info.title, "text": info.post or info.article}
        return {
            "ticket": self.ticket,
            "kind": self.item.kind,
            "post": None if waits else post,
            "summaries": [self.item.summaries[place].text.strip() for place in self.order],
            "interpretations": self.before,
            "warning": self.warning,
            "training": self.item.role == "training",
            "previous": None if self.previous is None else self.previous.model_dump(),
        }


@dataclass
class Desk:
    """Serves labelers. `clock` gives seconds since 1970."""

    database: Database
    settings: LabelSettings
    clock: Callable[[], float]
    length: TextLength = field(default_factory=TextLength)

    def next(self, who: Labeler) -> Shown | None:
        """The labeler's unfinished item, or a fresh one; None if nothing is left.

        Raises:
            RefusedAnswer: the labeler is paused or dropped.
        """
        self._only_active(who)
        with self.database.writing(durable=False) as sql:
            now = self.clock()
            each = self.settings.labelers_per_item
            item = held_item(sql, who, now, each) or next_item(sql, who, now, self.settings)
            return None if item is None else self._lease(sql, who, item, now)

    def _only_active(self, who: Labeler) -> None:
        if who.status != "active":
            what = "paused" if who.status == "paused" else "ended"
            raise RefusedAnswer(f"The owner has {what} your labeling for now. Your answers are kept.", 403)

    def _lease(
        self, sql: sqlite3.Connection, who: Labeler, id: str, now: float, previous: TaskAnswer | None = None
    ) -> Shown:
        """Give the item to the labeler until the lease ends; whoever has it keeps ticket and order."""
        row = sql.execute("SELECT * FROM items WHERE id=?", (id,)).fetchone()
        item = LabelItem.model_validate_json(row["body"])
        order = list(range(len(item.summaries)))
        random.Random(f"{self.settings.seed}/shown/{id}/{who.worker}").shuffle(order)
        values = (
            id,
            who.id,
            secrets.token_urlsafe(12),
            json.dumps(order),
            now,
            now + self.settings.lease_seconds,
        )
        sql.execute(
            """INSERT INTO leases(item, labeler, ticket, shown, taken, expires) VALUES(?,?,?,?,?,?)
            ON CONFLICT(item, labeler) DO UPDATE SET expires=excluded.expires""",
            values,
        )
        lease = sql.execute("SELECT * FROM leases WHERE item=? AND labeler=?", (id, who.id)).fetchone()
        before = None if lease["before"] is None else json.loads(lease["before"])
        warning = item.warning or (DISTURBING if row["flag"] == "disturbing" else None)
        return Shown(lease["ticket"], item, json.loads(lease["shown"]), before, previous, warning)

    def _held(self, sql: sqlite3.Connection, who: Labeler, ticket: str) -> sqlite3.Row:
        """The lease of a ticket.

        Raises:
            RefusedAnswer: it is another's, was answered, or never was.
        """
        lease = sql.execute("SELECT * FROM leases WHERE ticket=? AND labeler=?", (ticket, who.id)).fetchone()
        if lease is not None:
            assert isinstance(lease, sqlite3.Row)
            return lease
        answered = "SELECT 1 FROM labels WHERE ticket=? AND labeler=?"
        if sql.execute(answered, (ticket, who.id)).fetchone():
            raise RefusedAnswer("You have answered this item already, perhaps in another window.", 409)
        raise RefusedAnswer("This item is not yours to answer.", 404)

    def interpret(self, who: Labeler, ticket: str, texts: list[str]) -> Shown:
        """Keep what each summary alone seems to say, and show the post. The first texts stay.

        Raises:
            RefusedAnswer: not this labeler's item, or not a text for each summary.
        """
        with self.database.writing() as sql:
            lease = self._held(sql, who, ticket)
            body = sql.execute("SELECT body FROM items WHERE id=?", (lease["item"],)).fetchone()["body"]
            count = len(LabelItem.model_validate_json(body).summaries)
            if len(texts) != count or not all(text.strip() and len(text) <= 2000 for text in texts):
                raise RefusedAnswer("Write in a few words what each summary says.", 422)
            sql.execute(
                "UPDATE leases SET before=coalesce(before, ?) WHERE ticket=?", (json.dumps(texts), ticket)
            )
            return self._lease(sql, who, lease["item"], self.clock())

    def renew(self, who: Labeler, ticket: str) -> None:
        """Keep an item for a labeler who is at work on it.

        Raises:
            RefusedAnswer: not this labeler's item, or others have taken it.
        """
        with self.database.writing(durable=False) as sql:
            lease, now = self._held(sql, who, ticket), self.clock()
            each = self.settings.labelers_per_item
            if lease["expires"] <= now and not has_room(sql, lease["item"], who, now, each):
                raise RefusedAnswer("Your time on this item ran out, and others have labeled it.", 409)
            until = now + self.settings.lease_seconds
            sql.execute("UPDATE leases SET expires=? WHERE ticket=?", (until, ticket))

    def answer(self, who: Labeler, sent: Sent, raw: dict[str, Any]) -> dict[str, Any]:
        """Take an answer about the order shown. When this returns it is on disk.

        Returns:
            For a training item, the right answer, its explanation and whether they agree; else nothing.

        Raises:
            RefusedAnswer: the answer is invalid, was given or taken back before, or came too late.
            DiskFullError: it could not be written.
        """
        return self._take(who, sent, raw, None)

    def skip(self, who: Labeler, sent: Sent, reason: str, note: str = "") -> None:
        """Leave an item unanswered, for a reason. The labeler does not get it again.

        Raises:
            RefusedAnswer: as for `answer`.
        """
        if reason not in SKIP_REASONS or len(note) > 2000:
            raise RefusedAnswer("Choose a reason for skipping.", 422)
        self._take(who, sent, None, json.dumps({"reason": reason, "note": note}))

    def _take(self, who: Labeler, sent: Sent, raw: dict[str, Any] | None, skip: str | None) -> dict[str, Any]:
        if who.status == "dropped":
            self._only_active(who)
        if not 8 <= len(sent.answer_id) <= 64:
            raise RefusedAnswer("The answer has no id.", 422)
        with self.database.writing() as sql:
            known = self._known(sql, who, sent)
            if known is None:
                lease, now = self._held(sql, who, sent.ticket), self.clock()
                row = sql.execute("SELECT body FROM items WHERE id=?", (lease["item"],)).fetchone()
                item = LabelItem.model_validate_json(row["body"])
                answer = None if raw is None else self._parsed(item, lease, raw)
                late = not self._in_time(sql, who, lease, now)
                if late:
                    values = (sent.answer_id, item.id, who.id, _json(answer), "late", now)
                    sql.execute("INSERT INTO set_aside VALUES(?,?,?,?,?,?)", values)
                    sql.execute("DELETE FROM leases WHERE ticket=?", (sent.ticket,))
                else:
                    self._write(sql, who, sent, lease, (answer, skip, now))
            else:
                item, answer, late, lease = *known, False, None
        if late:
            raise RefusedAnswer(
                "Your time on this item ran out, and others have labeled it. The answer was set aside.", 409
            )
        order = json.loads(lease["shown"]) if lease is not None else None
        return self._explained(item, answer, order, who)

    def _known(
        self, sql: sqlite3.Connection, who: Labeler, sent: Sent
    ) -> tuple[LabelItem, TaskAnswer | None] | None:
        """The item and the answer if this very answer was taken before; None if it is new."""
        row = sql.execute(
            "SELECT labels.*, body FROM labels JOIN items ON items.id=item WHERE answer_id=?",
            (sent.answer_id,),
        ).fetchone()
        if row is not None:
            if (row["labeler"], row["ticket"]) != (who.id, sent.ticket):
                raise RefusedAnswer("This answer's id belongs to another answer.", 409)
            item = LabelItem.model_validate_json(row["body"])
            return item, None if row["answer"] is None else ANSWERS[item.kind].model_validate_json(
                row["answer"]
            )
        if sql.execute("SELECT 1 FROM set_aside WHERE answer_id=?", (sent.answer_id,)).fetchone():
            raise RefusedAnswer("This answer was taken back or came too late.", 409)
        return None

    def _parsed(self, item: LabelItem, lease: sqlite3.Row, raw: dict[str, Any]) -> TaskAnswer:
        """The answer in the item's order."""
        try:
            answer = ANSWERS[item.kind].model_validate(raw)
            answer.fits(len(item.summaries))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "answer"
            raise RefusedAnswer(f"The answer is not valid: {place}: {first['msg']}", 422) from None
        except ValueError as error:
            raise RefusedAnswer(f"The answer is not valid: {error}", 422) from None
        if isinstance(answer, DemonstrationAnswer):
            count = self.length(answer.summary)
            least, most = self.settings.min_tokens, self.settings.max_tokens
            if not least <= count <= most:
                raise RefusedAnswer(
                    f"The summary has {count} {self.length.unit}; write {least} to {most}.", 422
                )
        if lease["before"] is not None:
            answer = answer.model_copy(update={"interpretations": json.loads(lease["before"])})
        elif item.kind == "comparison" and self.settings.naive_first:
            raise RefusedAnswer("First write what each summary says.", 422)
        return answer.unshuffled(json.loads(lease["shown"]))

    def _in_time(self, sql: sqlite3.Connection, who: Labeler, lease: sqlite3.Row, now: float) -> bool:
        """Whether the lease lives, or ended while no one else filled the item."""
        each = self.settings.labelers_per_item
        return lease["expires"] > now or has_room(sql, lease["item"], who, now, each)

    def _write(
        self,
        sql: sqlite3.Connection,
        who: Labeler,
        sent: Sent,
        lease: sqlite3.Row,
        given: tuple[TaskAnswer | None, str | None, float],
    ) -> None:
        answer, skip, now = given
        # the page measures; but no longer than the item has been out, whatever its clock says
        out = max(now - lease["taken"], 0.0)
        idle = min(max(sent.idle, 0.0), out)
        seconds = min(max(sent.seconds, 0.0), out - idle)
        values = (lease["item"], who.id, sent.answer_id, sent.ticket, lease["shown"])
        sql.execute(
            "INSERT INTO labels(item, labeler, answer_id, ticket, shown, answer, skip, seconds, idle, at)"
            " VALUES(?,?,?,?,?,?,?,?,?,?)",
            (*values, _json(answer), skip, round(seconds, 3), round(idle, 3), now),
        )
        sql.execute("DELETE FROM leases WHERE ticket=?", (sent.ticket,))
        recount(sql, "id=?", lease["item"])
        if skip is not None:
            reason = json.loads(skip)["reason"]
            if reason in ("personal", "disturbing"):
                held = int(reason == "personal")
                change = "UPDATE items SET flag=?, held=max(held, ?) WHERE id=?"
                sql.execute(change, (reason, held, lease["item"]))

    def _explained(
        self, item: LabelItem, answer: TaskAnswer | None, order: Sequence[int] | None, who: Labeler
    ) -> dict[str, Any]:
        if item.role != "training" or answer is None or item.known is None:
            return {}
        if order is None:
            with self.database.reading() as sql:
                row = sql.execute(
                    "SELECT shown FROM labels WHERE item=? AND labeler=?", (item.id, who.id)
                ).fetchone()
            order = json.loads(row["shown"])
        known = ANSWERS[item.kind].model_validate(item.known)
        agreeing, of = agreement(known, answer)
        right = agreeing == of if of else None
        return {"right": right, "known": known.shuffled(order).model_dump(), "explanation": item.explanation}

    def undo(self, who: Labeler) -> Shown:
        """Take back the labeler's last answer or skip, and show the item again with it filled in.

        Raises:
            RefusedAnswer: there is none, or it was of the training round.
        """
        self._only_active(who)
        with self.database.writing() as sql:
            row = sql.execute(
                """SELECT labels.*, body, pool FROM labels JOIN items ON items.id=item
                WHERE labeler=? ORDER BY labels.id DESC LIMIT 1""",
                (who.id,),
            ).fetchone()
            if row is None or row["pool"] == "training":
                raise RefusedAnswer("There is no answer to take back.", 409)
            now = self.clock()
            values = (row["answer_id"], row["item"], who.id, row["answer"] or row["skip"], "undone", now)
            sql.execute("INSERT INTO set_aside VALUES(?,?,?,?,?,?)", values)
            sql.execute("DELETE FROM labels WHERE id=?", (row["id"],))
            item = LabelItem.model_validate_json(row["body"])
            order, answer, before = json.loads(row["shown"]), None, None
            if row["answer"] is not None:
                answer = ANSWERS[item.kind].model_validate_json(row["answer"]).shuffled(order)
                before = getattr(answer, "interpretations", None) or None
            if row["skip"] is not None and json.loads(row["skip"])["reason"] in ("personal", "disturbing"):
                sql.execute("UPDATE items SET flag=NULL, held=0 WHERE id=?", (item.id,))
            recount(sql, "id=?", item.id)
            sql.execute(
                "INSERT INTO leases(item, labeler, ticket, shown, before, taken, expires)"
                " VALUES(?,?,?,?,?,?,?)",
                (
                    item.id,
                    who.id,
                    secrets.token_urlsafe(12),
                    row["shown"],
                    None if before is None else json.dumps(before),
                    now,
                    now + self.settings.lease_seconds,
                ),
            )
            return self._lease(sql, who, item.id, now, answer)


def _json(answer: TaskAnswer | None) -> str | None:
    return None if answer is None else answer.model_dump_json()
