from __future__ import annotations

from pathlib import Path

import pytest

from eval.common.paper import PAPER_FOLDER, TAGS, load_paper
from tldr.errors import UsageError

FILES = sorted(path.stem for path in PAPER_FOLDER.glob("*.csv"))


@pytest.mark.parametrize("name", FILES)
def test_every_number_has_a_source_and_a_tag(name: str) -> None:
    table = load_paper(name)
    assert table[["item", "series", "value", "tag", "source"]].notna().all(axis=None)
    assert set(table["tag"]) <= TAGS, "nothing from memory"
    assert not table.duplicated(["item", "x", "series"]).any()


def test_the_figures_the_design_names_are_here() -> None:
    assert {"fig1", "fig10a", "fig5", "fig6", "fig7", "fig8", "fig12", "fig14", "table14"} <= set(FILES)


def test_spot_values() -> None:
    fig1 = load_paper("fig1", "fig1").set_index(["series", "x"])["value"]
    assert fig1["human_feedback", 6_700_000_000] == 0.701
    assert fig1["supervised", 12_900_000_000] == 0.435
    fig5 = load_paper("fig5", "fig5").set_index(["series", "x"])["value"]
    assert fig5["human", 260.0] == 0.061
    assert load_paper("table14", "table14").set_index(["series", "x"])["value"]["T5", "length_sd"] == 95


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_paper("fig99")
    with pytest.raises(UsageError, match="no item"):
        load_paper("fig1", "fig2")
    (tmp_path / "x.csv").write_text("item,x,series,value,se,tag,source\na,1,s,0.5,,memory,nobody\n")
    with pytest.raises(UsageError, match=r"unknown tags \['memory'\]"):
        load_paper("x", folder=tmp_path)
