"""SentencePiece's own file, `tokenizer.model`, told as a tokenizer.json.

The file is a protocol buffer (sentencepiece_model.proto); the few fields that matter are read here without
another library. The pipelines are those that transformers' converters build: for BPE the Llama form, for
Unigram Metaspace after the file's normalization. Word and character vocabularies are refused.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from glasshouse.core.errors import ModelError

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # SentencePiece.Type

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of a field


@dataclass
class _Piece:
    text: str = ""
    score: float = 0.0
    type: int = 1


@dataclass
class _Model:
    """The fields of ModelProto that we read, with the defaults of its definition."""

    pieces: list[_Piece] = field(default_factory=list)
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    space_as_suffix: bool = False
    roles: dict[str, int] = field(default_factory=lambda: {"unk": 0, "bos": 1, "eos": 2, "pad": -1})
    charsmap: bytes = b""
    dummy_prefix: bool = True
    remove_extra_spaces: bool = True
    escape_spaces: bool = True


_ROLE_FIELDS = {40: "unk", 41: "bos", 42: "eos", 43: "pad"}


def tokenizer_json(data: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """The content of an equal tokenizer.json, and the names of the tokens with a role (bos, eos, pad, unk).

    Raises ModelError, without a place, for a damaged file and for a vocabulary of another kind.
    """
    model = _parse(data)
    if model.model_type not in (UNIGRAM, BPE):
        raise ModelError(
            "the vocabulary is of whole words or single characters", fix="use a BPE or a Unigram model"
        )
    if not model.escape_spaces or model.space_as_suffix:
        raise ModelError("spaces are not written as ▁ before words", fix="use a model that does")
    roles = {role: model.pieces[i].text for role, i in model.roles.items() if 0 <= i < len(model.pieces)}
    build = _bpe if model.model_type == BPE else _unigram
    added = [
        _added(i, piece) for i, piece in enumerate(model.pieces) if piece.type in (_CONTROL, _USER_DEFINED)
    ]
    unknown = [_added(i, p) for i, p in enumerate(model.pieces) if p.type == _UNKNOWN]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added + unknown, key=lambda token: token["id"]),
        "post_processor": None,
        **build(model),
    }
    return content, roles


def _added(token_id: int, piece: _Piece) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": piece.text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": piece.type != _USER_DEFINED,
    }


def _bpe(model: _Model) -> dict[str, Any]:
    return {
        "normalizer": _sequence([*_cleaning(model, " "), *_marking(model)]),
        "pre_tokenizer": None,
        "decoder": _decoder(model),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": next((p.text for p in model.pieces if p.type == _UNKNOWN), None),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": model.byte_fallback,
            "ignore_merges": False,
            "vocab": {piece.text: i for i, piece in enumerate(model.pieces)},
            "merges": _merges(model.pieces),
        },
    }


def _unigram(model: _Model) -> dict[str, Any]:
    scheme = (
        "first" if model.dummy_prefix else "never"
    )  # as SentencePiece: no space after user-defined pieces
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
    unknown = next((i for i, piece in enumerate(model.pieces) if piece.type == _UNKNOWN), None)
    # Metaspace joins no runs of spaces and takes one at the start for its own, so a model that keeps
    # spaces, or spells unknown characters in bytes, gets the form that the BPE has.
    bare = model.byte_fallback or not model.remove_extra_spaces
    return {
        "normalizer": _sequence(_cleaning(model, " ") + _marking(model) if bare else _cleaning(model, "▁")),
        "pre_tokenizer": None if bare else metaspace,
        "decoder": _decoder(model) if bare else metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": [[piece.text, piece.score] for piece in model.pieces],
            "byte_fallback": model.byte_fallback,
        },
    }


def _cleaning(model: _Model, run: str) -> list[dict[str, Any]]:
    """The file's own table of characters, then spaces: none at the end, and for several `run`."""
    steps: list[dict[str, Any]] = []
    if model.charsmap:
        charsmap = base64.b64encode(model.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if model.remove_extra_spaces:
        steps.append({"type": "Strip", "strip_left": run == " ", "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": run})
    return steps


def _marking(model: _Model) -> list[dict[str, Any]]:
    prepend: list[dict[str, Any]] = [{"type": "Prepend", "prepend": "▁"}] if model.dummy_prefix else []
    return [*prepend, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]


def _sequence(steps: list[dict[str, Any]]) -> dict[str, Any] | None:
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _decoder(model: _Model) -> dict[str, Any]:
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if model.dummy_prefix else []
    return {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *strip,
        ],
    }


def _merges(pieces: list[_Piece]) -> list[list[str]]:
    """Every way to join two pieces to a third, in the order of the third's score.

    SentencePiece itself keeps no merges: it joins the neighbours whose joined piece scores highest.
    """
    ids = {piece.text: i for i, piece in enumerate(pieces) if piece.type not in (_UNKNOWN, _CONTROL)}
    order = sorted(ids.values(), key=lambda i: (-pieces[i].score, i))
    merges = []
    for text in (pieces[i].text for i in order):
        cuts = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        found = [(left, right) for left, right in cuts if left in ids and right in ids]
        merges += [list(pair) for pair in sorted(found, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
    return merges


def _parse(data: bytes) -> _Model:
    model = _Model()
    for number, value in _fields(data):
        if number == 1:
            model.pieces.append(_piece(_message(value)))
        elif number == 2:
            for inner, setting in _fields(_message(value)):
                if inner == 3:
                    model.model_type = _integer(setting)
                elif inner == 24:
                    model.space_as_suffix = bool(_integer(setting))
                elif inner == 35:
                    model.byte_fallback = bool(_integer(setting))
                elif inner in _ROLE_FIELDS:
                    model.roles[_ROLE_FIELDS[inner]] = _integer(setting)
        elif number == 3:
            for inner, setting in _fields(_message(value)):
                if inner == 2:
                    model.charsmap = _message(setting)
                elif inner == 3:
                    model.dummy_prefix = bool(_integer(setting))
                elif inner == 4:
                    model.remove_extra_spaces = bool(_integer(setting))
                elif inner == 5:
                    model.escape_spaces = bool(_integer(setting))
    if not model.pieces:
        raise _damaged("it holds no pieces")
    return model


def _piece(data: bytes) -> _Piece:
    piece = _Piece()
    for number, value in _fields(data):
        if number == 1:
            try:
                piece.text = _message(value).decode()
            except UnicodeDecodeError:
                raise _damaged("a piece is not UTF-8") from None
        elif number == 2:
            piece.score = _float(value)
        elif number == 3:
            piece.type = _integer(value)
    if not piece.text:
        raise _damaged("a piece is empty")
    return piece


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field: an int for a varint, bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise _damaged(f"no field has the wire type {wire}")
        if size > len(data) - at:
            raise _damaged("it ends too early")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _damaged("it ends too early")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _damaged("a number is too long")


def _integer(value: int | bytes) -> int:
    """An int32, which is written as 64 bits in two's complement."""
    if not isinstance(value, int):
        raise _damaged("a number is missing")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _damaged("a text is missing")
    return value


def _float(value: int | bytes) -> float:
    if not isinstance(value, bytes) or len(value) != 4:
        raise _damaged("a score is missing")
    (score,) = struct.unpack("<f", value)
    if score != score or score in (float("inf"), float("-inf")):
        raise _damaged("a score is not a number")
    return score


def _damaged(reason: str) -> ModelError:
    return ModelError(f"not a whole SentencePiece model: {reason}", fix="copy the file again")
