"""Which tokens of a conversation the assistant wrote, also where its chat template does not say so.

Templates may mark what the assistant wrote with `{% generation %}`; ours does, those of most published
models do not. There a turn begins where the prompt that asks for it ends, and goes up to the token that
ends a turn, as generation would. Of thoughts, tool calls and words that is what the template keeps: Qwen3's
drops the thoughts of turns before the user's last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.tokenizer import ChatTokens, Tokenizer

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None


def encode_chat(tokenizer: Tokenizer, messages: Messages, tools: Tools = None) -> ChatTokens:
    """The conversation with a mask on the assistant's tokens; see `Tokenizer.encode_chat`."""
    encoded = tokenizer.encode_chat(messages, tools=tools)
    if any(encoded.assistant_mask):
        return encoded
    return ChatTokens(encoded.ids, _mask(tokenizer, messages, tools, encoded.ids))


def encode_replies(
    tokenizer: Tokenizer, prompt: Messages, replies: Sequence[Messages], tools: Tools = None
) -> list[ChatTokens]:
    """Prompt and reply in one, for each reply, with a mask on what the assistant wrote in the reply alone.

    The reply begins where the prompt that asks for it ends, or where the two first differ.
    """
    asked = _alone(tokenizer, prompt, tools, asking=True) or []
    found = []
    for reply in replies:
        whole = encode_chat(tokenizer, [*prompt, *reply], tools)
        start = _shared(asked, whole.ids)
        mask = [False] * start + whole.assistant_mask[start:]
        found.append(ChatTokens(whole.ids, mask))
    return found


def _mask(tokenizer: Tokenizer, messages: Messages, tools: Tools, ids: list[int]) -> list[bool]:
    """True on each assistant turn whose place can be told, and on the token that ends it."""
    mask = [False] * len(ids)
    ends = {tokenizer.end_of_turn_id, tokenizer.eos_id}
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = _start(tokenizer, messages, place, tools, ids)
        if start is None:
            continue
        end = next((i + 1 for i in range(start, len(ids)) if ids[i] in ends), None)
        through = _beginning(tokenizer, messages[: place + 1], tools, ids)
        # A template that ends no turn by a token: the turn goes as far as its own text.
        end = min((at for at in (end, through) if at is not None), default=start)
        mask[start:end] = [True] * (end - start)
    return mask


def _start(tokenizer: Tokenizer, messages: Messages, place: int, tools: Tools, ids: list[int]) -> int | None:
    """Where in `ids` the turn at `place` begins; None where that cannot be told."""
    before = _beginning(tokenizer, messages[:place], tools, ids)
    if before is not None:
        # The prompt may go on where this reply does not, with an opened thought for instance.
        asked = _beginning(tokenizer, messages[:place], tools, ids, asking=True)
        return max(before, asked or 0)
    # What stands before the turn is written otherwise once more follows. Then it begins where the whole
    # changes with its words; of two other words one does not begin as they do.
    found = []
    for word in ("0", "1"):
        other = [*messages[:place], {"role": "assistant", "content": word}, *messages[place + 1 :]]
        try:
            changed = tokenizer.encode_chat(other, tools=tools).ids
        except DataError:  # of a tool's result without its call, say
            return None
        found.append(_shared(changed, ids))
    return min(found)


def _beginning(
    tokenizer: Tokenizer, messages: Messages, tools: Tools, ids: list[int], *, asking: bool = False
) -> int | None:
    """How many of `ids` these messages alone begin with; None where the template writes them otherwise then.

    Their last token may differ: a text can be cut into other tokens where more follows. With `asking` it is
    the prompt for a reply, and the part of it that the ids share.
    """
    alone = _alone(tokenizer, messages, tools, asking=asking)
    if alone is None:
        return None
    shared = _shared(alone, ids)
    return shared if asking or shared >= len(alone) - 1 else None


def _alone(tokenizer: Tokenizer, messages: Messages, tools: Tools, *, asking: bool) -> list[int] | None:
    """The ids of these messages; None where the template refuses them: none at all, or roles out of order."""
    try:
        return tokenizer.encode_chat(messages, add_generation_prompt=asking, tools=tools).ids
    except DataError:
        return None


def _shared(first: list[int], second: list[int]) -> int:
    """How many ids two lists begin with alike."""
    parted = (i for i, (x, y) in enumerate(zip(first, second, strict=False)) if x != y)
    return next(parted, min(len(first), len(second)))
