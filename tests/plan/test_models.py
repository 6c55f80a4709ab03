"""Parameter counts of the known shapes, against transformers' own models and published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tldr.errors import CheckpointError
from tldr.plan.flops import PackedRow, body
from tldr.plan.models import known_models, model_config
from tldr.plan.steps import Shape
from tldr.settings.models import ModelSpec
from tldr.study.load import load_study

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = ["scaling", "rm-scaling", "pythia-1b", "pythia-2.8b", "pythia-6.9b"]
NAMES = sorted(
    {str(spec.path) for name in PRESETS for spec in load_study(CONFIGS / f"{name}.yaml").ladder.values()}
)
PUBLISHED = {  # as the models' own cards and the Pythia paper's table count them
    "facebook/opt-125m": 125_239_296,
    "facebook/opt-350m": 331_196_416,
    "facebook/opt-1.3b": 1_315_758_080,
    "facebook/opt-6.7b": 6_658_473_984,
    "EleutherAI/pythia-1b": 1_011_781_632,
    "EleutherAI/pythia-2.8b": 2_775_208_960,
    "EleutherAI/pythia-6.9b": 6_857_302_016,
    "openai-community/gpt2": 124_439_808,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_rung_of_the_presets_counts_like_its_transformers_model(name: str) -> None:
    config = model_config(ModelSpec(path=name), 0)
    shape = Shape(config)
    policy_class: Any = AutoModelForCausalLM
    reward_class: Any = AutoModelForSequenceClassification
    with torch.device("meta"):
        policy = policy_class.from_config(config)
        config.num_labels = 1
        reward = reward_class.from_config(config)
    assert shape.policy == policy.num_parameters()
    assert shape.reward == reward.num_parameters()
    billions = float(name.lower().removesuffix("-deduped").split("-")[-1][:-1])
    billions /= 1000 if name.lower().endswith("m") else 1
    assert shape.policy / 1e9 == pytest.approx(billions, rel=0.06)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name: str) -> None:
    assert Shape(model_config(ModelSpec(path=name), 0)).policy == PUBLISHED[name]


def test_flops_of_a_token_by_hand() -> None:
    """A GPT-NeoX layer has 12 d^2 matrix entries, 9 d^2 beyond keys, values and queries, which the last layer
    spares all of the query but its last token; a row of L tokens attends L x L in width d."""
    shape = Shape(model_config(ModelSpec(d_model=64, layers=3, heads=4, context=128), 100))
    assert shape.matrices == 3 * 12 * 64**2 and shape.head == 100 * 64
    whole = 20 * 2 * 3 * 12 * 64**2 + 4 * 3 * 64 * 20**2
    assert body(shape, PackedRow(10, 2, 5), whole=True) == whole
    assert body(shape, PackedRow(10, 2, 5)) == whole - 9 * 2 * 9 * 64**2


def test_a_local_folder_is_read_and_an_unknown_name_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = model_config(ModelSpec(d_model=32, layers=2, heads=2), 64)
    config.save_pretrained(tmp_path)
    assert Shape(model_config(ModelSpec(path=str(tmp_path)), 0)).policy == Shape(config).policy
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="not known"):
        model_config(ModelSpec(path=str(tmp_path / "none")), 0)


def test_a_models_shape_is_that_of_its_name_at_any_revision() -> None:
    specs = [ModelSpec(path=f"facebook/opt-350m{revision}") for revision in ("", "@main", f"@{'a' * 40}")]
    plain, *others = (model_config(spec, 0).to_dict() for spec in specs)
    assert plain["word_embed_proj_dim"] == 512 and all(one == plain for one in others)


def test_every_known_model_has_a_packed_forward() -> None:
    for name in known_models():
        model_config(ModelSpec(path=name), 0)
