"""Labels and ratings by people, drawn as the paper's Figs. 1, 12 (with 3), 13 and 4.

The policies' names are OpenAI's (`eval.common.released`). As in the paper, figures are of the split valid2
unless others are asked for: labels of valid1 selected models, and those of train trained them. Posts and
news articles are never mixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eval.common.pairs import REFERENCE
from eval.common.released import OTHERS, ReleasedPolicy, drawn_by_size, policy_columns, read_policy
from eval.common.rows import bars
from eval.common.study import Picture, Section, Table, published
from eval.common.style import METHODS, save
from eval.common.tables import POOLED, Measure, readable, result_table, summarise
from eval.preference.figure import preference_by_size
from eval.preference.measure import UNIT, pair_shares
from eval.ratings.measure import rating_results, rating_rows, with_slope
from eval.ratings.section import axis_pictures, length_pictures, size_pictures
from eval.report.files import split_counts
from tldr.errors import UsageError
from tldr.files import write_text
from tldr.records import Rating

SPLITS = ("train", "valid1", "valid2", "test")
"""Those of labels and of ratings; the paper evaluates on valid2 (OpenAI's README)."""
_PREFERENCE = Measure("preferred", "preference", UNIT, counted=True)
_HEADS = 3
"""Pairs of policies that are told where none is compared with the reference."""


@dataclass(frozen=True)
class Drawing:
    """How figures are drawn: of which splits, beside the published numbers in which folder.

    `draws`: bootstrap draws of each interval of a mean.

    Raises:
        UsageError: an unknown split.
    """

    splits: Sequence[str]
    paper: Path
    draws: int

    def __post_init__(self) -> None:
        if unknown := sorted({*self.splits} - {*SPLITS}):
            raise UsageError(f"no split {', '.join(unknown)}", remedy=f"choose from {', '.join(SPLITS)}")

    @property
    def where(self) -> str:
        return " and ".join(self.splits)


def people_section(comparisons: pd.DataFrame | None, ratings: Sequence[Rating], drawing: Drawing) -> Section:
    """The figures that the files allow, each with the table it is drawn from, of the same name.

    Args:
        comparisons: as `eval.common.pairs.load_comparisons`. ratings: OpenAI's axis evaluations.

    Returns:
        ``people_preference`` and ``people_ratings``, for news with ``_articles``, and of news also the
        ratings ``_by_size`` and ``_by_length``. `Section.undrawn` says why one is not there.
    """
    section = Section("people", "Labels and ratings by people")
    for news in (False, True):
        if comparisons is not None:
            labels = comparisons[comparisons["article"] == news]
            if len(labels):
                _add_preference(section, labels, news, drawing)
    rated = rating_rows(ratings)
    for news in (False, True):
        rows = rated[rated["article"] == news] if len(rated) else rated
        if len(rows):
            _add_ratings(section, rows, news, drawing)
    return section


def reference_labels(pairs: pd.DataFrame) -> pd.DataFrame:
    """The labels that compare a policy with the reference, in either order.

    Args:
        pairs: as `eval.common.pairs.comparison_pairs`.

    Returns:
        A row per label: ``id``, ``policy``, ``preferred`` (1: the policy's summary, 0: the reference),
        ``run`` (the batch), ``cell`` and `eval.common.released.policy_columns`.
    """
    against = pairs[(pairs["first"] == REFERENCE) != (pairs["second"] == REFERENCE)]
    turn = against["first"] == REFERENCE
    rows = pd.DataFrame(
        {
            "id": against["id"],
            "policy": against["second"].where(turn, against["first"]),
            "preferred": (1 - against["preferred"]).where(turn, against["preferred"]),
            "run": against["batch"],
            "cell": "0",
        }
    )
    return rows.join(policy_columns(rows["policy"])) if len(rows) else rows


def _add_preference(section: Section, pairs: pd.DataFrame, news: bool, drawing: Drawing) -> None:
    """Fig. 1 of posts, or the same of news articles, which the paper has not."""
    name, things = ("people_preference_articles", "news articles") if news else ("people_preference", "posts")
    chosen = pairs[pairs["split"].isin(drawing.splits)]
    rows = reference_labels(chosen)
    heads = f" Head to head: {_heads(chosen)}." if len(chosen) else ""
    if rows.empty:
        section.undrawn.append(
            f"{name}: no label of {drawing.where} compares a policy with the reference of {things} "
            f"(labels: {split_counts(pairs)}).{heads}"
        )
        return
    others = f"{len(chosen) - len(rows)} that compare nothing with the reference" + _set_aside(pairs, drawing)
    used = f"labels in {drawing.where}: {len(rows)} of {rows['id'].nunique()} {things}; set aside: {others}"
    told = f"Preferred to the reference by people, {used}"
    # Shares need no bootstrap.
    table = result_table(summarise(rows, [_PREFERENCE], scorer="people", by=("policy", *POOLED), draws=0))
    caption = f"{told}. {_unread(rows['policy'])}".strip()
    section.tables.append(Table(name, table, caption, readable(table)))
    drawn = drawn_by_size(rows["policy"])
    if not drawn:
        section.undrawn.append(
            f"{name}: no policy that is compared with the reference has a method of Fig. 1 and a size that "
            f"its name and the paper state ({', '.join(sorted({*rows['policy']}))}).{heads}"
        )
        return
    names = {one.name for one in drawn}
    points = result_table(summarise(rows[rows["policy"].isin(names)], [_PREFERENCE], by=POOLED, draws=0))
    points = points.sort_values(["method", "params"])
    figure = preference_by_size(
        points,
        None if news else published(drawing.paper, "fig1"),
        title=f"Labels by people, {things}",
        labels={str(method): _legend(str(method), part, drawn) for method, part in points.groupby("method")},
    )
    parts = [
        f"{told}. {'Drawn' if news else 'Left'}: {_points(points, drawn, things)}; {bars(points, things)}.",
        _left_to_table(rows["policy"], names),
        ""
        if news
        else "Right: the paper's human evaluation at T = 0, digitised; bars: 1.96 standard errors.",
    ]
    section.pictures.append(Picture(name, figure, " ".join(filter(None, parts))))


def _add_ratings(section: Section, rows: pd.DataFrame, news: bool, drawing: Drawing) -> None:
    """Figs. 12 and 3 of posts; 13, 4a and 4b of news articles."""
    name, things = ("people_ratings_articles", "news articles") if news else ("people_ratings", "posts")
    chosen = rows[rows["split"].isin(drawing.splits)]
    if chosen.empty:
        section.undrawn.append(f"{name}: no rating of {drawing.where} ({split_counts(rows)})")
        return
    made = chosen.assign(run=chosen["batch"], cell="0").join(policy_columns(chosen["policy"]))
    table = result_table(rating_results(made, draws=drawing.draws))
    used = (
        f"ratings in {drawing.where}: {len(made)} of {made['id'].nunique()} {things}"
        + (f"; set aside: {aside}" if (aside := _set_aside(rows, drawing, start="")) else "")
        + "; an axis that was not rated counts for nothing"
    )
    caption = f"By people, {used}. {_unread(made['policy'])}".strip()
    section.tables.append(Table(name, table, caption, readable(table)))
    own, said = "These ratings", f" {caption}"
    numbers = table[table["measure"] == "overall"].set_index("policy")["n"]
    labelled = table.assign(policy=[f"{policy} (n = {numbers.get(policy, 0)})" for policy in table["policy"]])
    section.pictures.extend(axis_pictures(name, labelled, drawing.paper, news=news, own=own, said=said))
    if not news:
        return
    kept = _sized_or_written(made)
    sized = result_table(rating_results(kept.assign(policy=_spelled_once(kept)), draws=drawing.draws))
    parts = [f"By people, {used}.", _left_to_table(made["policy"], {*kept["policy"]})]
    said = " " + " ".join(filter(None, parts))
    if len(sized):
        drawn = f" {_means(sized)}; horizontal lines: no model size."
        section.pictures.extend(
            size_pictures(f"{name}_by_size", sized, drawing.paper, own=own, said=drawn + said)
        )
    else:
        section.undrawn.append(f"{name}_by_size: no policy whose size is known, and no baseline")
    lengths = with_slope(kept)
    if len(lengths):
        section.pictures.extend(
            length_pictures(f"{name}_by_length", lengths, drawing.paper, own=own, said=said)
        )
    else:
        section.undrawn.append(f"{name}_by_length: no policy with ten ratings of texts that differ in length")


def _sized_or_written(rows: pd.DataFrame) -> pd.DataFrame:
    """Ratings of what is drawn against size, and of summaries that no model of the paper wrote."""
    drawn = {one.name for one in drawn_by_size(rows["policy"])}
    return rows[rows["policy"].isin(drawn) | rows["tag.method"].isin(list(OTHERS.values()))]


def _spelled_once(rows: pd.DataFrame) -> pd.Series[str]:
    """One name for each policy, however its name is spelled."""
    keys = ["tag.method", "tag.params", "temperature"]
    return rows.groupby(keys, dropna=False)["policy"].transform("min")


def _legend(method: str, points: pd.DataFrame, drawn: list[ReleasedPolicy]) -> str:
    """A method's name in the legend, with its temperatures and numbers of labels."""
    heats = {one.temperature for one in drawn if one.method == method}
    known = ", ".join(f"{heat:g}" for heat in sorted(heat for heat in heats if heat is not None))
    told = [f"T = {known}"] if known else []
    told += ["T not in the name"] if None in heats else []
    return f"{METHODS[method].label}: {', '.join(told)}; n = {', '.join(map(str, points['n']))}"


def _points(points: pd.DataFrame, drawn: list[ReleasedPolicy], things: str) -> str:
    """Every point of the figure in words."""
    told = []
    for row in points.to_dict("records"):
        names = [one for one in drawn if (one.method, one.params) == (row["method"], row["params"])]
        heat = names[0].temperature
        how = "temperature not in the name" if heat is None else f"T = {heat:g}"
        called = " and ".join(one.name for one in names)
        told.append(
            f"{called} ({row['size']}, {how}) {row['value']:.1%} [{row['low']:.1%}, {row['high']:.1%}], "
            f"{row['n']} labels ({row['posts']} {things})"
        )
    return "; ".join(told)


def _means(table: pd.DataFrame) -> str:
    """Every mean overall rating in words."""
    return "; ".join(
        f"{row.policy} {row.value:.2f} [{row.low:.2f}, {row.high:.2f}] (n = {row.n})"
        for row in table[table["measure"] == "overall"].itertuples()
    )


def _left_to_table(policies: Iterable[str], drawn: set[str]) -> str:
    """The policies that a figure by size leaves out."""
    rest = sorted(set(policies) - drawn)
    understood = [name for name in rest if read_policy(name) is not None]
    told = f"In the table alone (other temperatures, variants, no known size): {', '.join(understood)}."
    return " ".join(filter(None, [told if understood else "", _unread(rest)]))


def _unread(policies: Iterable[str]) -> str:
    """The names that are not understood, in words; "" where there are none."""
    unknown = sorted({name for name in policies if read_policy(name) is None})
    return f"Not understood, so without method and size: {', '.join(unknown)}." if unknown else ""


def _heads(pairs: pd.DataFrame) -> str:
    """How often each of two policies is preferred to the other; the pairs with most labels."""
    if (pairs["first"] == pairs["second"]).all():
        return "both summaries of every pair are of one policy"
    table = pair_shares(pairs).sort_values("n", ascending=False, kind="stable")
    told = [
        f"{row.first} preferred to {row.second} in {row.value:.1%} [{row.low:.1%}, {row.high:.1%}] "
        f"of {row.n} labels"
        for row in table.head(_HEADS).itertuples()
    ]
    more = len(table) - len(told)
    return "; ".join(told) + (f"; {more} more pairs are in the tables" if more > 0 else "")


def _set_aside(rows: pd.DataFrame, drawing: Drawing, start: str = ", ") -> str:
    """The rows of other splits, counted; "" where there are none."""
    other = rows[~rows["split"].isin(drawing.splits)]
    return start + split_counts(other) if len(other) else ""


def write_pictures(pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Write each figure as PNG and SVG, and all with their captions to ``figures.md``.

    Returns:
        The PNG files and ``figures.md``; nothing is written where there is no figure.
    """
    if not pictures:
        return []
    written = [save(picture.figure, folder, picture.name)[0] for picture in pictures]
    parts = [f"![{picture.name}]({picture.name}.png)\n\n{_plain(picture.caption)}\n" for picture in pictures]
    page = write_text(folder / "figures.md", "# Figures\n\n" + "\n".join(parts), durable=False)
    return [*written, page]


def _plain(text: str) -> str:
    """Text in Markdown as it is, on one line: names of policies come from outside and have underscores."""
    return "".join(f"\\{sign}" if sign in r"\`*_[]<>#|" else sign for sign in " ".join(text.split()))
