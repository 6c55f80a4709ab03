"""The demo's texts fit its own settings."""

from __future__ import annotations

import yaml

from tldr.label.answers import DemonstrationAnswer
from tldr.label.demo import TEXT, demo_items
from tldr.label.lengths import TextLength
from tldr.label.robots import robot_answer
from tldr.label.settings import LabelSettings
from tldr.toy.labelers import WORKERS


def test_what_the_colleagues_write_is_neither_too_short_nor_too_long() -> None:
    """The desk refuses other summaries, and the demo would not open."""
    settings = LabelSettings.model_validate(yaml.safe_load(TEXT))
    lengths = []
    for seed in range(30):
        for item in demo_items(seed):
            if item.kind == "demonstration":
                answer = robot_answer(item, WORKERS[seed % len(WORKERS)], seed)
                assert isinstance(answer, DemonstrationAnswer)
                lengths.append(TextLength()(answer.summary))
    assert len(lengths) > 100
    assert settings.min_tokens <= min(lengths) and max(lengths) <= settings.max_tokens
