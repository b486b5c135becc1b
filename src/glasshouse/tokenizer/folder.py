"""Tokenizers on disk: the files that Hugging Face's libraries read, and GPT-2's two old ones.

Written: `tokenizer.json` (by the `tokenizers` library, so that it is valid), `tokenizer_config.json` and
`chat_template.jinja`. Read: any `tokenizer.json` with a byte-level BPE and one split pattern, or GPT-2's
`encoder.json` (or `vocab.json`) and `vocab.bpe` (or `merges.txt`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glasshouse.core.errors import DataError, ModelError
from glasshouse.core.storage import read_json, write_text
from glasshouse.tokenizer.byte_alphabet import to_bytes, to_characters
from glasshouse.tokenizer.merges import merge_pairs
from glasshouse.tokenizer.special_tokens import END_OF_TEXT
from glasshouse.tokenizer.split_pattern import GPT2

if TYPE_CHECKING:
    from glasshouse.tokenizer.tokenizer import Normalization, Tokenizer

_BYTES_OF_UTF8 = frozenset(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}

TOKENIZER, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
_ANOTHER_KIND = "use a model whose tokenizer.json holds a byte-level BPE, as GPT-2's, Llama 3's and Qwen's do"


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files of a tokenizer; each is replaced as a whole."""
    for name, text in files_of(tokenizer).items():
        write_text(folder / name, text)


def read(kind: type[Tokenizer], folder: Path) -> Tokenizer:
    """Read a tokenizer from a folder. Raises ModelError naming the folder and what is missing or unknown."""
    if (folder / TOKENIZER).is_file():
        return _read_tokenizer_json(kind, folder)
    for vocabulary, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return _read_gpt2(kind, folder / vocabulary, folder / merges)
    raise ModelError("no tokenizer in this folder", where=folder, fix=f"name a folder that holds {TOKENIZER}")


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


def _read_tokenizer_json(kind: type[Tokenizer], folder: Path) -> Tokenizer:
    where = folder / TOKENIZER
    content = _mapping(where)
    config = _mapping(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    model = content.get("model") or {}
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback") or model.get("unk_token"):
        raise ModelError(f"a tokenizer of another kind ({model.get('type')})", where=where, fix=_ANOTHER_KIND)
    pattern = _pattern(content.get("pre_tokenizer"), where)
    normalization = _normalization(content.get("normalizer"), where)
    special, added = _added_tokens(content.get("added_tokens") or [], where)
    vocab = model.get("vocab") or {}
    tokens = _tokens(vocab, special | added, where)
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges") or []]
    _check_merges(merges, vocab, where)
    template = _template(folder, config)
    return kind(
        tokens,
        special,
        added=added,
        pattern=pattern,
        normalization=normalization,
        chat_template=template,
        bos=_name(config.get("bos_token")),
        eos=_name(config.get("eos_token")),
        pad=_name(config.get("pad_token")),
        files={
            name: (folder / name).read_text(encoding="utf-8")
            for name in (TOKENIZER, CONFIG, TEMPLATE, "special_tokens_map.json")
            if (folder / name).is_file()
        },
    )


def _read_gpt2(kind: type[Tokenizer], vocabulary: Path, merges: Path) -> Tokenizer:
    vocab = _mapping(vocabulary)
    lines = merges.read_text(encoding="utf-8").split("\n")
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
        raise ModelError(
            f"the vocabulary is not in GPT-2's byte alphabet ({error})", where=where, fix=_ANOTHER_KIND
        ) from None
    singles = {token[0] for token in by_id.values() if len(token) == 1}
    if not singles.issuperset(_BYTES_OF_UTF8):
        raise ModelError("the vocabulary does not hold all bytes of UTF-8", where=where, fix=_ANOTHER_KIND)
    by_id |= {token_id: name.encode() for name, token_id in added.items()}
    missing = [i for i in range(max(by_id) + 1) if i not in by_id]
    if missing:
        raise ModelError(
            f"ids without a token, the first is {missing[0]}", where=where, fix="repair the file"
        )
    return [by_id[i] for i in range(len(by_id))]


def _added_tokens(entries: list[Any], where: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Special tokens, and those made of white space only, which are plain text.

    Others that are not marked as special, such as Qwen's <think>, steer the model all the same.
    """
    special, added = {}, {}
    for entry in entries:
        if entry.get("lstrip") or entry.get("rstrip") or entry.get("single_word"):
            raise ModelError(
                f"the token {entry['content']!r} takes the space around it", where=where, fix=_ANOTHER_KIND
            )
        plain = not entry.get("special") and entry["content"].isspace()
        (added if plain else special)[entry["content"]] = entry["id"]
    return special, added


def _check_merges(merges: list[Any], vocab: Mapping[str, int], where: Path) -> None:
    """The encoder merges by id, so ids must stand in the order of the merges."""
    last = -1
    for row, pair in enumerate(merges):
        token_id = vocab.get("".join(pair))
        if len(pair) != 2 or token_id is None:
            raise ModelError(f"merge {row + 1} is broken: {pair!r}", where=where, fix="repair the file")
        if token_id < last:
            raise ModelError("the ids are not in the order of the merges", where=where, fix=_ANOTHER_KIND)
        last = token_id


def _pattern(pre_tokenizer: Any, where: Path) -> str:
    """The one split pattern of a pre-tokenizer that ends in ByteLevel."""
    steps = pre_tokenizer or {}
    steps = steps.get("pretokenizers", [steps])
    *splits, last = steps
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if not splits and last.get("use_regex", True):
            return GPT2
        if len(splits) == 1 and not last.get("use_regex", True) and splits[0].get("type") == "Split":
            split = splits[0]
            regex = split.get("pattern", {}).get("Regex")
            if regex is not None and split.get("behavior") == "Isolated" and not split.get("invert"):
                return regex
    kinds = ", ".join(str(step.get("type")) for step in steps)
    raise ModelError(f"text is split in another way ({kinds})", where=where, fix=_ANOTHER_KIND)


def _normalization(normalizer: Any, where: Path) -> Normalization | None:
    if normalizer is None:
        return None
    kind = normalizer.get("type")
    if kind == "NFC" or kind == "NFD" or kind == "NFKC" or kind == "NFKD":
        return kind
    raise ModelError(f"the normalizer {kind} is not known", where=where, fix=_ANOTHER_KIND)


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The template's own file; older folders keep it in tokenizer_config.json."""
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    return template


def _name(token: Any) -> str | None:
    """A token's name; older files write an object."""
    return token.get("content") if isinstance(token, Mapping) else token


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except DataError as error:
        raise ModelError(error.what, where=path, fix="copy the file again") from None
    if not isinstance(content, dict):
        raise ModelError("not a JSON object", where=path, fix="copy the file again")
    return content
