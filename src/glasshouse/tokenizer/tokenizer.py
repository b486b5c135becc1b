"""The tokenizer: text to ids and back, one text or many, and whole conversations.

Training is `rustbpe`'s, encoding is `tiktoken`'s, the files are Hugging Face's.
"""

from __future__ import annotations

import os
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tiktoken

from glasshouse.core.errors import ModelError
from glasshouse.tokenizer.chat_template import CHATML, ChatTemplate
from glasshouse.tokenizer.special_tokens import ASSISTANT_MAY_WRITE, END_OF_TEXT, END_OF_TURN, SPECIAL_TOKENS
from glasshouse.tokenizer.split_pattern import (
    LONGEST_WHITE_RUN,
    QWEN2,
    is_unicode,
    long_white_runs,
    parts_of,
    well_formed,
)
from glasshouse.tokenizer.training import learn_tokens

Normalization = Literal["NFC", "NFD", "NFKC", "NFKD"]
"""Unicode's normal forms. Ours uses none, so that every text comes back as it was."""

_GROUP = 262_144
"""Characters that a thread encodes at a time: so many that handing out the work costs nothing."""

_PART = 2_097_152
"""Characters of the parts that a longer text is cut into: joining their ids again is not free."""

_BETWEEN = "\uffff"
"""Stands between texts that are encoded in one go. Unicode keeps this character for such uses."""


@dataclass(frozen=True)
class ChatTokens:
    """A conversation as ids; `assistant_mask[i]` is true where the assistant wrote `ids[i]`."""

    ids: list[int]  # (seq,)
    assistant_mask: list[bool]  # (seq,)


class Tokenizer:
    """Byte-level BPE. Every text can be encoded, and decoding gives it back exactly.

    A lone surrogate is not Unicode text; as in tiktoken it is read as U+FFFD.

    >>> tokenizer = Tokenizer.train(["to be or not to be"], vocab_size=265)
    >>> tokenizer.decode(tokenizer.encode("to be"))
    'to be'
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        special: Mapping[str, int],
        *,
        pattern: str = QWEN2,
        normalization: Normalization | None = None,
        chat_template: str | None = CHATML,
        bos: str | None = END_OF_TEXT,
        eos: str | None = END_OF_TEXT,
        pad: str | None = END_OF_TEXT,
        added: Mapping[str, int] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """`tokens[id]` are the bytes of each token, in order of rank; `special` maps names to ids.

        `added` are tokens that are found in plain text before it is split, as GPT-NeoX's runs of spaces.
        `files` are the texts of the files this tokenizer was loaded from: they are saved again unchanged.
        """
        self._tokens = list(tokens)
        self.special: dict[str, int] = dict(special)
        self.pattern = pattern
        self.normalization: Normalization | None = normalization
        self._roles = {"bos": bos, "eos": eos, "pad": pad}
        self._chat_template = chat_template
        self.files = files
        self._special_ids = frozenset(self.special.values())
        apart = self._special_ids.union((added or {}).values())
        self.ranks = {token: i for i, token in enumerate(self._tokens) if i not in apart}
        # Our special tokens are cut out before tiktoken sees a text; the one it knows is the separator.
        self._encoding = tiktoken.Encoding(
            "glasshouse",
            pat_str=pattern,
            mergeable_ranks=self.ranks,
            special_tokens={_BETWEEN: len(self._tokens)},
        )
        self._added = dict(added or {})
        self._added_text = _any_of(self._added)
        self._special_text = _any_of(self.special)

    # Making one

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn a vocabulary from texts; special tokens count in `vocab_size` (265 means plain bytes).

        Raises ConfigError for a size out of range and DataError when there is no text. Where the text yields
        fewer tokens a notice says so and `vocab_size` of the result is the true one.
        """
        tokens = [name.encode() for name in SPECIAL_TOKENS] + learn_tokens(texts, vocab_size)
        return cls(tokens, {name: i for i, name in enumerate(SPECIAL_TOKENS)})

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read a Hugging Face folder with a byte-level BPE tokenizer; raises ModelError for other kinds."""
        from glasshouse.tokenizer.folder import read

        return read(cls, Path(folder))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
        from glasshouse.tokenizer.folder import write

        write(self, Path(folder))

    # Text to ids

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. Names of special tokens in it are plain text."""
        text = self._normalized(text)
        if not self._added:
            return self._encode_words(text)
        ids: list[int] = []
        for i, piece in enumerate(self._added_text.split(text)):
            ids += [self._added[piece]] if i % 2 else self._encode_words(piece)
        return ids

    def _encode_words(self, text: str) -> list[int]:
        if len(text) < LONGEST_WHITE_RUN:
            return self._encoding.encode_ordinary(text)
        # Very long white space is kept from the engine, whose stack it would overflow.
        ids: list[int] = []
        start = 0
        for run_start, run_end in long_white_runs(text, self.pattern):
            ids += self._encoding.encode_ordinary(text[start:run_start])
            ids += self._encoding._encode_single_piece(text[run_start:run_end])
            start = run_end
        return ids + self._encoding.encode_ordinary(text[start:] if start else text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, on all cores: the same as encode of each."""
        # Very long texts are cut where every word ends anyway, to share them between threads.
        cut = [list(parts_of(text, _PART)) if self.pattern == QWEN2 else [text] for text in texts]
        encoded = iter(self._encode_parts([part for parts in cut for part in parts]))
        result = []
        for parts in cut:
            ids = next(encoded)
            for more in islice(encoded, len(parts) - 1):
                ids += more
            result.append(ids)
        return result

    def _encode_parts(self, texts: Sequence[str]) -> Iterator[list[int]]:
        groups = list(_groups(texts))
        if len(groups) < 2:
            return chain.from_iterable(map(self._encode_group, groups))
        with ThreadPoolExecutor(min(_threads(), len(groups))) as executor:
            return chain.from_iterable(list(executor.map(self._encode_group, groups)))

    def _encode_group(self, texts: list[str]) -> list[list[int]]:
        """Short texts are encoded as one: a call of the engine costs as much as a hundred characters."""
        joined = self._normalized(_BETWEEN.join(texts))
        separable = joined.count(_BETWEEN) == len(texts) - 1 and is_unicode(joined)
        if len(texts) == 1 or self._added or not separable:
            return [self.encode(text) for text in texts]
        ids = self._encoding.encode_to_numpy(joined, allowed_special={_BETWEEN}, disallowed_special=())
        ends = np.flatnonzero(ids == len(self._tokens)).tolist()  # (texts - 1,)
        flat: list[int] = ids.tolist()
        return [
            flat[start:end] for start, end in zip([0, *(e + 1 for e in ends)], [*ends, None], strict=True)
        ]

    def encode_with_special(self, text: str) -> list[int]:
        """Ids of `text` in which names of special tokens become those tokens: for text that we wrote."""
        ids: list[int] = []
        for i, piece in enumerate(self._special_text.split(text)):
            ids += [self.special[piece]] if i % 2 else self.encode(piece)
        return ids

    @property
    def added(self) -> Mapping[str, int]:
        """Tokens that are found in plain text before it is split."""
        return self._added

    # Ids to text

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self._tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for (a special token: its name)."""
        if not 0 <= token_id < len(self._tokens):
            raise ModelError(
                f"token id {token_id} is outside the vocabulary of {len(self._tokens):,}",
                fix="use the tokenizer that belongs to the model",
            )
        return self._tokens[token_id]

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """The bytes of the ids; they need not be whole characters."""
        if skip_special:
            return b"".join([self.token_bytes(i) for i in ids if i not in self._special_ids])
        return b"".join([self.token_bytes(i) for i in ids])

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, skip_special).decode("utf-8", errors="replace")

    # Conversations

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template; None where the folder has none."""
        return self._chat_template

    @cached_property
    def _template(self) -> ChatTemplate:
        if self._chat_template is None:
            raise ModelError(
                "this tokenizer has no chat template",
                fix="use a model tuned for chat, or add chat_template.jinja to its folder",
            )
        names = {f"{role}_token": name for role, name in self.role_names().items()}
        return ChatTemplate(self._chat_template, self.special, ASSISTANT_MAY_WRITE, names)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as the text that the model reads, names of special tokens included."""
        return self._template.render(messages, add_generation_prompt, tools)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> ChatTokens:
        """The conversation as ids, with a mask that is true on what the assistant wrote.

        That is each assistant message's content and its <|im_end|>. The text between two special tokens is
        encoded in one piece. Names of special tokens inside the messages stay plain text, except that the
        assistant's content may hold its own thinking and tool calls.
        """
        rendered = self._template.render_pieces(messages, add_generation_prompt, tools)
        ids: list[int] = []
        mask: list[bool] = []
        for piece in rendered:
            if piece.special:
                ids.append(self.special[piece.text])
                mask.append(any(piece.written))
                continue
            piece_ids = self.encode(piece.text)
            ids += piece_ids
            mask += self._mask(piece_ids, piece.text, piece.written)
        return ChatTokens(ids, mask)

    def _mask(self, ids: list[int], text: str, written: list[tuple[int, int]]) -> list[bool]:
        """True where a token holds a byte of one of the character spans `written` of `text`."""
        if not written:
            return [False] * len(ids)
        ends = list(accumulate(len(self._tokens[i]) for i in ids))  # (seq,) bytes up to and with each token
        mask = [False] * len(ids)
        for start, end in written:
            first = bisect_right(ends, len(self._normalized(well_formed(text[:start])).encode()))
            last = bisect_left(ends, len(self._normalized(well_formed(text[:end])).encode()))
            mask[first : last + 1] = [True] * (min(last + 1, len(ids)) - first)
        return mask

    def _normalized(self, text: str) -> str:
        return text if self.normalization is None else unicodedata.normalize(self.normalization, text)

    # Special tokens with a role

    @property
    def bos_id(self) -> int:
        """Begins a document. Ours is <|endoftext|>, which also ends one."""
        return self._id_of("bos", self._roles["bos"], END_OF_TEXT, self._roles["eos"])

    @property
    def eos_id(self) -> int:
        """Ends what the model writes. Ours is <|endoftext|>."""
        return self._id_of("eos", self._roles["eos"], END_OF_TEXT)

    @property
    def pad_id(self) -> int:
        """Fills rows. Ours is <|endoftext|>; where a folder names none, the one that ends a text."""
        return self._id_of("pad", self._roles["pad"], END_OF_TEXT, self._roles["eos"])

    @property
    def end_of_turn_id(self) -> int:
        """Ends a message of a conversation: <|im_end|>, or `eos_id` where there is no such token."""
        return self._id_of("end-of-turn", END_OF_TURN, self._roles["eos"], END_OF_TEXT)

    def role_names(self) -> dict[str, str]:
        """The names that the tokenizer itself gives: bos, eos and pad, those it has."""
        return {role: name for role, name in self._roles.items() if name in self.special and name is not None}

    def _id_of(self, role: str, *names: str | None) -> int:
        """The id of the first of the names that this tokenizer has."""
        for name in names:
            if name is not None and name in self.special:
                return self.special[name]
        raise ModelError(
            f"this tokenizer has no {role} token", fix="name its eos_token in its tokenizer_config.json"
        )


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Splits a text at these names, the longest where several begin; the odd parts are the names."""
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(f"({'|'.join(longest_first) or '(?!)'})")


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Neighbouring texts of about _GROUP characters together."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _GROUP:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
