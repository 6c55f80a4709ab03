"""Sample a policy on the reporting posts (valid2): greedy and at the temperatures asked for."""

from __future__ import annotations

from tldr.models.ladder import parameter_count
from tldr.records import Sample, write_records
from tldr.stages.sample import SampleRun
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import open_sampler
from tldr.stages.shared.reporting import check_window, policy_queries, reporting_set, ways_of_sampling
from tldr.stages.shared.sample_records import policy_name, to_sample
from tldr.stages.shared.sampling import sample_responses
from tldr.stages.shared.tokenizers import open_tokenizer
from tldr.train.metrics import Progress
from tldr.train.rng import derive


def run(ctx: SampleRun) -> None:
    """Write ``samples.jsonl``: one `Sample` a post and way of sampling.

    Inputs: ``policy`` (checkpoint or run folder; the tokenizer is taken from it), ``data`` (folder with
    ``valid2.jsonl``, or ``cnndm.jsonl`` for the tag ``dataset: cnndm``). A policy tagged ``method:
    pretrained`` is sampled zero-shot: it also stops at a newline, as the paper's does (format table,
    stop token 198), and has in-context examples from ``sft.jsonl`` before its query where `zero_shot`
    is set.
    """
    device = Device.open(ctx.precision, shared=True)
    tokenizer = open_tokenizer(ctx.inputs.policy)
    policy = open_sampler(ctx.inputs.policy, device, tokenizer)
    check_window(ctx, policy)
    posts = reporting_set(ctx)[: ctx.settings.posts]
    queries = policy_queries(ctx, tokenizer, posts)
    tags = {**ctx.tags, "params": parameter_count(policy)}
    rows: list[Sample] = []
    ways = ways_of_sampling(ctx.settings, str(ctx.tags.get("method", "")))
    progress = Progress(ctx.folder, total=len(ways))
    for done, way in enumerate(ways, start=1):
        names = (str(way.temperature), *([str(way.top_p)] if way.top_p < 1 else []))
        draws = sample_responses(
            policy,
            tokenizer,
            queries,
            way,
            max_new_tokens=ctx.lengths.response,
            seed=derive(ctx.seed, "sample", *names),
            device=device,
        )
        how = {"temperature": way.temperature, "top_p": way.top_p, "tags": tags}
        rows += [
            to_sample(ctx, post.id, draw, policy_name(ctx), **how)
            for post, (draw,) in zip(posts, draws, strict=True)
        ]
        progress.update(done)
    write_records(ctx.folder / "samples.jsonl", rows)
