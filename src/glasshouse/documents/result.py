"""What an analysis gives: the answer, every quote looked up, how sure it is, and how it came about."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from glasshouse.core.config import Config

Task = Literal["summary", "extraction", "reasoning", "classification", "sentiment"]
TASKS: tuple[Task, ...] = ("summary", "extraction", "reasoning", "classification", "sentiment")


class QuoteCheck(Config):
    """A quote of the model's, and where the document has it."""

    asked: str  # the model's words
    status: Literal["verbatim", "near", "missing"]  # equal up to white space; like it; not there
    start: int | None = None  # characters of Document.text, half open
    end: int | None = None
    page: int | None = None
    text: str | None = None  # what stands there: the slice
    difference: str | None = None  # of a near one, in one line: "'30 days' for '60 days'"
    similarity: float | None = None  # 0 to 1
    times: int = 1  # how often it stands in the document; the place is the first


class FieldResult(Config):
    """One value of an answer, and how far it can be relied on."""

    path: str  # "revenue", "findings[0].finding", "primary"
    value: Any = None  # None: not mentioned
    quotes: tuple[QuoteCheck, ...] = ()
    token_probability: float | None = None  # of the value's tokens; None where the backend tells none
    vote_share: float | None = None  # of the samples that say the same; None where one was asked
    quote_match: float | None = None  # 1 verbatim and it holds the value, 0 missing; None: no quote is due
    confidence: float | None = Field(default=None, ge=0, le=1)
    calibrated: bool = False  # the confidence comes true as often as it says, as labelled examples showed


class CheckFinding(Config):
    """What a rule of the domain says about the fields: a total that does not add up, dates out of order."""

    check: str
    paths: tuple[str, ...]
    what: str  # one sentence, with the figures
    passed: bool


class Contradiction(Config):
    """Two parts of a document that disagree about a field, and which of them the answer follows."""

    path: str
    values: tuple[Any, ...]  # the chosen one first
    quotes: tuple[QuoteCheck, ...]  # one for each value
    resolution: str  # one sentence: why the first


class Notice(Config):
    """One line that whoever reads the result should see."""

    kind: str  # "unfamiliar", "uncalibrated", "hidden_text", "cut", ...
    what: str


class ChunkResult(Config):
    """What one part of the document gave."""

    index: int
    start: int
    end: int
    pages: tuple[int, int] | None = None
    tokens: int | None = None  # of the chunk's own text
    success: bool
    error: str | None = None
    parsing_failed: bool = False  # a reply came, and it was no object of the schema
    value: dict[str, Any] | None = None
    raw: tuple[str, ...] = ()  # the replies as they came, of every try and vote
    seconds: float | None = None


class Result(Config):
    """The analysis of one document. JSON of it is one line of `results.jsonl`."""

    document: str
    task: Task
    domain: str
    model: str
    prompt: str  # "extraction@1 3f9c2ab0": name, version, hash
    success: bool
    error: str | None = None
    value: dict[str, Any] | None = None  # of the task's type; extraction: the schema's own object
    fields: tuple[FieldResult, ...] = ()
    confidence: float | None = None  # of the whole: see confidence.py
    calibrated: bool = False
    review: tuple[str, ...] = ()  # paths of fields that somebody should look at
    themes: tuple[str, ...] = ()  # of a long document, what its parts have in common
    contradictions: tuple[Contradiction, ...] = ()
    checks: tuple[CheckFinding, ...] = ()
    notices: tuple[Notice, ...] = ()
    quotes_dropped: int = 0  # quotes that stand nowhere in the document
    chunks: int = 0
    chunk_results: tuple[ChunkResult, ...] = ()
    parsing_failed: bool = False
    seconds: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    cost: float | None = None  # US dollars; None where no price is known
    sha256: str = ""  # of the document's text
    file_sha256: str = ""  # of its file, as it was when it was analyzed; "" where none was read
