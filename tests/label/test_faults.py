"""The server killed at any moment, and fifty people at once."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.label.kit import an_item, bench
from tests.label.remote import Caller, Server
from tldr.label.database import NAME, Database
from tldr.label.given import read_labels


def label_until_cut_off(
    port: int, secret: str, name: str, acknowledged: list[str], failures: list[str]
) -> None:
    """Answer item after item until the connection breaks; keep the ids of acknowledged answers."""
    caller, number = Caller(port, secret), 0
    try:
        while True:
            status, reply = caller("next")
            if status != 200 or reply["item"] is None:
                failures.append(f"{name}: {status} {reply}")
                return
            id = f"{name}-{number}-answer"
            status, reply = caller.answer(reply["item"]["ticket"], "comparison", id)
            if status == 200:
                acknowledged.append(id)
            else:
                failures.append(f"{name}: {status} {reply}")
            number += 1
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        return  # cut off


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_server_loses_no_acknowledged_answer(tmp_path: Path, kills: int) -> None:
    made = bench(tmp_path, [an_item(n) for n in range(20_000 if kills > 2 else 4000)], people=6)
    made.project.database.close()
    rng, acknowledged, failures = random.Random(0), list[str](), list[str]()
    for kill in range(kills):
        server = Server(tmp_path, "shared=0.0", "calibration=0.0")
        threads = [
            threading.Thread(
                target=label_until_cut_off,
                args=(server.port, secret, f"{kill}-{number}", acknowledged, failures),
            )
            for number, secret in enumerate(made.secrets)
        ]
        for thread in threads:
            thread.start()
        before, most, end = len(acknowledged), rng.randint(1, 40), time.monotonic() + 60
        while len(acknowledged) < before + most and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        server.kill()
        for thread in threads:
            thread.join(30)
    database = Database(tmp_path / NAME)
    labels = read_labels(database)
    with database.reading() as sql:
        assert sql.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    ids = {label.answer_id for label in labels}
    print(f"{kills} kills, {len(acknowledged)} acknowledged answers, {len(ids)} on disk")
    assert acknowledged and set(acknowledged) <= ids, "an acknowledged answer is lost"
    assert len(ids) - len(acknowledged) <= kills * len(made.secrets), "only what was on its way is more"
    assert max(Counter(label.item.id for label in labels).values()) == 1, "assigned twice"
    assert failures == []


@pytest.mark.slow
def test_fifty_people_at_one_answer_a_second(tmp_path: Path) -> None:
    """Prints the latencies; a busy machine may be slow, but must lose nothing and assign nothing twice."""
    people, seconds = 50, 40
    made = bench(tmp_path, [an_item(n) for n in range(people * seconds + 500)], people=people)
    made.project.database.close()
    server = Server(tmp_path, "shared=0.0", "calibration=0.0")
    acknowledged, failures, waits = list[str](), list[str](), dict[str, list[float]]()
    waits |= {"answer": [], "next": []}

    def work(number: int, secret: str) -> None:
        caller, rng = Caller(server.port, secret), random.Random(number)
        due = time.monotonic() + rng.random()
        for count in range(seconds):
            time.sleep(max(0.0, due - time.monotonic()))
            due += 1.0
            start = time.perf_counter()
            status, reply = caller("next")
            middle = time.perf_counter()
            id = f"person-{number}-{count}"
            status, reply = caller.answer(reply["item"]["ticket"], "comparison", id)
            waits["next"].append(middle - start)
            waits["answer"].append(time.perf_counter() - middle)
            (acknowledged if status == 200 else failures).append(id)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(made.secrets)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    server.stop()
    labels = read_labels(Database(tmp_path / NAME))
    for name, times in waits.items():
        times.sort()
        p50, p99 = (1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
        print(f"{name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, worst {1000 * times[-1]:.0f} ms")
    print(f"{len(acknowledged)} answers of {people} people in {took:.1f} s")
    assert failures == [] and len(acknowledged) == people * seconds
    assert {label.answer_id for label in labels} == set(acknowledged)
    assert max(Counter(label.item.id for label in labels).values()) == 1
