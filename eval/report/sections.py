"""The parts of a study's report: each turns finished runs into result tables and figures.

A section whose runs are absent says so ("not run here") instead of vanishing.
"""

from __future__ import annotations

from collections.abc import Iterator

from eval.agreement.section import agreement_section
from eval.amounts.section import demonstrations_section, prompts_section
from eval.asking.section import asking_section
from eval.best_of_n.section import best_of_n_section
from eval.claims.section import claims_section
from eval.common.numeric import numeric_failures_told
from eval.common.study import Section, StudyResults, without
from eval.corpus.section import corpus_section
from eval.elo.section import elo_section
from eval.further.section import further_section
from eval.length.section import length_section
from eval.news.section import news_section
from eval.overoptimisation.section import overoptimisation_section
from eval.preference.section import preference_section
from eval.probes.section import probes_section
from eval.ratings.section import rating_section
from eval.reward.section import reward_section
from eval.runs.section import runs_section
from eval.sampling.section import sampling_section
from eval.texts.section import text_section
from eval.training.section import training_section
from tldr.errors import NonFiniteError

SECTIONS = (
    claims_section,
    preference_section,
    length_section,
    rating_section,
    sampling_section,
    demonstrations_section,
    prompts_section,
    elo_section,
    reward_section,
    asking_section,
    probes_section,
    agreement_section,
    best_of_n_section,
    overoptimisation_section,
    training_section,
    corpus_section,
    text_section,
    further_section,
    news_section,
    runs_section,
)
"""In reading order."""


def sections(study: StudyResults) -> Iterator[Section]:
    """All sections in reading order; one whose numbers allow no estimate says so, and costs no other."""
    for section in SECTIONS:
        try:
            with numeric_failures_told():
                made = section(study)
        except NonFiniteError as error:
            name = section.__name__.removesuffix("_section")
            made = without(Section(name, name.replace("_", " ").capitalize(), ""), error.what)
        yield made
