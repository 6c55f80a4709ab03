"""The desk: who gets what, leases, repeated and late answers, undo, skips; by a clock that tests move."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.label.kit import ANSWERS, an_item, bench
from tldr.errors import DiskFullError, UsageError
from tldr.label.database import Database
from tldr.label.desk import DISTURBING, RefusedAnswer, Sent
from tldr.label.given import read_labels
from tldr.label.labelers import Labelers
from tldr.label.pools import load_items
from tldr.label.settings import LabelSettings
from tldr.locks import Busy


@pytest.mark.parametrize("each", [1, 2, 3])
def test_each_item_gets_its_number_of_labelers_and_no_labeler_gets_one_twice(
    tmp_path: Path, each: int
) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(20)], people=4, labelers_per_item=each)
    rng, seen = random.Random(0), Counter[str]()
    for _ in range(200):
        who = rng.choice(made.people)
        if (shown := made.desk.next(who)) is not None:
            made.answer(who, shown)
            seen[shown.item.id] += 1
    assert seen == {f"item-{n}": each for n in range(20)}


def test_no_two_people_have_one_item_until_a_lease_ends(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(0)], lease_seconds=60)
    first, second = made.people
    held = made.desk.next(first)
    assert held is not None and made.desk.next(second) is None
    made.clock.now += 59
    assert made.desk.next(second) is None
    made.desk.renew(first, held.ticket)
    made.clock.now += 59
    assert made.desk.next(second) is None
    made.clock.now += 2
    taken = made.desk.next(second)
    assert taken is not None and taken.item.id == "item-0"
    assert made.desk.next(first) is None, "who lost it does not get it back while another has it"
    made.answer(second, taken)
    with pytest.raises(RefusedAnswer, match="ran out"):
        made.answer(first, held)
    assert [label.labeler.worker for label in read_labels(made.project.database)] == ["worker-01"]
    with made.project.database.reading() as sql:
        assert [tuple(row) for row in sql.execute("SELECT item, reason FROM set_aside")] == [
            ("item-0", "late")
        ]


def test_a_late_answer_counts_if_nobody_else_took_the_item(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(0)], lease_seconds=60)
    held = made.desk.next(made.people[0])
    assert held is not None
    made.clock.now += 10_000
    made.answer(made.people[0], held)
    assert len(read_labels(made.project.database)) == 1


def test_a_reload_and_a_second_window_show_the_same_item_and_order(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(5)])
    once, again = (made.desk.next(made.people[0]) for _ in range(2))
    assert once == again and once is not None
    made.answer(made.people[0], once)
    with pytest.raises(RefusedAnswer, match="already") as refused:
        made.desk.answer(made.people[0], Sent(once.ticket, "from-the-other-window"), {"confidence": 1})
    assert refused.value.status == 409
    (label,) = read_labels(made.project.database)
    assert label.answer is not None and label.answer.model_dump()["confidence"] in (2, 8)


def test_sending_an_answer_again_changes_nothing(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(3)])
    shown = made.desk.next(made.people[0])
    assert shown is not None
    for _ in range(3):
        assert made.answer(made.people[0], shown) == {}
    assert len(read_labels(made.project.database)) == 1
    stolen = Sent(shown.ticket, f"answer-{shown.ticket}")
    with pytest.raises(RefusedAnswer, match="another answer"):
        made.desk.answer(made.people[1], stolen, {"confidence": 1})


def test_another_labelers_ticket_and_a_guessed_one_are_refused(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(3)])
    mine = made.desk.next(made.people[0])
    assert mine is not None
    for ticket in (mine.ticket, "guessed", "", mine.item.id):
        with pytest.raises(RefusedAnswer) as refused:
            made.desk.answer(made.people[1], Sent(ticket, "answer-id-1"), {"confidence": 1})
        assert refused.value.status == 404
    assert read_labels(made.project.database) == []


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("comparison", {"confidence": 5}),
        ("comparison", {"confidence": 0}),
        ("comparison", {"confidence": 10}),
        ("comparison", {"confidence": "8"}),
        ("comparison", {"confidence": 8.0}),
        ("comparison", {"confidence": True}),
        ("comparison", {}),
        ("comparison", {"confidence": 8, "order": [1, 0]}),
        ("comparison", {"confidence": 8, "notes": ["only one"]}),
        ("comparison", {"confidence": 8, "notes": ["", "x" * 2001]}),
        ("ranking", {"rank": [1, 2]}),
        ("ranking", {"rank": [1, 1, 2]}),
        ("ranking", {"rank": [0, 1, 2]}),
        ("rating", {"coverage": 3, "accuracy": 8, "coherence": 6, "overall": 4}),
        ("rating", {"coverage": 3, "accuracy": 7, "coherence": 6}),
        ("demonstration", {"summary": "  "}),
        ("demonstration", {"summary": "one two three four five six seven eight nine ten"}),
    ],
)
def test_an_invalid_answer_is_refused_and_the_item_stays(
    tmp_path: Path, kind: str, raw: dict[str, object]
) -> None:
    made = bench(tmp_path, [an_item(0, kind)])  # type: ignore[arg-type]
    shown = made.desk.next(made.people[0])
    assert shown is not None
    with pytest.raises(RefusedAnswer) as refused:
        made.desk.answer(made.people[0], Sent(shown.ticket, "answer-id-1"), raw)
    assert refused.value.status == 422
    assert made.desk.next(made.people[0]) == shown


def test_the_order_shown_is_random_kept_and_undone_in_the_answer(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(100)])
    firsts = 0
    for _ in range(100):
        shown = made.desk.next(made.people[0])
        assert shown is not None
        page = shown.page(made.project.settings)
        firsts += page["summaries"][0].startswith("summary 0")
        # chooses "summary 1" with strength 8, wherever it stands
        side = page["summaries"].index(f"summary 1 of {shown.item.id.removeprefix('item-')}")
        made.answer(made.people[0], shown, confidence=8 if side else 2, notes=["left", "right"])
    assert 30 < firsts < 70
    for label in read_labels(made.project.database):
        assert label.answer is not None
        given = label.answer.model_dump()
        assert given["confidence"] == 8
        assert given["notes"] == (["left", "right"] if label.order == [0, 1] else ["right", "left"])


def test_the_page_gets_no_id_policy_or_order(tmp_path: Path) -> None:
    known = {"known": {"confidence": 9}, "role": "calibration"}
    made = bench(tmp_path, [an_item(0, **known), an_item(1)], calibration=0.5)
    for _ in range(2):
        shown = made.desk.next(made.people[0])
        assert shown is not None
        page = shown.page(made.project.settings)
        assert set(page) == {
            "ticket", "kind", "post", "summaries", "interpretations", "warning", "training", "previous",
        }  # fmt: skip
        assert not any(
            word in json.dumps(page) for word in ("item-", "policy", "post-", "calibration", "order")
        )
        made.answer(made.people[0], shown)


def test_the_post_waits_for_the_interpretations(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(0)], naive_first=True)
    who = made.people[0]
    shown = made.desk.next(who)
    assert shown is not None and shown.page(made.project.settings)["post"] is None
    with pytest.raises(RefusedAnswer, match="First write"):
        made.answer(who, shown)
    with pytest.raises(RefusedAnswer, match="what each summary"):
        made.desk.interpret(who, shown.ticket, ["something", " "])
    seen = made.desk.interpret(who, shown.ticket, ["left", "right"])
    assert seen.page(made.project.settings)["post"]["text"] == "post 0"
    made.desk.interpret(who, shown.ticket, ["changed", "after the post"])
    made.answer(who, seen)
    (label,) = read_labels(made.project.database)
    assert label.answer is not None
    wanted = ["left", "right"] if label.order == [0, 1] else ["right", "left"]
    assert label.answer.model_dump()["interpretations"] == wanted


def test_undo_shows_the_last_answer_again_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n, "ranking") for n in range(3)])
    who, other = made.people
    shown = made.desk.next(who)
    assert shown is not None
    made.answer(who, shown, rank=[1, 2, 3], notes=["a", "", ""])
    following = made.desk.next(who)
    back = made.desk.undo(who)
    assert back.item.id == shown.item.id and list(back.order) == list(shown.order)
    assert back.previous is not None and back.previous.model_dump() == {
        "notes": ["a", "", ""],
        "rank": [1, 2, 3],
    }
    taken = made.desk.next(other)
    assert taken is not None and taken.item.id not in (shown.item.id, following and following.item.id)
    with pytest.raises(RefusedAnswer, match="taken back"):
        made.answer(who, shown, rank=[1, 2, 3])  # the old one, sent again from a queue
    assert made.desk.next(who) is not None
    made.answer(who, back, rank=[3, 2, 1])
    (label,) = read_labels(made.project.database)
    assert label.answer is not None and sorted(label.answer.model_dump()["rank"]) == [1, 2, 3]
    assert made.desk.next(who) == following, "the item that was on the desk comes back"


def test_nothing_to_undo(tmp_path: Path) -> None:
    training = {"role": "training", "known": {"confidence": 9}, "explanation": "because"}
    made = bench(tmp_path, [an_item(0, **training), an_item(1)])
    who = made.people[0]
    with pytest.raises(RefusedAnswer, match="no answer"):
        made.desk.undo(who)
    shown = made.desk.next(who)
    assert shown is not None and shown.item.role == "training"
    told = made.answer(who, shown, confidence=9)
    right = list(shown.order) == [0, 1]
    assert told == {
        "right": right,
        "known": {"notes": [], "confidence": 9 if right else 1, "interpretations": []},
        "explanation": "because",
    }
    assert made.answer(who, shown) == told, "sent again, it is explained again"
    with pytest.raises(RefusedAnswer, match="no answer"):
        made.desk.undo(who)


def test_skips_leave_the_item_to_others_and_flags_work(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(3)])
    first, second = made.people
    for reason in ("cannot-tell", "personal", "disturbing"):
        shown = made.desk.next(first)
        assert shown is not None
        made.desk.skip(first, Sent(shown.ticket, f"skip-{shown.ticket}"), reason, "a note")
    assert made.desk.next(first) is None
    seen = {}
    while (shown := made.desk.next(second)) is not None:
        seen[shown.item.id] = shown.warning
        made.answer(second, shown)
    assert seen == {"item-0": None, "item-2": DISTURBING}, "personal data are held back"
    back = made.desk.undo(first)
    assert back.item.id == "item-2" and back.warning is None
    with pytest.raises(RefusedAnswer, match="reason"):
        made.desk.skip(first, Sent(back.ticket, "skip-again"), "no reason")


def test_every_labeler_gets_the_shared_pool_and_known_answers_at_their_share(tmp_path: Path) -> None:
    known = {"known": {"confidence": 9}, "role": "calibration"}
    items = [an_item(n) for n in range(120)] + [an_item(n, **known) for n in range(200, 230)]
    made = bench(tmp_path, items, people=3, shared=0.2, calibration=0.1)
    with made.project.database.reading() as sql:
        shared = {row["id"] for row in sql.execute("SELECT id FROM items WHERE pool='shared'")}
    assert 10 < len(shared) < 45
    seen: list[list[str]] = [[] for _ in made.people]
    working = list(range(3))
    while working:
        for number in list(working):
            answered = made.label(made.people[number], 1)
            seen[number] += answered
            if not answered:
                working.remove(number)
    for mine in seen:
        assert shared <= set(mine) and len(set(mine)) == len(mine)
        part = mine[:40]
        assert 1 <= sum(int(id.removeprefix("item-")) >= 200 for id in part) <= 12
        assert len(shared & set(part)) >= 3, "the shared pool comes in from the start"
    main = Counter(
        id for mine in seen for id in mine if id not in shared and int(id.removeprefix("item-")) < 200
    )
    assert set(main.values()) == {1} and len(main) == 120 - len(shared)


def test_the_same_state_gives_the_same_items(tmp_path: Path) -> None:
    items = [an_item(n) for n in range(40)]
    runs = []
    for name in ("one", "two"):
        made = bench(tmp_path / name, items, people=2, shared=0.3)
        runs.append([made.label(person, 15) for person in made.people])
    assert runs[0] == runs[1]


def test_paused_and_dropped_labelers(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(4)])
    held = made.desk.next(made.people[0])
    assert held is not None
    made.answer(made.people[0], held)
    shown = made.desk.next(made.people[0])
    assert shown is not None
    made.project.labelers.set_status("worker-00", "paused")
    with pytest.raises(RefusedAnswer, match="paused"):
        made.desk.next(made.person(0))
    made.answer(made.person(0), shown)  # what they were at counts
    made.project.labelers.set_status("worker-00", "dropped")
    assert len(made.label(made.people[1])) == 4, "a dropped labeler's items are asked again"
    assert len(read_labels(made.project.database)) == 6, "and their labels stay"
    with pytest.raises(UsageError, match="no status"):
        made.project.labelers.set_status("worker-00", "fired")


def test_times_are_bounded_by_the_servers_clock(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(4)])
    who = made.people[0]
    # elapsed on the server; seconds and idle that the page measured; what is kept
    cases = [(100, 30, 50, 30, 50), (100, 5000, 0, 100, 0), (100, 500, 80, 20, 80), (-3600, 40, 0, 0, 0)]
    for elapsed, seconds, idle, *_ in cases:
        shown = made.desk.next(who)
        assert shown is not None
        made.clock.now += elapsed
        made.desk.answer(who, Sent(shown.ticket, f"answer-{shown.ticket}", seconds, idle), {"confidence": 1})
    kept = [(label.seconds, label.idle) for label in read_labels(made.project.database)]
    assert kept == [(seconds, idle) for *_, seconds, idle in cases]


def test_items_may_be_added_but_labeled_ones_not_changed(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(3)])
    made.label(made.people[0], 1)
    database, settings = made.project.database, made.project.settings
    load_items(database, [an_item(n) for n in range(5)], settings)
    assert len(made.label(made.people[1])) == 4
    with pytest.raises(UsageError, match="'item-0'"):
        load_items(database, [an_item(0, batch="other"), *(an_item(n) for n in range(1, 5))], settings)
    with pytest.raises(UsageError, match="removed"):
        load_items(database, [an_item(n) for n in range(1, 5)], settings)


def test_a_full_disk_refuses_the_answer_and_keeps_all_others(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(n, "demonstration") for n in range(400)], max_tokens=900)
    who, kept = made.people[0], 0
    with made.project.database.reading() as sql:
        pages = sql.execute("PRAGMA page_count").fetchone()[0]
    with made.project.database._lock:
        made.project.database._sql.execute(f"PRAGMA max_page_count={pages + 8}")
    with pytest.raises(DiskFullError, match="not counted"):
        for kept in range(400):
            shown = made.desk.next(who)
            assert shown is not None
            made.desk.answer(who, Sent(shown.ticket, f"answer-{kept}-x"), {"summary": "word " * 700})
    assert 0 < kept == len(read_labels(made.project.database))
    made.project.database._sql.execute("PRAGMA max_page_count=1000000")
    assert len(made.label(who, 3)) == 3, "with room again it goes on"


def test_every_answer_is_synced_to_disk(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(0)])
    shown = made.desk.next(made.people[0])
    assert shown is not None
    said: list[str] = []
    made.project.database._sql.set_trace_callback(said.append)
    made.answer(made.people[0], shown)
    made.project.database._sql.set_trace_callback(None)
    begun = said.index("BEGIN IMMEDIATE")
    assert said[begun - 1] == "PRAGMA synchronous=FULL" and said[-1] in ("COMMIT", "COMMIT;")
    with made.project.database.reading() as sql:
        assert sql.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_secrets_are_not_in_the_database(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(0)])
    owner = made.project.labelers.new_owner()
    made.project.database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (*made.secrets, owner):
        assert secret.encode() not in stored and len(secret) == 32


def test_links(tmp_path: Path) -> None:
    labelers = Labelers(Database(tmp_path / "labels.sqlite"))
    first = labelers.add("Ann", 0.0)
    assert labelers.by_secret(first) is not None and not labelers.is_owner(first)
    with pytest.raises(UsageError, match="already"):
        labelers.add("Ann", 0.0)
    second = labelers.again("Ann")
    assert labelers.by_secret(first) is None and labelers.by_secret(second) is not None
    with pytest.raises(UsageError, match="no labeler"):
        labelers.again("Ben")
    labelers.add("elsewhere", 0.0, worker="someone", link=False)
    assert [person.worker for person in labelers.all()] == ["worker-00", "someone"]
    for wrong in ("", "x", second[:-1]):
        assert labelers.by_secret(wrong) is None and not labelers.is_owner(wrong)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    from tldr.errors import LabError

    broken = tmp_path / "labels.sqlite"
    broken.write_bytes(b"not a database at all" * 100)
    with pytest.raises(LabError, match="cannot be used"):
        Database(broken)
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as sql:
        sql.execute("PRAGMA user_version=9")
    with pytest.raises(UsageError, match="version 9"):
        Database(newer)


def test_two_that_open_a_new_file_at_once_make_its_tables_once(tmp_path: Path) -> None:
    """A study that waits for labels looks into the file that the server is making."""
    hands = 6
    for number in range(25):
        at_once = threading.Barrier(hands)

        def open_and_write(name: str, path: Path = tmp_path / f"{number}.sqlite") -> None:
            at_once.wait()  # noqa: B023
            with closing(Database(path)) as database:
                Labelers(database).add(name, 0.0)

        with ThreadPoolExecutor(hands) as pool:
            list(pool.map(open_and_write, "abcdef"))
        with closing(Database(tmp_path / f"{number}.sqlite")) as database:
            assert len(Labelers(database).all()) == hands


def test_another_program_that_writes_all_the_time_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.sqlite"
    with closing(Database(path)) as database, closing(sqlite3.connect(path)) as other:
        database._sql.execute("PRAGMA busy_timeout=50")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="not counted") as caught:
            Labelers(database).add("a", 0.0)
        assert "other program" in str(caught.value)
        other.rollback()
        Labelers(database).add("a", 0.0)


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="above max_tokens"):
        LabelSettings(min_tokens=50)
    assert ANSWERS.keys() == {"comparison", "ranking", "rating", "demonstration"}
