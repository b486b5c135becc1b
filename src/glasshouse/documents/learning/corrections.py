"""What people said about results, in one file: which fields are right, which are wrong, and what is right.

An entry holds the passage that the value is about, not the document, unless that is small. Several processes
may share the file (SQLite). Nothing is removed: a later entry about a field takes the place of the earlier
ones, which stay as its history. The store feeds

    examples       texts with right replies, for the prompt of a document like them
    labelled_rows  right and wrong fields, for `Calibrator.fit`
    cases          passages with what is right, to test a model with before it is trusted
    write_sft      conversations and preferences, to train on
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from glasshouse.core.config import Config, nearest
from glasshouse.core.errors import StorageError, UsageError
from glasshouse.core.sqlite import write_ahead
from glasshouse.core.storage import replaced
from glasshouse.documents.calibrator import Labelled, Setting
from glasshouse.documents.learning.passage import passage
from glasshouse.documents.learning.replies import corrected, given, path_steps, pruned
from glasshouse.documents.quotes.stated import stated
from glasshouse.documents.result import FieldResult, QuoteCheck, Result, Task
from glasshouse.documents.values.equality import same
from glasshouse.documents.values.leaves import leaves, without_indices
from glasshouse.files.document import Document

HELD_OUT = 3
"""One document in so many, by its hash, is never trained on: whether an adapted model is better is measured
on those, since a model that has learned its tests by heart passes them."""

LOCKED_SECONDS = 10.0
"""How long a process waits for another one to write."""

Message = dict[str, Any]

_TABLE = """
create table if not exists corrections (
  id integer primary key,
  sha256 text not null, task text not null, domain text not null, path text not null,
  model text not null, prompt text not null,
  entry text not null
);
create index if not exists corrections_field on corrections (task, domain, sha256, path);
"""

_NEWEST = "select max(id) from corrections group by sha256, task, domain, path"

_WORD = re.compile(r"\w+")


class Correction(Config):
    """What somebody said about one field of one result. JSON of it is what the file keeps."""

    document: str  # Result.document
    sha256: str  # of the document's text
    task: Task
    domain: str
    model: str
    prompt: str
    path: str
    said: FieldResult  # the model's
    right: Any = None  # None: the document does not mention it
    quote: str | None = None  # the words that say it
    passage: str
    start: int  # of the passage in the document's text, in characters
    reply: dict[str, Any]  # the model's to the passage, as it was asked for
    schema_: dict[str, Any] | None = Field(None, alias="schema")  # of an extraction, where one was given
    instructions: str | None = None
    who: str
    when: str  # ISO 8601, UTC

    @property
    def was_right(self) -> bool:
        return same(self.said.value, self.right)

    @property
    def setting(self) -> Setting:
        return Setting(model=self.model, task=self.task, domain=self.domain, prompt=self.prompt)


@dataclass(frozen=True)
class Case:
    """A passage and what is right about it: a regression test."""

    name: str  # the document's, and where in it the passage begins
    document: Document
    task: Task
    domain: str
    expected: Mapping[str, Any]  # path -> value; fields that nobody judged are not in it
    schema: dict[str, Any] | None = None
    instructions: str | None = None
    held_out: bool = False  # `write_sft` and `write_preferences` leave it out

    def judge(self, result: Result) -> dict[str, bool]:
        """Path -> whether the result has it right. An item of a list may stand at any place of it."""
        told: dict[str, list[Any]] = {}
        for field in result.fields:
            told.setdefault(without_indices(field.path), []).append(field.value)
        return {
            path: any(same(value, other) for other in told.get(without_indices(path), [None]))
            for path, value in self.expected.items()
        }


@dataclass(frozen=True)
class Lesson:
    """A passage with the model's reply and the right one."""

    document: str
    sha256: str
    task: Task
    domain: str
    text: str
    said: dict[str, Any]
    right: dict[str, Any]
    judged: tuple[str, ...]  # paths; the others are as the model said them
    schema: dict[str, Any] | None = None
    instructions: str | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def differs(self) -> bool:
        return self.said != self.right


class Corrections:
    """The file. Raises StorageError where it cannot be used."""

    def __init__(self, file: str | Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.file, self._clock, self._lock = Path(file), clock, threading.Lock()
        with self._told():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(
                self.file, isolation_level=None, check_same_thread=False, timeout=LOCKED_SECONDS
            )
            write_ahead(self._base, LOCKED_SECONDS)
            self._base.executescript(_TABLE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Fields that somebody judged."""
        with self._lock, self._told():
            return self._base.execute(f"select count(*) from ({_NEWEST})").fetchone()[0]

    def close(self) -> None:
        with self._lock:
            self._base.close()

    # --- in -----------------------------------------------------------------------------------------------

    def correct(
        self,
        document: Document,
        result: Result,
        path: str,
        right: Any,
        *,
        who: str,
        quote: QuoteCheck | None = None,
        schema: dict[str, Any] | None = None,
        instructions: str | None = None,
    ) -> Correction:
        """Say what is right at `path` of a result; None: the document does not mention it. `quote`: where the
        document says so; by default the only sentence that states the value. `schema` and `instructions`:
        what was asked for, if anything was.

        Raises UsageError for a path that the result does not have, and where document and result do not
        belong together.
        """
        _belongs(document, result)
        field = _field(result, path)
        if quote is None and not same(field.value, right):
            quote = stated(document, right)
        places = [
            (place.start, place.end)
            for place in (*([] if quote is None else [quote]), *field.quotes)
            if place.start is not None and place.end is not None
        ]
        start, end = passage(document.text, places)
        reply = given(result, start, end)
        corrected(
            reply, path, right, None, pairs=result.task == "extraction"
        )  # refuses a path that the reply has no place for
        entry = Correction(
            document=result.document,
            sha256=sha256(document.text),
            task=result.task,
            domain=result.domain,
            model=result.model,
            prompt=result.prompt,
            path=path,
            said=field,
            right=right,
            quote=None if quote is None else quote.text or quote.asked,
            passage=document.text[start:end],
            start=start,
            reply=reply,
            schema=schema,
            instructions=instructions,
            who=who,
            when=self._clock().isoformat(timespec="seconds"),
        )
        self.add(entry)
        return entry

    def accept(
        self,
        document: Document,
        result: Result,
        *,
        who: str,
        paths: Collection[str] | None = None,
        schema: dict[str, Any] | None = None,
        instructions: str | None = None,
    ) -> list[Correction]:
        """Say that fields are right as they are, by default all of them."""
        chosen = [_field(result, path) for path in paths] if paths is not None else result.fields
        return [
            self.correct(
                document, result, field.path, field.value, who=who, schema=schema, instructions=instructions
            )
            for field in chosen
        ]

    def add(self, entry: Correction) -> None:
        """Keep an entry; one that says what the newest about its field says already is not kept twice."""
        text = entry.model_dump_json(by_alias=True)
        key = (entry.sha256, entry.task, entry.domain, entry.path)
        with self._lock, self._told():
            self._base.execute("begin immediate")
            try:
                row = self._base.execute(
                    "select entry from corrections where sha256 = ? and task = ? and domain = ? and path = ? "
                    "order by id desc limit 1",
                    key,
                ).fetchone()
                if row is None or _content(_read(row[0])) != _content(entry):
                    self._base.execute(
                        "insert into corrections (sha256, task, domain, path, model, prompt, entry) "
                        "values (?, ?, ?, ?, ?, ?, ?)",
                        (*key, entry.model, entry.prompt, text),
                    )
                self._base.execute("commit")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("rollback")
                raise

    # --- out ----------------------------------------------------------------------------------------------

    def newest(self) -> list[Correction]:
        """What is said of each field now, in the order in which it was said."""
        return self._rows(f"where id in ({_NEWEST})")

    def history(self, document: str, path: str | None = None) -> list[Correction]:
        """All that was ever said about a document, by its name or sha256, oldest first."""
        found = [entry for entry in self._rows() if document in (entry.document, entry.sha256)]
        return [entry for entry in found if path in (None, entry.path)]

    def labelled_rows(self) -> list[Labelled]:
        """Every judged field of every model and prompt, right or wrong by what is known to be right now."""
        right = {_field_key(entry): entry.right for entry in self.newest()}
        last = {(*_field_key(entry), entry.model, entry.prompt): entry for entry in self._rows()}
        return [
            Labelled.of(
                entry.said, entry.setting, same(entry.said.value, right[_field_key(entry)]), entry.sha256
            )
            for entry in last.values()
        ]

    def lessons(self, task: Task | None = None, domain: str | None = None) -> list[Lesson]:
        """Each passage once, with all that is known to be right in it.

        Of tasks other than extraction only of documents that are kept whole: their replies are about the
        whole of one.
        """
        entries = [
            entry for entry in self.newest() if task in (None, entry.task) and domain in (None, entry.domain)
        ]
        by_document: dict[tuple[str, ...], list[Correction]] = {}
        for entry in entries:
            by_document.setdefault((entry.sha256, entry.task, entry.domain), []).append(entry)
        return [lesson for group in by_document.values() for lesson in _lessons(group)]

    def cases(self, task: Task | None = None, domain: str | None = None) -> list[Case]:
        """A regression test for each passage."""
        found = []
        for lesson, entries in self._passages(task, domain):
            start = entries[0].start
            name = lesson.document if start == 0 else f"{lesson.document} at {start}"
            text = Document.of_text(name, lesson.text)
            expected = {entry.path: entry.right for entry in entries}
            found.append(
                Case(
                    name,
                    text,
                    lesson.task,
                    lesson.domain,
                    expected,
                    lesson.schema,
                    lesson.instructions,
                    held_out(lesson.sha256),
                )
            )
        return found

    def examples(
        self, task: Task, domain: str, document: str, k: int = 3, fields: Collection[str] | None = None
    ) -> list[dict[str, str]]:
        """The `k` lessons whose texts are most like `document`, as {"document", "reply"}, the likest last:
        what stands nearest to the question is followed best. Never of that text itself.

        Like: the cosine of their words, rare words counting more (idf over the store). `fields`: paths with
        "[]" for any item; lessons with others were asked for another schema, and are left out.
        """
        lessons = [
            lesson
            for lesson in self.lessons(task, domain)
            if lesson.sha256 != sha256(document)
            and lesson.text not in document
            and (fields is None or {without_indices(path) for path, _ in leaves(lesson.right)} <= set(fields))
        ]
        near = _nearest(document, [lesson.text for lesson in lessons])
        return [
            {
                "document": lessons[place].text,
                "reply": json.dumps(lessons[place].right, ensure_ascii=False),
            }
            for place in reversed(near[:k])
        ]

    def write_sft(self, path: str | Path, prompt: Callable[[Lesson], Sequence[Message]]) -> int:
        """Conversations whose last message is the right reply, one a line: {"messages", "metadata"}. `prompt`
        makes the messages that a model is asked with. Documents that are held out are left out. Returns how
        many conversations there are."""
        return _write(
            path,
            (
                {"messages": [*prompt(lesson), _reply(lesson.right)], "metadata": _metadata(lesson)}
                for lesson in self._to_learn()
            ),
        )

    def write_preferences(self, path: str | Path, prompt: Callable[[Lesson], Sequence[Message]]) -> int:
        """{"prompt", "chosen", "rejected", "metadata"} a line: the right reply against the model's, where
        they differ. Documents that are held out are left out. Returns how many pairs there are."""
        return _write(
            path,
            (
                {
                    "prompt": list(prompt(lesson)),
                    "chosen": [_reply(lesson.right)],
                    "rejected": [_reply(lesson.said)],
                    "metadata": _metadata(lesson),
                }
                for lesson in self._to_learn()
                if lesson.differs
            ),
        )

    def _to_learn(self) -> list[Lesson]:
        return [lesson for lesson in self.lessons() if not held_out(lesson.sha256)]

    def _passages(self, task: Task | None, domain: str | None) -> Iterator[tuple[Lesson, list[Correction]]]:
        groups: dict[tuple[object, ...], list[Correction]] = {}
        for entry in self.newest():
            if task in (None, entry.task) and domain in (None, entry.domain):
                key = (entry.sha256, entry.task, entry.domain, entry.start, len(entry.passage))
                groups.setdefault(key, []).append(entry)
        for entries in groups.values():
            yield _lesson(entries[-1], entries), entries

    def _rows(self, where: str = "") -> list[Correction]:
        with self._lock, self._told():
            rows = self._base.execute(f"select entry from corrections {where} order by id").fetchall()
        return [_read(row[0]) for row in rows]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"the corrections cannot be used: {error}",
                where=self.file,
                fix="name another file, or move it away",
            ) from error


def sha256(text: str) -> str:
    """As Result.sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def held_out(sha256: str) -> bool:
    """Whether a document, by the hash of its text, is kept for testing."""
    return int(sha256[:8], 16) % HELD_OUT == 0


def _belongs(document: Document, result: Result) -> None:
    if result.sha256 and result.sha256 != sha256(document.text):
        raise UsageError(
            "the text is not the one that the result is about",
            where=document.name,
            fix="analyze the document again, or name the file as it was",
        )
    if result.value is None:
        raise UsageError(
            "there is no answer to correct", where=result.document, fix="analyze the document again"
        )


def _field(result: Result, path: str) -> FieldResult:
    """The field, or a new item of a list that the result has."""
    for field in result.fields:
        if field.path == path:
            return field
    if path.endswith("]") and _is_list(result.value, path_steps(path)[:-1]):
        return FieldResult.parse({"path": path})
    paths = [field.path for field in result.fields]
    close = nearest(path, paths)
    raise UsageError(
        f"the result has no field '{path}'",
        where=result.document,
        fix=f"did you mean '{close}'?" if close else f"its fields: {', '.join(paths)}",
    )


def _is_list(value: Any, steps: Sequence[str | int]) -> bool:
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return False
    return isinstance(value, list)


def _lessons(entries: list[Correction]) -> Iterator[Lesson]:
    """Of one document, one for each passage, with every judged field whose evidence lies in it."""
    seen: set[tuple[int, int]] = set()
    for entry in reversed(entries):
        span = (entry.start, len(entry.passage))
        whole = entry.start == 0 and sha256(entry.passage) == entry.sha256
        if span in seen or (entry.task != "extraction" and not whole):
            continue
        seen.add(span)
        yield _lesson(entry, [each for each in entries if whole or _inside(each, entry)])


def _inside(entry: Correction, of: Correction) -> bool:
    """Whether what `entry` says is said by the passage of `of` too."""
    if (entry.start, len(entry.passage)) == (of.start, len(of.passage)):
        return True
    return entry.right is None or (entry.quote is not None and entry.quote in of.passage)


def _lesson(base: Correction, entries: list[Correction]) -> Lesson:
    right, judged = base.reply, []
    for entry in entries:
        try:
            pairs = entry.task == "extraction"
            right = corrected(right, entry.path, entry.right, entry.quote, pairs=pairs)
        except UsageError:  # an item of a list that this reply does not have
            continue
        judged.append(entry.path)
    return Lesson(
        base.document,
        base.sha256,
        base.task,
        base.domain,
        base.passage,
        pruned(base.reply),
        pruned(right),
        tuple(judged),
        next((entry.schema_ for entry in reversed(entries) if entry.schema_), None),
        next((entry.instructions for entry in reversed(entries) if entry.instructions), None),
        {"model": base.model, "prompt": base.prompt, "who": base.who, "when": base.when},
    )


def _nearest(text: str, others: Sequence[str]) -> list[int]:
    """Places in `others`, the likest first; those without a word in common are left out."""
    sets = [set(_WORD.findall(other.casefold())) for other in others]
    seen = Counter(word for words in sets for word in words)
    idf = {word: math.log(1 + len(others) / count) for word, count in seen.items()}
    own = {word for word in _WORD.findall(text.casefold()) if word in idf}

    def weight(words: set[str]) -> float:
        return math.fsum(idf[word] ** 2 for word in words)

    likeness = [weight(own & words) / math.sqrt(weight(words)) if words else 0.0 for words in sets]
    order = sorted(range(len(others)), key=lambda place: -likeness[place])
    return [place for place in order if likeness[place] > 0]


def _field_key(entry: Correction) -> tuple[str, str, str, str]:
    return entry.sha256, entry.task, entry.domain, entry.path


def _content(entry: Correction) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude={"who", "when"})


def _read(text: str) -> Correction:
    return Correction.model_validate_json(text)


def _reply(reply: dict[str, Any]) -> Message:
    return {"role": "assistant", "content": json.dumps(reply, ensure_ascii=False)}


def _metadata(lesson: Lesson) -> dict[str, Any]:
    return {
        "document": lesson.document,
        "sha256": lesson.sha256,
        "task": lesson.task,
        "domain": lesson.domain,
        "judged": list(lesson.judged),
        **(lesson.metadata or {}),
    }


def _write(path: str | Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    with replaced(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count
