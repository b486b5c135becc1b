"""What reinforcement learning did to a policy, measured on requests that it never learnt from.

reward_gold       what the world's exact judge gives replies sampled at temperature 1
reward_gold_gain  the same less what the judge gives the reference's replies, request by request
reward_proxy      what a reward model gives them, less what it gives the reference's to the same requests
kl_to_reference   nats a reply, by k1 (kl.py)
"""

from __future__ import annotations

from itertools import islice

from glasshouse.alignment.judge import LearntJudge
from glasshouse.alignment.kl import k1, per_reply
from glasshouse.alignment.reward_model import RewardModel
from glasshouse.alignment.rollouts import Reply, make_rows, sample_replies, score_rows
from glasshouse.core.seeds import derive
from glasshouse.evaluation import Estimate
from glasshouse.evaluation.intervals import mean
from glasshouse.inference import LanguageModel
from glasshouse.world import World
from glasshouse.world.judge import judge

PROBES = ("reward_gold", "reward_gold_gain", "reward_proxy", "kl_to_reference")

MAX_NEW_TOKENS = 128


def reward_probes(
    world: World,
    model: LanguageModel,
    n: int,
    reference: LanguageModel | None = None,
    reward: RewardModel | None = None,
) -> dict[str, Estimate]:
    """Those of PROBES that can be told: without a reference gold alone, without a reward model no proxy."""
    tasks = list(islice(world.tasks("open", "heldout", "probe"), n))
    examples = [{"prompt": task.messages} for task in tasks]
    replies = _sampled(world, model, examples)
    exact = judge(world)

    def golden(said: list[Reply]) -> list[float]:
        return [exact(task.messages, reply.text) for task, reply in zip(tasks, said, strict=True)]

    found = {"reward_gold": mean(golden(replies))}
    if reference is None:
        return found
    before = _sampled(world, reference, examples)
    pairs = zip(golden(replies), golden(before), strict=True)
    found["reward_gold_gain"] = mean([now - was for now, was in pairs])
    if reward is not None:
        proxy = LearntJudge("probe", reward)
        gains = [
            after[0] - was[0]
            for after, was in zip(
                proxy.rewards(examples, [[reply] for reply in replies]),
                proxy.rewards(examples, [[reply] for reply in before]),
                strict=True,
            )
        ]
        found["reward_proxy"] = mean(gains)
    rows = make_rows(replies)
    scores = [score_rows(scored.model, rows, 64) for scored in (model, reference)]
    found["kl_to_reference"] = mean(per_reply(k1(*scores), rows.mask).tolist())
    return found


def _sampled(world: World, model: LanguageModel, examples: list[dict]) -> list[Reply]:
    """One reply to each request; the same noise for every model."""
    encode = model.tokenizer.encode_chat
    prompts = [encode(example["prompt"], add_generation_prompt=True).ids for example in examples]
    seeds = [derive(world.seed, "reward probes", place) for place in range(len(prompts))]
    groups = sample_replies(model.model, model.tokenizer, prompts, seeds, 1, MAX_NEW_TOKENS)
    return [group[0] for group in groups]
