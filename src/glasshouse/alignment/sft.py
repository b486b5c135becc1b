"""Supervised fine-tuning on conversations (InstructGPT's first stage, arXiv:2203.02155) and documents.

Conversations are written in the tokenizer's chat template and packed into rows, each a segment of its
own that attends to nothing outside. The loss counts what the assistant wrote, its end-of-turn token
included, in every turn; what the user, the system and the tools say is context only. Of a document
every token counts; one that is longer than a row is cut into pieces. Documents of pre-training may be
replayed among them, so that the model does not forget what it has read (the
"pretraining mix" of the same paper, section 3.5).

    out/shards/                                the encoded conversations and documents
    out/model/ state/ metrics.jsonl            what the training loop leaves; of a mixture of experts also
                                               their load, on the rows that it learns from
    out/adapter/                               with lora: the adapter, as PEFT keeps it; merged in model/
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from glasshouse.alignment.written import encode_chat
from glasshouse.core.errors import DataError
from glasshouse.core.progress import say
from glasshouse.data import PackedBatches, Shards, ShardWriter
from glasshouse.model import Transformer, load, save
from glasshouse.model.lora import LoRAConfig, add_adapter, merge_adapter
from glasshouse.model.peft_folder import load_adapter, save_adapter
from glasshouse.model.quantize import Scheme, quantize_model
from glasshouse.tokenizer import ChatTokens, Tokenizer
from glasshouse.training import NextToken, TrainingConfig, expert_load, train

EPOCHS = 2.0
"""Passes over the conversations where neither tokens nor epochs are given."""


class SFTConfig(TrainingConfig):
    """The loop's settings with fine-tuning's defaults: a smaller batch and a third of the step sizes."""

    batch_tokens: int = 4096
    sequence_length: int = 512
    muon_lr: float = 0.006
    embed_lr: float = 0.006
    head_lr: float = 0.0024
    scalar_lr: float = 0.003
    momentum_warmup_steps: int = 0
    replay: float = Field(0.0, ge=0)  # tokens of pre-training documents for each token of the conversations
    lora: LoRAConfig | None = None  # train a low-rank adapter over the frozen model
    quantize: Scheme | None = None  # hold the frozen model in few bits meanwhile (QLoRA)

    @model_validator(mode="after")
    def _quantized_is_frozen(self) -> Self:
        if self.quantize is not None and self.lora is None:
            raise ValueError(
                "a quantized model cannot be trained itself: set lora too (--lora RANK), or quantize=null"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("tokens") is None and data.get("epochs") is None:
            data = {**data, "epochs": EPOCHS}
        if isinstance(data, Mapping) and data.get("quantize") is not None:
            data = {"recompute": True, **data}  # who saves on weights wants memory before speed
        return data


@dataclass
class EncodedCounts:
    """What became of the rows, for the summary and the report."""

    conversations: int = 0  # encoded whole
    cut: int = 0  # encoded without their oldest turns, which did not fit
    left_out: int = 0  # too long even as a single exchange, or without a word of the assistant
    documents: int = 0  # of the user's own, whole
    replayed: int = 0  # pre-training documents among them
    target_tokens: int = 0  # tokens that the loss counts in one epoch


def sft(
    model_folder: str | Path,
    examples: Iterable[Mapping[str, Any]],
    out: str | Path,
    config: SFTConfig,
    replay: Iterable[str] = (),
) -> dict[str, Any]:
    """Fine-tune the Hugging Face folder `model_folder`; returns the loop's summary and the counts.

    `examples`: conversations {"messages": [{"role", "content"}, ...], "tools"?} and documents {"text"}. A
    conversation that is longer than a row loses whole turns from its beginning (not its system message);
    what still does not fit is left out and counted. `replay` are texts of pre-training, of which
    `config.replay` says how many are taken. Raises DataError when nothing remains to learn from.
    """
    out = Path(out)
    tokenizer = Tokenizer.load(model_folder)
    length = config.sequence_length
    with ShardWriter(out / "shards", tokenizer.vocab_size) as writer:
        counts, tokens = encode_examples(examples, tokenizer, writer, length)
        add_replay(replay, tokenizer, writer, int(config.replay * tokens), counts)
    shards = Shards(out / "shards")
    model = load(model_folder)
    if config.quantize is not None:
        quantize_model(model, config.quantize)
    if config.lora is not None:
        add_adapter(model, config.lora, seed=config.seed)

    def save_model(trained: Transformer, folder: Path) -> None:
        if config.lora is not None:
            save_adapter(trained, config.lora, out / "adapter", base=str(model_folder))
            trained = merged(model_folder, out / "adapter")
        save(trained, tokenizer, folder)

    batches = PackedBatches(shards, config.sequence_length, config.rows_per_batch, config.seed)
    window = min(length, int(shards.offsets[-1]))

    def tell_experts(trained: Transformer, step: int) -> dict[str, float]:
        return expert_load(trained, shards, window)

    summary = train(
        model,
        NextToken(batches),
        config,
        out,
        title="sft",
        evaluate=tell_experts if model.config.num_experts else None,
        save_model=save_model,
    )
    return {**summary, **vars(counts)}


def merged(model_folder: str | Path, adapter: Path) -> Transformer:
    """The model with an adapter added to its own, full-precision weights."""
    model = load(model_folder)
    load_adapter(model, adapter)
    merge_adapter(model, "default")
    return model


def encode_examples(
    examples: Iterable[Mapping[str, Any]],
    tokenizer: Tokenizer,
    writer: ShardWriter,
    sequence_length: int,
) -> tuple[EncodedCounts, int]:
    """Write conversations and documents with a mask on what is learnt; returns the counts and all tokens."""
    counts, tokens = EncodedCounts(), 0
    for example in examples:
        source = example.get("source", "")
        if "messages" not in example:
            counts.documents += 1
            tokens += add_document(example["text"], tokenizer, writer, counts, source)
            continue
        messages, tools = example["messages"], example.get("tools")
        # The first token is never a target, so a row holds one more token than it has inputs.
        encoded, cut = encode_within(tokenizer, messages, tools, sequence_length + 1)
        if encoded is None or not any(encoded.assistant_mask):
            counts.left_out += 1
            continue
        counts.conversations += 1
        counts.cut += cut
        counts.target_tokens += sum(encoded.assistant_mask)
        tokens += len(encoded.ids)
        writer.add(encoded.ids, mask=encoded.assistant_mask, source=source)
    if not counts.conversations and not counts.documents:
        raise DataError(
            f"no conversation to learn from ({counts.left_out} too long or without a reply)",
            fix=f"give conversations with an assistant turn that fit in {sequence_length} tokens",
        )
    if counts.cut or counts.left_out:
        say(f"notice: {counts.cut} conversations cut to their last turns, {counts.left_out} left out")
    return counts, tokens


def add_document(
    text: str, tokenizer: Tokenizer, writer: ShardWriter, counts: EncodedCounts, source: str
) -> int:
    """Write a text between the boundary tokens of pre-training; returns its tokens.

    It is written whole: the batches cut what is longer than a row, elsewhere in every epoch.
    """
    ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    # The first token has nothing before it to be predicted from.
    writer.add(ids, mask=[False] + [True] * (len(ids) - 1), source=source)
    counts.target_tokens += len(ids) - 1
    return len(ids)


def add_replay(
    documents: Iterable[str], tokenizer: Tokenizer, writer: ShardWriter, budget: int, counts: EncodedCounts
) -> None:
    """Write documents of pre-training until `budget` tokens are used up."""
    for text in documents:
        if budget <= 0:
            return
        budget -= add_document(text, tokenizer, writer, counts, "replay")
        counts.replayed += 1


def encode_within(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    limit: int,
) -> tuple[ChatTokens | None, bool]:
    """(the conversation in at most `limit` tokens, whether turns were cut); None where it cannot fit.

    Turns go from the front, each from a user's message up to the next; system messages before the first
    of them stay.
    """

    def encode(first: int) -> ChatTokens:
        return encode_chat(tokenizer, [*messages[:opening], *messages[first:]], tools)

    opening, starts = turn_starts(messages)
    whole = encode(opening)
    if len(whole.ids) <= limit:
        return whole, False
    # Length falls with every turn that goes: the first start that fits is found by halving.
    place = bisect.bisect_left(starts, True, key=lambda first: len(encode(first).ids) <= limit)
    return (encode(starts[place]), True) if place < len(starts) else (None, False)


def turn_starts(messages: Sequence[Mapping[str, Any]]) -> tuple[int, list[int]]:
    """(how many system messages come first, where each later turn of the user begins)."""
    opening = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    return opening, [i for i in range(opening + 1, len(messages)) if messages[i]["role"] == "user"]
