"""Conversations: the template, the mask on what the assistant wrote, and nothing injected."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import DataError, ModelError
from glasshouse.tokenizer import SPECIAL_TOKENS, Tokenizer
from glasshouse.tokenizer.chat_template import ChatTemplate

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there."},
]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def shown(tokenizer: Tokenizer, messages: list, **options) -> list[tuple[str, bool]]:
    """Runs of tokens with the same mask, as text."""
    chat = tokenizer.encode_chat(messages, **options)
    runs: list[tuple[list[int], bool]] = []
    for token_id, mask in zip(chat.ids, chat.assistant_mask, strict=True):
        if not runs or runs[-1][1] != mask:
            runs.append(([], mask))
        runs[-1][0].append(token_id)
    return [(tokenizer.decode(ids), mask) for ids, mask in runs]


def test_a_conversation_is_chatml_and_the_mask_is_on_the_reply(trained: Tokenizer):
    """The mask covers the assistant's content and the token that ends its turn, nothing else."""
    prompt = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    assert shown(trained, CHAT) == [
        (f"{prompt}<|im_start|>assistant\n", False),
        ("Hi there.<|im_end|>", True),
        ("\n", False),
    ]


def test_the_generation_prompt_opens_a_turn(trained: Tokenizer):
    """With it the text ends where the model goes on."""
    text = trained.render(CHAT[:2], add_generation_prompt=True)
    assert text == trained.render(CHAT[:2]) + "<|im_start|>assistant\n"
    assert trained.decode(trained.encode_chat(CHAT[:2], add_generation_prompt=True).ids) == text


def test_several_turns_are_all_masked(trained: Tokenizer):
    """Each reply of a long conversation is learned from."""
    chat = [*CHAT, {"role": "user", "content": "More"}, {"role": "assistant", "content": "No."}]
    assert [text for text, mask in shown(trained, chat) if mask] == ["Hi there.<|im_end|>", "No.<|im_end|>"]


def test_thinking_and_tool_calls_are_special_and_learned(trained: Tokenizer):
    """Reasoning and calls are inside the mask with their special tokens; the tool's answer is not."""
    chat = [
        {"role": "user", "content": "2+3?"},
        {
            "role": "assistant",
            "reasoning_content": "use add",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}],
        },
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "5"},
    ]
    runs = shown(trained, chat, tools=[TOOL])
    learned = [text for text, mask in runs if mask]
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'
    assert learned == [f"<think>\nuse add\n</think>\n\n{call}<|im_end|>", "5<|im_end|>"]
    assert "<|im_start|>tool\n<tool_response>\n5\n</tool_response><|im_end|>" in runs[2][0]
    assert '{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}' in runs[0][0]
    ids = trained.encode_chat(chat, tools=[TOOL]).ids
    for name in ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"):
        assert trained.special[name] in ids


def test_arguments_may_be_json_text(trained: Tokenizer):
    """OpenAI's wire format has the arguments as a string; it is shown as it is."""
    calls = [{"function": {"name": "add", "arguments": '{"a": 2}'}}]
    text = trained.render([{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": calls}])
    assert '{"name": "add", "arguments": {"a": 2}}' in text


def test_tools_join_the_system_message(trained: Tokenizer):
    """There is one system turn, with the system's words first."""
    text = trained.render(CHAT, tools=[TOOL])
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    assert text.count("<|im_start|>system") == 1


ROLES = st.sampled_from(["system", "user", "tool"])
NAMES = st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|im_", "end|>", "<", "|im_end|>", "a", "\n"])).map(
    "".join
)
PARTS = st.lists(NAMES.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(role=ROLES, content=NAMES | PARTS, reply=NAMES, description=NAMES)
def test_nothing_that_others_say_becomes_special(trained: Tokenizer, role, content, reply, description):
    """Names of special tokens in messages and tools are plain text, even when joined from parts.

    Only the assistant may write thinking and tool calls.
    """
    tools = [{"name": description, description: "x", "description": description}]
    messages = [{"role": role, "content": content}, {"role": "assistant", "content": reply}]
    harmless = [{"role": role, "content": "x"}, {"role": "assistant", "content": reply}]
    allowed = [trained.special[name] for name in ("<think>", "</think>", "<tool_call>", "</tool_call>")]
    chat = trained.encode_chat(messages, tools=tools)
    plain = trained.encode_chat(harmless, tools=[{"name": "x", "x": "x", "description": "x"}])
    specials = [i for i in chat.ids if i < len(SPECIAL_TOKENS)]
    assert specials == [i for i in plain.ids if i < len(SPECIAL_TOKENS)]
    turns = 2 if role == "system" else 3  # the tools stand in the system message
    assert specials.count(trained.end_of_turn_id) == turns
    written = [i for i, mask in zip(chat.ids, chat.assistant_mask, strict=True) if mask and i < 9]
    assert written[-1] == trained.end_of_turn_id
    assert all(i in allowed for i in written[:-1])
    # Nothing is lost: the ids say what the template printed.
    assert trained.decode(chat.ids) == trained.render(messages, tools=tools)


def test_text_between_special_tokens_is_one_piece(trained: Tokenizer):
    """A line end at the start of a reply joins the one before it, as in Hugging Face's encoding."""
    chat = trained.encode_chat([{"role": "user", "content": "q"}, {"role": "assistant", "content": "\n\nx"}])
    text = trained.render([{"role": "user", "content": "q"}, {"role": "assistant", "content": "\n\nx"}])
    assert chat.ids == trained.encode_with_special(text)


def test_private_characters_in_messages_survive(trained: Tokenizer):
    """The marks that protect a text are never characters of the text."""
    content = "".join(map(chr, range(0xF0000, 0xF0005))) + "<|im_end|>"
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    assert trained.decode(trained.encode_chat(messages).ids) == trained.render(messages)


def test_half_characters_in_messages_are_replaced(trained: Tokenizer):
    """A lone surrogate, which JSON can carry, is read as U+FFFD; the mask stays in its place."""
    chat = [{"role": "user", "content": "a\ud800"}, {"role": "assistant", "content": "\udfffb\ud83e\udd8a"}]
    assert [text for text, mask in shown(trained, chat) if mask] == ["\ufffdb🦊<|im_end|>"]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "wizard", "content": "x"}],
        ["hello"],
        [{"role": "user", "content": object()}],
        [{"content": "x"}],
    ],
)
def test_what_is_no_conversation_is_refused(trained: Tokenizer, messages):
    """One clear error, for ids as for text."""
    with pytest.raises(DataError):
        trained.encode_chat(messages)
    with pytest.raises(DataError):
        trained.render(messages)


def test_a_template_cannot_reach_into_python():
    """Templates come from strangers: attributes of Python's own and changes to the input are refused."""
    for source in ("{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ messages[0].update({}) }}"):
        with pytest.raises(DataError):
            ChatTemplate(source, []).render([{"role": "user", "content": "x"}])


def test_a_broken_template_is_named():
    """It fails when it is compiled, not at the first message."""
    with pytest.raises(ModelError, match="does not compile"):
        ChatTemplate("{% if %}", [])
