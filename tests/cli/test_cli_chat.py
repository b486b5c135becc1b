"""`glasshouse chat`: one question, piped lines, commands, and output that a terminal can trust."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from glasshouse.cli import chat
from glasshouse.cli.visible import visible
from glasshouse.core.errors import UsageError
from glasshouse.inference import LanguageModel
from glasshouse.model import ModelConfig, initialise, save
from glasshouse.tokenizer import Tokenizer

QUESTION = "Where was Ada born?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.train(["Ada Moor was born in Tarnhaven. She keeps an owl."] * 3, vocab_size=265)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "max_position_embeddings": 128,
    }
    model = initialise(ModelConfig(vocab_size=tokenizer.vocab_size, **shape), 0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    path = tmp_path_factory.mktemp("chat") / "model"
    save(model, tokenizer, path)
    return path


def run(folder: Path, *options: str, stdin: str | None = None) -> tuple[str, str]:
    app = typer.Typer()
    chat.register(app)
    result = CliRunner().invoke(app, [str(folder), "--max-tokens", "12", *options], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout, result.stderr


def shown(text: str) -> str:
    return visible(text) + "\n"


def reply(folder: Path, *contents: str, **sampling: float) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return LanguageModel.load(folder, device="cpu").chat(messages, 12, **sampling).text


def test_once_prints_the_reply_alone(folder: Path) -> None:
    """stdout holds the reply and nothing else, so that it can be piped on."""
    assert run(folder, "--once", QUESTION) == (shown(reply(folder, QUESTION)), "")


def test_sampling_options_reach_the_model(folder: Path) -> None:
    """--temperature and --seed give the text that LanguageModel.chat gives with them."""
    out, _ = run(folder, "--once", QUESTION, "--temperature", "0.9", "--seed", "4")
    assert out == shown(reply(folder, QUESTION, temperature=0.9, seed=4))
    assert out != run(folder, "--once", QUESTION, "--temperature", "0.9", "--seed", "5")[0]


def test_system_message(folder: Path) -> None:
    """--system stands before the conversation."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    expected = LanguageModel.load(folder, device="cpu").chat(messages, 12).text
    assert run(folder, "--once", QUESTION, "--system", "Be brief.")[0] == shown(expected)


def test_piped_lines_are_one_conversation(folder: Path) -> None:
    """Each line is a turn that sees the turns before it; empty lines are skipped, /quit ends."""
    out, _ = run(folder, stdin=f"{QUESTION}\n\nAnd then?\n/quit\nnever asked\n")
    first = reply(folder, QUESTION)
    assert out == shown(first) + shown(reply(folder, QUESTION, first, "And then?"))


def test_reset_forgets(folder: Path) -> None:
    """After /reset the same question gets the same reply as at the beginning."""
    out, notes = run(folder, stdin=f"{QUESTION}\n/reset\n{QUESTION}\n")
    assert out == 2 * shown(reply(folder, QUESTION))
    assert "anew" in notes


def test_help_and_unknown_commands(folder: Path) -> None:
    """/help names every command; a misspelled one is not sent to the model."""
    out, notes = run(folder, stdin="/help\n/rest\n")
    assert out == ""
    assert all(word in notes for word in ("/reset", "/quit", "Ctrl-C", "no such command: /rest"))


def test_a_message_too_long_does_not_end_the_talk(folder: Path) -> None:
    """The error is one line, the message is forgotten, and the next one is answered."""
    out, notes = run(folder, stdin=f"{'long ' * 200}\n{QUESTION}\n")
    assert "Error: the last message needs" in notes
    assert out == shown(reply(folder, QUESTION))


def test_dropped_turns_are_told(folder: Path) -> None:
    """When old turns no longer fit, a line says so."""
    _, notes = run(folder, stdin=f"{QUESTION}\n" * 6)
    assert "were left out" in notes


def test_control_characters_are_shown_not_obeyed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply cannot move the cursor or set the window's title; newlines and tabs stay."""
    pieces = ["a\x1b]0;title\x07", "b\r\n\tc\x7f\x9b2J"]
    monkeypatch.setattr("glasshouse.inference.chat.ChatStream.__iter__", lambda self: iter(pieces))
    assert run(folder, "--once", "hello")[0] == "a␛]0;title␇b␍\n\tc␡�2J\n"


def test_ctrl_c_keeps_what_was_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C stops the reply, not the chat: the next message is answered."""
    from glasshouse.inference.chat import ChatStream

    whole = ChatStream.__iter__
    stopped: list[str] = []

    def interrupted(self: ChatStream):
        for piece in whole(self):
            yield piece
            if not stopped:
                stopped.append(self.reply.text)
                raise KeyboardInterrupt

    monkeypatch.setattr(ChatStream, "__iter__", interrupted)
    out, _ = run(folder, stdin=f"{QUESTION}\nAnd then?\n")
    monkeypatch.undo()
    assert out == shown(stopped[0]) + shown(reply(folder, QUESTION, stopped[0], "And then?"))


def test_no_model(tmp_path: Path) -> None:
    """A folder without a model is an error of usage that names it."""
    with pytest.raises(UsageError, match=r"nowhere"):
        run(tmp_path / "nowhere", "--once", "hello")
