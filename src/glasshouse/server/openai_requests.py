"""What OpenAI's clients send, and the fields that vLLM and lm-eval add to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from glasshouse.server.body import Body, Part

Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1, json_schema_extra={"format": "token-id"})]
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
BiasedToken = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})$")]
JsonObject = dict[str, Any]


class StreamOptions(Part):
    include_usage: bool | None = None


class StructuredOutputs(Part):
    """vLLM's `structured_outputs`, and `piece_of`: a verbatim piece of a text. One of them at a time."""

    json_: JsonObject | str | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = Field(None, max_length=10_000)
    choice: Annotated[list[str], Field(min_length=1, max_length=10_000)] | None = None
    grammar: str | None = Field(None, max_length=100_000, description="in llguidance's Lark dialect")
    piece_of: str | None = Field(None, min_length=1)


class GenerationFields(Body):
    """How to choose tokens, and when to end."""

    model: str = Field(max_length=1000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    seed: int | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[BiasedToken, Bias] | None = None
    stop: str | Annotated[list[str], Field(max_length=64)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonObject | str | None = None
    guided_regex: Annotated[str, Field(max_length=10_000)] | None = None
    guided_choice: Annotated[list[str], Field(min_length=1, max_length=10_000)] | None = None
    guided_grammar: Annotated[str, Field(max_length=100_000)] | None = None


class TextPart(Part):
    type: Literal["text"]
    text: str


class RefusalPart(Part):
    type: Literal["refusal"]
    refusal: str


Content = str | list[TextPart]


class _WithContent(Part):
    @field_validator("content", mode="before", check_fields=False)
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        kinds = (
            {str(part.get("type")) for part in value if isinstance(part, dict)}
            if isinstance(value, list)
            else ()
        )
        for kind in ("image_url", "input_audio", "file"):
            if kind in kinds:
                raise ValueError(f"this model reads text only, not content of type '{kind}'")
        return value


class SystemMessage(_WithContent):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(_WithContent):
    role: Literal["user"]
    content: Content
    name: str | None = None


class CalledFunction(Part):
    name: str
    arguments: str


class ToolCallParam(Part):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AssistantMessage(_WithContent):
    role: Literal["assistant"]
    content: str | list[TextPart | RefusalPart] | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallParam] | None = None
    name: str | None = None


class ToolMessage(_WithContent):
    role: Literal["tool"]
    content: Content
    tool_call_id: str


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionParam(Part):
    name: Name
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class ToolParam(Part):
    type: Literal["function"]
    function: FunctionParam


class NamedFunction(Part):
    name: str


class NamedTool(Part):
    type: Literal["function"]
    function: NamedFunction


class AllowedToolList(Part):
    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1)


class AllowedTools(Part):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolList


class TextFormat(Part):
    type: Literal["text"]


class JsonObjectFormat(Part):
    type: Literal["json_object"]


class NamedSchema(Part):
    name: Name
    description: str | None = None
    schema_: JsonObject = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Part):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class ChatRequest(GenerationFields):
    """The body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolParam], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = Field(
        None, description="the reply goes on where the last message, the assistant's, ends"
    )


TokenPrompt = Annotated[list[TokenId], Field(min_length=1)]
Prompt = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=2048)]
    | TokenPrompt
    | Annotated[list[TokenPrompt], Field(min_length=1, max_length=2048)]
)


class CompletionRequest(GenerationFields):
    """The body of POST /v1/completions."""

    prompt: Prompt
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    add_special_tokens: bool | None = Field(
        None, description="a text follows the token that begins one; by default unless `echo` is asked for"
    )


class EmbeddingRequest(Body):
    """The body of POST /v1/embeddings."""

    model: str = Field(max_length=1000)
    input: Prompt
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, json_schema_extra={"format": "width"})] | None = None
