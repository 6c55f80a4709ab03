"""Plans of the stages that train nothing: which there are, what they are asked, FLOPs against a count."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.plan.test_study import CONFIGS, TABLE, TINY, planned
from tldr.bench.texts import bare_tokenizer
from tldr.models.ladder import build_policy
from tldr.models.reward import reward_from_policy
from tldr.plan.costs import job_of
from tldr.plan.counts import Counts
from tldr.plan.flops import PackedRow
from tldr.plan.memory import Options
from tldr.plan.models import model_config
from tldr.plan.steps import Shape, Use
from tldr.plan.study import RunPlan, UnreadFiles
from tldr.plan.uses import InferenceJob, LoadedModel, Portion, in_one_batch
from tldr.records import Post
from tldr.settings.models import ModelSpec
from tldr.stages.labels.algorithm import plan_questions
from tldr.stages.labels.cost import policy_slots, slots_of_one
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.pairs.cost import PROBED
from tldr.stages.pairs.probes import Prober
from tldr.stages.shared.batches import INFERENCE_TOKENS, inference_batches
from tldr.stages.shared.device import Device
from tldr.stages.shared.sampling import Sampling, sample_responses
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.study.graph import expand
from tldr.study.load import load_study
from tldr.study.registry import STAGES
from tldr.study.runs import Run
from tldr.toy.settings import ToyData

VOCAB, QUERY, RESPONSE, POSTS = 64, 40, 12, 70
FP32 = Options(bf16=False, cuda=False)
USED = {"labels", "best_of_n", "sample", "score", "pairs"}


def plans(folder: Path, *overrides: str, text: str = TINY) -> dict[str, RunPlan]:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return {plan.title: plan for plan in planned(load_study(path, overrides), 1.0)}


def models(plan: RunPlan) -> tuple[LoadedModel, ...]:
    assert isinstance(plan.job, InferenceJob)
    return plan.job.models


def test_every_run_of_the_toy_study_with_a_model_is_planned_once() -> None:
    study = load_study(CONFIGS / "toy.yaml")
    found = Counter(run.name for plan in planned(study, 1.0) for run in plan.runs)
    runs = expand(study, UnreadFiles())
    modelled = {run.name for run in runs if STAGES[run.stage].trains or run.stage in USED}
    assert found == Counter(modelled)
    assert {run.stage for run in runs if run.name not in modelled} == {"data", "ratings"}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_has_jobs_and_each_title_once(path: Path, tmp_path: Path) -> None:
    study = load_study(path)
    if path.stem == "smollm2-135m":  # its model is made on this machine
        folder = tmp_path / "model"
        model_config(ModelSpec(d_model=24, layers=2, heads=2), 64).save_pretrained(folder)
        study = load_study(path, [f"ladder.135m.path={folder}"])
    counts, titles = Counts(study, TABLE.assumed), Counter[tuple[str, int | None]]()
    for run in expand(study, UnreadFiles()):
        job = job_of(run, counts)
        given = run.stage == "labels" and not isinstance(study.data, ToyData)
        assert (job is None) == (run.stage in ("data", "ratings") or given), run.name
        titles[replace(run, seed=None).title, run.seed] += 1
    assert set(titles.values()) == {1}


def test_seeds_share_a_plan_and_methods_do_not(tmp_path: Path) -> None:
    found = plans(tmp_path, "seeds=[0, 1]", "best_of_n.n=3")
    assert {title for title, plan in found.items() if not plan.job.trained} == {
        *(f"{stage}-s-{method}" for stage in ("sample", "score") for method in ("pretrained", "sft", "ppo")),
        "best_of_n-s",
        "score-s-best_of_n",
    }
    assert all(len(plan.runs) == (4 if plan.stage == "reward" else 2) for plan in found.values())


def test_what_a_run_is_asked(tmp_path: Path) -> None:
    more = ("evaluation.temperatures=[0, 1]", "evaluation.sft_temperatures=[0.5]", "evaluation.posts=10")
    found = plans(tmp_path, *more, "best_of_n.n=11", "best_of_n.posts=20")
    asked = {title: [(m.kind, [(p.queries, p.window) for p in m.portions]) for m in models(plan)]
             for title, plan in found.items() if not plan.job.trained}  # fmt: skip
    once = (10, PackedRow(24, 1, 8))
    assert asked["sample-s-pretrained"] == [("sample", [once] * 2)]
    assert asked["sample-s-sft"] == [("sample", [once] * 3)]
    assert asked["score-s-sft"] == [
        *[("score", [(10, PackedRow(24, 3, 8))])] * 2,
        (
            "judge",
            [(10, PackedRow(24, 4, 12))],
        ),  # the reference beside the samples, in the reward model's window
    ]
    assert asked["score-s-ppo"][-1] == ("judge", [(10, PackedRow(24, 2, 8))])  # its value network
    pool = [(20, PackedRow(24, 11, 8))]
    assert asked["best_of_n-s"] == [("sample", pool), ("judge", pool)]
    policy, reward = models(found["best_of_n-s"])
    assert reward.beside == policy.parameters  # which is still there
    assert [(p.queries, p.window.options) for p in reward.passes(reward.portions[0])] == [(20, 8), (20, 3)]
    assert asked["score-s-best_of_n"][0] == ("score", [(20, PackedRow(24, 1, 8))])
    plan = found["score-s-ppo"]
    shape = models(plan)[0].shape
    assert (plan.job.trained, plan.job.policy) == (0, shape.policy)
    assert plan.job.loaded == 2 * shape.policy + 2 * shape.reward
    assert plan.row()["parameters"] == {"policy": shape.policy, "trained": 0, "loaded": plan.job.loaded}


def test_what_policies_write_for_people(tmp_path: Path) -> None:
    """Posts of items and spare ones, as far as there are posts; of each as many texts as make k + 2."""
    people = "labels={kind: people, pairs: 10, valid_pairs: 200, spare: 0.5, best_of: 3, k: [4, 4]}"
    world = "data={kind: toy, sft_posts: 40, valid1_posts: 50, valid2_posts: 60}"
    found = plans(tmp_path, world, people, "labels.further_temperatures=[1.0]", "rounds=[{}]")
    posts = 15 + 50 + 60
    first, last = ({m.kind: [(p.queries, p.window.options) for p in m.portions] for m in models(found[name])}
                   for name in ("labels-r1", "labels"))  # fmt: skip
    assert first == {"sample": [(2 * posts, 3)]}
    assert last["judge"] == [(2 * posts, 3)]
    assert [m.portions[0].window.options for m in models(found["labels"])] == [3, 3, 1, 1]


def test_chosen_questions_are_all_sampled_and_scored(tmp_path: Path) -> None:
    """Three questions are made for each one asked, and both reward models of the round before score them."""
    world = "data={kind: toy, sft_posts: 40}"
    rounds = "rounds=[{reward: {seeds: 2}, labels: {choose_by: null}}]"
    asked = ("labels.pairs=30", "labels.valid_pairs=10", "labels.k=[2, 4]", "labels.best_of=2")
    plain = models(plans(tmp_path, world, rounds, *asked)["labels"])
    chosen = models(
        plans(tmp_path, world, rounds, *asked, "labels.choose_by=disagreement", "labels.among=3")["labels"]
    )
    drawn = [sum(p.queries for p in m.portions) for m in plain if m.kind == "sample"]
    more = [sum(p.queries for p in m.portions) for m in chosen if m.kind == "sample"]
    assert more == pytest.approx([value * (3 * 30 + 10) / (30 + 10) for value in drawn])
    judging = [[(p.queries, p.window) for p in m.portions] for m in chosen[len(plain) :]]
    assert judging == [[(90, PackedRow(24, 4, 12))]] * 2 and {m.kind for m in chosen[len(plain) :]} == {
        "judge"
    }


def test_every_epoch_is_sampled_and_all_summaries_are_scored_at_once(tmp_path: Path) -> None:
    world = "data={kind: toy, sft_posts: 40, valid1_posts: 30}"
    chosen = ("sft.select=reward", "sft.epochs=4.5", "lengths={query: 24, response: 8, rm_response: 12}")
    found = plans(tmp_path, world, *chosen)
    once, all_of_them = PackedRow(24, 1, 8), PackedRow(24, 5, 8)
    asked = [[(p.queries, p.window) for p in m.portions] for m in models(found["epoch-s"])]
    assert asked == [[(30, once)] * 5, [(30, all_of_them)]]
    fewer = plans(tmp_path, world, *chosen, "sft.keep_epochs=[2]", "epoch.posts=10")["epoch-s"]
    assert [len(model.portions) for model in models(fewer)] == [2, 1]
    assert [model.portions[0].queries for model in models(fewer)] == [10, 10]
    assert 0 < fewer.hours < found["epoch-s"].hours and fewer.price
    sampled = [plan.cost(FP32) for plan in models(found["epoch-s"])]
    assert models(fewer)[0].cost(FP32).flops == pytest.approx(sampled[0].flops * 2 / 5 / 3)


def test_zero_shot_queries_fill_their_window_for_the_pretrained_policy_alone(tmp_path: Path) -> None:
    found = plans(tmp_path, "evaluation.zero_shot.query_tokens=56")
    windows = {title: [p.window.query for m in models(plan) for p in m.portions]
               for title, plan in found.items() if plan.stage in ("sample", "score")}  # fmt: skip
    assert windows["sample-s-pretrained"] == [56] and windows["sample-s-sft"] == [24]
    assert windows["score-s-pretrained"] == [56, 24, 24]
    assert models(found["sample-s-pretrained"])[0].portions[0].mean.query == 56


def test_news_are_articles_that_fill_the_window(tmp_path: Path) -> None:
    found = plans(tmp_path, "data.cnndm=e")
    (portion,) = models(found["sample-s-ppo-cnndm"])[0].portions
    assert portion.queries == TABLE.assumed.posts.cnndm and portion.mean.query == 24


def test_only_frozen_weights_a_cache_and_what_passes_through(tmp_path: Path) -> None:
    plan = plans(tmp_path)["sample-s-sft"]
    (model,) = models(plan)
    memory = plan.memory.parts
    assert set(memory) == {"frozen", "cache", "activations", "logits", "reserve"}
    assert memory["frozen"] == 4 * model.parameters
    assert memory["cache"] == 4 * plan.micro_batch * (24 + 8) * 2 * 2 * 32  # layers, keys and values, width
    assert memory["activations"] > 0 and memory["logits"] >= 0
    assert plan.options.processes == 1 and plan.largest is None and plan.fits


def test_several_devices_share_what_is_sampled_and_scored(tmp_path: Path) -> None:
    """Each holds the whole model and takes batches of its own."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    one, four = ({plan.title: plan for plan in planned(load_study(path), 1.0, gpus)} for gpus in (1, 4))
    several = TABLE.assumed.several
    for title in ("sample-s-sft", "score-s-ppo", "best_of_n-s"):
        assert four[title].hours == pytest.approx(one[title].hours / (4 * several)), title
        assert four[title].memory == one[title].memory
    assert four["sample-s-sft"].options.processes == 1 and four["sft-s"].options.processes == 4


@pytest.mark.parametrize("budget", [INFERENCE_TOKENS, 4 * INFERENCE_TOKENS])
@pytest.mark.parametrize("length", [100, 560, 3584, 20_000])
def test_batches_are_as_large_as_the_stages_make_them(budget: int, length: int) -> None:
    assert in_one_batch(length, budget) == len(next(inference_batches([length] * 1000, budget)))


def test_slots_of_the_policy_are_those_that_are_drawn() -> None:
    settings, questions, policies = LabelsSettings(k=(2, 4), pairs=40_000), 40_000, ["a", "b", "c"]
    drawn, own = Counter[int](), Counter[int]()
    posts = {
        split: [Post(id="p", subreddit="s", title="t", post="b")] for split in ("train", "valid1", "valid2")
    }
    for question in islice(plan_questions(settings, policies, posts, 0), questions):
        drawn[sum(slot in policies for slot in question.slots)] += 1
        own[question.slots.count("b")] += 1
    shares = policy_slots(settings)
    assert sum(shares.values()) == pytest.approx(1)
    for slots, share in shares.items():
        assert drawn[slots] / questions == pytest.approx(share, abs=0.01)
    assert 0 not in slots_of_one(shares, 3)
    for slots, share in slots_of_one(shares, 3).items():
        assert own[slots] / questions == pytest.approx(share, abs=0.01)


def test_the_probes_texts_are_counted() -> None:
    text = " ".join(
        f"He said {word} to my wife today." for word in "one two three four five six seven".split()
    )
    posts = [
        Post(id=str(i), subreddit=f"r{i // 2}", title=f"Title {i}", post=text, summary=f"He left {i}.")
        for i in range(12)
    ]
    prober = Prober(posts, seed=0)
    texts = [len({text for _, pair in prober.pairs(post) for text in pair}) for post in posts]
    assert PROBED - 2 <= sum(texts) / len(texts) <= PROBED  # by chance two may be equal


@pytest.mark.parametrize("arch", ["opt", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("kind", ["sample", "score", "judge"])
def test_flops_are_those_that_torch_counts(kind: Use, arch: str) -> None:
    spec = ModelSpec.model_validate({"arch": arch, "d_model": 32, "layers": 3, "heads": 4, "context": 256})
    policy = build_policy(spec, vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
    reward = reward_from_policy(policy, seed=0, pad_id=1)
    for model in (policy, reward):
        model.set_attn_implementation("eager")  # whose products the counter sees
    tokenizer, device = bare_tokenizer(), Device(torch.device("cpu"), "fp32")
    queries, options = [[5 + i % 3] * QUERY for i in range(POSTS)], 3 if kind == "sample" else 16
    scorer = SummaryScorer(tokenizer, queries, [[[7] * RESPONSE] * options] * POSTS, device)
    with FlopCounterMode(display=False) as counter:
        if kind == "sample":
            how = Sampling(n=options, temperature=0.0)
            drawn = sample_responses(
                policy, tokenizer, queries, how, max_new_tokens=RESPONSE, seed=0, device=device
            )
            assert {len(draw.ids) for row in drawn for draw in row} == {RESPONSE}
        elif kind == "score":
            scorer.logprobs(policy)
        else:
            scorer.rewards(reward)
    row = PackedRow(QUERY, options, RESPONSE)
    model_of = LoadedModel(kind, Shape(model_config(spec, VOCAB)), (Portion(POSTS, row, row),))
    assert model_of.cost(FP32).flops == counter.get_total_flops()
    assert model_of.cost(FP32).tokens == 0


def test_weights_that_are_sampled_from_are_read_in_bf16(tmp_path: Path) -> None:
    (model,) = models(plans(tmp_path)["sample-s-sft"])
    half, full = (model.cost(Options(bf16=bf16)).decoded for bf16 in (True, False))
    cache = model.portions[0].queries * 8 * 2 * 2 * 32 * (24 + 4)  # in numbers, at the middle of a response
    assert (half - 2 * cache) == pytest.approx((full - 4 * cache) / 2)


def test_a_used_run_names_its_models(tmp_path: Path) -> None:
    text = TINY.replace("ladder: {s:", "ladder: {l: {d_model: 64, layers: 2, heads: 2, context: 64}, s:")
    variant = "variants: {pool: {kind: best_of_n, sizes: [s], set: {n: 4, posts: 5}}}\n"
    plan = plans(tmp_path, text=text + variant)["best_of_n-s-pool"]
    policy, *rewards = models(plan)
    run: Run = plan.runs[0]
    assert sorted(name for name in run.parents if name.startswith("reward")) == [
        "reward",
        "reward-l",
        "reward-s",
    ]
    widths = [reward.shape.width for reward in rewards]
    assert policy.shape.width == 32 and widths == [32, 64, 32]
