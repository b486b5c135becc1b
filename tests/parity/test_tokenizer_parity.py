"""Our tokenizer against Hugging Face's on the same folder: the same ids, templates and masks."""

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.tokenizer import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")

CORPUS = [
    "The cat sat on the mat, and the dog sat on the log. They're friends; that's 1,234 days now!\n\n",
    "Der Bär läuft über die Brücke, über den Fluß. Čeština, ελληνικά, русский, 中文, हिन्दी, ไทย.\n",
    "def f(x):\n    return x + 1\n\n\ndef g(x):\n\treturn f(f(x))\r\n" * 3,
    "aaaa aaaaa aaab abab ababab bababab 🦊🦊 👩‍👩‍👧 e\u0301 é \u2028 \u00a0 x system user assistant\n" * 2,
] * 5

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LETTERS_AND_SIGNS = "aAbé中9१.,!'’ \t\n\r\v\f\x85\xa0\u2028\u3000\x1c\u200bſ\u212a🦊"
TOGETHER = ("'s", "'LL", "'\u017f", "e\u0301", "   ", "\r\n\r\n", *SPECIAL_TOKENS)
TANGLED = st.lists(st.sampled_from([*LETTERS_AND_SIGNS, *TOGETHER])).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved tokenizer beside the config of a Qwen3 model, as in every checkpoint of ours."""
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(CORPUS, 500).save(folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]})
    )
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path):
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_every_character_is_split_alike(ours: Tokenizer, theirs):
    """Every code point, between letters, digits, spaces, signs and line ends, has the same ids."""
    planes = (0, 1, 2, 3, 14)  # the others hold no character, or private ones
    for start in (start for plane in planes for start in range(plane << 16, (plane + 1) << 16, 4096)):
        block = [chr(c) for c in range(start, start + 4096) if not 0xD800 <= c <= 0xDFFF]
        text = "".join(f"{c}|a{c}b 1{c}2 {c} {c}. {c}{c}\n{c} x" for c in block)
        assert ours.encode(text) == theirs(text, split_special_tokens=True)["input_ids"]


@settings(deadline=None, max_examples=300)
@given(text=TEXT | TANGLED)
def test_texts_have_the_same_ids(ours: Tokenizer, theirs, text: str):
    """As plain text, with special tokens, and back."""
    assert ours.encode(text) == theirs(text, split_special_tokens=True)["input_ids"]
    ids = ours.encode_with_special(text)
    assert ids == theirs(text)["input_ids"]
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)


def test_special_tokens_have_the_same_roles(ours: Tokenizer, theirs):
    """Begin, end and padding are known to transformers under the same ids."""
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        ours.bos_id,
        ours.eos_id,
        ours.pad_id,
    )
    assert len(theirs) == ours.vocab_size
    assert theirs.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(9))


TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "description": "a < b & 'c' é", "parameters": {"a": [1, None]}},
    },
    {"name": "now"},
]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1.5, "b": "é<"}}}
CONVERSATIONS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    [{"role": "user", "content": "  a \n"}, {"role": "assistant", "content": "\n\n b \n"}],
    [{"role": "user", "content": "é"}, {"role": "assistant", "content": "中文 🦊"}] * 3,
    [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    [
        {"role": "user", "content": "1+?"},
        {"role": "assistant", "reasoning_content": "add", "tool_calls": [CALL, CALL], "content": None},
        {"role": "tool", "content": "2"},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n5", "tool_calls": None},
        {"role": "system", "content": "later"},
    ],
    [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "tool_calls": [{"name": "now", "arguments": "{}"}]},
    ],
]


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["bare", "tools"])
@pytest.mark.parametrize("prompt", [False, True], ids=["whole", "prompt"])
@pytest.mark.parametrize("chat", CONVERSATIONS)
def test_conversations_are_rendered_and_masked_alike(ours: Tokenizer, theirs, chat, prompt, tools):
    """Text, ids and mask are those of apply_chat_template."""
    options = {"add_generation_prompt": prompt, "tools": tools}
    assert ours.render(chat, **options) == theirs.apply_chat_template(chat, tokenize=False, **options)
    expected = theirs.apply_chat_template(chat, return_assistant_tokens_mask=True, **options)
    encoded = ours.encode_chat(chat, **options)
    assert encoded.ids == expected["input_ids"]
    assert encoded.assistant_mask == [bool(mask) for mask in expected["assistant_masks"]]


WORDS = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=12)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_any_conversation_is_masked_alike(ours: Tokenizer, theirs, turns):
    """Also where characters are split over tokens, and white space joins across the start of a reply."""
    chat = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    expected = theirs.apply_chat_template(chat, return_assistant_tokens_mask=True)
    encoded = ours.encode_chat(chat)
    assert encoded.ids == expected["input_ids"]
    assert encoded.assistant_mask == [bool(mask) for mask in expected["assistant_masks"]]


FOREIGN = """{{- bos_token }}
{% for message in messages %}
    {%- if loop.first and message['role'] == 'system' %}
        {% set ns = namespace(seen=true) %}
    {%- endif %}
    {% if message.role not in ['user', 'assistant', 'system'] %}{{ raise_exception('no') }}{% endif %}
    {% if message.content == 'skip' %}{% continue %}{% endif %}
  <|{{ message.role | upper }}|> {{ message.content | trim }} {{ {'b': '<é>', 'a': 1} | tojson(indent=2) }}
    {% generation %}{{ message.content }}{% endgeneration %}
{% endfor %}
{{- '>' if add_generation_prompt else eos_token -}}
"""


@pytest.mark.parametrize("chat", [*CONVERSATIONS[:4], [{"role": "user", "content": "skip"}]])
def test_templates_of_others_are_rendered_alike(ours: Tokenizer, theirs, chat, tmp_path):
    """White space control, tojson, loop controls, exceptions and variables are Hugging Face's."""
    ours.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(FOREIGN)
    loaded = Tokenizer.load(tmp_path)
    expected = theirs.apply_chat_template(chat, chat_template=FOREIGN, return_assistant_tokens_mask=True)
    assert loaded.render(chat) == theirs.apply_chat_template(chat, chat_template=FOREIGN, tokenize=False)
    assert loaded.encode_chat(chat).ids == expected["input_ids"]


def test_a_saved_copy_of_transformers_is_read(ours: Tokenizer, theirs, tmp_path):
    """What transformers saves we load, with the same ids and template."""
    theirs.save_pretrained(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    text = "".join(CORPUS)
    assert loaded.encode(text) == ours.encode(text)
    assert loaded.special == ours.special
    assert loaded.render(CONVERSATIONS[1]) == ours.render(CONVERSATIONS[1])


def data(name: str) -> Path:
    root = os.environ.get("GLASSHOUSE_TEST_DATA")
    if root is None:
        pytest.skip("GLASSHOUSE_TEST_DATA is not set")
    return Path(root, name)


def real_texts() -> list[str]:
    path = data("pretrain/web_c4_sample.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    with gzip.open(data("rag/xquad_passages.jsonl.gz"), "rt", encoding="utf-8") as file:
        return [*texts, file.read(500_000)]


def test_real_text_has_the_same_ids(tmp_path):
    """Web pages and eleven languages, with a vocabulary of 8,192 learned from them."""
    texts = real_texts()
    ours = Tokenizer.train(texts, 8192)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.encode_batch(texts) == theirs(texts, split_special_tokens=True)["input_ids"]


def test_gpt2_has_the_same_ids(tmp_path):
    """OpenAI's own two files give the ids of transformers' GPT-2 tokenizer."""
    source = data("tokenizer/gpt2")
    (tmp_path / "vocab.json").write_bytes((source / "encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((source / "vocab.bpe").read_bytes())
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    texts = real_texts()
    expected = theirs(texts, split_special_tokens=True)["input_ids"]
    assert Tokenizer.load(source).encode_batch(texts) == expected
    assert Tokenizer.load(tmp_path).encode_batch(texts) == expected


def test_neox_has_the_same_ids(tmp_path):
    """A tokenizer.json with a normalizer and added runs of spaces."""
    with gzip.open(data("tokenizer/neox_tokenizer.json.gz")) as file:
        (tmp_path / "tokenizer.json").write_bytes(file.read())
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    texts = [*real_texts(), *("a" + " " * n + "b\n" + " " * n for n in range(1, 40))]
    assert Tokenizer.load(tmp_path).encode_batch(texts) == theirs(texts)["input_ids"]
