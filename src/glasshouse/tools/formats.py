"""How models write their tool calls and their reasoning, told by their chat template.

    hermes   <tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>      ours, Qwen, Hermes
    llama    {"name": ..., "parameters": {...}}, after <|python_tag|> or bare    Llama 3.1 to 3.3
    mistral  [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]               Mistral, Mixtral

Reasoning stands between <think> and </think>, before everything else. Some templates open it themselves, at
the end of the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

THINK, END_OF_THINK = "<think>", "</think>"


@dataclass(frozen=True)
class CallFormat:
    """How calls are written: objects of one shape between an opening and a closing text."""

    name: Literal["hermes", "llama", "mistral"]
    opening: str  # begins a call, or all of them
    closing: str  # ends it; empty where the JSON's own end does
    arguments: str  # the key of the arguments; the name's is "name"
    before: str = ""  # white space that the template puts between the opening and the JSON
    after: str = ""  # and between the JSON and the closing
    bare: bool = False  # a reply that begins with the JSON is a call too
    array: bool = False  # one array holds all calls
    between: str = ""  # stands between two calls that are not in an array


HERMES = CallFormat(
    "hermes", "<tool_call>", "</tool_call>", "arguments", before="\n", after="\n", between="\n"
)
LLAMA = CallFormat("llama", "<|python_tag|>", "", "parameters", bare=True, between="; ")
MISTRAL = CallFormat("mistral", "[TOOL_CALLS]", "", "arguments", before=" ", array=True)


@dataclass(frozen=True)
class ReplyFormat:
    """What a model's replies may hold beside plain text."""

    calls: CallFormat | None = None  # None: the template knows no tools
    reasoning: bool = False


def detect_format(template: str | None) -> ReplyFormat:
    """The format of replies under a chat template, given as its Jinja source."""
    if template is None:
        return ReplyFormat()
    calls = None
    if HERMES.opening in template:
        calls = HERMES
    elif MISTRAL.opening in template:
        calls = MISTRAL
    elif "tools" in template and (LLAMA.opening in template or '"parameters": dictionary of' in template):
        calls = LLAMA
    return ReplyFormat(calls, reasoning=END_OF_THINK in template)


def opens_reasoning(prompt: str) -> bool:
    """Whether a rendered prompt ends inside the reasoning: its template wrote <think> for the model."""
    return prompt.rstrip().endswith(THINK)
