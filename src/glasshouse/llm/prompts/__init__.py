"""Prompts as files: strict templates in kept versions, a linter, and examples that are run."""

from glasshouse.llm.prompts.examples import Outcome, run_examples
from glasshouse.llm.prompts.lint import Finding, lint
from glasshouse.llm.prompts.store import PromptStore
from glasshouse.llm.prompts.template import Template, delimited

__all__ = ["Finding", "Outcome", "PromptStore", "Template", "delimited", "lint", "run_examples"]
