"""Fine-tuning: loss on the assistant's words only, packed or not, and conversations that fit whole."""

import json

import pytest
import torch
from pydantic import ValidationError

from glasshouse.alignment import SFTConfig, sft
from glasshouse.alignment.sft import encode_examples, encode_within
from glasshouse.core.errors import ConfigError, DataError
from glasshouse.data import IGNORE, PackedBatches, Shards, ShardWriter
from glasshouse.model import ModelConfig, initialise, load, save
from glasshouse.tokenizer import Tokenizer
from glasshouse.training import NextToken

ROW = 128


def turns(*texts, system=None):
    """Messages that alternate between user and assistant."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return messages + [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


CONVERSATIONS = [
    {"messages": turns("Who are you?", "A small model.")},
    {"messages": turns("Say it twice.", "Ha ha.", "Again, please.", "Ha ha ha.", system="Be short.")},
    {"messages": turns("Write <|im_end|> for me.", "<|im_end|> is a mark.")},
    *({"messages": turns(f"What is {i} + 1?", f"{i + 1}")} for i in range(30)),
]


def written(conversations, tokenizer, folder, row=ROW):
    """The conversations as a shard folder; returns what became of them."""
    with ShardWriter(folder, tokenizer.vocab_size) as writer:
        return encode_examples(conversations, tokenizer, writer, row)[0]


@pytest.fixture(scope="module")
def tokenizer():
    """Plain bytes and the special tokens: no training needed."""
    return Tokenizer.train([], 265)


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    """A model folder whose head is not silent, so that losses differ from token to token."""
    model = initialise(
        ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=ROW,
        ),
        seed=0,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("lm_head.weight", "o_proj.weight", "down_proj.weight")):
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("base") / "model"
    save(model, tokenizer, folder)
    return folder


def settings(**changes):
    plain = {
        "batch_tokens": 4 * ROW,
        "sequence_length": ROW,
        "dtype": "float32",
        "device": "cpu",
        "log_every": 1,
    }
    return SFTConfig.parse(plain | changes)


def test_the_packed_loss_equals_one_conversation_at_a_time(base, tokenizer, tmp_path):
    """Same sum of nats over the assistant's tokens as each conversation alone, unpacked, in fp32."""
    model = load(base)
    expected, count = 0.0, 0
    for conversation in CONVERSATIONS:
        encoded = tokenizer.encode_chat(conversation["messages"])
        with torch.no_grad():
            logprobs = model(torch.tensor([encoded.ids]))[0].log_softmax(-1)
        for i in range(1, len(encoded.ids)):
            if encoded.assistant_mask[i]:
                expected -= logprobs[i - 1, encoded.ids[i]].item()
                count += 1
    written(CONVERSATIONS, tokenizer, tmp_path / "shards")
    objective = NextToken(PackedBatches(Shards(tmp_path / "shards"), ROW, 100, seed=0))
    batch = next(objective.batch(0).split(round(objective.steps_per_epoch * 100)))
    with torch.no_grad():
        loss = objective.loss(model, batch)
    assert loss.count == count
    assert loss.loss_sum.item() == pytest.approx(expected, rel=1e-4)


def test_targets_are_the_assistants_words_and_ends_of_turn(tokenizer, tmp_path):
    """In every turn, and nothing of what the user, the system or the template say."""
    counts = written(CONVERSATIONS[1:2], tokenizer, tmp_path / "shards")
    shards = Shards(tmp_path / "shards")
    assert shards.mask is not None
    targets = shards.tokens[shards.mask == 1].tolist()
    assert tokenizer.decode(targets) == "Ha ha.<|im_end|>Ha ha ha.<|im_end|>"
    assert counts.target_tokens == len(targets)


def test_special_tokens_in_a_users_text_stay_text(tokenizer, tmp_path):
    """A user cannot end the turn: two messages have two real ends of turn."""
    written(CONVERSATIONS[2:3], tokenizer, tmp_path / "shards")
    tokens = Shards(tmp_path / "shards").tokens.tolist()
    assert tokens.count(tokenizer.end_of_turn_id) == 2


def test_conversations_do_not_see_each_other(tokenizer, tmp_path):
    """Each is a segment of its own; the last token of one never predicts the first of the next."""
    written(CONVERSATIONS, tokenizer, tmp_path / "shards")
    batch = PackedBatches(Shards(tmp_path / "shards"), ROW, 4, seed=0).batch(0)
    begin = tokenizer.special["<|im_start|>"]
    starts = (batch.positions == 0) & (batch.segments >= 0)
    assert (batch.inputs[starts] == begin).all()
    assert not ((batch.targets == begin) & (batch.targets != IGNORE)).any()


def test_a_long_conversation_loses_its_oldest_turns(tokenizer):
    """Whole turns go from the front, the system message stays, and as few go as possible."""
    messages = turns(*(f"message {i} " + "x" * 10 for i in range(20)), system="Be kind.")
    limits = [len(tokenizer.encode_chat([messages[0], *messages[k:]]).ids) for k in range(1, 21, 2)]
    for dropped, limit in enumerate(limits):
        for slack in (0, 1):
            encoded, cut = encode_within(tokenizer, messages, None, limit + slack)
            assert encoded is not None
            assert encoded.ids == tokenizer.encode_chat([messages[0], *messages[1 + 2 * dropped :]]).ids
            assert cut == (dropped > 0)
    assert encode_within(tokenizer, messages, None, limits[-1] - 1) == (None, False)


def test_what_cannot_be_used_is_left_out_and_counted(tokenizer, tmp_path):
    """A single exchange that is too long, and a conversation without a reply."""
    rows = [
        {"messages": turns("long " * 100, "yes")},
        {"messages": turns("hello?")},
        {"messages": turns("a " * 60, "b", "Short?", "Yes.")},
        {"messages": turns("Hi.", "Hello.")},
    ]
    counts = written(rows, tokenizer, tmp_path / "shards", 64)
    assert (counts.conversations, counts.cut, counts.left_out) == (2, 1, 2)
    with pytest.raises(DataError, match=r"no conversation to learn from \(2"):
        written(rows[:2], tokenizer, tmp_path / "other", 64)
    assert not (tmp_path / "other").exists()


def test_replayed_documents_count_whole_between_their_boundaries(base, tokenizer, tmp_path):
    """As many as the share asks for, every token a target but the opening boundary."""
    texts = [f"The owl of house {i} sleeps." for i in range(50)]
    summary = sft(base, CONVERSATIONS[:3], tmp_path / "out", settings(epochs=1, replay=0.5), texts)
    shards = Shards(tmp_path / "out" / "shards")
    talk, replay = (sum(len(shards.document(i)) for i in part) for part in (range(3), range(3, len(shards))))
    longest = max(len(text) for text in texts) + 2
    assert 0.5 * talk <= replay < 0.5 * talk + longest
    assert summary["replayed"] == len(shards) - 3
    boundary = tokenizer.bos_id
    assert shards.document(3).tolist() == [boundary, *tokenizer.encode(texts[0]), boundary]
    assert shards.mask is not None
    assert shards.mask[shards.offsets[3] : shards.offsets[4]].tolist() == [0] + [1] * (len(texts[0]) + 1)


def test_documents_among_conversations_count_whole(tokenizer, tmp_path):
    """Between the boundary tokens, every token once in an epoch, pieces of a row where they are longer."""
    texts = ["A short page.", "A long page. " * 40]
    rows = [CONVERSATIONS[0], *({"text": text, "source": "pages"} for text in texts)]
    counts = written(rows, tokenizer, tmp_path / "shards", 64)
    shards = Shards(tmp_path / "shards")
    assert (counts.conversations, counts.documents, counts.left_out) == (1, 2, 0)
    boundary = tokenizer.bos_id
    for place, text in enumerate(texts, 1):
        assert shards.document(place).tolist() == [boundary, *tokenizer.encode(text), boundary]
    batches = PackedBatches(shards, 64, 1, seed=0)
    learnt = [batches.batch(step).targets for step in range(round(batches.steps_per_epoch))]
    assert sum(int((targets != IGNORE).sum()) for targets in learnt) == counts.target_tokens
    reply = sum(tokenizer.encode_chat(CONVERSATIONS[0]["messages"]).assistant_mask)
    assert counts.target_tokens == reply + sum(len(text) + 1 for text in texts)


def test_documents_alone_are_enough(tokenizer, tmp_path):
    counts = written([{"text": "A page."}], tokenizer, tmp_path / "shards")
    assert (counts.conversations, counts.documents) == (0, 1)


def test_it_learns_to_reply(base, tmp_path):
    """The loss falls; the summary counts; the folder opens as a model with its tokenizer and template."""
    summary = sft(base, CONVERSATIONS, tmp_path / "out", settings(epochs=12))
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert summary["conversations"] == len(CONVERSATIONS)
    assert summary["left_out"] == 0
    folder = tmp_path / "out" / "model"
    assert load(folder).config == load(base).config
    assert Tokenizer.load(folder).chat_template is not None
    again = sft(base, CONVERSATIONS, tmp_path / "out", settings(epochs=12))
    assert again == summary


def test_other_conversations_in_the_same_folder_are_refused(base, tmp_path):
    """A finished run of other data is not taken for this one."""
    sft(base, CONVERSATIONS, tmp_path / "out", settings(tokens=4 * ROW))
    with pytest.raises(ConfigError, match="other data"):
        sft(base, CONVERSATIONS[:20], tmp_path / "out", settings(tokens=4 * ROW))


def test_the_budget_is_two_epochs_unless_told(base):
    """Tokens or epochs, one of them; without either the default."""
    assert SFTConfig().epochs == 2.0
    assert SFTConfig(tokens=5000).epochs is None
    assert SFTConfig.parse(SFTConfig().model_dump()) == SFTConfig()
    with pytest.raises(ValidationError):
        SFTConfig(tokens=5000, epochs=1)
