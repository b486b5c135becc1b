"""A model with its tokenizer: what every other room asks for text, scores and replies."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from glasshouse.core import devices
from glasshouse.core.errors import ModelError, UsageError
from glasshouse.inference import decoding, scoring
from glasshouse.inference.chat import ChatStream, Message, Reply
from glasshouse.inference.placement import Placement, all_gpus, fits, place
from glasshouse.inference.request import Delta, Request
from glasshouse.inference.sampling import Sampling
from glasshouse.model import Transformer
from glasshouse.model import load as load_transformer
from glasshouse.model.lora import active_adapters

if TYPE_CHECKING:
    from glasshouse.inference.engine import Engine
    from glasshouse.tokenizer import Tokenizer

CACHE_BYTES = 256 * 2**20
"""Ceiling of the keys and values of a model's own engine, if that holds one whole context."""

ROWS = 64
"""Texts that a model's own engine writes at once."""


class LanguageModel:
    """A transformer and the tokenizer of its folder.

    Sampling options everywhere: temperature (0 is greedy), top_k, top_p, min_p, seed. The text of a
    prompt does not depend on what else is generated beside it.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, placement: Placement | None = None) -> None:
        """`placement`: where the blocks work, of a model that is spread over devices."""
        self.model = model.eval()
        self.tokenizer, self.placement = tokenizer, placement
        self._making = threading.Lock()
        self._engine: Engine | None = None
        self._state: list[tuple[int, int]] = []  # of the weights, when the engine was made

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "auto",
        dtype: Literal["float32", "bfloat16"] | None = None,
    ) -> LanguageModel:
        """Open a Hugging Face folder, or a GGUF file. By default float32 on a CPU and bfloat16 on a GPU.

        A folder whose weights do not fit the GPU is spread over all GPUs and the CPU's memory.
        """
        from glasshouse.tokenizer import Tokenizer

        folder = Path(folder)
        device = devices.pick(device)
        name = dtype or ("bfloat16" if device.startswith("cuda") else "float32")
        if folder.suffix == ".gguf":
            from glasshouse.model.gguf_import import load_gguf

            return cls(*load_gguf(folder, device, getattr(torch, name)))
        spread = device.startswith("cuda") and not fits(folder, torch.device(device))
        model = load_transformer(folder, "cpu" if spread else device, getattr(torch, name))
        tokenizer = Tokenizer.load(folder)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ModelError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the embedding {model.config.vocab_size}",
                where=folder,
                fix="use the tokenizer that the model was trained with",
            )
        return cls(model, tokenizer, place(model, all_gpus(device)) if spread else None)

    @property
    def context(self) -> int:
        """The longest prompt and reply together, in tokens."""
        return self.model.config.context

    @property
    def stop_ids(self) -> frozenset[int]:
        """Where a text or a turn ends: <|endoftext|> and <|im_end|>."""
        return frozenset({self.tokenizer.eos_id, self.tokenizer.end_of_turn_id})

    @torch.inference_mode()
    def logits(self, ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """(batch, seq) int64 -> (batch, seq, vocab) float32."""
        return self.model(torch.as_tensor(ids).to(self.model.device)).float()

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> str:
        """The text that continues a text (which is taken to begin a document) or a list of ids."""
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
        return "".join(self.stream(prompt, max_new_tokens, stop=stop, **sampling))

    def stream(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 64,
        *,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """`generate` piece by piece: never half a character, never a part of a stop string."""
        request = Request(
            prompt=tuple(self._ids(prompt)),
            max_new_tokens=max_new_tokens,
            sampling=Sampling.parse(sampling, source="sampling"),
            stop=tuple(stop),
            stop_ids=self.stop_ids,
            adapter=self._adapter(),
        )
        for event in self.engine().events(request):
            if isinstance(event, Delta) and event.text:
                yield event.text

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int = 64,
        *,
        stop_ids: Sequence[int] | frozenset[int] | None = None,
        **sampling: Any,
    ) -> list[list[int]]:
        """New ids of each prompt, without the stop id that ended it (default: `self.stop_ids`)."""
        stops = self.stop_ids if stop_ids is None else frozenset(stop_ids)
        chosen = Sampling.parse(sampling, source="sampling")
        return decoding.generate_batch(self.engine(), prompts, max_new_tokens, chosen, stops, self._adapter())

    def score_batch(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Log-probability in nats of each continuation's tokens after its prompt, float32."""
        return scoring.score_batch(self.model, prompts, continuations)

    def next_token_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities of the next token, float32 (prompts, vocab)."""
        return scoring.next_token_logprobs(self.model, prompts)

    def chat(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 256,
        *,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Reply:
        """The assistant's next message, with its trace."""
        stream = self.chat_stream(messages, max_new_tokens, stop=stop, **sampling)
        for _ in stream:
            pass
        return stream.reply

    def chat_stream(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 256,
        *,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> ChatStream:
        """`chat` piece by piece; the stream's `.reply` holds the text and trace so far."""
        chosen = Sampling.parse(sampling, source="sampling")
        return ChatStream(self.engine(), messages, max_new_tokens, chosen, stop, self._adapter())

    def engine(self) -> Engine:
        """The engine behind `generate`, `stream`, `generate_batch` and `chat`, which keeps what it has read.

        It is another one once the model's weights have changed.
        """
        with self._making:
            return self._current_engine()

    def _current_engine(self) -> Engine:
        from glasshouse.inference.engine import Engine, EngineSettings

        state = [(id(t), t._version) for t in (*self.model.parameters(), *self.model.buffers())]
        if self._engine is None or state != self._state:
            if self._engine is not None:
                self._close()
            config = self.model.config
            token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
            token *= self.model.compute_dtype.itemsize
            ceiling = max(min(CACHE_BYTES, ROWS * config.context * token), (config.context + ROWS) * token)
            settings = EngineSettings(max_rows=ROWS, queue_limit=2**31, cache_bytes=ceiling)
            # A twin, because the engine must not keep its owner alive.
            twin = LanguageModel(self.model, self.tokenizer, self.placement)
            self._engine, self._state = Engine(twin, settings), state
            self._close = weakref.finalize(self, self._engine.close)
        return self._engine

    def _adapter(self) -> str | None:
        """The adapter that is switched on. Raises UsageError where several are."""
        names = active_adapters(self.model)
        if len(names) > 1:
            raise UsageError(
                f"{len(names)} adapters are switched on: {', '.join(names)}",
                fix="merge them, or switch on one of them",
            )
        return names[0] if names else None

    def _ids(self, prompt: str | Sequence[int]) -> list[int]:
        """A text begins a document, so it follows <|endoftext|>, as every document does in training."""
        if isinstance(prompt, str):
            return [self.tokenizer.bos_id, *self.tokenizer.encode(prompt)]
        return list(prompt)
