"""E-mails: the headers, the body, and the attachments that can be read."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass, field
from email.message import EmailMessage

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.charset import decode
from glasshouse.files.document import Document, Flag
from glasshouse.files.formats import format_of

MAX_ATTACHMENTS = 50
"""Read of one e-mail, those of e-mails within it counted with them."""
MAX_DEPTH = 3
"""E-mails attached to e-mails."""
MAX_PARTS = 1_000
MAX_NESTED = 100
"""Parts that hold other parts: true e-mails have fewer than ten."""

_SHOWN = ("From", "To", "Cc", "Date", "Subject")
_METADATA = {"From": "author", "To": "to", "Date": "date", "Subject": "title"}
_EMPTY_LINES = re.compile(r"\n\s*\n")


def read_mail(data: bytes, name: str) -> Document:
    """An e-mail: its headers as a "header" block, its body, then each attachment with its name as the place.

    The plain body is read, or the HTML one where there is no other. Attachments that cannot be read are named
    in the header block only. Raises DataError for a file without headers or without anything to read.
    """
    reading = _Reading(name)
    message = _parse(data, name)
    reading.message(message, None, 0)
    if reading.builder.characters == 0:
        raise DataError("this e-mail is empty", where=name, fix="leave it out")
    metadata = {ours: value for theirs, ours in _METADATA.items() if (value := _header(message, theirs))}
    return reading.builder.document(name, "eml", metadata=metadata, flags=tuple(reading.flags))


def _parse(data: bytes, name: str) -> EmailMessage:
    """The message; raises DataError where the bytes have no header, or more parts than any true e-mail."""
    # Deep nesting costs the parser stack and time: parts are announced by their boundaries.
    if data.count(b"boundary=") > MAX_PARTS:
        raise DataError(
            f"more than {MAX_PARTS:,} parts", where=name, fix="this is no true e-mail; leave it out"
        )
    try:
        message = email.message_from_bytes(data.lstrip(b"\r\n"), policy=email.policy.default)
    except (ValueError, LookupError, RecursionError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"a broken e-mail ({error})", where=name, fix="export it again") from None
    assert isinstance(message, EmailMessage)
    if not message.keys():
        raise DataError("no header of an e-mail", where=name, fix="name a text .txt")
    return message


@dataclass
class _Reading:
    name: str
    builder: Builder = field(default_factory=Builder)
    flags: list[Flag] = field(default_factory=list)
    attachments: int = 0

    def message(self, message: EmailMessage, place: str | None, depth: int) -> None:
        """Headers, body and attachments of one message; `place` where it is an attachment itself."""
        body = _body(message)
        attached = [part for part in _leaves(message) if part is not body and _is_attachment(part, message)]
        lines = [f"{header}: {value}" for header in _SHOWN if (value := _header(message, header))]
        names = [_name(part, number) for number, part in enumerate(attached, 1)]
        if names:
            lines.append("Attachments: " + ", ".join(names))
        self.builder.add("\n".join(lines), "header", place=place)
        if body is not None:
            self._body(body, place)
        for part, name in zip(attached, names, strict=True):
            self._attachment(part, name, place, depth)

    def _body(self, part: EmailMessage, place: str | None) -> None:
        text = _text(part)
        if part.get_content_subtype() == "html":
            from glasshouse.files.html import read_html

            try:
                self._take(read_html(text.encode(), self.name), place)
            except DataError as error:
                self.flags.append(Flag("broken", f"the body cannot be read: {error.what}"))
            return
        for paragraph in _EMPTY_LINES.split(text.replace("\r\n", "\n").replace("\x00", "")):
            self.builder.add(paragraph, place=place)

    def _attachment(self, part: EmailMessage, name: str, place: str | None, depth: int) -> None:
        within = f"attachment {name}" if place is None else f"{place}, attachment {name}"
        if self.attachments == MAX_ATTACHMENTS:
            if not any(flag.kind == "cut" for flag in self.flags):
                self.flags.append(Flag("cut", f"of the attachments, {MAX_ATTACHMENTS} were read"))
            return
        self.attachments += 1
        try:
            if part.get_content_type() == "message/rfc822":
                inner = part.get_payload(0) if part.is_multipart() else None
                if not isinstance(inner, EmailMessage):
                    raise DataError("a broken e-mail")
                self._nested(inner, within, depth)
                return
            data = part.get_payload(decode=True)
            if not isinstance(data, bytes):
                raise DataError("it has no content")
            format = format_of(data, name)
            if format.name == "eml":
                self._nested(_parse(data, name), within, depth)
            else:
                self._take(format.reader()(data, name), within)
        except DataError as error:
            self.flags.append(Flag("broken", f'the attachment "{name}" was not read: {error.what}'))

    def _nested(self, message: EmailMessage, place: str, depth: int) -> None:
        if depth == MAX_DEPTH:
            raise DataError("e-mails within e-mails, too deep")
        self.message(message, place, depth + 1)

    def _take(self, document: Document, place: str | None) -> None:
        """The blocks and flags of a part that another reader read."""
        for block in document.blocks:
            places = [where for where in (place, block.place) if where]
            self.builder.add(
                document.slice(block),
                block.kind,
                page=block.page,
                level=block.level,
                place=", ".join(places) or None,
                box=block.box,
            )
        for flag in document.flags:
            what = flag.what if place is None else f"{place}: {flag.what}"
            self.flags.append(Flag(flag.kind, what, flag.pages, flag.text))


def _leaves(message: EmailMessage) -> list[EmailMessage]:
    """The parts that hold something themselves; what is within an attached e-mail is not looked at."""
    found: list[EmailMessage] = []
    waiting: list[EmailMessage] = [message]
    while waiting and len(found) < MAX_PARTS:
        part = waiting.pop(0)
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting[:0] = [inner for inner in part.iter_parts() if isinstance(inner, EmailMessage)]
        else:
            found.append(part)
    return found


def _body(message: EmailMessage) -> EmailMessage | None:
    """The text to read: the first plain one, or the first HTML one, that is no attachment."""
    for subtype in ("plain", "html"):
        for part in _leaves(message):
            if (
                part.get_content_type() == f"text/{subtype}"
                and part.get_content_disposition() != "attachment"
            ):
                text = _text(part)
                if text.strip():
                    return part
    return None


def _is_attachment(part: EmailMessage, message: EmailMessage) -> bool:
    """Whether a part has a name or is an e-mail; the other form of the body has none."""
    if part is message:
        return part.get_content_disposition() == "attachment"
    named = part.get_filename() is not None or part.get_content_disposition() == "attachment"
    return part.get_content_type() == "message/rfc822" or named


def _name(part: EmailMessage, number: int) -> str:
    name = _one_line(part.get_filename() or "")
    if name:
        return name
    return f"message-{number}.eml" if part.get_content_type() == "message/rfc822" else f"attachment-{number}"


def _header(message: EmailMessage, name: str) -> str:
    """The values of a header, decoded, on one line; of a broken one what can be read."""
    try:
        values = message.get_all(name, [])
        return _one_line(", ".join(map(str, values)))
    except (ValueError, IndexError, AttributeError, TypeError, LookupError):
        raw = [value for key, value in message.raw_items() if key.lower() == name.lower()]
        return _one_line(" ".join(map(str, raw)))


def _one_line(value: str) -> str:
    """A header may be folded, and a broken one may hold control characters and bytes that are no text."""
    value = value.encode("utf-8", "replace").decode()
    return " ".join("".join(" " if letter < " " else letter for letter in value).split())


def _text(part: EmailMessage) -> str:
    data = part.get_payload(decode=True)
    return decode(data, part.get_content_charset()) if isinstance(data, bytes) else ""
