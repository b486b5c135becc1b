"""A tokenizer.json that is not plain byte-level BPE: what its tokens are, and how they are joined."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from glasshouse.core.errors import ModelError
from glasshouse.tokenizer.pieces_engine import Joining, PiecesEngine

_ANOTHER_KIND = (
    "use a model whose tokenizer.json holds a BPE or Unigram vocabulary of bytes or of pieces with ▁"
)


@dataclass(frozen=True)
class Pieces:
    """What a file says of its tokens."""

    tokens: list[bytes]  # by id, as they stand inside a text
    special: dict[str, int]
    before: set[str]  # special tokens that take the white space before them
    after: set[str]  # and after them
    engine: PiecesEngine


def read_pieces(content: Mapping[str, Any], roles: Collection[str]) -> Pieces:
    """Read the content of a tokenizer.json; `roles` are the names its config gives (bos, eos, pad, unk).

    Raises ModelError, without a place, for what is damaged and for other kinds.
    """
    try:
        file = _File.model_validate(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ModelError(f"{place}: {first['msg']}", fix="copy the file again") from None
    vocabulary = _vocabulary(file.model)
    special, added = _divide(file.added_tokens or [], vocabulary)
    special |= {name: vocabulary[name] for name in roles if name in vocabulary and name not in added}
    by_id = {i: piece for piece, i in vocabulary.items()} | {i: n for n, i in (special | added).items()}
    missing = next((i for i in range(len(by_id)) if i not in by_id), None)
    if missing is not None:
        raise ModelError(f"no token has the id {missing}", fix="copy the file again")
    pieces = [by_id[i] for i in range(len(by_id))]
    joining = _joining(file.decoder)
    tokens = [
        piece.encode() if piece in special else joining.bytes_of(piece)
        for piece in (_encodable(piece) for piece in pieces)
    ]
    engine = PiecesEngine(content, pieces, special, added, joining)
    entries = file.added_tokens or []
    return Pieces(
        tokens,
        special,
        before={entry.content for entry in entries if entry.lstrip and entry.content in special},
        after={entry.content for entry in entries if entry.rstrip and entry.content in special},
        engine=engine,
    )


class AddedEntry(BaseModel):
    """One of `added_tokens` in a tokenizer.json."""

    id: int = Field(ge=0)
    content: str = Field(min_length=1)
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class _Model(BaseModel):
    type: str | None = None
    vocab: dict[str, NonNegativeInt] | list[list[str | float]]
    merges: list[str | list[str]] = []
    unk_token: str | None = None


class _Decoder(BaseModel):
    type: str
    decoders: list[_Decoder] = []
    replacement: str | None = None
    prepend_scheme: str | None = None
    add_prefix_space: bool = True
    pattern: dict[str, str] = {}
    content: str | None = None
    start: NonNegativeInt = 0
    stop: NonNegativeInt = 0


class _File(BaseModel):
    added_tokens: list[AddedEntry] | None = None
    decoder: _Decoder | None = None
    model: _Model


def _vocabulary(model: _Model) -> dict[str, int]:
    """Ids of the pieces."""
    vocabulary: dict[str, int] = {}
    if isinstance(model.vocab, list):
        kind = model.type or "Unigram"
        for i, entry in enumerate(model.vocab):
            if len(entry) != 2 or not isinstance(entry[0], str) or isinstance(entry[1], str):
                raise ModelError(f"model.vocab.{i}: not a piece with its score", fix="copy the file again")
            vocabulary[entry[0]] = i
        if len(vocabulary) < len(model.vocab):
            raise ModelError("a piece stands twice in the vocabulary", fix="copy the file again")
    else:
        kind = model.type or "BPE"
        vocabulary = model.vocab
    if kind != ("Unigram" if isinstance(model.vocab, list) else "BPE"):
        raise ModelError(f"a tokenizer of another kind ({kind})", fix=_ANOTHER_KIND)
    for row, pair in enumerate(model.merges, 1):
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if len(parts) != 2 or not {*parts, "".join(parts)} <= vocabulary.keys():
            raise ModelError(f"merge {row} is broken: {pair!r}"[:200], fix="copy the file again")
    return vocabulary


def _divide(
    entries: list[AddedEntry], vocabulary: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Special tokens, and those that plain text may hold.

    Plain are white space and what the vocabulary itself held when it was learned (SentencePiece's
    user-defined pieces), unless marked as special. What was added later steers the model, marked or not.
    """
    special, added = {}, {}
    for entry in entries:
        if vocabulary.get(entry.content, entry.id) != entry.id:
            raise ModelError(f"the token {entry.content!r} has two ids", fix="copy the file again")
        plain = not entry.special and (entry.content.isspace() or entry.content in vocabulary)
        (added if plain else special)[entry.content] = entry.id
    return special, added


def _joining(decoder: _Decoder | None) -> Joining:
    """Read a decoder. Raises ModelError where a token does not stand for bytes of its own."""
    if decoder is None:
        return Joining(between=b" ")
    steps = decoder.decoders if decoder.type == "Sequence" else [decoder]
    space, byte_fallback, fused, strip = None, False, False, 0
    for step in steps:
        replaces = step.type == "Replace" and step.content == " " and len(step.pattern.get("String", "")) == 1
        if step.type == "ByteLevel" and len(steps) == 1:
            return Joining(byte_level=True)
        if step.type == "Metaspace" and len(steps) == 1:
            prefixed = step.prepend_scheme != "never" if step.prepend_scheme else step.add_prefix_space
            return Joining(space=step.replacement or "▁", bare_first=prefixed)
        if replaces and space is None and not fused:
            space = step.pattern["String"]
        elif step.type == "ByteFallback" and not fused:
            byte_fallback = True
        elif step.type == "Fuse":
            fused = True
        elif step.type == "Strip" and fused and step.content == " " and not step.stop:
            strip += step.start
        else:
            kinds = ", ".join(step.type for step in steps)
            raise ModelError(f"tokens are joined in another way ({kinds})", fix=_ANOTHER_KIND)
    return Joining(space=space, byte_fallback=byte_fallback, strip=strip)


def _encodable(piece: str) -> str:
    """The piece, which must be Unicode text."""
    try:
        piece.encode()
    except UnicodeEncodeError:
        raise ModelError(f"the token {piece!r} is half a character", fix="copy the file again") from None
    return piece
