"""OpenAI's and vLLM's fields for choosing tokens, as the engine takes them."""

from __future__ import annotations

import json
import secrets

from glasshouse.inference.reply_plan import ToolUse
from glasshouse.inference.request import Grammar
from glasshouse.inference.sampling import Sampling
from glasshouse.inference.tool_grammar import ToolChoice
from glasshouse.server import genai
from glasshouse.server.call import Call
from glasshouse.server.errors import bad_request
from glasshouse.server.openai_requests import (
    AllowedTools,
    ChatRequest,
    GenerationFields,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
)
from glasshouse.server.service import Service
from glasshouse.tools.definition import ToolDefinition

ANY_OBJECT = '{"type": "object"}'

COLDEST = 1e-4
"""Temperatures below overflow; they mean greedy."""


def sampling(body: GenerationFields, service: Service) -> Sampling:
    """Defaults are the API's: temperature 1, nothing cut off, another seed for every request.

    Raises ApiError 400 for a bias on a token that does not exist.
    """
    bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
    vocabulary = service.model.model.config.vocab_size
    if bias and max(bias) >= vocabulary:
        raise bad_request(f"token id {max(bias)} is outside the vocabulary of {vocabulary}", "logit_bias")
    temperature = 1.0 if body.temperature is None else body.temperature
    return Sampling(
        temperature=temperature if temperature >= COLDEST else 0.0,
        top_k=body.top_k if body.top_k and body.top_k > 0 else None,
        top_p=None if body.top_p in (None, 1) else max(body.top_p, 1e-9),
        min_p=body.min_p or None,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        logit_bias=bias,
        seed=secrets.randbits(62) if body.seed is None else body.seed,
    )


def stop_texts(body: GenerationFields) -> tuple[str, ...]:
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return tuple(text for text in stop if text)


def stop_ids(body: GenerationFields, service: Service) -> frozenset[int]:
    own = frozenset() if body.ignore_eos else service.model.stop_ids
    return own | frozenset(body.stop_token_ids or ())


def grammar(body: GenerationFields) -> Grammar | None:
    """What the text is held to. Raises ApiError 400 where several rules are given."""
    asked = list(_guided(body))
    if isinstance(body, ChatRequest):
        match body.response_format:
            case JsonObjectFormat():
                asked.append(Grammar("json_schema", ANY_OBJECT))
            case JsonSchemaFormat(json_schema=named):
                asked.append(Grammar("json_schema", json.dumps(named.schema_)))
    if len(asked) > 1:
        raise bad_request("the reply can follow one format at a time: choose one", "response_format")
    return asked[0] if asked else None


def _guided(body: GenerationFields):
    wanted = body.structured_outputs
    for schema in (body.guided_json, wanted and wanted.json_):
        if schema is not None:
            yield Grammar("json_schema", schema if isinstance(schema, str) else json.dumps(schema))
    for regex in (body.guided_regex, wanted and wanted.regex):
        if regex is not None:
            yield Grammar("regex", regex)
    for choices in (body.guided_choice, wanted and wanted.choice):
        if choices is not None:
            yield Grammar("choices", tuple(choices))
    for lark in (body.guided_grammar, wanted and wanted.grammar):
        if lark is not None:
            yield Grammar("lark", lark)
    if wanted and wanted.json_object:
        yield Grammar("json_schema", ANY_OBJECT)
    if wanted and wanted.piece_of is not None:
        yield Grammar("piece_of", wanted.piece_of)


def tool_use(body: ChatRequest) -> ToolUse:
    """The tools and `tool_choice`. Raises an error for a choice that is no tool of the request."""
    tools = [ToolDefinition.from_openai(tool.model_dump()) for tool in body.tools or ()]
    choice: ToolChoice = "auto"
    name = None
    match body.tool_choice:
        case "none" | "required" as word:
            choice = word
        case NamedTool(function=function):
            choice, name = "required", function.name
        case AllowedTools(allowed_tools=allowed):
            choice, names = allowed.mode, {tool.function.name for tool in allowed.tools}
            if missing := names - {tool.name for tool in tools}:
                raise bad_request(f"there is no tool called '{min(missing)[:100]}'", "tool_choice")
            tools = [tool for tool in tools if tool.name in names]
    return ToolUse.of(tools, choice, name, body.parallel_tool_calls is not False)


def note(body: GenerationFields, call: Call, max_tokens: int | None) -> None:
    """Tell logs and spans what was asked for."""
    call.model, call.stream = body.model, bool(body.stream)
    body.note(call)
    asked = {
        genai.MAX_TOKENS: max_tokens,
        genai.TEMPERATURE: body.temperature,
        genai.TOP_P: body.top_p,
        genai.TOP_K: body.top_k,
        genai.SEED: body.seed,
        genai.CHOICE_COUNT: body.n,
        genai.FREQUENCY_PENALTY: body.frequency_penalty,
        genai.PRESENCE_PENALTY: body.presence_penalty,
        genai.STOP_SEQUENCES: stop_texts(body) or None,
    }
    call.settings = {name: value for name, value in asked.items() if value is not None}
