"""Tokenizers on disk: the files that Hugging Face's libraries read, and GPT-2's two old ones.

Written: `tokenizer.json` (by the `tokenizers` library, so that it is valid), `tokenizer_config.json` and
`chat_template.jinja`. Read: any `tokenizer.json` whose tokens stand for bytes of the text, SentencePiece's
`tokenizer.model`, or GPT-2's `encoder.json` (or `vocab.json`) and `vocab.bpe` (or `merges.txt`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, NonNegativeInt, TypeAdapter, ValidationError

from glasshouse.core.errors import DataError, ModelError
from glasshouse.core.storage import read_json, write_text
from glasshouse.tokenizer.byte_alphabet import to_bytes, to_characters
from glasshouse.tokenizer.merges import merge_pairs
from glasshouse.tokenizer.pieces_file import AddedEntry, read_pieces
from glasshouse.tokenizer.sentencepiece_model import tokenizer_json
from glasshouse.tokenizer.special_tokens import END_OF_TEXT
from glasshouse.tokenizer.split_pattern import GPT2
from glasshouse.tokenizer.tokenizer import Trim
from glasshouse.tokenizer.transformers_class import as_its_class_reads

if TYPE_CHECKING:
    from glasshouse.tokenizer.engine import Normalization
    from glasshouse.tokenizer.tokenizer import Tokenizer

_BYTES_OF_UTF8 = frozenset(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}

TOKENIZER, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SENTENCEPIECE = "tokenizer.model"
_READ = (TOKENIZER, CONFIG, TEMPLATE, "special_tokens_map.json")
_ANOTHER_KIND = "use a model whose tokenizer.json holds a byte-level BPE, as GPT-2's, Llama 3's and Qwen's do"


class _AnotherKind(ModelError):
    """A whole file, but not byte-level BPE with one split pattern: `tokenizers` may know what to do."""

    def __init__(self, what: str, where: Path) -> None:
        super().__init__(what, where=where, fix=_ANOTHER_KIND)


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files of a tokenizer; each is replaced as a whole."""
    for name, text in files_of(tokenizer).items():
        write_text(folder / name, text)


def read(kind: type[Tokenizer], folder: Path) -> Tokenizer:
    """Read a tokenizer from a folder. Raises ModelError naming the folder and what is missing or unknown."""
    if (folder / TOKENIZER).is_file():
        return _read_tokenizer_json(kind, folder)
    if (folder / SENTENCEPIECE).is_file():
        return _read_sentencepiece(kind, folder)
    for vocabulary, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return _read_gpt2(kind, folder / vocabulary, folder / merges)
    raise ModelError(
        "the folder has no tokenizer", where=folder / TOKENIZER, fix=f"name a folder that holds {TOKENIZER}"
    )


def files_of(tokenizer: Tokenizer) -> dict[str, str]:
    """The text of each file, by name."""
    if tokenizer.files is not None:
        return dict(tokenizer.files)
    files = {
        TOKENIZER: _tokenizer_json(tokenizer),
        CONFIG: json.dumps(_config(tokenizer), ensure_ascii=False, indent=2) + "\n",
    }
    if tokenizer.chat_template is not None:
        files[TEMPLATE] = tokenizer.chat_template
    return files


def _config(tokenizer: Tokenizer) -> dict[str, Any]:
    """What transformers needs to know beside tokenizer.json."""
    config: dict[str, Any] = {
        # The general class: one named after a model family would bring that family's normalizer.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # the model's own config says how long a text may be
    }
    config |= {f"{role}_token": name for role, name in tokenizer.role_names().items()}
    return config


def _tokenizer_json(tokenizer: Tokenizer) -> str:
    """Byte-level BPE; a tokenizer with another engine was loaded, and keeps the files it came from."""
    assert tokenizer.pattern is not None
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    names = {token_id: name for name, token_id in tokenizer.special.items()}
    vocabulary = {
        names.get(i) or to_characters(tokenizer.token_bytes(i)): i for i in range(tokenizer.vocab_size)
    }
    merges = [(to_characters(left), to_characters(right)) for left, right in merge_pairs(tokenizer.ranks)]
    written = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    written.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(tokenizer.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    written.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    # Without it offsets would be of trimmed words, and masks by characters would miss their spaces.
    written.post_processor = processors.ByteLevel(trim_offsets=False)  # type: ignore[assignment]
    written.add_special_tokens(
        [AddedToken(name, normalized=False, special=True) for name in tokenizer.special]
    )
    return written.to_str(pretty=True)


class _Model(BaseModel):
    vocab: dict[str, NonNegativeInt]
    merges: list[str | list[str]] = []
    byte_fallback: bool = False
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None


class _Step(BaseModel):
    """A pre-tokenizer or a normalizer."""

    type: str
    pretokenizers: list[_Step] = []
    add_prefix_space: bool = False
    use_regex: bool = True
    pattern: dict[str, str] = {}
    behavior: str | None = None
    invert: bool = False


class _File(BaseModel):
    """What we read of a tokenizer.json."""

    added_tokens: list[AddedEntry] | None = None
    normalizer: _Step | None = None
    pre_tokenizer: _Step | None = None
    model: _Model


def _read_tokenizer_json(kind: type[Tokenizer], folder: Path) -> Tokenizer:
    config = _mapping(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    model = _mapping(folder / "config.json") if (folder / "config.json").is_file() else {}
    content = as_its_class_reads(_mapping(folder / TOKENIZER), config, model.get("model_type"))
    files = {name: _text(folder / name) for name in _READ if (folder / name).is_file()}
    try:
        return _byte_level(kind, folder, content, config, files)
    except _AnotherKind:
        return _pieces(kind, folder / TOKENIZER, content, config, files)


def _read_sentencepiece(kind: type[Tokenizer], folder: Path) -> Tokenizer:
    """A tokenizer.model is read, and saved, as the tokenizer.json that says the same."""
    where = folder / SENTENCEPIECE
    config = _mapping(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    try:
        content, roles = tokenizer_json(where.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot be read: {error}", where=where, fix="copy the file again") from None
    except ModelError as error:
        raise ModelError(error.what, where=where, fix=error.fix) from None
    config = {f"{role}_token": name for role, name in roles.items()} | config
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    content = as_its_class_reads(content, config, None)
    files = {name: _text(folder / name) for name in _READ if (folder / name).is_file()}
    files[TOKENIZER] = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    files[CONFIG] = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    return _pieces(kind, where, content, config, files)


def _pieces(
    kind: type[Tokenizer],
    where: Path,
    content: Mapping[str, Any],
    config: Mapping[str, Any],
    files: Mapping[str, str],
) -> Tokenizer:
    """Whatever pipeline the `tokenizers` library runs."""
    names = {role: _name(config.get(f"{role}_token")) for role in ("bos", "eos", "pad", "unk")}
    try:
        pieces = read_pieces(content, {name for name in names.values() if name})
    except ModelError as error:
        raise ModelError(error.what, where=where, fix=error.fix or "copy the file again") from None
    return kind(
        pieces.tokens,
        pieces.special,
        chat_template=_template(where.parent, config),
        bos=names["bos"],
        eos=names["eos"],
        pad=names["pad"],
        files=files,
        engine=pieces.engine,
        trims={
            name: Trim(before=name in pieces.before, after=name in pieces.after)
            for name in pieces.before | pieces.after
        },
    )


def _byte_level(
    kind: type[Tokenizer],
    folder: Path,
    content: Mapping[str, Any],
    config: Mapping[str, Any],
    files: Mapping[str, str],
) -> Tokenizer:
    where = folder / TOKENIZER
    model_type = content["model"].get("type", "BPE") if isinstance(content.get("model"), dict) else None
    if model_type != "BPE":
        raise _AnotherKind(f"a tokenizer of another kind ({model_type})", where)
    try:
        file = _File.model_validate(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ModelError(f"{place}: {first['msg']}", where=where, fix="copy the file again") from None
    model = file.model
    if model.byte_fallback or model.continuing_subword_prefix or model.end_of_word_suffix:
        raise _AnotherKind("a BPE that continues words otherwise", where)
    special, added = _added_tokens(file.added_tokens or [], where)
    tokens = _tokens(model.vocab, special | added, where)
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model.merges]
    _check_merges(merges, model.vocab, where)
    pattern, normalization = _pattern(file.pre_tokenizer, where), _normalization(file.normalizer, where)
    try:
        return kind(
            tokens,
            special,
            added=added,
            pattern=pattern,
            normalization=normalization,
            chat_template=_template(folder, config),
            bos=_name(config.get("bos_token")),
            eos=_name(config.get("eos_token")),
            pad=_name(config.get("pad_token")),
            files=files,
        )
    except ModelError:
        raise
    except ValueError as error:
        raise _AnotherKind(f"the split pattern is not known: {error}", where) from None


def _read_gpt2(kind: type[Tokenizer], vocabulary: Path, merges: Path) -> Tokenizer:
    try:
        vocab = TypeAdapter(dict[str, NonNegativeInt]).validate_python(_mapping(vocabulary), strict=True)
    except ValidationError as error:
        raise ModelError(
            f"not a map from tokens to ids: {error.errors()[0]['msg']}", where=vocabulary, fix="copy it again"
        ) from None
    lines = _text(merges).split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    special = {END_OF_TEXT: vocab[END_OF_TEXT]} if END_OF_TEXT in vocab else {}
    tokens = _tokens(vocab, special, vocabulary)
    _check_merges(pairs, vocab, merges)
    return kind(tokens, special, pattern=GPT2, chat_template=None)


def _tokens(vocab: Mapping[str, int], added: Mapping[str, int], where: Path) -> list[bytes]:
    """The bytes of every id, from 0 on."""
    by_id: dict[int, bytes] = {}
    try:
        for written, token_id in vocab.items():
            if written not in added:
                by_id[token_id] = to_bytes(written)
    except KeyError as error:
        raise _AnotherKind(f"the vocabulary is not in GPT-2's byte alphabet ({error})", where) from None
    singles = {token[0] for token in by_id.values() if len(token) == 1}
    if not singles.issuperset(_BYTES_OF_UTF8):
        raise _AnotherKind("the vocabulary does not hold all bytes of UTF-8", where)
    by_id |= {token_id: name.encode() for name, token_id in added.items()}
    missing = next((i for i, token_id in enumerate(sorted(by_id)) if i != token_id), None)
    if missing is not None:
        raise ModelError(f"no token has the id {missing}", where=where, fix="copy the file again")
    return [by_id[i] for i in range(len(by_id))]


def _added_tokens(entries: list[AddedEntry], where: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Special tokens, and those made of white space only, which are plain text.

    Others that are not marked as special, such as Qwen's <think>, steer the model all the same.
    """
    special, added = {}, {}
    for entry in entries:
        if entry.lstrip or entry.rstrip or entry.single_word:
            raise _AnotherKind(f"the token {entry.content!r} takes the space around it", where)
        plain = not entry.special and entry.content.isspace()
        (added if plain else special)[entry.content] = entry.id
    return special, added


def _check_merges(merges: list[list[str]], vocab: Mapping[str, int], where: Path) -> None:
    """The encoder merges by id, so ids must stand in the order of the merges."""
    last = -1
    for row, pair in enumerate(merges, 1):
        token_id = vocab.get("".join(pair))
        if len(pair) != 2 or token_id is None:
            raise ModelError(f"merge {row} is broken: {pair!r}"[:200], where=where, fix="copy the file again")
        if token_id < last:
            raise _AnotherKind("the ids are not in the order of the merges", where)
        last = token_id


def _pattern(pre_tokenizer: _Step | None, where: Path) -> str:
    """The one split pattern of a pre-tokenizer that ends in ByteLevel."""
    steps = [] if pre_tokenizer is None else pre_tokenizer.pretokenizers or [pre_tokenizer]
    if steps and steps[-1].type == "ByteLevel" and not steps[-1].add_prefix_space:
        *splits, last = steps
        if not splits and last.use_regex:
            return GPT2
        if len(splits) == 1 and not last.use_regex and splits[0].type == "Split":
            regex = splits[0].pattern.get("Regex")
            if regex and splits[0].behavior == "Isolated" and not splits[0].invert:
                return regex
    kinds = ", ".join(step.type for step in steps) or "nothing"
    raise _AnotherKind(f"text is split in another way ({kinds})", where)


def _normalization(normalizer: _Step | None, where: Path) -> Normalization | None:
    if normalizer is None:
        return None
    kind = normalizer.type
    if kind == "NFC" or kind == "NFD" or kind == "NFKC" or kind == "NFKD":
        return kind
    raise _AnotherKind(f"the normalizer {kind} is not known", where)


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The template's own file; older folders keep it in tokenizer_config.json."""
    if (folder / TEMPLATE).is_file():
        return _text(folder / TEMPLATE)
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
        template = named[0].get("template") if named else None
    return template if isinstance(template, str) else None


def _name(token: Any) -> str | None:
    """A token's name; older files write an object."""
    name = token.get("content") if isinstance(token, Mapping) else token
    return name if isinstance(name, str) else None


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (DataError, RecursionError) as error:
        what = error.what if isinstance(error, DataError) else "nested too deeply"
        raise ModelError(what, where=path, fix="copy the file again") from None
    if not isinstance(content, dict):
        raise ModelError("not a JSON object", where=path, fix="copy the file again")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot be read: {error}", where=path, fix="copy the file again") from None
