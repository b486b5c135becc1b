"""What a person types while a command waits for it."""

import sys


def read_line(question: str) -> str:
    """One line, from the terminal or a pipe. Raises EOFError at the end."""
    if sys.stdin.isatty():
        return input(question)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")
