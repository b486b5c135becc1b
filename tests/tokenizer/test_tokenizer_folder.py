"""Files: what is saved is loaded again, foreign folders are read or refused with a reason."""

import contextlib
import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import ModelError
from glasshouse.tokenizer import Tokenizer
from glasshouse.tokenizer.byte_alphabet import to_bytes, to_characters

TEXTS = ["Hello  world\n\n x", "über 中 🦊", "<|im_end|> 1,234", ""]


def edit(folder: Path, change) -> None:
    """Rewrite tokenizer.json after `change` of its content."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_saved_tokenizer_is_the_same(trained: Tokenizer, tmp_path: Path):
    """Ids, special tokens, template and files are unchanged by saving and loading, twice."""
    trained.save(tmp_path / "a")
    loaded = Tokenizer.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert loaded.ranks == trained.ranks
    assert loaded.special == trained.special
    assert loaded.chat_template == trained.chat_template
    ends = (loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.end_of_turn_id)
    assert ends == (0, 0, 0, 2) == (trained.bos_id, trained.eos_id, trained.pad_id, trained.end_of_turn_id)
    assert loaded.encode_batch(TEXTS) == trained.encode_batch(TEXTS)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_plain_bytes_are_saved_too(tmp_path: Path):
    """A vocabulary without merges is a tokenizer like any other."""
    Tokenizer.train([], 265).save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("é") == [9 + 0xC3, 9 + 0xA9]


def test_gpt2_files_are_read(tmp_path: Path, trained: Tokenizer):
    """encoder.json and vocab.bpe, as OpenAI published them, need no tokenizer.json."""
    characters = [to_characters(bytes([byte])) for byte in range(256)]
    merges = [("h", "i"), ("Ġ", "hi")]
    words = [*characters, *("".join(pair) for pair in merges), "<|endoftext|>"]
    (tmp_path / "encoder.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (tmp_path / "vocab.bpe").write_text("\n".join(lines))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("hi hi") == [256, 257]
    assert tokenizer.eos_id == 258
    tokenizer.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").encode("hi hi<|endoftext|>") == tokenizer.encode(
        "hi hi<|endoftext|>"
    )


def test_a_normalizer_is_followed(trained: Tokenizer, tmp_path: Path):
    """Qwen's own tokenizers compose characters first (NFC)."""
    trained.save(tmp_path)
    edit(tmp_path, lambda content: content.update(normalizer={"type": "NFC"}))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode("e\u0301") == trained.encode("é")
    assert loaded.encode_batch(["e\u0301", "a"]) == [trained.encode("é"), trained.encode("a")]


def test_added_white_space_is_plain_text(trained: Tokenizer, tmp_path: Path):
    """GPT-NeoX's tokens of several spaces are found in any text; the longest first."""
    trained.save(tmp_path)
    first = trained.vocab_size

    def add(content):
        for i, spaces in enumerate(["    ", "  "]):
            content["added_tokens"].append(
                {"id": first + i, "content": spaces, "special": False, "normalized": True}
            )

    edit(tmp_path, add)
    loaded = Tokenizer.load(tmp_path)
    text = "a      b"
    assert loaded.encode(text) == [*trained.encode("a"), first, first + 1, *trained.encode("b")]
    assert loaded.encode_batch([text, text]) == [loaded.encode(text)] * 2
    assert loaded.decode(loaded.encode(text), skip_special=True) == text


def remove_merge(content):
    content["model"]["merges"][0] = ["never", "there"]


def swap_merges(content):
    merges = content["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]


def leave_hole(content):
    content["model"]["vocab"]["zzz"] = 9999


BREAKAGES = {
    "a tokenizer of another kind": lambda content: content["model"].update(type="Unigram"),
    "merge 1 is broken": remove_merge,
    "no token has the id 400": leave_hole,
}


@pytest.mark.parametrize("reason", BREAKAGES)
def test_what_cannot_be_read_is_refused_with_its_reason(trained: Tokenizer, tmp_path: Path, reason: str):
    """A tokenizer of another kind is never read wrongly."""
    trained.save(tmp_path)
    edit(tmp_path, BREAKAGES[reason])
    with pytest.raises(ModelError, match=reason) as error:
        Tokenizer.load(tmp_path)
    assert "tokenizer.json" in str(error.value)


def split_digits(content):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps = [{"type": "Digits", "individual_digits": True}, byte_level]
    content.update(pre_tokenizer={"type": "Sequence", "pretokenizers": steps})


OTHER_PIPELINES = {
    "split several times, as SmolLM2's": split_digits,
    "a space before the first word": lambda content: content.update(
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    ),
    "another normalizer": lambda content: content.update(normalizer={"type": "Lowercase"}),
    "ids not in the order of the merges": swap_merges,
    "a byte missing": lambda content: content["model"]["vocab"].update(
        {"zzz": content["model"]["vocab"].pop("A")}
    ),
    "a piece outside the byte alphabet": lambda content: content["model"]["vocab"].update({"▁word": 400}),
    "a token that takes the space around it": lambda content: content["added_tokens"][0].update(lstrip=True),
}


@pytest.mark.parametrize("kind", OTHER_PIPELINES)
def test_other_pipelines_have_the_ids_of_the_tokenizers_library(
    trained: Tokenizer, tmp_path: Path, kind: str
):
    """What tiktoken cannot do is done by `tokenizers`: the ids are its own, and special names stay text."""
    trained.save(tmp_path)
    edit(tmp_path, OTHER_PIPELINES[kind])
    loaded = Tokenizer.load(tmp_path)
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reference.encode_special_tokens = True
    assert loaded.pattern is None
    for text in [*TEXTS, "THE CAT 2024  12\n1", "BÄR ABBA"]:
        assert loaded.encode(text) == reference.encode(text).ids
        assert loaded.decode(loaded.encode(text)) == reference.decode(loaded.encode(text))
    text = "a <|endoftext|> THE<|im_start|>"
    reference.encode_special_tokens = False
    assert loaded.encode_with_special(text) == reference.encode(text).ids


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
def test_broken_files_are_named(tmp_path: Path, content: str):
    """Cut off or overwritten files end in one clear error."""
    (tmp_path / "tokenizer.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_file_of_any_shape_is_read_or_refused(trained: Tokenizer, tmp_path_factory, data):
    """Whatever JSON stands in the place of a part, the answer is a tokenizer or a ModelError."""
    folder = tmp_path_factory.mktemp("any")
    trained.save(folder)

    def change(content):
        path = data.draw(
            st.sampled_from(
                [(key,) for key in content]
                + [("model", key) for key in content["model"]]
                + [("added_tokens", 0), ("pre_tokenizer", "pretokenizers"), ("model", "merges", 0)]
            )
        )
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = data.draw(JSON)

    edit(folder, change)
    with contextlib.suppress(ModelError):
        Tokenizer.load(folder)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    """The fix says what the folder should hold."""
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_without_special_tokens_none_are_invented(tmp_path: Path, trained: Tokenizer):
    """A tokenizer that names no end of text has none; asking for it is an error."""
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)], {}, chat_template=None)
    for name in ("bos_id", "eos_id", "pad_id", "end_of_turn_id"):
        with pytest.raises(ModelError, match="no "):
            getattr(tokenizer, name)
    with pytest.raises(ModelError, match="no chat template"):
        tokenizer.render([{"role": "user", "content": "x"}])


@given(st.binary())
def test_the_byte_alphabet_is_one_to_one(data: bytes):
    """Every bytes can be written and read back, without white space."""
    written = to_characters(data)
    assert to_bytes(written) == data
    assert not any(character.isspace() for character in written)


@pytest.mark.parametrize("token_id", [-1, 400])
def test_an_unknown_id_is_an_error(trained: Tokenizer, token_id: int):
    """Ids of another tokenizer are not guessed."""
    with pytest.raises(ModelError, match="outside the vocabulary"):
        trained.decode([token_id])
