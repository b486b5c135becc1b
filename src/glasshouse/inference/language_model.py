"""A model with its tokenizer: what every other room asks for text, scores and replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from glasshouse.core import devices
from glasshouse.core.errors import ModelError
from glasshouse.inference import decoding, scoring
from glasshouse.inference.chat import ChatStream, Message, Reply
from glasshouse.inference.sampling import Sampling, row_key
from glasshouse.inference.text_stream import TextStream
from glasshouse.model import Transformer
from glasshouse.model import load as load_transformer

if TYPE_CHECKING:
    from glasshouse.tokenizer import Tokenizer


class LanguageModel:
    """A transformer and the tokenizer of its folder.

    Sampling options everywhere: temperature (0 is greedy), top_k, top_p, min_p, seed. The text of a
    prompt does not depend on what else is generated beside it.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "auto",
        dtype: Literal["float32", "bfloat16"] | None = None,
    ) -> LanguageModel:
        """Open a Hugging Face folder, or a GGUF file. By default float32 on a CPU and bfloat16 on a GPU."""
        from glasshouse.tokenizer import Tokenizer

        folder = Path(folder)
        device = devices.pick(device)
        name = dtype or ("bfloat16" if device.startswith("cuda") else "float32")
        if folder.suffix == ".gguf":
            from glasshouse.model.gguf_import import load_gguf

            return cls(*load_gguf(folder, device, getattr(torch, name)))
        model = load_transformer(folder, device, getattr(torch, name))
        tokenizer = Tokenizer.load(folder)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ModelError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the embedding {model.config.vocab_size}",
                where=folder,
                fix="use the tokenizer that the model was trained with",
            )
        return cls(model, tokenizer)

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
        chosen = Sampling.parse(sampling, source="sampling")
        ids = self._ids(prompt)
        decoding.check_prompts([ids], self.context, self.model.config.vocab_size)
        text = TextStream(self.tokenizer.token_bytes, stop)
        steps = decoding.decode(
            self.model,
            [ids],
            max_new_tokens,
            chosen,
            keys=[row_key(chosen.seed, 0, ids)],
            stop_ids=self.stop_ids,
        )
        for step in steps:
            if step.tokens[0] in self.stop_ids:
                break
            if piece := text.feed(step.tokens[0]):
                yield piece
            if text.stopped:
                return
        if piece := text.finish():
            yield piece

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
        return decoding.generate_batch(self.model, prompts, max_new_tokens, chosen, stops)

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
        return ChatStream(
            self.model, self.tokenizer, messages, max_new_tokens, chosen, stop, stop_ids=self.stop_ids
        )

    def _ids(self, prompt: str | Sequence[int]) -> list[int]:
        """A text begins a document, so it follows <|endoftext|>, as every document does in training."""
        if isinstance(prompt, str):
            return [self.tokenizer.bos_id, *self.tokenizer.encode(prompt)]
        return list(prompt)
