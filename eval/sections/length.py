"""Preference at equal length: the paper's App. F and Fig. 10."""

from __future__ import annotations

from eval.figures.preference import headline, preference_by_size
from eval.length_control import length_controlled
from eval.preference import scorers_of, wins
from eval.sections.base import SCORER_NAMES, Picture, Section, Study, published, results_table, without
from eval.tables import result_table
from tldr.errors import NonFiniteError, UsageError


def length_section(study: Study) -> Section:
    """Preference at equal length, as the paper's App. F and Fig. 10a."""
    section = Section(
        "length",
        "Preference at equal length",
        "Longer summaries are preferred more often. A logistic regression on policy and log length ratio (in "
        "words) predicts how often each policy would be preferred if its summaries were as long as the "
        "references (paper, App. F).",
    )
    samples, posts = study.samples, study.posts
    scorers = scorers_of(samples) if samples is not None else []
    if samples is None or posts is None or posts["summary"].isna().any() or not scorers:
        return without(section)
    problems = []
    for scorer in scorers:
        by = "expected" if scorer.name == "gold" else "hard"
        name = SCORER_NAMES[scorer.name]
        try:
            results, control = length_controlled(
                samples, posts, wins(samples, scorer)[by], scorer=scorer.name
            )
        except (UsageError, NonFiniteError) as error:
            problems.append(f"By the {name}: no estimate ({error.what}).")
            continue
        table, slope = result_table(results), control.slope
        caption = (
            f"By the {name}; slope {slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}] logits for one more "
            "in the log length ratio. Policies that win or lose every pair are left out."
        )
        section.tables.append(results_table(f"length_controlled_{scorer.name}", table, caption))
        if not headline(table.dropna(subset=["params"])).empty:
            picture = preference_by_size(
                table,
                paper=published(study.paper, "fig10a"),
                title=f"At equal length, by the {name}",
                paper_title="Published: Stiennon et al. 2020, Fig. 10a",
            )
            caption = (
                "Left: predicted preference at equal length; bars: 95 % intervals over posts. Right: the "
                "paper's human evaluation, digitised."
            )
            section.pictures.append(Picture(f"length_controlled_{scorer.name}", picture, caption))
    return without(section, " ".join(problems)) if problems else section
