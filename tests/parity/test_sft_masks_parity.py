"""What fine-tuning learns of a conversation, against the marks that trl puts into published chat templates.

trl keeps each template twice: as published, where `alignment/written.py` has to find the replies, and with
marks around them, which transformers turns into a mask.
"""

import json
import re
from pathlib import Path

import pytest

from glasshouse.alignment.written import encode_chat
from glasshouse.tokenizer import Tokenizer

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl", reason="the peer is not installed")

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
FAMILIES = {  # and what ends a turn, where that is not <|im_end|>
    "qwen2_5": None,
    "qwen3": None,
    "qwen3_instruct_2507": None,
    "lfm2": None,
    "llama3": "<|eot_id|>",
    "phi3": "<|end|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
}

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, thought=None, calls=None):
    return {"role": "assistant", "content": text, "reasoning_content": thought, "tool_calls": calls}


def result(text):
    return {"role": "tool", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONS = {
    "turns": [user("Hello"), assistant("Hi."), user("And?"), assistant("0")],
    "system": [SYSTEM, user("Hello"), assistant("Hi."), user("And?"), assistant("Bye.")],
    "thought": [user("1+1?"), assistant("2", "easy")],
    "thoughts": [user("1+1?"), assistant("2", "easy"), user("2+1?"), assistant("3", "also")],
    "call": [user("1+2?"), assistant("", None, [CALL]), result("3"), assistant("It is 3.")],
    "calls": [
        user("1+2?"),
        assistant("", "use it", [CALL, CALL]),
        result("7"),
        result("8"),
        assistant("It is 3.", "so"),
        user("Thanks"),
        assistant("."),
    ],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """For each family a folder with plain bytes, the special tokens of its template, and the template."""
    made, found = Tokenizer.train([], 265), {}
    for family, end in FAMILIES.items():
        marked = (TEMPLATES / f"{family}_training.jinja").read_text()
        tokens, special = [made.token_bytes(i) for i in range(265)], dict(made.special)
        for name in sorted(set(re.findall(r"<\|[^<>'\"\s]+?\|>|<(?:start|end)_of_turn>", marked))):
            if name not in special:
                special[name] = len(tokens)
                tokens.append(name.encode())
        roles = {} if end is None else {"eos": end}
        template = (TEMPLATES / f"{family}.jinja").read_text()
        found[family] = tmp_path_factory.mktemp(family)
        Tokenizer(tokens, special, chat_template=template, **roles).save(found[family])
        config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
        (found[family] / "config.json").write_text(json.dumps(config))
    return found


def learnt(tokenizer, ids, mask):
    """The stretches of text that the loss counts, without the white space around them."""
    stretches, before = [], False
    for token, written in zip(ids, mask, strict=True):
        if written:
            stretches = stretches if before else [*stretches, []]
            stretches[-1].append(token)
        before = bool(written)
    return [tokenizer.decode(stretch).strip() for stretch in stretches]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_replies_are_found_where_trl_marks_them(folders, family, name):
    """The same tokens are learnt, but for line ends around a turn, which no reply brings about."""
    ours = Tokenizer.load(folders[family])
    theirs = transformers.AutoTokenizer.from_pretrained(folders[family])
    marked = (TEMPLATES / f"{family}_training.jinja").read_text()
    chat, tools = CONVERSATIONS[name], [TOOL] if "call" in name else None
    chat = [{key: value for key, value in message.items() if value is not None} for message in chat]
    try:
        text = theirs.apply_chat_template(chat, tokenize=False, tools=tools)
    except Exception as error:  # a template's own
        pytest.skip(f"{family} has no such conversation: {error}")
    if theirs.apply_chat_template(chat, chat_template=marked, tokenize=False, tools=tools) != text:
        pytest.skip("trl's marked template keeps thoughts that the published one drops")
    expected = theirs.apply_chat_template(
        chat, chat_template=marked, return_assistant_tokens_mask=True, return_dict=True, tools=tools
    )
    found = encode_chat(ours, chat, tools)
    assert found.ids == expected["input_ids"]
    # Phi 3's marks hold the line end after a turn, and the token that closes the whole conversation.
    marks = expected["assistant_masks"]
    stretches = [text.removesuffix("\n<|end|>") for text in learnt(ours, found.ids, marks)]
    assert learnt(ours, found.ids, found.assistant_mask) == stretches
    assert all(mark for mark, written in zip(marks, found.assistant_mask, strict=True) if written)


def test_qwen3_drops_the_thoughts_of_earlier_turns_and_the_rest_is_learnt(folders):
    """Each call and answer once; no result of a tool, and of thoughts only that of the newest turn."""
    ours = Tokenizer.load(folders["qwen3"])
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    found = encode_chat(ours, CONVERSATIONS["calls"], [TOOL])
    assert learnt(ours, found.ids, found.assistant_mask) == [
        f"{call}\n{call}<|im_end|>",
        "It is 3.<|im_end|>",
        "<think>\n\n</think>\n\n.<|im_end|>",
    ]
    found = encode_chat(ours, CONVERSATIONS["thoughts"])
    assert learnt(ours, found.ids, found.assistant_mask) == [
        "2<|im_end|>",
        "<think>\nalso\n</think>\n\n3<|im_end|>",
    ]
