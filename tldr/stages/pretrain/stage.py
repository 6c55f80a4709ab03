"""Next-token training from scratch on the toy world's corpus: the ladder's "pretrained" models."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.models.ladder import build_policy, parameter_count, save_policy
from tldr.settings.base import scalar
from tldr.stages.pretrain import PretrainRun
from tldr.stages.shared.batches import share
from tldr.stages.shared.corpus import read_corpus
from tldr.stages.shared.language import Document, collate_documents, encode_documents, language_loss
from tldr.stages.shared.networks import as_model
from tldr.stages.shared.tokenizers import eos_id, open_tokenizer, pad_id
from tldr.train.batching import BatchPlan
from tldr.train.loop import TrainLoop
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive
from tldr.train.stepper import Stepper


def run(ctx: PretrainRun) -> None:
    """Train `ctx.model` from a random init for `steps` updates; write ``checkpoint/``.

    Inputs: ``data`` (folder with ``corpus.jsonl`` and ``tokenizer/``).
    """
    if ctx.model is None or ctx.model.path is not None:
        raise UsageError(
            "pretraining starts from a config", where="ladder", remedy="give arch, d_model, layers, heads"
        )
    tokenizer = open_tokenizer(ctx.inputs.data)
    documents = encode_corpus(ctx, tokenizer)
    settings = ctx.settings
    accelerator = make_accelerator(ctx.precision)
    policy = build_policy(
        ctx.model,
        vocab_size=len(tokenizer),
        eos_id=eos_id(tokenizer),
        pad_id=pad_id(tokenizer),
        seed=derive(ctx.seed, "init"),
    )
    plan = BatchPlan(
        [len(document.ids) for document in documents],
        scalar(settings.batch),
        derive(ctx.seed, "pretrain"),
        updates=scalar(settings.steps),
        processes=accelerator.num_processes,
    )
    parameters = parameter_count(policy)
    stepper = Stepper(accelerator, {"policy": policy}, settings, derive(ctx.seed, "pretrain"))
    loop = TrainLoop("pretrain", ctx.folder, stepper, plan.total_updates, settings)

    def update(index: int) -> dict[str, float]:
        batches = [
            collate_documents([documents[i] for i in rows], pad_id(tokenizer), settings.query_weight)
            for rows in share(plan.batch(index), settings, accelerator)
        ]
        return stepper.step(language_loss, [batch.to(accelerator.device) for batch in batches])

    loop.run(update)
    if (trained := stepper.whole("policy")) is not None:
        card = f"Pretrained from scratch on the toy corpus, {parameters:,} parameters."
        save_policy(as_model(trained), tokenizer, ctx.folder / "checkpoint", card)


def encode_corpus(ctx: PretrainRun, tokenizer: PreTrainedTokenizerBase) -> list[Document]:
    """Every document in tokens with EOS, cut to the model's context."""
    context = ctx.model.context if ctx.model else 0
    return encode_documents(read_corpus(ctx.inputs.data), tokenizer, context)
