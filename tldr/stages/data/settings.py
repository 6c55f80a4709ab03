"""Settings of the data stage: where posts, labels and the tokenizer come from."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from tldr.inputs.validation import UNMARKED
from tldr.settings.base import Settings
from tldr.toy.settings import ToyData

CNNDM = "abisee/cnn_dailymail"
"""The source of articles as published, which are cleaned with ftfy."""


class FileData(Settings):
    """Post and comparison files in the project's records.

    A set may also be `NAME@SPLIT`, of a known source (`tldr-lab data sources`), or `FOLDER@SPLIT`;
    `train+valid1` is both splits. The corpus is a plain file.
    """

    newer: ClassVar[tuple[str, ...]] = ("corpus_held_out",)

    kind: Literal["files"] = "files"
    """Names this kind of data."""
    sft: str
    """Posts with references."""
    ppo: str | None = None
    """Body-filtered posts; when absent the SFT posts stand in, and every report says so."""
    valid1: str
    """Posts to select on. If the comparisons mark some of them valid2, those and the unmarked ones are taken
    out: they only report."""
    valid2: str
    """Posts to report on; nothing is ever chosen on them. The same file as `valid1` is divided by the marks
    of the comparisons."""
    test: str | None = None
    """Further posts to report on: the ladder's policies are sampled on them too, and reported apart."""
    report_unmarked: bool = False
    """Report also on the validation posts that the comparisons do not mark, apart from the others. A study
    whose comparisons leave none unmarked is refused."""
    comparisons: str | None = None
    """Comparisons or rankings to train the RM on; null: people label (`labels.kind: people`)."""
    corpus: str | None = None
    """Documents for pretraining, PPO-ptx and a tokenizer trained here."""
    corpus_held_out: str | None = None
    """Documents that nothing trains on: the score stage measures every policy's loss on them, and so what RL
    costs (Ouyang et al. 2022, 4.2)."""
    cnndm: str | None = None
    """Articles with references, on which the ladder's policies are tried too (P 4.2). Those of
    `abisee/cnn_dailymail@test` are cleaned as the paper's, which needs the extra `cnndm`."""
    on_error: Literal["stop", "skip"] = "stop"
    """At a line that holds no record: stop, or count it and set it aside (`bad_lines.txt`)."""

    def posts(self) -> dict[str, str]:
        """Set -> its file; the SFT posts stand in for absent PPO posts."""
        files = {"sft": self.sft, "ppo": self.ppo or self.sft, "valid1": self.valid1, "valid2": self.valid2}
        return files if self.test is None else files | {"test": self.test}

    def further(self) -> list[str]:
        """The sets of posts that are reported on apart from valid2."""
        test = [] if self.test is None else ["test"]
        return [*test, *([UNMARKED] if self.report_unmarked else [])]


class TokenizerSpec(Settings):
    """A byte-level BPE trained on the corpus, or a tokenizer folder / hub name."""

    path: str | None = None
    """Tokenizer folder or hub name; None: one is trained on the corpus."""
    vocab_size: PositiveInt = 768
    """Of the tokenizer that is trained."""


class DataSettings(Settings):
    """What the data stage makes: post files and a tokenizer in one folder."""

    data: Annotated[ToyData | FileData, Field(discriminator="kind")]
    tokenizer: TokenizerSpec = TokenizerSpec()

    def packages(self) -> dict[str, str]:
        """See `Settings.packages`."""
        news = self.data.cnndm if isinstance(self.data, FileData) else None
        return {"cnndm": "ftfy"} if news is not None and news.startswith(f"{CNNDM}@") else {}
