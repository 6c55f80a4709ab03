"""PPO's course."""

from __future__ import annotations

from eval.figures.training import CURVES, training_curves
from eval.runs import training_metrics
from eval.sections.base import Picture, Section, Study, plain_table, without


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
        return without(section)
    if not {curve.key for curve in CURVES} & set(metrics.columns):
        return without(section, "The PPO runs logged none of the curves.")
    main = metrics[metrics["variant"] == ""] if (metrics["variant"] == "").any() else metrics
    caption = "One line a run, one colour a size; raw values, not smoothed."
    section.pictures.append(Picture("training_curves", training_curves(main), caption))
    last = metrics.groupby("run", sort=False).tail(1).drop(columns=["seconds"], errors="ignore")
    front = ["run", "size", "seed", "variant", "episodes"]
    columns = front + [name for name in last if name not in (*front, "params", "update")]
    section.tables.append(
        plain_table("training_last", last[columns].round(4), "The last update of every PPO run.")
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
