from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.texts import TEXTS
from tldr.errors import UsageError
from tldr.queries.encode import encode_texts
from tldr.queries.tokenizer import load_tokenizer, train_bpe


def test_the_same_texts_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    program = (
        "import json, sys; from tldr.queries.tokenizer import train_bpe; "
        "train_bpe(json.load(sys.stdin), 320).save_pretrained(sys.argv[1])"
    )
    for name in ("7", "8"):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name)],
            input=json.dumps(TEXTS),
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": name, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    train_bpe(iter(TEXTS), 320).save_pretrained(tmp_path / "here")
    files = {p.name for p in (tmp_path / "here").iterdir()}
    assert "tokenizer.json" in files
    for file in files:
        assert (
            len({(tmp_path / name / file).read_bytes().replace(b"\r", b"") for name in ("7", "8", "here")})
            == 1
        )


def test_a_saved_tokenizer_loads_with_plain_transformers(
    bpe: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    bpe.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "The dog's sofa:\n\n  é 漢 🛋"
    assert encode_texts(again, [text]) == encode_texts(bpe, [text])
    assert again.decode(encode_texts(again, [text])[0]) == text
    assert (again.eos_token, again.pad_token, again.padding_side) == ("<|endoftext|>", "<|pad|>", "left")
    assert len(load_tokenizer(tmp_path)) == len(bpe) == 320


def test_bpe_splits_as_gpt2_does(bpe: PreTrainedTokenizerBase) -> None:
    pieces = [p for p, _ in bpe.backend_tokenizer.pre_tokenizer.pre_tokenize_str("It's 24  dogs!\n\nok")]
    assert pieces == ["It", "'s", "Ġ24", "Ġ", "Ġdogs", "!", "Ċ", "Ċ", "ok"]


@pytest.mark.parametrize(
    ("texts", "size", "what"), [(["a"], 257, "258"), ([], 300, "no text"), ([""], 300, "no text")]
)
def test_impossible_training_is_refused(texts: list[str], size: int, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        train_bpe(texts, size)


def _saved(tokenizer: PreTrainedTokenizerBase, folder: Path, **config: str | None) -> Path:
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    data = json.loads(path.read_text()) | config
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
    return folder


@pytest.mark.parametrize("pad", [None, "<|endoftext|>"])
def test_trap_pad_is_never_eos(bpe: PreTrainedTokenizerBase, tmp_path: Path, pad: str | None) -> None:
    plain = PreTrainedTokenizerFast(
        tokenizer_object=bpe.backend_tokenizer, eos_token="<|endoftext|>", pad_token=pad
    )
    assert plain.pad_token_id in (None, plain.eos_token_id)
    loaded = load_tokenizer(_saved(plain, tmp_path, pad_token=pad))
    assert loaded.pad_token == "<|pad|>"
    assert loaded.pad_token_id != loaded.eos_token_id
    assert loaded.padding_side == "left"


def test_trap_an_added_pad_lies_past_the_vocabulary(gpt2: PreTrainedTokenizerBase) -> None:
    assert (gpt2.eos_token_id, gpt2.pad_token_id) == (50256, 50257)


def test_a_tokenizer_without_eos_is_refused(bpe: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=bpe.backend_tokenizer)
    with pytest.raises(UsageError, match="no EOS"):
        load_tokenizer(_saved(plain, tmp_path, eos_token=None))


def test_missing_tokenizers_are_named_without_asking_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no such tokenizer folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no such tokenizer folder"):
        load_tokenizer("runs/some/folder")
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(UsageError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        load_tokenizer("nobody/no-such-model")


def test_a_checkpoint_made_offline_has_the_bytes_of_one_made_online(
    bpe: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    bpe.save_pretrained(tmp_path / "bpe")
    script = (
        "import sys\nfrom tldr.queries.tokenizer import load_tokenizer\n"
        "load_tokenizer(sys.argv[1]).save_pretrained(sys.argv[2])\n"
    )
    for offline in ("0", "1"):
        command = [sys.executable, "-c", script, str(tmp_path / "bpe"), str(tmp_path / offline)]
        environment = os.environ | {"HF_HUB_OFFLINE": offline, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(command, env=environment, check=True)
    online, offline = (sorted((tmp_path / name).iterdir()) for name in ("0", "1"))
    assert [path.name for path in online] == [path.name for path in offline]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(online, offline, strict=True))
