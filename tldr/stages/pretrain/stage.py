"""Next-token training from scratch on the toy world's corpus: the ladder's "pretrained" models."""

from __future__ import annotations

from tldr.errors import UsageError
from tldr.models.ladder import build_policy, parameter_count, save_policy
from tldr.models.vocabulary import mask_unwritable
from tldr.stages.pretrain import PretrainRun
from tldr.stages.pretrain.algorithm import pretraining, pretraining_plan
from tldr.stages.shared.corpus import read_corpus
from tldr.stages.shared.language import encode_documents
from tldr.stages.shared.networks import as_model
from tldr.stages.shared.tokenizers import eos_id, open_tokenizer, pad_id
from tldr.train.loop import TrainLoop
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive


def run(ctx: PretrainRun) -> None:
    """Train `ctx.model` from a random init for `steps` updates; write ``checkpoint/``.

    Inputs: ``data`` (folder with ``corpus.jsonl`` and ``tokenizer/``).
    """
    if ctx.model is None or ctx.model.path is not None:
        raise UsageError(
            "pretraining starts from a config", where="ladder", remedy="give arch, d_model, layers, heads"
        )
    tokenizer = open_tokenizer(ctx.inputs.data)
    documents = encode_documents(read_corpus(ctx.inputs.data), tokenizer, ctx.model.context)
    accelerator = make_accelerator(ctx.precision)
    # Before a network is built.
    plan = pretraining_plan(documents, ctx.settings, accelerator.num_processes, seed=ctx.seed)
    policy = build_policy(
        ctx.model,
        vocab_size=len(tokenizer),
        eos_id=eos_id(tokenizer),
        pad_id=pad_id(tokenizer),
        seed=derive(ctx.seed, "init"),
    )
    mask_unwritable(policy, tokenizer)
    parameters = parameter_count(policy)
    training = pretraining(
        policy, documents, plan, ctx.settings, accelerator, pad=pad_id(tokenizer), seed=ctx.seed
    )
    TrainLoop("pretrain", ctx.folder, training.stepper, plan.total_updates, ctx.settings).run(training.update)
    if (trained := training.stepper.whole("policy")) is not None:
        card = f"Pretrained from scratch on the toy corpus, {parameters:,} parameters."
        save_policy(as_model(trained), tokenizer, ctx.folder / "checkpoint", card)
