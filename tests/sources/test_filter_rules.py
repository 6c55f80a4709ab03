"""Each rule of the filter on small made-up rows."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from tldr.sources import filter_rules as rules
from tldr.sources.filter_rules import (
    RULES,
    FilterCandidate,
    FilterOptions,
    clean,
    full_id,
    split_of,
    split_tldr,
)

DEFAULTS = FilterOptions()


def row(**fields: str) -> FilterCandidate:
    base = {
        "id": "t3_1",
        "subreddit": "dogs",
        "title": "My dog",
        "body": "",
        "post": "It ran.",
        "summary": "Ran.",
    }
    return FilterCandidate(**(base | fields))


def test_every_rule_has_its_function_and_its_place() -> None:
    named = [rule.__name__ for rule in (*rules.POST_RULES, *rules.SUMMARY_RULES)]
    assert named == [name for name in RULES if name not in ("duplicate", "query_tokens", "summary_tokens")]


@pytest.mark.parametrize(
    ("body", "post", "summary"),
    [
        ("It ran.\n\nTL;DR: dog ran", "It ran.", "dog ran"),
        ("It ran. tldr dog ran", "It ran.", "dog ran"),
        ("It ran.\n\n**TL;DR:** dog ran**", "It ran.", "dog ran"),
        ("It ran.\n\n**TL;DR**\n\n> dog\n ran", "It ran.", "dog ran"),
        ("It ran. (tl;dr: dog ran)", "It ran.", "dog ran)"),
        ("It ran.\n\nToo long; didn't read - dog ran", "It ran.", "dog ran"),
        ("TL;DR: dog ran\n\nIt ran.", "It ran.", "dog ran"),
        ("It ran.\n\nTL;DR: dog ran\n\nEdit: thanks all", "It ran.", "dog ran"),
        ("It ran.\n\nEDIT: a typo\n\nTL;DR: dog ran", "It ran.", "dog ran"),
        ("Edit: a typo\n\nIt ran.\n\nTL;DR: dog ran", "Edit: a typo\n\nIt ran.", "dog ran"),
        ("Long, tl;dr at the end.\nIt ran.\n\nTL;DR: dog ran\n\nThanks!", "It ran.\n\nThanks!", "dog ran"),
        (
            "It &amp; I ran, [see](http://a.b/c?d)\n\n\n\nTL:DR; dog &gt; cat",
            "It & I ran, [see](",
            "dog > cat",
        ),
        ("It ran :(\n\nTL;DR: dog  ran", "It ran :(", "dog  ran"),
    ],
)
def test_the_summary_is_parsed_out_of_the_body(body: str, post: str, summary: str) -> None:
    assert split_tldr(body) == (post, summary)
    candidate = row(body=body)
    assert not rules.no_tldr(candidate, DEFAULTS)
    assert (candidate.post, candidate.summary) == (post, summary)


@pytest.mark.parametrize(
    "body",
    [
        "It ran.",
        "It ran.\n\nTL;DR:",
        "TL;DR: dog ran",
        "Use the battldr or tldrs.",
        "TL;DR one which is far too long a line to be dropped as a mere mention of another one, as said"
        "\n\nIt ran.\n\nTL;DR: two",
    ],
)
def test_no_tldr_removes_what_has_no_certain_summary(body: str) -> None:
    assert split_tldr(body) is None
    assert rules.no_tldr(row(body=body), DEFAULTS)


def test_clean_drops_links_and_blank_lines() -> None:
    assert clean("a HTTPS://b.c/d?e&amp;f g\n\n\n\nh http&#58;//i\r\n\r\n\r\nj") == "a  g\n\nh \n\nj"


def test_clean_leaves_other_text_alone() -> None:
    text = "A  b \n c.\n\n* d (e) 50% https: http"
    assert clean(f"  {text}\n") == text


@pytest.mark.parametrize(
    ("rule", "broken", "passed"),
    [
        ("comment", row(title=""), row()),
        ("comment", row(id="t1_abc"), row(id="abc")),
        ("subreddit", row(subreddit="funny"), row(subreddit="Cooking")),
        ("subreddit", row(subreddit="Dogs"), row(subreddit="dogs")),
        ("title_update", row(title="[UPDATE] My dog"), row(title="My update")),
        ("title_update", row(title="Edited: my dog"), row(title="Editing films is hard")),
        ("suicide", row(post="He wants to die."), row(post="He dyed it.")),
        ("suicide", row(title="Suicidal dog"), row(title="Homicide")),
        ("sexual", row(post="porn, orgasm, dildo,\nsemen"), row(post="porn porn orgasm dildo grape")),
        ("summary_update", row(summary="**P.S.** thanks"), row(summary="psst")),
        ("summary_update", row(summary="Updated: he left"), row(summary="He updated it")),
        ("profanity", row(summary="Fuck this " + "dog " * 10), row(summary="Fuck this " + "dog " * 11)),
    ],
)  # fmt: skip
def test_rules(rule: str, broken: FilterCandidate, passed: FilterCandidate) -> None:
    function = getattr(rules, rule)
    assert function(broken, DEFAULTS)
    assert not function(passed, DEFAULTS)


def test_limits_and_whitelist_are_options() -> None:
    assert not rules.subreddit(row(subreddit="funny"), FilterOptions(whitelist=("funny",)))
    assert rules.sexual(row(post="porn"), FilterOptions(sexual_terms=1))
    assert rules.profanity(row(summary="shit " + "dog " * 99), FilterOptions(profanity=0))


def test_a_rule_switched_off_removes_nothing() -> None:
    bad = row(title="", subreddit="funny", body="no marker")
    order = ["no_tldr", "comment", "subreddit"]
    for n, name in enumerate(order):
        off = FilterOptions(off=tuple(order[:n]))
        assert rules.first_broken(rules.POST_RULES, bad, off) == name
    assert rules.first_broken(rules.POST_RULES, bad, FilterOptions(off=tuple(order))) is None
    with pytest.raises(ValidationError, match="no rule"):
        FilterOptions(off=("topic",))


def test_the_whitelist_is_the_papers() -> None:
    assert len(rules.table2()) == 29
    assert sum(rules.table2().values()) == 116_722


def test_pattern_files_are_lower_case_and_compile() -> None:
    for name in ("follow_up_title", "follow_up_text", "suicide", "sexual", "profanity"):
        for line in rules.lines_of(name):
            re.compile(line)
            assert re.sub(r"\\.", "", line) == re.sub(r"\\.", "", line).lower(), line


def test_splits_hang_on_the_id_alone() -> None:
    ids = [full_id(f"{n:x}") for n in range(20_000)]
    splits = [split_of(id, DEFAULTS) for id in ids]
    assert splits[:1000] == [split_of(id, DEFAULTS) for id in ids[:1000]]
    for name in ("valid", "test"):
        assert splits.count(name) / len(ids) == pytest.approx(0.05, abs=0.006)  # type: ignore[arg-type]
    assert split_of("t3_o08yr", DEFAULTS) == split_of(full_id("o08yr"), DEFAULTS)
    larger = FilterOptions(valid=0.05, test=0.2)
    assert all(
        new in (old, "test") for old, new in zip(splits, (split_of(id, larger) for id in ids), strict=True)
    )
