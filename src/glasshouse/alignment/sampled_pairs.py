"""Preference pairs of a policy's own replies, as InstructGPT collects them (arXiv:2203.02155, section 3.5).

`group` replies to each prompt are sampled, and a rater compares them, each with each: a reward model that has
read what the policy says knows how to tell good from bad there, which pairs of other writers do not teach it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.raters import Rater
from glasshouse.alignment.rollouts import sample_replies
from glasshouse.core.seeds import derive, python_rng
from glasshouse.model import Transformer
from glasshouse.tokenizer import Tokenizer

AT_ONCE = 64
"""Replies that are written at the same time: what an engine of one's own holds by default."""


def sampled_pairs(
    model: Transformer,
    tokenizer: Tokenizer,
    examples: Iterable[Mapping[str, Any]],
    rater: Rater,
    *,
    seed: int,
    group: int = 4,
    most: int | None = None,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
) -> Iterator[dict[str, Any]]:
    """Pairs {"prompt", "chosen", "rejected", "margin"?, "tie"?, "tools"?, "metadata"?, "source"} in order.

    `examples`: {"prompt": [messages]} and whatever else the rater wants to know; those that leave no room
    for `max_new_tokens` are left out. Of the pairs of different replies to one prompt (group · (group - 1) /
    2 at most) `most` are kept, drawn by lot; None keeps all. A pure function of weights and arguments. Raises
    DataError for an empty prompt, or when none is left.
    """
    prompts = Prompts.encode(examples, tokenizer, model.config.context - max_new_tokens)
    seeds = [derive(seed, "sampled pairs", place) for place in range(len(prompts))]
    groups = sample_replies(
        model, tokenizer, prompts.ids, seeds, group, max_new_tokens, temperature=temperature, at_once=AT_ONCE
    )
    for place, (example, replies) in enumerate(zip(prompts.examples, groups, strict=True)):
        texts = list(dict.fromkeys(reply.text for reply in replies if reply.text.strip()))
        pairs = list(combinations(texts, 2))
        python_rng(seed, "sampled pairs", "order", place).shuffle(pairs)
        for first, second in pairs[:most]:
            yield _judged(example, (first, second), rater)


def _judged(example: Mapping[str, Any], replies: tuple[str, str], rater: Rater) -> dict[str, Any]:
    """The row of a pair that a rater judged; of a tie the first reply stands as the chosen one."""
    choice = rater(example, replies)
    first = choice.preferred or 0
    chosen, rejected = ([{"role": "assistant", "content": replies[i]}] for i in (first, 1 - first))
    row: dict[str, Any] = {"prompt": example["prompt"], "chosen": chosen, "rejected": rejected}
    if example.get("tools"):
        row["tools"] = example["tools"]
    if choice.preferred is None:
        row["tie"] = True
    elif choice.margin is not None:
        row["margin"] = choice.margin
    if choice.about:
        row["metadata"] = dict(choice.about)
    return {**row, "source": "sampled"}
