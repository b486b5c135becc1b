"""What Anthropic's clients send, and what they are sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from glasshouse.server.body import Body, Part

JsonObject = dict[str, Any]
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


class TextBlockParam(Part):
    type: Literal["text"]
    text: str


class ThinkingBlockParam(Part):
    type: Literal["thinking"]
    thinking: str
    signature: str


class RedactedThinkingBlockParam(Part):
    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlockParam(Part):
    type: Literal["tool_use"]
    id: str
    name: ToolName
    input: JsonObject


class ToolResultBlockParam(Part):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlockParam] | None = None
    is_error: bool | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        return _refuse_unread(value)


UserBlock = Annotated[TextBlockParam | ToolResultBlockParam, Field(discriminator="type")]
AssistantBlock = Annotated[
    TextBlockParam | ThinkingBlockParam | RedactedThinkingBlockParam | ToolUseBlockParam,
    Field(discriminator="type"),
]


def _refuse_unread(value: Any) -> Any:
    kinds = (
        {str(part.get("type")) for part in value if isinstance(part, dict)} if isinstance(value, list) else ()
    )
    for kind in ("image", "document", "search_result"):
        if kind in kinds:
            raise ValueError(f"this model reads text only, not content of type '{kind}'")
    return value


class UserMessageParam(Part):
    role: Literal["user"]
    content: str | list[UserBlock]

    @field_validator("content", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        return _refuse_unread(value)


class AssistantMessageParam(Part):
    role: Literal["assistant"]
    content: str | list[AssistantBlock]


class SystemMessageParam(Part):
    role: Literal["system"]
    content: str | list[TextBlockParam]


MessageParam = Annotated[
    UserMessageParam | AssistantMessageParam | SystemMessageParam, Field(discriminator="role")
]


class ToolParam(Part):
    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: JsonObject
    strict: bool | None = None


class ToolChoiceAuto(Part):
    type: Literal["auto"]
    disable_parallel_tool_use: bool | None = None


class ToolChoiceAny(Part):
    type: Literal["any"]
    disable_parallel_tool_use: bool | None = None


class ToolChoiceTool(Part):
    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


class ToolChoiceNone(Part):
    type: Literal["none"]


ToolChoice = Annotated[
    ToolChoiceAuto | ToolChoiceAny | ToolChoiceTool | ToolChoiceNone, Field(discriminator="type")
]


class ThinkingEnabled(Part):
    type: Literal["enabled"]
    budget_tokens: int = Field(ge=1)
    display: Literal["summarized", "omitted"] | None = None


class ThinkingAdaptive(Part):
    type: Literal["adaptive"]
    display: Literal["summarized", "omitted"] | None = None


class ThinkingDisabled(Part):
    type: Literal["disabled"]


Thinking = Annotated[ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled, Field(discriminator="type")]


class JsonOutput(Part):
    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class OutputConfig(Part):
    format: JsonOutput | None = None


class CountTokensRequest(Body):
    """The body of POST /v1/messages/count_tokens."""

    model: str = Field(max_length=1000)
    messages: list[MessageParam] = Field(min_length=1, max_length=100_000)
    system: str | list[TextBlockParam] | None = None
    tools: Annotated[list[ToolParam], Field(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = Field(
        None, description="whether thinking is told; `max_tokens` alone bounds its length"
    )
    output_config: OutputConfig | None = None


class MessagesRequest(CountTokensRequest):
    """The body of POST /v1/messages."""

    max_tokens: int = Field(ge=1, le=2**31 - 1)
    stream: bool | None = None
    stop_sequences: Annotated[list[str], Field(max_length=64)] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: int | None = Field(None, description="not Anthropic's: makes a sampled reply repeatable")


class TextBlock(BaseModel):
    type: Literal["text"]
    text: str
    citations: None = None


class ThinkingBlock(BaseModel):
    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(BaseModel):
    type: Literal["tool_use"]
    id: str
    name: str
    input: JsonObject


class OutputTokensDetails(BaseModel):
    thinking_tokens: int


class MessageUsage(BaseModel):
    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails


StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded"
]


class AssistantMessage(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Annotated[TextBlock | ThinkingBlock | ToolUseBlock, Field(discriminator="type")]]
    stop_reason: StopReason
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(BaseModel):
    input_tokens: int


class AnthropicErrorDetail(BaseModel):
    type: str
    message: str


class AnthropicErrorResponse(BaseModel):
    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": AnthropicErrorResponse, "description": text}
    for status, text in {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        408: "the body did not arrive in time",
        413: "request_too_large",
        429: "rate_limit_error: the queue is full",
        500: "api_error",
        503: "overloaded_error: the server is shutting down",
        504: "timeout_error",
    }.items()
}

STREAMED = ERRORS | {200: {"content": {"text/event-stream": {}}}}
