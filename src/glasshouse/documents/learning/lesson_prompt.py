"""A lesson as a model is asked: so that what it is trained on is what it will meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glasshouse.core.errors import ConfigError
from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.learning.corrections import Lesson
from glasshouse.llm.blocking import wait


def as_asked(analyzer: Analyzer) -> Callable[[Lesson], list[dict[str, Any]]]:
    """The messages by which this analyzer asks about a lesson's passage, for `Corrections.write_sft` and
    `write_preferences`.

    Raises, when a lesson comes, ConfigError for one of another domain, and for an extraction whose schema
    neither the lesson nor the domain has.
    """

    def messages(lesson: Lesson) -> list[dict[str, Any]]:
        pack = analyzer.pack
        if lesson.domain != pack.name:
            raise ConfigError(
                f"a correction is of the domain '{lesson.domain}', the analyzer of '{pack.name}'",
                where=lesson.document,
                fix="write one file for each domain, with an analyzer of its own",
            )
        if lesson.task == "extraction" and lesson.schema is None and pack.schema_ is None:
            raise ConfigError(
                "nobody knows which fields were asked for",
                where=lesson.document,
                fix="give the schema when correcting",
            )
        question = wait(
            analyzer.question(
                analyzer.llm, lesson.task, lesson.schema, lesson.instructions or "", lesson.text
            )
        )
        return list(question.request(analyzer.llm, 1, lesson.text).messages)

    return messages
