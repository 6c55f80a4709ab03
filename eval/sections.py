"""The parts of a study's report: each turns finished runs into result tables and figures.

A section whose runs are absent says so ("not run here") instead of vanishing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from eval import figures, lengths
from eval.length_control import length_controlled
from eval.paper import load_paper
from eval.preference import preference, scorers_of, wins
from eval.rouge import VARIANTS, resolve_backend, rouge
from eval.runs import Run, StudyRuns, study_posts, study_samples, training_metrics
from eval.stats import wilson
from eval.tables import GROUP, POOLED, Measure, Result, result_table, summarise, wide
from tldr.errors import NonFiniteError, RecordError, UsageError

NOT_RUN = "Not run here."
SCORER_NAMES = {"gold": "planted labelers", "rm": "reward model"}


@dataclass(frozen=True)
class Picture:
    """A figure with the file name it is saved under and a caption that says what the bars are."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Table:
    """A result table (or any frame) with the file name it is saved under and a caption.

    `shown` is its form for people (`eval.tables.wide`).
    """

    name: str
    frame: pd.DataFrame
    caption: str
    shown: pd.DataFrame


@dataclass(frozen=True)
class Section:
    """One part of the report; `missing` says why there is nothing, or less than there could be."""

    id: str
    title: str
    intro: str
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    missing: str | None = None


@dataclass(frozen=True)
class Study:
    """What the sections draw on, each part read once and only when asked for."""

    runs: StudyRuns
    paper: Path
    draws: int

    @cached_property
    def samples(self) -> pd.DataFrame | None:
        return study_samples(self.runs)

    @cached_property
    def posts(self) -> pd.DataFrame | None:
        return study_posts(self.runs)

    @property
    def planted(self) -> bool:
        """Whether the samples carry a planted truth: then the study is synthetic, whoever says what."""
        return self.samples is not None and "score.gold" in self.samples


def sections(study: Study) -> Iterator[Section]:
    """All sections in reading order."""
    yield preference_section(study)
    yield length_section(study)
    yield reward_section(study)
    yield training_section(study)
    yield text_section(study)
    yield runs_section(study)


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
        return _without(section, "No sample was scored together with its reference.")
    for scorer in scorers:
        name = SCORER_NAMES[scorer.name]
        pooled = result_table(preference(study.samples, scorer, by=POOLED, draws=study.draws))
        single = result_table(preference(study.samples, scorer, by=GROUP, draws=study.draws))
        section.tables.append(_results(f"preference_{scorer.name}", pooled, f"By the {name}, seeds pooled."))
        section.tables.append(
            _results(f"preference_{scorer.name}_by_seed", single, f"By the {name}, each seed apart.")
        )
        measure = "expected_preference" if scorer.name == "gold" else "preference"
        rows, seeds = (
            table[table["measure"] == measure].dropna(subset=["params"]) for table in (pooled, single)
        )
        if figures.headline(rows).empty:
            continue
        picture = figures.preference_by_size(
            rows, seeds, _published(study.paper, "fig1"), title=f"This study, by the {name}"
        )
        caption = (
            f"Left: {measure.replace('_', ' ')} by the {name}, at the lowest temperature sampled; bars: 95 % "
            "intervals over posts, which leave out the spread between training seeds; small dots: single "
            "seeds. Right: the paper's human evaluation, digitised; bars: 1.96 standard errors."
        )
        section.pictures.append(Picture(f"preference_{scorer.name}", picture, caption))
    return section


def _published(folder: Path, name: str) -> pd.DataFrame | None:
    return load_paper(name, name, folder) if (folder / f"{name}.csv").is_file() else None


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
        return _without(section)
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
        section.tables.append(_results(f"length_controlled_{scorer.name}", table, caption))
        if not figures.headline(table.dropna(subset=["params"])).empty:
            picture = figures.preference_by_size(
                table,
                paper=_published(study.paper, "fig10a"),
                title=f"At equal length, by the {name}",
                paper_title="Published: Stiennon et al. 2020, Fig. 10a",
            )
            caption = (
                "Left: predicted preference at equal length; bars: 95 % intervals over posts. Right: the "
                "paper's human evaluation, digitised."
            )
            section.pictures.append(Picture(f"length_controlled_{scorer.name}", picture, caption))
    return _without(section, " ".join(problems)) if problems else section


def reward_section(study: Study) -> Section:
    """Reward-model accuracy on held-out pairs against labeler agreement."""
    section = Section(
        "reward",
        "Reward models",
        "Share of held-out labelled pairs on which the reward model prefers what the labeler preferred. "
        "valid1 was used to select models, valid2 to report.",
    )
    evaluated = evaluated_rewards(study.runs)
    if not evaluated:
        return _without(section)
    table = result_table(accuracy_results(evaluated))
    section.tables.append(
        _results("reward_accuracy", table, "Accuracy on held-out pairs; Wilson 95 % intervals.")
    )
    agreements = [
        values["label_agreement"] for _, values in evaluated if values.get("label_agreement") is not None
    ]
    rows = result_table(accuracy_results(_in_use(study, evaluated))).dropna(subset=["params"])
    if len(rows):
        picture = figures.reward_accuracy(rows, sum(agreements) / len(agreements) if agreements else None)
        caption = (
            "The reward models that scored the samples, seeds averaged; bars: Wilson 95 % intervals over "
            "pairs. Dashed: how often two labelers agree, about as well as a model can look."
        )
        section.pictures.append(Picture("reward_accuracy", picture, caption))
    return section


Evaluated = tuple[Run, dict[str, Any]]
"""A reward run and what its ``evaluation.json`` says."""


def evaluated_rewards(runs: StudyRuns) -> list[Evaluated]:
    """The finished reward runs that were evaluated."""
    found = [(run, run.json("evaluation.json")) for run in runs.finished("reward")]
    return [(run, values) for run, values in found if values is not None]


def _in_use(study: Study, evaluated: list[Evaluated]) -> list[Evaluated]:
    """Of several reward models a size, those that scored the samples; the main ones if none did."""
    used = {run.parents.get("reward") for run in study.runs.finished("score")}
    taken = [(replace(run, variant=""), values) for run, values in evaluated if run.run in used]
    return taken or [(run, values) for run, values in evaluated if run.variant == ""]


def accuracy_results(evaluated: list[Evaluated]) -> list[Result]:
    """Accuracy of every size and variant on valid1 and valid2, averaged over its seeds.

    The seeds judge the same pairs, so the interval is Wilson's at one seed's number of pairs.
    """
    results = []
    for measure in ("valid1_accuracy", "valid2_accuracy"):
        groups: dict[tuple[str, str, float | None], list[Evaluated]] = {}
        for run, values in evaluated:
            if values.get(measure) is not None:
                groups.setdefault((run.size, run.variant, run.params), []).append((run, values))
        for (size, variant, params), members in groups.items():
            shares = pd.Series([values[measure] for _, values in members])
            pairs = min(_pairs(run, values, measure.split("_")[0]) for run, values in members)
            estimate = wilson(float(shares.mean()) * pairs, pairs)
            results.append(
                Result(
                    measure=measure,
                    value=estimate.value,
                    low=estimate.low,
                    high=estimate.high,
                    se=estimate.se,
                    n=pairs,
                    posts=None,
                    unit="share of labelled pairs",
                    runs=tuple(run.run for run, _ in members),
                    method="reward",
                    size=size,
                    params=params,
                    variant=variant,
                    seeds=len(members),
                    seed_sd=float(shares.std(ddof=1)) if len(members) > 1 else None,
                )
            )
    return results


def _pairs(run: Run, values: dict[str, Any], split: str) -> int:
    number = values.get(f"{split}_pairs", values.get("n"))
    if not isinstance(number, int) or number < 1:
        raise RecordError(
            f"{split}_pairs is {number!r}: not a number of pairs", where=f"{run.run}/evaluation.json"
        )
    return number


def training_section(study: Study) -> Section:
    """PPO's training curves."""
    section = Section(
        "training",
        "PPO training",
        "What the policy earned and paid while it was trained: reward rises, KL is its price, and a value "
        "function that explains nothing or an entropy near zero warns of trouble." + _prompts_note(study),
    )
    metrics = training_metrics(study.runs.finished("ppo"))
    if metrics is None:
        return _without(section)
    if not {curve.key for curve in figures.CURVES} & set(metrics.columns):
        return _without(section, "The PPO runs logged none of the curves.")
    main = metrics[metrics["variant"] == ""] if (metrics["variant"] == "").any() else metrics
    caption = "One line a run, one colour a size; raw values, not smoothed."
    section.pictures.append(Picture("training_curves", figures.training_curves(main), caption))
    last = metrics.groupby("run", sort=False).tail(1).drop(columns=["seconds"], errors="ignore")
    front = ["run", "size", "seed", "variant", "episodes"]
    columns = front + [name for name in last if name not in (*front, "params", "update")]
    section.tables.append(
        _plain("training_last", last[columns].round(4), "The last update of every PPO run.")
    )
    return section


def _prompts_note(study: Study) -> str:
    """Said wherever PPO ran on the SFT posts: the paper has a larger, body-filtered set for it."""
    manifests = [run.json("manifest.json") or {} for run in study.runs.finished("data")]
    if not any(manifest.get("ppo_posts_are_sft_posts") for manifest in manifests):
        return ""
    return (
        " The prompts are the supervised posts: the body-filtered posts that the paper uses were not given."
    )


def text_section(study: Study) -> Section:
    """ROUGE, length, stopping, KL, copying and repetition of every policy, beside plain baselines."""
    section = Section(
        "text",
        "Texts: ROUGE, length, copying",
        "ROUGE against the reference is for comparison with other work; it does not measure preference "
        "(paper, section 4.4). Length is given in tokens (end of text included), words and characters.",
    )
    samples, posts = study.samples, study.posts
    if samples is None:
        return _without(section)
    compared = posts is not None and bool(posts["summary"].notna().all())
    if posts is not None and compared:
        plain = lengths.baselines(posts.loc[samples["id"].unique()])
        compared_with = pd.concat([samples, plain[plain["policy"] != "reference"]], ignore_index=True)
        section.tables.append(_rouge_table(compared_with, posts, study.draws))
        samples = pd.concat([samples, plain], ignore_index=True)
    measured = lengths.add_measures(samples, posts if compared else None)
    results = lengths.length_results(measured, by=POOLED, draws=study.draws)
    caption = (
        "Length, stopping, KL to the supervised start, repetition and copying; 95 % intervals over posts."
    )
    section.tables.append(_results("texts", result_table(results), caption))
    caption = "Distinct words and word pairs; comparable only between equal numbers of samples."
    section.tables.append(_plain("distinct", lengths.distinct_table(samples, by=POOLED).round(4), caption))
    note = "ROUGE and copying: not run here, the posts with references (valid2.jsonl) are not at hand."
    return section if compared else _without(section, note)


def _rouge_table(samples: pd.DataFrame, posts: pd.DataFrame, draws: int) -> Table:
    scores = rouge(posts.loc[samples["id"], "summary"].tolist(), samples["text"].tolist())
    scored = pd.concat([samples, scores.set_index(samples.index)], axis=1)
    names = ["rouge_mean"] + [f"{variant}_{part}" for variant in VARIANTS for part in "fpr"]
    table = result_table(
        summarise(scored, [Measure(name, name, "0-1") for name in names], by=POOLED, draws=draws)
    )
    caption = (
        "ROUGE F1 against the reference; rouge_mean = mean of ROUGE-1, -2 and -L (probably what the paper's "
        f"Fig. 14 plots). No stemming; {resolve_backend()}; sentences are not split. Precision and "
        "recall are in the CSV file."
    )
    shown = wide(table[table["measure"].str.endswith(("_f", "_mean"))])
    return Table("rouge", table, caption, shown)


def runs_section(study: Study) -> Section:
    """Every run of the study and whether it is finished: where the numbers come from."""
    section = Section("runs", "Runs", "Every number above names the runs it came from; these are they.")
    if not study.runs.runs:
        return _without(section)
    rows = [
        {
            "run": run.run,
            "stage": run.stage,
            "size": run.size,
            "seed": "" if run.seed is None else run.seed,
            "variant": run.variant,
            "state": run.state,
            "made from": " ".join(run.parents.values()),
        }
        for run in study.runs.runs
    ]
    section.tables.append(_plain("runs", pd.DataFrame(rows), "Runs of the study."))
    return section


def _results(name: str, table: pd.DataFrame, caption: str) -> Table:
    """A result table, shown one row a policy with each measure in its column."""
    return Table(name, table, caption, wide(table))


def _plain(name: str, frame: pd.DataFrame, caption: str) -> Table:
    return Table(name, frame, caption, frame)


def _without(section: Section, why: str = NOT_RUN) -> Section:
    return Section(section.id, section.title, section.intro, section.pictures, section.tables, why)
