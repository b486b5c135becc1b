"""The world suite: every probe that a model of the invented world can answer, each with a 95% interval."""

from __future__ import annotations

from collections.abc import Iterable

from glasshouse.core.config import nearest
from glasshouse.core.errors import UsageError
from glasshouse.evaluation import knowledge, text
from glasshouse.evaluation.baselines import NearestNeighbour, NGram
from glasshouse.evaluation.chat import PROBES as CHAT_PROBES
from glasshouse.evaluation.chat import Replier, chat_probes
from glasshouse.evaluation.intervals import Estimate
from glasshouse.inference import LanguageModel
from glasshouse.world import World
from glasshouse.world.task import Message

TEXT_PROBES = (
    "bits_per_byte",
    "known_fact_recall",
    "few_shot_gain",
    "icl_score",
    "induction_score",
    "ece",
    "brier",
    "brier_skill",
)
PROBES = (*TEXT_PROBES, *CHAT_PROBES, *knowledge.PROBES)
LOWER_IS_BETTER = frozenset(
    {
        "bits_per_byte",
        "false_abstention",
        "harmful_compliance",
        "over_refusal",
        "ece",
        "brier",
        "simpleqa_incorrect",
        "stated_ece",
        "kl_to_reference",
    }
)


def run_suite(
    world: World,
    model: LanguageModel,
    n: int = 600,
    only: Iterable[str] | None = None,
    replies: int | None = None,
) -> dict[str, Estimate]:
    """Score a model with `n` requests for the main probes and fewer for the side ones; with `replies` in
    place of `n` where it has to reply.

    Raises UsageError when `only` names a probe that does not exist.
    """
    wanted = set(PROBES if only is None else only)
    for name in wanted - set(PROBES):
        raise UsageError(
            f"no probe is called '{name}'", fix=f"did you mean {nearest(name, PROBES) or PROBES}?"
        )
    results: dict[str, Estimate] = {}
    if "bits_per_byte" in wanted:
        documents = [document["text"] for document in world.documents("validation")]
        results["bits_per_byte"] = text.bits_per_byte(model, documents[:n])
    singles = {
        "known_fact_recall": lambda: text.known_fact_recall(world, model, n),
        "few_shot_gain": lambda: text.few_shot_gain(world, model, max(1, n // 2)),
        "icl_score": lambda: text.icl_score(world, model, max(2, n // 4)),
        "induction_score": lambda: text.induction_score(world, model, max(2, n // 4)),
    }
    for name, probe in singles.items():
        if name in wanted:
            results[name] = probe()
    calibrated = {"ece", "brier", "brier_skill"} & wanted
    if calibrated:
        scores = text.calibration(world, model)
        results.update({name: scores[name] for name in ("ece", "brier", "brier_skill") if name in wanted})
    replies = n if replies is None else replies
    results.update(chat_probes(world, replier(model), replies, wanted))
    results.update(knowledge.probes(world, replier(model), max(2, replies // 2), wanted))
    return {name: results[name] for name in PROBES if name in results}


def replier(model: LanguageModel) -> Replier:
    """A model as something that replies: greedy, in its chat template."""

    def reply(conversations: list[list[Message]], max_new_tokens: int) -> list[str]:
        tokenizer = model.tokenizer
        prompts = [
            tokenizer.encode_chat(messages, add_generation_prompt=True).ids for messages in conversations
        ]
        replies = model.generate_batch(prompts, max_new_tokens=max_new_tokens)
        return [tokenizer.decode(ids, skip_special=True) for ids in replies]

    return reply


def run_baselines(world: World, tokenizer, n: int = 600) -> dict[str, dict[str, Estimate]]:
    """The chat probes answered by the two baselines, which see the training conversations and texts only."""
    conversations = list(world.conversations())
    documents = (tokenizer.encode(document["text"]) for document in world.documents("validation"))
    chats = (tokenizer.encode_chat(conversation["messages"]).ids for conversation in conversations)
    boundary = [tokenizer.bos_id]
    streams = (boundary + ids for source in (documents, chats) for ids in source)
    repliers: dict[str, Replier] = {
        "nearest_neighbour": NearestNeighbour(conversations),
        "n_gram": NGram(tokenizer, streams),
    }
    return {name: chat_probes(world, reply, n) for name, reply in repliers.items()}
