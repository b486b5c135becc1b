"""SentencePiece's own file: hand-made models are read, saved as tokenizer.json, or refused when damaged."""

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import ModelError
from glasshouse.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
BYTES = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
ROLES = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
WORDS = [("▁a", -1.0, NORMAL), ("▁ab", -2.0, NORMAL), ("ab", -3.0, NORMAL)]
LETTERS = [(letter, -4.0 - i, NORMAL) for i, letter in enumerate("▁ab</s>é")]
UNIGRAM, BPE, WORD = 1, 2, 3


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(key: int, value: int) -> bytes:
    return varint(key << 3) + varint(value)


def message(key: int, value: bytes) -> bytes:
    return varint(key << 3 | 2) + varint(len(value)) + value


def piece(text: str, score: float, kind: int) -> bytes:
    parts = message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
    return message(1, parts + number(3, kind))


def model(
    kind: int = BPE,
    pieces=(*ROLES, *BYTES, *WORDS, *LETTERS),
    bytes_too: bool = True,
    trainer: bytes = b"",
    normalizer: bytes = number(4, 0),
) -> bytes:
    """A ModelProto; by default Llama 2's settings."""
    head = number(3, kind) + number(35, bytes_too) + message(2, b"made by hand")
    self_test = message(4, message(1, b"ignored"))
    return (
        b"".join(piece(*one) for one in pieces)
        + message(2, head + trainer)
        + message(3, normalizer)
        + self_test
    )


UNIGRAM_MODEL = model(UNIGRAM, [*ROLES, *WORDS, *LETTERS, ("cat", 0.0, USER)], False, number(43, -1), b"")


def load(folder: Path, data: bytes) -> Tokenizer:
    (folder / "tokenizer.model").write_bytes(data)
    return Tokenizer.load(folder)


def written(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token_bytes(i).decode() for i in tokenizer.encode(text)]


def test_bpe_joins_the_pieces_of_the_best_score(tmp_path: Path):
    """ "▁a" scores above "ab", so it is joined first; bytes stand for what no piece spells."""
    tokenizer = load(tmp_path, model())
    assert written(tokenizer, "ab  ab\n") == [" ab", " ", " ab", "\n"]
    assert tokenizer.decode(tokenizer.encode("  a b🦊é")) == "  a b🦊é"
    assert tokenizer.special == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)
    assert tokenizer.vocab_size == 270


def test_unigram_takes_the_likeliest_pieces(tmp_path: Path):
    """Spaces at the end are dropped, several are one; user-defined pieces are found in any text."""
    tokenizer = load(tmp_path, UNIGRAM_MODEL)
    assert written(tokenizer, "ab  acatb  ") == [" ab", " a", "cat", "b"]
    assert tokenizer.decode(tokenizer.encode("ab  acatb  ")) == "ab acatb"
    assert written(tokenizer, "</s>") == [" ", "<", "/", "s", ">"]
    assert tokenizer.encode("z")[-1] == 0


def test_a_model_without_the_first_space_puts_none(tmp_path: Path):
    """add_dummy_prefix is followed."""
    tokenizer = load(tmp_path, model(normalizer=number(3, 0) + number(4, 0)))
    assert written(tokenizer, "ab ab") == ["ab", " ab"]
    assert tokenizer.decode(tokenizer.encode(" ab")) == " ab"


@pytest.mark.parametrize("data", [model(), UNIGRAM_MODEL], ids=["bpe", "unigram"])
def test_it_is_saved_as_a_tokenizer_json(tmp_path: Path, data: bytes):
    """The saved folder has the same ids and roles, without the old file."""
    tokenizer = load(tmp_path, data)
    tokenizer.save(tmp_path / "saved")
    loaded = Tokenizer.load(tmp_path / "saved")
    assert not (tmp_path / "saved" / "tokenizer.model").exists()
    for text in ["ab a  b", "</s>", " é\n🦊", ""]:
        assert loaded.encode(text) == tokenizer.encode(text)
    assert (loaded.special, loaded.eos_id) == (tokenizer.special, tokenizer.eos_id)


REFUSED = {
    "whole words": model(WORD),
    "not written as ▁": model(normalizer=number(5, 0)),
    "before words": model(trainer=number(24, 1)),
    "no pieces": model(pieces=[]),
    "twice|two ids": model(UNIGRAM, [*ROLES, *LETTERS, ("a", 0.0, NORMAL)]),
    "a piece is empty": model(pieces=[*ROLES, ("", 0.0, NORMAL)]),
    "ends too early": model()[:-3],
    "wire type": b"\x0b",
    "score is not a number": model(pieces=[*ROLES, ("a", float("nan"), NORMAL)]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_other_models_are_refused_with_the_reason(tmp_path: Path, reason: str):
    """One line that names the file."""
    with pytest.raises(ModelError, match=reason) as error:
        load(tmp_path, REFUSED[reason])
    assert "tokenizer.model" in str(error.value)


@pytest.mark.parametrize("whole", [model(), UNIGRAM_MODEL], ids=["bpe", "unigram"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_model_is_read_or_refused(whole: bytes, tmp_path_factory, data):
    """Cut off, overwritten or of any bytes: a tokenizer that works, or a ModelError."""
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    damaged = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
    cut = data.draw(st.integers(0, len(damaged))) if data.draw(st.booleans()) else len(damaged)
    with contextlib.suppress(ModelError):
        tokenizer = load(tmp_path_factory.mktemp("damaged"), damaged[:cut])
        tokenizer.decode(tokenizer.encode("ab é</s>"))
