"""GGUF files in llama.cpp itself: the same logits for every family, the same chats from a grown model.

The grown model is `pocket-mini`, or the run that GLASSHOUSE_RUN names (a whole `pocket`, say).
"""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glasshouse.inference import LanguageModel
from glasshouse.model import ModelConfig, initialise
from glasshouse.model.gguf_file import save_gguf
from glasshouse.tokenizer import Tokenizer

pytestmark = pytest.mark.parity

llama_cpp = pytest.importorskip("llama_cpp", reason="the peer is not installed")

SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
TRAINED = {"factor": 4.0, "original_max_position_embeddings": 16}
SHAPES: dict[str, dict[str, object]] = {
    "gpt2": {"model_type": "gpt2"},
    "gpt2, sinusoidal, tied": {"model_type": "gpt2", "positions": "sinusoidal", "tie_word_embeddings": True},
    "llama": {"model_type": "llama"},
    "llama, biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama 3": {"model_type": "llama", "rope_scaling": {"rope_type": "llama3", **TRAINED}},
    "llama, linear": {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "llama, yarn": {"model_type": "llama", "rope_scaling": {"rope_type": "yarn", **TRAINED}},
    "qwen3, linear": {"model_type": "qwen3", "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "mistral": {"model_type": "mistral", "sliding_window": 48},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "mixtral": {"model_type": "mixtral", "num_experts": 4},
    "qwen3_moe": {"model_type": "qwen3_moe", "num_experts": 4, "moe_intermediate_size": 32},
}


def open_in_llama_cpp(path: Path, context: int) -> Any:
    options = {"n_ctx": context, "logits_all": True, "verbose": False, "n_threads": 1, "n_threads_batch": 1}
    return llama_cpp.Llama(model_path=str(path), type_k=0, type_v=0, flash_attn=False, **options)


def their_logits(llama: Any, ids: list[int]) -> torch.Tensor:
    """(seq, vocab) of one text."""
    llama.reset()
    llama.eval(ids)
    return torch.from_numpy(np.array(llama.scores[: len(ids)]))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["to be or not to be, that is the question"] * 3, vocab_size=300)


@pytest.mark.parametrize("name", SHAPES)
def test_every_family_gives_the_same_logits(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """F32, over a whole context: within 1e-3 of the largest logit (llama.cpp sums in another order)."""
    model = initialise(ModelConfig(**(SMALL | SHAPES[name])), 1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.15 * torch.randn(parameter.shape, generator=generator)
    save_gguf(model, tokenizer, tmp_path / "model.gguf", "F32")
    length = 48
    ids = torch.randint(9, tokenizer.vocab_size, (length,), generator=generator)
    with torch.no_grad():
        ours = model(ids[None])[0]
    theirs = their_logits(open_in_llama_cpp(tmp_path / "model.gguf", length), ids.tolist())
    assert (ours - theirs).abs().max() <= 1e-3 * ours.abs().max()


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    import glasshouse

    run = os.environ.get("GLASSHOUSE_RUN")
    if run is None:
        run = str(tmp_path_factory.mktemp("gguf") / "mini")
        glasshouse.run("pocket-mini", out=run, overrides={"evaluate": None, "report": None})
    return glasshouse.load(run, device="cpu")


UNUSUAL = (
    "Grüße aus Čeština 🦊👩‍👩‍👧",
    "e\u0301 is not é",
    "tabs\tand\r\nline\n\n\nends",
    "１２３ ٤٥٦ ½",
    "<|im_end|> is a mark",
    "\u2028 \u00a0 \u200b \ufeff",
    "नमस्ते ไทย 中文",
    "   many    spaces   ",
    "\x00\x07 control",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
)


def questions() -> list[str]:
    """A hundred messages: what people ask in the world, and every tenth with unusual characters."""
    rng = random.Random(5)
    asked = ["Who is {}?", "Where was {} born?", "What does {} like to eat?", "Tell me the trade of {}."]
    names = ["Dori Oska", "Melos Wykasol", "Soldo Solpin", "Nobody Atall", "Venlu Mijo"]
    messages = [rng.choice(asked).format(rng.choice(names)) for _ in range(90)]
    return messages + [f"{text} {rng.choice(asked).format(rng.choice(names))}" for text in UNUSUAL]


def test_chats_are_the_same_token_for_token(grown: LanguageModel, tmp_path: Path) -> None:
    """A hundred chats: llama.cpp tokenizes the rendered messages alike and replies alike, greedily."""
    save_gguf(grown.model, grown.tokenizer, tmp_path / "model.gguf", "F32")
    llama = open_in_llama_cpp(tmp_path / "model.gguf", grown.context)
    for message in questions():
        messages = [{"role": "user", "content": message}]
        prompt = grown.tokenizer.encode_chat(messages, add_generation_prompt=True).ids
        if "<|im_end|>" not in message:  # llama.cpp has no way to keep a special token's name plain text
            rendered = grown.tokenizer.render(messages, add_generation_prompt=True)
            assert llama.tokenize(rendered.encode(), add_bos=False, special=True) == prompt, message
        ours = grown.generate_batch([prompt], max_new_tokens=32)[0]
        assert their_greedy(llama, prompt, grown.stop_ids, 32) == ours, message


def their_greedy(llama: Any, prompt: list[int], stops: frozenset[int], limit: int) -> list[int]:
    llama.reset()
    llama.eval(prompt)
    ids: list[int] = []
    while len(ids) < limit:
        token = int(np.argmax(llama.scores[llama.n_tokens - 1]))
        if token in stops:
            break
        ids.append(token)
        llama.eval([token])
    return ids


def test_the_template_in_the_file_renders_the_same(grown: LanguageModel, tmp_path: Path) -> None:
    """llama-cpp-python's own chat completion, from the template in the file, replies as ours does."""
    save_gguf(grown.model, grown.tokenizer, tmp_path / "model.gguf", "F32")
    llama = open_in_llama_cpp(tmp_path / "model.gguf", grown.context)
    for message in questions()[::20]:
        messages = [{"role": "user", "content": message}]
        theirs = llama.create_chat_completion(messages, temperature=0.0, max_tokens=32)
        ours = grown.chat(messages, max_new_tokens=32).text
        assert theirs["choices"][0]["message"]["content"] == ours


@pytest.mark.parametrize(("precision", "share"), [("F16", 0.001), ("BF16", 0.01), ("Q8_0", 0.01)])
def test_bits_per_byte_of_smaller_files(
    grown: LanguageModel, tmp_path: Path, precision: Any, share: float
) -> None:
    """Fewer bits a weight change the bits per byte of a text by at most this share."""
    save_gguf(grown.model, grown.tokenizer, tmp_path / "model.gguf", precision)
    llama = open_in_llama_cpp(tmp_path / "model.gguf", grown.context)
    texts = [
        f"{name} works as a baker. {name} comes from Irwick." for name in ("Dori Oska", "Venlu Mijo")
    ] * 10
    ours, theirs = 0.0, 0.0
    for text in texts:
        ids = [grown.tokenizer.bos_id, *grown.tokenizer.encode(text)]
        exact = grown.logits([ids])[0].log_softmax(-1)
        rounded = their_logits(llama, ids).log_softmax(-1)
        targets = torch.tensor(ids[1:])[:, None]
        ours -= exact[:-1].gather(1, targets).sum().item() / math.log(2)
        theirs -= rounded[:-1].gather(1, targets).sum().item() / math.log(2)
    assert abs(theirs / ours - 1) <= share
