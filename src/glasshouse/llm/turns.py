"""What of a conversation belongs together, and how a part of it is replaced."""

from __future__ import annotations

from collections.abc import Sequence

from glasshouse.llm.interface import Message


def droppable(messages: Sequence[Message]) -> list[list[int]]:
    """Places of what may go, together, in the order in which it goes."""
    last = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=None)
    turns: list[list[int]] = []
    rounds: list[list[int]] = []
    for place, message in enumerate(messages):
        role = message["role"]
        if role in ("system", "developer") or place == last:
            continue
        if last is not None and place < last:
            if role == "user" or not turns:
                turns.append([])
            turns[-1].append(place)
        else:
            if role != "tool" or not rounds:
                rounds.append([])
            rounds[-1].append(place)
    return [*turns, *rounds[:-1]]  # the newest round is what the model has to answer


def without(messages: Sequence[Message], units: Sequence[Sequence[int]]) -> list[Message]:
    gone = {place for unit in units for place in unit}
    return [message for place, message in enumerate(messages) if place not in gone]


def with_summary(messages: Sequence[Message], gone: int, summary: str) -> list[Message]:
    """In the first message that is not the system's, where that is a user's; else in a user's of its own."""
    frame = f"[Summary of {gone} earlier messages: {summary}]"
    first = next(
        place for place, message in enumerate(messages) if message["role"] not in ("system", "developer")
    )
    message = messages[first]
    if message["role"] != "user":
        return [*messages[:first], {"role": "user", "content": frame}, *messages[first:]]
    content = message["content"]
    if isinstance(content, str):
        content = f"{frame}\n\n{content}"
    else:
        content = [{"type": "text", "text": frame}, *content]
    return [*messages[:first], {**message, "content": content}, *messages[first + 1 :]]


def longest_text(message: Message) -> str:
    """The text of a message, or its longest part of text."""
    content = message.get("content")
    if isinstance(content, list):
        return max((part.get("text") or "" for part in content), key=len, default="")
    return content or ""


def with_text(message: Message, text: str) -> Message:
    content = message["content"]
    if isinstance(content, list):
        at = max(range(len(content)), key=lambda at: len(content[at].get("text") or ""))
        content = [*content[:at], {**content[at], "text": text}, *content[at + 1 :]]
        return {**message, "content": content}
    return {**message, "content": text}


def as_talk(message: Message) -> str:
    """A message as the summariser reads it."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    called = "".join(f"\n[calls {call['name']} with {call['arguments']}]" for call in calls)
    return f"{longest_text(message)}{called}"
