"""Every other pipeline of `tokenizers`: SentencePiece's, and byte-level BPE that is split otherwise.

SentencePiece writes a space as "▁" and puts one before the first word ("SentencePiece: A simple and language
independent subword tokenizer", Kudo and Richardson, 2018). What comes back of a text is therefore:

- the text itself, where its tokens are bytes or fall back to bytes and no normalizer changes it;
- U+FFFD or the name of the unknown token for characters that the vocabulary lacks and cannot spell in bytes;
- the text after its normalizer: T5's, for one, joins runs of spaces, drops those at the end and folds Unicode
  to NFKC.

A text's first space may also be lost (Metaspace puts none before a text that begins with one). Part of a
text, decoded alone, loses the space of its first word, as in transformers; `token_bytes` keeps it, so a
stream of tokens that continues a prompt is joined rightly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glasshouse.core.errors import ModelError
from glasshouse.tokenizer.byte_alphabet import to_bytes
from glasshouse.tokenizer.split_pattern import well_formed

if TYPE_CHECKING:
    import tokenizers

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_BLANK = " \uffff"
"""Before the name of a special token it makes a piece that no text holds: pipelines replace the space."""


@dataclass(frozen=True)
class Joining:
    """How a decoder makes one text of pieces."""

    space: str | None = None  # what stands for a space, as "▁"
    byte_level: bool = False  # pieces are written in GPT-2's byte alphabet
    byte_fallback: bool = False  # <0x0A> is a byte
    strip: int = 0  # spaces dropped at the start of a text
    bare_first: bool = False  # the first piece loses its spaces
    between: bytes = b""  # stands between pieces where a file has no decoder

    def bytes_of(self, piece: str) -> bytes:
        """The bytes of a piece inside a text."""
        if self.byte_fallback and (byte := _BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        if self.byte_level:
            try:
                return to_bytes(piece)
            except KeyError:
                return piece.encode()
        return (piece if self.space is None else piece.replace(self.space, " ")).encode()


class PiecesEngine:
    """Encodes with `tokenizers`; a plain text never yields a special token, only the unknown one.

    There transformers is laxer: a Unigram vocabulary holds its special tokens as pieces, and so `</s>` typed
    by a user ends its text even with `split_special_tokens`.
    """

    pattern = None
    normalization = None

    def __init__(
        self,
        content: Mapping[str, Any],
        pieces: Sequence[str],
        special: Mapping[str, int],
        added: Mapping[str, int],
        joining: Joining,
    ) -> None:
        """`content` is a tokenizer.json and `pieces[id]` its tokens as written.

        `special` and `added` divide its added tokens in those that text cannot name and those found in it.
        Raises ModelError, without a place, where the library cannot use the content.
        """
        self.added = dict(added)
        self.ranks: Mapping[bytes, int] = {}
        self._pieces = pieces
        self._joining = joining
        plain = _plain(content, special, added)
        self._first = _build(plain)
        with _refusing("cannot be used"):
            self._decoder = self._first.decoder
        rest = _never_first(plain.get("pre_tokenizer"))
        same = rest == plain.get("pre_tokenizer")
        self._rest = self._first if same else _build({**plain, "pre_tokenizer": rest})
        for name, token_id in added.items():
            if self._first.token_to_id(name) != token_id:
                raise ModelError(f"the added token {name!r} cannot have the id {token_id}")
        self.encode("a")  # what the library finds out only now

    def encode(self, text: str, first: bool = True) -> list[int]:
        return self._encoding(well_formed(text), first).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with _refusing("cannot encode a text"):
            encoded = self._first.encode_batch_fast(
                [well_formed(text) for text in texts], add_special_tokens=False
            )
            return [encoding.ids for encoding in encoded]

    def encode_marked(
        self, text: str, written: Sequence[tuple[int, int]], first: bool = True
    ) -> tuple[list[int], list[bool]]:
        encoding = self._encoding(well_formed(text), first)
        mask = [False] * len(encoding.ids)
        for start, end in written:
            start, end = len(well_formed(text[:start])), len(well_formed(text[:end]))
            inside = [i for i, (a, b) in enumerate(encoding.offsets) if a < end and b > start]
            if inside:
                mask[inside[0] : inside[-1] + 1] = [True] * (inside[-1] + 1 - inside[0])
        return encoding.ids, mask

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        joining = self._joining
        parts = [joining.bytes_of(self._pieces[i]) for i in ids]
        if parts and joining.bare_first and joining.space is not None:
            parts[0] = self._pieces[ids[0]].replace(joining.space, "").encode()
        joined = joining.between.join(parts)
        spaces = len(joined) - len(joined.lstrip(b" "))
        return joined[min(joining.strip, spaces) :]

    def text_of(self, ids: Sequence[int]) -> str:
        pieces = [self._pieces[i] for i in ids]
        if self._decoder is None:
            return " ".join(pieces)
        with _refusing("cannot decode these ids"):
            return self._decoder.decode(pieces)

    def _encoding(self, text: str, first: bool) -> tokenizers.Encoding:
        with _refusing("cannot encode this text"):
            return (self._first if first else self._rest).encode(text, add_special_tokens=False)


def _plain(
    content: Mapping[str, Any], special: Mapping[str, int], added: Mapping[str, int]
) -> dict[str, Any]:
    """The tokenizer.json of plain text: special tokens keep their ids and cannot be found."""
    model: dict[str, Any] = {**content["model"], "dropout": None}
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        names = {piece for piece, _ in vocabulary}
        model["vocab"] = [[_BLANK + p if p in special else p, score] for p, score in vocabulary]
    else:
        names = set(vocabulary)
        model["vocab"] = {_BLANK + p if p in special else p: i for p, i in vocabulary.items()}
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", [])]
        model["merges"] = [pair for pair in pairs if not special.keys() & {*pair, "".join(pair)}]
        if model.get("unk_token") in special:
            model["unk_token"] = _BLANK + model["unk_token"]
    # Tokens after the vocabulary must stay, or those behind them would move up to their ids.
    tokens = [
        {**token, "special": token["content"] not in added}
        for token in sorted(content.get("added_tokens") or [], key=lambda token: token["id"])
        if token["content"] in added or token["content"] not in names
    ]
    return {
        **content,
        "model": model,
        "added_tokens": tokens,
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def _never_first(step: Any) -> Any:
    """A pre-tokenizer as it works after a special token: "first" means the start of the whole text."""
    if not isinstance(step, dict):
        return step
    changed = {**step, "prepend_scheme": "never"} if step.get("prepend_scheme") == "first" else dict(step)
    if isinstance(step.get("pretokenizers"), list):
        changed["pretokenizers"] = [_never_first(inner) for inner in step["pretokenizers"]]
    return changed


def _build(content: Mapping[str, Any]) -> tokenizers.Tokenizer:
    import json

    import tokenizers

    with _refusing("not a tokenizer that the tokenizers library reads"):
        engine = tokenizers.Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
        engine.encode_special_tokens = True
        return engine


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """One error of ours for whatever the library raises: plain Exceptions and, from Rust, panics."""
    try:
        yield
    except (ModelError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise ModelError(f"{what}: {error}"[:300]) from None
