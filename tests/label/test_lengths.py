"""Words, or the tokens of a tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from tests.label.kit import an_item
from tldr.cli.label import open_project
from tldr.cli.main import app
from tldr.errors import UsageError
from tldr.label.lengths import TextLength
from tldr.records import write_records

STUDY = Path(__file__).parents[2] / "configs" / "toy.yaml"


def save_tokenizer(folder: Path) -> Path:
    """A tokenizer in which every character is a token."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_words_and_tokens(tmp_path: Path) -> None:
    words, tokens = TextLength(), TextLength(save_tokenizer(tmp_path / "tokenizer"))
    assert (words.unit, words(" one  two\nthree "), words("")) == ("words", 3, 0)
    assert (tokens.unit, tokens("ab c")) == ("tokens", 5), "a response begins with a space"
    assert TextLength(tmp_path / "tokenizer" / "tokenizer.json")("ab") == 3
    (tmp_path / "broken.json").write_text("{}")
    for wrong in (tmp_path / "broken.json", tmp_path / "none"):
        with pytest.raises(UsageError, match="not a tokenizer"):
            TextLength(wrong)


def test_a_study_is_named_by_its_file_and_gives_its_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "toy" / "label"
    write_records(folder / "items.jsonl", [an_item(0, "demonstration")])
    assert open_project(STUDY, [], tmp_path).desk.length.unit == "words"
    save_tokenizer(tmp_path / "toy" / "data-abc" / "tokenizer")
    project = open_project(STUDY, [], tmp_path)
    assert project.folder == folder and project.desk.length.unit == "tokens"
    project.database.close()
    served = CliRunner().invoke(app, ["label", "serve", str(STUDY), "--runs", str(tmp_path), "--check"])
    assert served.exit_code == 0, served.output
