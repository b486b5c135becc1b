"""Pipelines that are not plain byte-level BPE, against transformers and SentencePiece on the same folder."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glasshouse.tokenizer import Tokenizer

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from tokenizers import (  # noqa: E402
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

CORPUS = [
    "The cat sat on the mat, and the dog sat on the log. They're friends; that's 1,234 days now!\n\n",
    "Der Bär läuft über die Brücke, über den Fluß. Čeština, ελληνικά, русский, 中文, हिन्दी, ไทย.\n",
    "def f(x):\n    return x + 1\n\n\ndef g(x):\n\treturn f(f(x))\r\n" * 3,
    "aaaa aaaaa aaab abab ababab bababab e\u0301 é x system user assistant s> </ /s> <s\n" * 2,
] * 5
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TOGETHER = ("'s", "the", "▁", "▁▁", "  ", "   ", "\r\n\r\n", "e\u0301", "🦊", "ﬁ", "²", "<0x0A>", "12", "½")
TANGLED = st.lists(st.sampled_from([*"aAbé中9१., \t\n\r\v\f\x00\x85\xa0\u2028\u3000", *TOGETHER])).map(
    "".join
)
NAMED = st.lists(st.sampled_from([*"ab \n▁<>/s", *SPECIAL, "<|user|>", "  "])).map("".join)

TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '<|user|> [INST] ' + message.content + ' [/INST]' }}
    {%- else %}{% generation %} {{ message.content + eos_token }}{% endgeneration %}{% endif %}
{%- endfor %}"""


def llama_bpe() -> tokenizers.Tokenizer:
    """As TinyLlama's and Mistral's files: spaces marked by normalizers, unknown characters in bytes."""
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*SPECIAL, *BYTES])
    made.train_from_iterator(CORPUS[:3], trainer)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    content = json.loads(made.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # bytes are pieces of the vocabulary, not added
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def llama_metaspace() -> tokenizers.Tokenizer:
    """The newer form, which marks the first word only."""
    made = llama_bpe()
    made.normalizer = None
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return made


def unigram(normalizer=None, **metaspace) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Metaspace(**metaspace)
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>")
    made.train_from_iterator(CORPUS, trainer)
    made.decoder = decoders.Metaspace(**metaspace)
    return made


def xlnet_like() -> tokenizers.Tokenizer:
    steps = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Replace(Regex(" {2,}"), " ")]
    made = unigram(normalizers.Sequence(steps))
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return made


def t5_like() -> tokenizers.Tokenizer:
    """Words between white space; what kind of space it was is lost."""
    made = unigram(normalizers.NFKC())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    return made


def smollm() -> tokenizers.Tokenizer:
    """Digits apart, then GPT-2's pattern."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(CORPUS, trainer)
    made.decoder = decoders.ByteLevel()
    return made


def deepseek() -> tokenizers.Tokenizer:
    """Several patterns one after the other."""
    made = smollm()
    splits = [(r"\p{N}{1,3}", "isolated"), (r"[一-龥]+", "isolated"), (r"\s+(?!\S)|\s+", "isolated")]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), behavior) for pattern, behavior in splits),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made


KINDS = {
    "llama bpe": (llama_bpe, "PreTrainedTokenizerFast", None),
    "llama metaspace": (llama_metaspace, "PreTrainedTokenizerFast", None),
    "llama class": (llama_bpe, "LlamaTokenizer", "llama"),
    "llama class, legacy": (llama_bpe, "LlamaTokenizerFast", None),
    "mistral": (llama_bpe, "LlamaTokenizer", "mistral"),
    "unigram": (unigram, "PreTrainedTokenizerFast", None),
    "unigram, first": (lambda: unigram(prepend_scheme="first"), "PreTrainedTokenizerFast", None),
    "unigram, never": (lambda: unigram(prepend_scheme="never"), "PreTrainedTokenizerFast", None),
    "xlnet-like": (xlnet_like, "PreTrainedTokenizerFast", None),
    "t5-like": (t5_like, "PreTrainedTokenizerFast", None),
    "smollm": (smollm, "PreTrainedTokenizerFast", "llama"),
    "gpt2 class": (smollm, "GPT2Tokenizer", "llama"),
    "deepseek": (deepseek, "PreTrainedTokenizerFast", None),
}
UNIGRAMS = ("unigram", "unigram, first", "unigram, never", "xlnet-like", "t5-like")


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """Our tokenizer and theirs, of one folder."""
    make, class_name, model_type = KINDS[request.param]
    folder = tmp_path_factory.mktemp("pieces")
    made = make()
    made.add_special_tokens([AddedToken("<|user|>", normalized=False, rstrip="mask" in made.to_str())])
    made.add_tokens([AddedToken("\u00a0\u00a0", normalized=False, special=False)])
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": class_name,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": "legacy" in request.param,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    if model_type is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    return request.param, Tokenizer.load(folder), theirs


def plain(theirs, text: str) -> list[int]:
    return theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@settings(deadline=None, max_examples=150)
@given(text=TEXT | TANGLED)
def test_texts_have_the_same_ids(pair, text: str):
    """As plain text, alone and in a batch, and back."""
    _, ours, theirs = pair
    ids = ours.encode(text)
    assert ids == plain(theirs, text)
    assert ours.encode_batch([text, "a", text]) == [ids, ours.encode("a"), ids]
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode(ids[1:]) == theirs.decode(ids[1:])


@settings(deadline=None, max_examples=150)
@given(text=NAMED)
def test_special_tokens_are_found_only_where_we_wrote_them(pair, text: str):
    """With special tokens as theirs; a plain text names none, also where a Unigram of theirs lets it."""
    kind, ours, theirs = pair
    ids = ours.encode_with_special(text)
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)
    named = {i for name, i in ours.special.items() if name != "<unk>"}
    assert not named & set(ours.encode(text))
    if kind not in UNIGRAMS:
        assert ours.encode(text) == plain(theirs, text)


WORDS = st.text(st.sampled_from("ab é中\n.1 "), max_size=12)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_conversations_have_the_same_ids(pair, turns):
    """Ids of apply_chat_template, and its mask."""
    kind, ours, theirs = pair
    chat = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    expected = theirs.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
    encoded = ours.encode_chat(chat)
    assert encoded.ids == expected["input_ids"]
    # Where spaces are joined theirs may not find the first place of a reply, and then masks none of it.
    if kind not in ("xlnet-like", "t5-like"):
        assert encoded.assistant_mask == [bool(mask) for mask in expected["assistant_masks"]]


def test_roles_and_sizes_are_the_same(pair):
    """Begin and end have the same ids; the vocabularies are as long."""
    _, ours, theirs = pair
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.vocab_size == len(theirs)


# SentencePiece's own file

LINES = [line for text in CORPUS for line in text.split("\n") if line]
SPACED = st.lists(st.sampled_from([*"aAbé中9१.,'🦊", "the", "über", " ", "ab", "½", "ﬁ"])).map("".join)


def sentencepiece_model(folder: Path, **options) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(folder / "tokenizer"),
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return folder / "tokenizer.model"


LLAMA = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "vocab_size": 600,
}
MODELS = {
    "llama": LLAMA,
    "bpe without prefix": {**LLAMA, "add_dummy_prefix": False},
    "bpe, cleaned": {"model_type": "bpe", "vocab_size": 400},
    "unigram": {"model_type": "unigram", "vocab_size": 200},
    "unigram, bytes": {**LLAMA, "model_type": "unigram", "vocab_size": 500},
    "unigram, padded": {
        "model_type": "unigram",
        "vocab_size": 200,
        "pad_id": 3,
        "user_defined_symbols": "cat",
    },
}


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    sentencepiece = pytest.importorskip("sentencepiece")
    path = sentencepiece_model(tmp_path_factory.mktemp("spm"), **MODELS[request.param])
    return Tokenizer.load(path.parent), sentencepiece.SentencePieceProcessor(model_file=str(path))


@settings(deadline=None, max_examples=200)
@given(text=SPACED)
@example(text="ﬁabababab")
def test_a_sentencepiece_model_gives_its_own_ids(model, text: str):
    """What SentencePiece itself encodes and decodes."""
    ours, theirs = model
    ids, expected = ours.encode(text), theirs.encode(text)
    if ids != expected:  # equally likely ways to cut a text: they differ in a float's last digits

        def likelihood(ids: list[int]) -> float:
            return sum(map(theirs.get_score, ids))

        assert not likelihood(ids).is_integer(), (
            "BPE's scores are ranks, and its cut is never a matter of digits"
        )
        assert likelihood(ids) == pytest.approx(likelihood(expected), abs=1e-5)
    known = [i for i in ids if i != theirs.unk_id()]
    assert ours.decode(known).lstrip(" ") == theirs.decode(known).lstrip(" ")


def test_a_sentencepiece_model_keeps_its_roles(model, tmp_path):
    """Roles, size, and the same ids after saving as tokenizer.json."""
    ours, theirs = model
    assert ours.vocab_size == theirs.vocab_size()
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_id(), theirs.eos_id())
    ours.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for line in LINES[:20]:
        assert loaded.encode(line) == ours.encode(line) == plain(again, line)


@settings(deadline=None, max_examples=100)
@given(text=TEXT | TANGLED)
def test_a_llama_folder_with_only_a_model_gives_their_ids(llama_folder, text: str):
    """LlamaTokenizer converts the file itself; we build the same pipeline."""
    ours, theirs = llama_folder
    assert ours.encode(text) == plain(theirs, text)
    assert ours.decode(ours.encode(text)) == theirs.decode(plain(theirs, text))


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    pytest.importorskip("google.protobuf")  # transformers reads the file with it
    folder = tmp_path_factory.mktemp("llama")
    sentencepiece_model(folder, **LLAMA)
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"unk_token": "<unk>"}))
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
