"""Preference to the reference by every scorer: the paper's Fig. 1."""

from __future__ import annotations

from eval.figures.preference import headline, preference_by_size
from eval.preference import preference, scorers_of
from eval.sections.base import SCORER_NAMES, Picture, Section, Study, published, results_table, without
from eval.tables import GROUP, POOLED, result_table


def preference_section(study: Study) -> Section:
    """Preference to the reference by every scorer; main figure as the paper's Fig. 1."""
    section = Section(
        "preference",
        "Preference to the reference",
        "How often a policy's summary is preferred to the author's own. Preference counts which of the two "
        "scores is higher (ties count half); expected preference is the mean probability of being preferred.",
    )
    scorers = scorers_of(study.samples) if study.samples is not None else []
    if study.samples is None or not scorers:
        return without(section, "No sample was scored together with its reference.")
    for scorer in scorers:
        name = SCORER_NAMES[scorer.name]
        pooled = result_table(preference(study.samples, scorer, by=POOLED, draws=study.draws))
        single = result_table(preference(study.samples, scorer, by=GROUP, draws=study.draws))
        section.tables.append(
            results_table(f"preference_{scorer.name}", pooled, f"By the {name}, seeds pooled.")
        )
        section.tables.append(
            results_table(f"preference_{scorer.name}_by_seed", single, f"By the {name}, each seed apart.")
        )
        measure = "expected_preference" if scorer.name == "gold" else "preference"
        rows, seeds = (
            table[table["measure"] == measure].dropna(subset=["params"]) for table in (pooled, single)
        )
        if headline(rows).empty:
            continue
        picture = preference_by_size(
            rows, seeds, published(study.paper, "fig1"), title=f"This study, by the {name}"
        )
        caption = (
            f"Left: {measure.replace('_', ' ')} by the {name}, at the lowest temperature sampled; bars: 95 % "
            "intervals over posts, which leave out the spread between training seeds; small dots: single "
            "seeds. Right: the paper's human evaluation, digitised; bars: 1.96 standard errors."
        )
        section.pictures.append(Picture(f"preference_{scorer.name}", picture, caption))
    return section
