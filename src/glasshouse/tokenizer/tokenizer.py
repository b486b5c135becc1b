"""The tokenizer: text to ids and back, one text or many, and whole conversations.

Training is `rustbpe`'s, encoding an engine's (`engine.py`), the files are Hugging Face's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from glasshouse.core.errors import ModelError
from glasshouse.tokenizer.any_of import any_of
from glasshouse.tokenizer.byte_pair_engine import BytePairEngine
from glasshouse.tokenizer.chat_template import CHATML, ChatTemplate
from glasshouse.tokenizer.engine import Engine, Normalization
from glasshouse.tokenizer.special_tokens import ASSISTANT_MAY_WRITE, END_OF_TEXT, END_OF_TURN, SPECIAL_TOKENS
from glasshouse.tokenizer.split_pattern import QWEN2, WHITE
from glasshouse.tokenizer.training import learn_tokens


@dataclass(frozen=True)
class ChatTokens:
    """A conversation as ids; `assistant_mask[i]` is true where the assistant wrote `ids[i]`."""

    ids: list[int]  # (seq,)
    assistant_mask: list[bool]  # (seq,)


@dataclass(frozen=True)
class Trim:
    """What a special token takes with it: the white space before its name, or after it."""

    before: bool = False
    after: bool = False


class Tokenizer:
    """Byte-level BPE: every text can be encoded, and decoding gives it back exactly.

    A lone surrogate is not Unicode text; as in tiktoken it is read as U+FFFD. A folder may also hold another
    pipeline of the `tokenizers` library, SentencePiece's above all. Its ids are those of transformers, but
    the text need not come back as it was: `pieces_engine` says when it does.

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
        engine: Engine | None = None,
        trims: Mapping[str, Trim] | None = None,
    ) -> None:
        """`tokens[id]` are the bytes of each token, in order of rank; `special` maps names to ids.

        `added` are tokens that are found in plain text before it is split, as GPT-NeoX's runs of spaces.
        `files` are the texts of the files this tokenizer was loaded from: they are saved again unchanged.
        `engine` encodes plain text in place of byte-level BPE; then `pattern`, `normalization` and `added`
        are its own. `trims` are the special tokens that take the white space before or after them.
        """
        self._tokens = list(tokens)
        self.special: dict[str, int] = dict(special)
        self._roles = {"bos": bos, "eos": eos, "pad": pad}
        self._chat_template = chat_template
        self.files = files
        self._special_ids = frozenset(self.special.values())
        self._engine = engine or BytePairEngine(
            self._tokens, self._special_ids, pattern, normalization, added
        )
        self._trims = dict(trims or {})
        self._special_text = any_of(self.special)

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
        """Read a Hugging Face folder: tokenizer.json, SentencePiece's tokenizer.model, or GPT-2's two files.

        Raises ModelError for what is damaged, and for kinds whose tokens do not stand for bytes of the text.
        """
        from glasshouse.tokenizer.folder import read

        return read(cls, Path(folder))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
        from glasshouse.tokenizer.folder import write

        write(self, Path(folder))

    # Text to ids

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. Names of special tokens in it are plain text."""
        return self._engine.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, on all cores: the same as encode of each."""
        return self._engine.encode_batch(texts)

    def encode_with_special(self, text: str) -> list[int]:
        """Ids of `text` in which names of special tokens become those tokens: for text that we wrote."""
        pieces = self._special_text.split(text)
        ids: list[int] = []
        for i, piece in enumerate(pieces):
            if i % 2:
                ids.append(self.special[piece])
                continue
            before = pieces[i - 1] if i else None
            after = pieces[i + 1] if i + 1 < len(pieces) else None
            start, end = self._kept(piece, before, after)
            ids += self._engine.encode(piece[start:end], first=not i)
        return ids

    def _kept(self, text: str, before: str | None, after: str | None) -> tuple[int, int]:
        """The span of a text that the special tokens around it leave."""
        start, end = 0, len(text)
        if before in self._trims and self._trims[before].after:
            start = len(text) - len(text.lstrip(WHITE))
        if after in self._trims and self._trims[after].before:
            end = max(start, len(text.rstrip(WHITE)))
        return start, end

    @property
    def added(self) -> Mapping[str, int]:
        """Tokens that are found in plain text before it is split."""
        return self._engine.added

    @property
    def pattern(self) -> str | None:
        """The one pattern that text is split by; None where it is split otherwise."""
        return self._engine.pattern

    @property
    def normalization(self) -> Normalization | None:
        """Unicode's normal form that text is brought to first."""
        return self._engine.normalization

    @property
    def ranks(self) -> Mapping[bytes, int]:
        """Bytes of each token that is merged, to its rank; empty where the engine is not byte-level BPE."""
        return self._engine.ranks

    # Ids to text

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self._tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for inside a text (a special token: its name)."""
        self._check(token_id)
        return self._tokens[token_id]

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """The bytes of the ids as a whole text; they need not be whole characters.

        SentencePiece drops the space that it put before the first word, so there the bytes of a text may be
        one space shorter than those of its tokens.
        """
        return self._engine.bytes_of(self._known(ids, skip_special))

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
        return self._engine.text_of(self._known(ids, skip_special))

    def _known(self, ids: Iterable[int], skip_special: bool) -> list[int]:
        known = list(ids)
        for i in known:
            self._check(i)
        return [i for i in known if i not in self._special_ids] if skip_special else known

    def _check(self, token_id: int) -> None:
        if not 0 <= token_id < len(self._tokens):
            raise ModelError(
                f"token id {token_id} is outside the vocabulary of {len(self._tokens):,}",
                fix="use the tokenizer that belongs to the model",
            )

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
        for i, piece in enumerate(rendered):
            if piece.special:
                ids.append(self.special[piece.text])
                mask.append(any(piece.written))
                continue
            before = rendered[i - 1].text if i else None
            after = rendered[i + 1].text if i + 1 < len(rendered) else None
            start, end = self._kept(piece.text, before, after)
            written = [
                (max(a, start) - start, min(b, end) - start)
                for a, b in piece.written
                if max(a, start) < min(b, end)
            ]
            piece_ids, piece_mask = self._engine.encode_marked(piece.text[start:end], written, first=not i)
            ids += piece_ids
            mask += piece_mask
        return ChatTokens(ids, mask)

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
