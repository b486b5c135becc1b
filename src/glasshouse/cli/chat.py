"""`glasshouse chat`: talk with a model in the terminal, its reply streaming."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glasshouse.cli.visible import visible
from glasshouse.core.errors import GlasshouseError

if TYPE_CHECKING:
    from glasshouse.inference import LanguageModel

HELP = """\
/reset   forget the conversation and begin anew
/quit    leave (so does Ctrl-D)
Ctrl-C   stop a reply; what was said of it stays in the conversation"""


def register(app: typer.Typer) -> None:
    app.command(
        "chat", epilog='\b\nExample:\n  glasshouse chat runs/pocket --once "Where was Ada Moor born?"'
    )(chat)


def chat(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Run or model folder.", show_default="the newest run"),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the sampling, where the temperature is not 0.")] = 0,
    max_tokens: Annotated[int, typer.Option(help="Longest reply, in tokens.", min=1)] = 256,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A system message at the beginning.", show_default="none"),
    ] = None,
    once: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Reply to this and leave.", show_default="talk on")
    ] = None,
) -> None:
    """Talk with a model. Type /help inside. Lines piped in are answered one by one."""
    from glasshouse.core.model_folders import resolve_model

    folder = resolve_model(model)
    from glasshouse.inference import LanguageModel

    talk = Conversation(LanguageModel.load(folder), system, max_tokens, temperature=temperature, seed=seed)
    if once is not None:
        talk.say(once)
    elif sys.stdin.isatty():
        size, context = talk.model.model.num_parameters(), talk.model.context
        _tell(f"{folder}: {size:,} parameters, {context} tokens of context")
        _tell("/help for help, Ctrl-D to leave")
        _converse(talk, _typed_lines())
    else:
        _converse(talk, (line.rstrip("\n") for line in sys.stdin))


class Conversation:
    """The messages so far and how the next reply is made."""

    def __init__(self, model: LanguageModel, system: str | None, max_tokens: int, **sampling: Any) -> None:
        self.model = model
        self.max_tokens, self.sampling = max_tokens, sampling
        self._beginning = [] if system is None else [{"role": "system", "content": system}]
        self.messages = list(self._beginning)

    def reset(self) -> None:
        self.messages = list(self._beginning)

    def say(self, text: str) -> None:
        """Print the reply to `text` as it comes and add both to the conversation.

        Ctrl-C ends the reply early; what was said stays. A message that cannot be answered is not kept.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        stream = self.model.chat_stream(asked, self.max_tokens, **self.sampling)
        for note in stream.trace["notes"]:
            _tell(note)
        with contextlib.suppress(KeyboardInterrupt):
            for piece in stream:
                print(visible(piece), end="", flush=True)
        print(flush=True)
        self.messages = [*asked, {"role": "assistant", "content": stream.reply.text}]


def _converse(talk: Conversation, lines: Iterator[str]) -> None:
    """Answer line after line until the lines or the patience end."""
    for line in lines:
        match line.strip():
            case "":
                continue
            case "/quit" | "/exit":
                return
            case "/reset":
                talk.reset()
                _tell("the conversation begins anew")
            case "/help":
                _tell(HELP)
            case command if command.startswith("/") and " " not in command:
                _tell(f"no such command: {command}; there are /help, /reset and /quit")
            case text:
                try:
                    talk.say(text)
                except GlasshouseError as error:
                    _tell(f"Error: {error}")


def _typed_lines() -> Iterator[str]:
    """Lines typed at a prompt; Ctrl-C drops the line, Ctrl-D ends."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  gives input() its editing and history
    while True:
        try:
            yield input("\nyou> ")
        except KeyboardInterrupt:
            _tell("\nCtrl-D to leave")
        except EOFError:
            print()
            return


def _tell(text: str) -> None:
    """News about the chat goes to stderr: stdout holds the replies alone."""
    print(text, file=sys.stderr, flush=True)
