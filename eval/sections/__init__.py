"""The parts of a study's report: each turns finished runs into result tables and figures.

A section whose runs are absent says so ("not run here") instead of vanishing.
"""

from __future__ import annotations

from collections.abc import Iterator

from eval.sections.agreement import agreement_section
from eval.sections.base import Section, Study
from eval.sections.best_of_n import best_of_n_section
from eval.sections.claims import claims_section
from eval.sections.elo import elo_section
from eval.sections.length import length_section
from eval.sections.news import news_section
from eval.sections.overoptimisation import overoptimisation_section
from eval.sections.preference import preference_section
from eval.sections.probes import probes_section
from eval.sections.ratings import rating_section
from eval.sections.reward import reward_section
from eval.sections.runs import runs_section
from eval.sections.sampling import sampling_section
from eval.sections.texts import text_section
from eval.sections.training import training_section

SECTIONS = (
    claims_section,
    preference_section,
    length_section,
    rating_section,
    sampling_section,
    elo_section,
    reward_section,
    probes_section,
    agreement_section,
    best_of_n_section,
    overoptimisation_section,
    training_section,
    text_section,
    news_section,
    runs_section,
)
"""In reading order."""


def sections(study: Study) -> Iterator[Section]:
    """All sections in reading order."""
    for section in SECTIONS:
        yield section(study)
