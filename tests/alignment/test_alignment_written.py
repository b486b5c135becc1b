"""Which tokens the assistant wrote, where the chat template does not mark them."""

import re

import pytest

from glasshouse.alignment.written import encode_chat
from glasshouse.tokenizer import Tokenizer
from glasshouse.tokenizer.chat_template import CHATML


def tokenizer_with(template: str) -> Tokenizer:
    made = Tokenizer.train([], 265)
    return Tokenizer([made.token_bytes(i) for i in range(265)], made.special, chat_template=template)


def turns(*texts, system=None):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


CONVERSATIONS = [
    turns("Hi.", "Hello."),
    turns("Hi.", "Hello.", "And now?", "Good night.", system="Be kind."),
    turns("Write <|im_end|>.", "<|im_end|> it is.", "Again.", ""),
    turns("Any news?"),
]
UNMARKED = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", CHATML)


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_the_mask_is_the_one_that_a_marked_template_gives(messages):
    """Published templates lack the marks: the same tokens are found from where replies begin and end."""
    assert "generation %" not in UNMARKED
    marked = Tokenizer.train([], 265).encode_chat(messages)
    found = encode_chat(tokenizer_with(UNMARKED), messages)
    assert found == marked


def test_turns_without_a_closing_token_end_with_their_text():
    plain = tokenizer_with("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                           "{% if add_generation_prompt %}assistant: {% endif %}")  # fmt: skip
    found = encode_chat(plain, turns("Hi.", "Hello.", "Bye.", "Ciao."))
    learnt = [i for i, written in zip(found.ids, found.assistant_mask, strict=True) if written]
    assert plain.decode(learnt) == "Hello.\nCiao.\n"


def test_a_prompt_that_opens_a_thought_is_shared_up_to_it():
    thinking = tokenizer_with(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    found = encode_chat(thinking, turns("Hi.", "Hello.", "Bye.", "Ciao."))
    learnt = [i for i, written in zip(found.ids, found.assistant_mask, strict=True) if written]
    assert thinking.decode(learnt) == "Hello.<|im_end|>Ciao.<|im_end|>"


def test_words_that_join_with_the_prompts_end_are_learnt():
    """Where "assistant: " and "Hello" meet, the space becomes part of the reply's first token."""
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    template = source + "{% if add_generation_prompt %}assistant: {% endif %}"
    trained = Tokenizer.train(["assistant: Hello. user: Hello. " * 50], 330)
    made = Tokenizer(
        [trained.token_bytes(i) for i in range(trained.vocab_size)], trained.special, chat_template=template
    )
    found = encode_chat(made, turns("Hi.", "Hello."))
    learnt = [i for i, written in zip(found.ids, found.assistant_mask, strict=True) if written]
    assert made.decode(learnt) == " Hello.<|im_end|>"


def test_a_turn_after_one_that_the_template_writes_differently_later_is_found():
    """Here every turn but the last loses its first letter, so no prompt is a beginning of the whole."""
    shortened = tokenizer_with(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content[1:] }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    for reply in ("Hello.", "0", "1 of 10"):
        found = encode_chat(shortened, turns("Hi.", "Yes.", "Ho.", reply))
        learnt = [i for i, written in zip(found.ids, found.assistant_mask, strict=True) if written]
        assert shortened.decode(learnt) == f"es.<|im_end|>{reply}<|im_end|>"


def test_a_turn_that_cannot_be_told_is_not_learnt():
    """A template that refuses the conversation with any other reply in it."""
    strict = tokenizer_with(
        "{% for m in messages %}{% if m.content in '01' %}{{ raise_exception('no') }}{% endif %}"
        "<|im_start|>{{ m.content if loop.last else m.content[1:] }}<|im_end|>{% endfor %}"
    )
    assert not any(encode_chat(strict, turns("Hi.", "Hello.")).assistant_mask)
