from __future__ import annotations

from eval.funnel.figure import funnel_figure

FUNNEL = {
    "rows": 100,
    "rules": [
        {"rule": "bad_line", "in": 100, "removed": 10, "out": 90},
        {"rule": "comment", "in": 90, "removed": 60, "out": 30},
    ],
    "query_tokens": {"64": 5, "128": 7, "96": 18},
    "summary_tokens": {"24": 3},
}


def test_bars_are_the_rules_and_lengths() -> None:
    figure = funnel_figure(FUNNEL)
    rules, queries, references = figure.axes
    assert [patch.get_width() for patch in rules.patches] == [90, 30, 10, 60]
    assert [text.get_text().strip() for text in rules.texts] == ["90", "30"]
    assert [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in queries.patches] == [
        (64, 32, 5),
        (96, 32, 18),
        (128, 32, 7),
    ]
    assert [(bar.get_x(), bar.get_width()) for bar in references.patches] == [(24, 1)]


def test_nothing_kept_still_draws() -> None:
    figure = funnel_figure({"rows": 0, "rules": [], "query_tokens": {}, "summary_tokens": {}})
    assert len(figure.axes) == 3
