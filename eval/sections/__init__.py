"""The parts of a study's report: each turns finished runs into result tables and figures.

A section whose runs are absent says so ("not run here") instead of vanishing.
"""

from __future__ import annotations

from collections.abc import Iterator

from eval.sections.base import Section, Study
from eval.sections.length import length_section
from eval.sections.preference import preference_section
from eval.sections.reward import reward_section
from eval.sections.runs import runs_section
from eval.sections.texts import text_section
from eval.sections.training import training_section

SECTIONS = (
    preference_section,
    length_section,
    reward_section,
    training_section,
    text_section,
    runs_section,
)
"""In reading order."""


def sections(study: Study) -> Iterator[Section]:
    """All sections in reading order."""
    for section in SECTIONS:
        yield section(study)
