"""Text in, text out: folders, prompts, streams, replies and their traces."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from tests.inference.conftest import awake

from glasshouse.core.errors import ModelError, UsageError
from glasshouse.inference import LanguageModel
from glasshouse.inference.chat import fit
from glasshouse.model import ModelConfig, Transformer
from glasshouse.model.lora import LoRAConfig, add_adapter, use_adapters
from glasshouse.tokenizer import Tokenizer

OPTIONS = {"temperature": 1.0, "seed": 5}


def test_load_gives_the_same_text(folder: Path, model: LanguageModel) -> None:
    """A saved and opened model says what it said before."""
    opened = LanguageModel.load(folder, device="cpu")
    assert opened.generate("Ada", 30, **OPTIONS) == model.generate("Ada", 30, **OPTIONS)
    assert opened.context == 128


def test_a_saved_folder_names_its_stops(folder: Path, tokenizer: Tokenizer) -> None:
    """generation_config.json stops at the end of a turn and of a text."""
    config = json.loads((folder / "generation_config.json").read_text())
    assert set(config["eos_token_id"]) == {tokenizer.end_of_turn_id, tokenizer.eos_id}


def test_a_folder_without_tokenizer(folder: Path, tmp_path: Path) -> None:
    """It says that the tokenizer is missing, where, and what to do."""
    copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer .*tokenizer\.json.*Fix"):
        LanguageModel.load(tmp_path / "model")


def test_a_tokenizer_larger_than_the_embedding(folder: Path, tmp_path: Path) -> None:
    """Ids without a vector are refused when the folder is opened, not in the middle of a reply."""
    copytree(folder, tmp_path / "model")
    words = "some other text, and a little more of it, with all the other words that are needed for its size"
    Tokenizer.train([words, words[::-1]] * 3, 310).save(tmp_path / "model")
    with pytest.raises(ModelError, match="tokens, the embedding 300"):
        LanguageModel.load(tmp_path / "model")


def test_logits(model: LanguageModel) -> None:
    """(batch, seq) -> (batch, seq, vocab) float32, from lists and tensors."""
    ids = [[1, 2, 3], [4, 5, 6]]
    logits = model.logits(ids)
    assert logits.shape == (2, 3, 300)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model.logits(torch.tensor(ids)))


def test_a_text_begins_a_document(model: LanguageModel) -> None:
    """A prompt given as text follows <|endoftext|>; one given as ids is taken as it is."""
    ids = [model.tokenizer.bos_id, *model.tokenizer.encode("To be")]
    assert model.generate("To be", 20, **OPTIONS) == model.generate(ids, 20, **OPTIONS)


def test_stream_joins_to_generate(model: LanguageModel) -> None:
    """Pieces of the stream are the text, none is empty, and it equals the ids of the batched path."""
    pieces = list(model.stream("Zoé", 40, **OPTIONS))
    text = model.generate("Zoé", 40, **OPTIONS)
    assert "".join(pieces) == text
    assert all(pieces)
    ids = [model.tokenizer.bos_id, *model.tokenizer.encode("Zoé")]
    assert model.tokenizer.decode(model.generate_batch([ids], 40, **OPTIONS)[0]) == text


def test_stop_strings(model: LanguageModel) -> None:
    """The text ends before the stop string."""
    text = model.generate("To be", 40, **OPTIONS)
    stop = text[10:13]
    assert model.generate("To be", 40, stop=[stop], **OPTIONS) == text[: text.index(stop)]


def test_unknown_options_are_refused(model: LanguageModel) -> None:
    """A misspelled option is not dropped silently."""
    with pytest.raises(UsageError, match="temperature"):
        model.generate_batch([[1]], 4, temprature=0.5)


QUESTION = [{"role": "user", "content": "Where was Ada born?"}]


def test_chat_stops_where_the_turn_ends(model: LanguageModel) -> None:
    """A reply is the text of the ids that follow the rendered prompt, up to a stop id."""
    prompt = model.tokenizer.encode_chat(QUESTION, add_generation_prompt=True).ids
    reply = model.chat(QUESTION, max_new_tokens=30, **OPTIONS)
    assert reply.text == model.tokenizer.decode(model.generate_batch([prompt], 30, **OPTIONS)[0])


def test_trace_shows_each_token(model: LanguageModel) -> None:
    """Tokens with log-probability and alternatives, prompt size, timing and the reason of the end."""
    reply = model.chat(QUESTION, max_new_tokens=12)
    trace = reply.trace
    prompt = model.tokenizer.encode_chat(QUESTION, add_generation_prompt=True).ids
    assert trace["prompt_tokens"] == len(prompt)
    assert trace["finish_reason"] in ("stop", "length")
    assert 0 < trace["seconds"]["first_token"] <= trace["seconds"]["total"]
    ids = [token["id"] for token in trace["tokens"]]
    scores = model.score_batch([prompt], [ids])[0]
    for token, score in zip(trace["tokens"], scores, strict=True):
        assert token["logprob"] == pytest.approx(float(score), abs=1e-3)
        assert [other["logprob"] for other in token["top"]] == sorted(
            (other["logprob"] for other in token["top"]), reverse=True
        )
        assert token["top"][0]["id"] == token["id"]  # greedy
        assert len(token["top"]) == 5
    assert json.loads(json.dumps(trace)) == trace


def test_chat_stream_pieces_join_to_the_reply(model: LanguageModel) -> None:
    """Pieces come as they are certain; `.reply` holds what came, also when left early."""
    stream = model.chat_stream(QUESTION, 25, **OPTIONS)
    assert "".join(stream) == stream.reply.text == model.chat(QUESTION, 25, **OPTIONS).text
    early = model.chat_stream(QUESTION, 25, **OPTIONS)
    first = next(iter(early))
    assert early.reply.text == first
    assert early.reply.trace["finish_reason"] == "interrupted"


def turns(count: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": f"Message number {i}."} for i in range(count)]


def test_old_turns_are_dropped_and_said_so(model: LanguageModel) -> None:
    """What does not fit is dropped from the oldest, whole exchanges; the system message stays."""
    system = {"role": "system", "content": "Be kind."}
    messages = [system, *turns(21)]
    reply = model.chat(messages, max_new_tokens=8)
    dropped = reply.trace["dropped_turns"]
    assert dropped == messages[1 : 1 + len(dropped)]
    assert len(dropped) % 2 == 0  # the conversation still begins with the user
    assert reply.trace["prompt_tokens"] + 8 <= model.context
    assert f"{len(dropped)} of 22 messages" in reply.trace["notes"][0]
    kept = [system, *messages[1 + len(dropped) :]]
    assert reply.text == model.chat(kept, max_new_tokens=8).text
    ids = model.tokenizer.encode_chat([system, *messages[len(dropped) - 1 :]], add_generation_prompt=True).ids
    assert len(ids) + 8 > model.context  # not one exchange too many


def test_nothing_is_dropped_without_need(model: LanguageModel) -> None:
    """A conversation that fits is read whole and the trace says nothing."""
    ids, dropped, notes = fit(model.tokenizer, turns(3), model.context, 8)
    assert ids == model.tokenizer.encode_chat(turns(3), add_generation_prompt=True).ids
    assert (dropped, notes) == ([], [])


def test_a_message_longer_than_the_context(model: LanguageModel) -> None:
    """The last message is never cut: it is refused, with both sizes."""
    long = [*turns(2), {"role": "user", "content": "word " * 300}]
    with pytest.raises(UsageError, match=r"needs \d+ tokens, the context holds 128"):
        model.chat(long, max_new_tokens=8)


def test_changed_weights_are_seen(tokenizer: Tokenizer) -> None:
    """Training goes on between two replies: nothing of the old weights is left in the cache."""
    config = ModelConfig(vocab_size=300, hidden_size=32, intermediate_size=48, head_dim=16)
    transformer, same = awake(config), awake(config, seed=1)
    model = LanguageModel(transformer, tokenizer)
    before = model.generate("Ada", 20)
    assert model.engine() is model.engine()
    with torch.no_grad():
        for mine, other in zip(transformer.parameters(), same.parameters(), strict=True):
            mine.copy_(other)
    after = model.generate("Ada", 20)
    assert after == LanguageModel(same, tokenizer).generate("Ada", 20) != before


def test_the_adapter_that_is_on_speaks(tokenizer: Tokenizer) -> None:
    """Switching adapters needs no new engine, and two at once are refused."""
    transformer = awake(ModelConfig(vocab_size=300, hidden_size=32, intermediate_size=48, head_dim=16))
    plain = LanguageModel(transformer, tokenizer).generate("Ada", 20)
    for name in ("one", "two"):
        add_adapter(transformer, LoRAConfig(r=2), name=name)
    for name, parameter in transformer.named_parameters():
        if name.endswith(".b"):
            parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    model = LanguageModel(transformer, tokenizer)
    use_adapters(transformer)
    assert model.generate("Ada", 20) == plain
    use_adapters(transformer, "one")
    assert model.generate("Ada", 20) != plain
    use_adapters(transformer, "one", "two")
    with pytest.raises(UsageError, match="2 adapters are switched on"):
        model.generate("Ada", 20)


def test_an_engine_ends_with_its_model(transformer: Transformer, tokenizer: Tokenizer) -> None:
    """No thread outlives the model that started it."""
    model = LanguageModel(transformer, tokenizer)
    model.generate("Ada", 2)
    thread = model.engine().thread
    assert thread.is_alive()
    del model
    gc.collect()
    assert not thread.is_alive()
