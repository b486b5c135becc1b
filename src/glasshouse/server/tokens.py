"""The tokenizer over HTTP, as vLLM has it and lm-eval's remote tokenizer uses it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from glasshouse.inference.token_names import token_name
from glasshouse.server.body import Body, StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.openai_requests import Message, TokenId, ToolParam
from glasshouse.server.openai_responses import ERRORS
from glasshouse.server.prompts import off_loop, template_messages, text_size
from glasshouse.server.service import Service
from glasshouse.tools.definition import ToolDefinition


class TokenizeText(Body):
    """A text."""

    model: str | None = Field(None, max_length=1000)
    prompt: str
    add_special_tokens: bool | None = Field(None, description="the text follows the token that begins one")
    return_token_strs: bool | None = None


class TokenizeChat(Body):
    """A conversation."""

    model: str | None = Field(None, max_length=1000)
    messages: list[Message] = Field(min_length=1, max_length=10_000)
    tools: Annotated[list[ToolParam], Field(max_length=128)] | None = None
    add_generation_prompt: bool | None = Field(None, description="by default true")
    return_token_strs: bool | None = None


class DetokenizeRequest(Body):
    model: str | None = Field(None, max_length=1000)
    tokens: Annotated[list[TokenId], Field(max_length=1_000_000)]


class Tokens(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class Text(BaseModel):
    prompt: str


class TokenizerInfo(BaseModel):
    tokenizer_class: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    vocab_size: int
    model_max_length: int
    chat_template: str | None


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["Tokenizer"])
    tokenizer = service.tokenizer

    @routes.get("/tokenizer_info", response_model=TokenizerInfo, responses=ERRORS)
    async def tokenizer_info() -> Response:
        """Names of the special tokens, and the chat template."""
        names = tokenizer.role_names()
        return JSONResponse(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                **{f"{role}_token": names.get(role) for role in ("bos", "eos", "pad")},
                "vocab_size": tokenizer.vocab_size,
                "model_max_length": service.context,
                "chat_template": tokenizer.chat_template,
            }
        )

    @routes.post("/tokenize", response_model=Tokens, responses=ERRORS)
    async def tokenize(body: TokenizeText | TokenizeChat, http: HttpRequest) -> Response:
        """Ids of a text, in which names of special tokens are those tokens, or of a conversation."""
        body.note(Call.of(http.scope))
        if isinstance(body, TokenizeText):
            ids = await off_loop(tokenizer.encode_with_special, body.prompt, size=len(body.prompt))
            if body.add_special_tokens:
                ids = [tokenizer.bos_id, *ids]
        else:
            messages = template_messages(body.messages)
            given = [ToolDefinition.from_openai(tool.model_dump()) for tool in body.tools or ()]
            tools = [tool.for_template() for tool in given]  # as a chat shows them to the model
            generation = body.add_generation_prompt is not False
            encode = partial(tokenizer.encode_chat, messages, generation, tools or None)
            ids = (await off_loop(encode, size=text_size(messages))).ids
        names = [token_name(tokenizer.token_bytes(token)) for token in ids]
        return JSONResponse(
            {
                "tokens": ids,
                "count": len(ids),
                "max_model_len": service.context,
                "token_strs": names if body.return_token_strs else None,
            }
        )

    @routes.post("/detokenize", response_model=Text, responses=ERRORS)
    async def detokenize(body: DetokenizeRequest, http: HttpRequest) -> Response:
        """The text of ids. Raises 400 for one outside the vocabulary."""
        body.note(Call.of(http.scope))
        text = await off_loop(tokenizer.decode, body.tokens, size=len(body.tokens))
        return JSONResponse({"prompt": text})

    return routes
