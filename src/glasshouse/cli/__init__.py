"""The `glasshouse` command: parses arguments, calls the rooms, prints. One file per group of verbs."""

from glasshouse.cli.app import main

__all__ = ["main"]
