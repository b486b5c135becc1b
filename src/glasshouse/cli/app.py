"""The command as a whole: its verbs, and how a failure looks.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C. A failure is one line on stderr;
`--debug`, anywhere on the line, shows the traceback instead.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from glasshouse.core.errors import GlasshouseError, InterruptedRunError

app = typer.Typer(
    name="glasshouse",
    help="Grow a language-model assistant where you can see every part of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example:  glasshouse run pocket",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from glasshouse import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """`--debug` is read before parsing, so that it may stand anywhere; it is here for the help."""


def build() -> typer.Typer:
    """The command with all its verbs; modules of verbs import the rooms only when a verb is used."""
    if not app.registered_commands:
        from glasshouse.cli import (
            analyze,
            chat,
            documents,
            evaluate,
            export,
            monitor,
            prompts,
            rate,
            run,
            serve,
            tokenizer,
            train,
        )

        run.register(app)
        evaluate.register(app)
        chat.register(app)
        rate.register(app)
        analyze.register(app)
        serve.register(app)
        monitor.register(app)
        export.register(app)
        app.add_typer(train.app, name="train")
        app.add_typer(tokenizer.app, name="tokenizer")
        app.add_typer(prompts.app, name="prompts")
        app.add_typer(documents.app, name="documents")
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `glasshouse` command; always ends in SystemExit with one of the codes above."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        code = build()(args=given, prog_name="glasshouse", standalone_mode=False)
    except BaseException as error:
        if debug and not isinstance(error, typer.Exit):
            traceback.print_exc()
        code, line = _explain(error, given)
        if line:
            print(line, file=sys.stderr)
        _quiet_exit_of_pipes()
        raise SystemExit(code) from None
    raise SystemExit(code if isinstance(code, int) else 0)  # an int is what a verb gave to typer.Exit


def _explain(error: BaseException, given: list[str]) -> tuple[int, str]:
    """Exit code and the one line for a failure."""
    usage = getattr(error, "format_message", None)
    if usage is not None:  # typer's errors of usage, whose class has no public name
        message = usage()
        return 2, message if message.startswith("Usage:") else f"Error: {' '.join(message.split())}"
    match error:
        case typer.Exit():
            return error.exit_code, ""
        case InterruptedRunError() | KeyboardInterrupt() | typer.Abort():
            what = error.what if isinstance(error, InterruptedRunError) else "stopped"
            return 130, f"{what}; to continue: {_again(given)}"
        case GlasshouseError():
            return error.exit_code, f"Error: {error}"
        case BrokenPipeError():
            return 1, ""
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space and run the same command again; finished work is kept"
            return 1, f"Error: no space left on the disk ({error.filename or 'writing'}). Fix: {fix}."
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1, ""
        case _:
            text = " ".join(str(error).split())[:300]
            return 1, f"Error: {type(error).__name__}: {text} (--debug shows where it happened)"


def _again(given: list[str]) -> str:
    """The command that goes on with the work; `--fresh` would begin it anew."""
    return shlex.join(["glasshouse", *(argument for argument in given if argument != "--fresh")])


def _quiet_exit_of_pipes() -> None:
    """Python flushes stdout at its end, which complains when the reader of a pipe has left."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
