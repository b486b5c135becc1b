"""E-mails: headers, body, attachments."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP

import pytest
from tests.files.pdf_maker import make_pdf, text
from tests.files.words import fixture_file, share_found

from glasshouse.core.errors import DataError
from glasshouse.files.mail import MAX_ATTACHMENTS, MAX_DEPTH, read_mail


def message(subject: str = "The contract") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Zoë Example <zoe@example.com>"
    mail["To"] = "Bob <bob@example.com>"
    mail["Date"] = "Mon, 02 Nov 2026 10:00:00 +0000"
    mail["Subject"] = subject
    return mail


@pytest.mark.parametrize("name", ["eml_simple.eml", "eml_with_attachment.eml"])
def test_words_of_the_fixtures(name: str) -> None:
    document = read_mail(fixture_file("fixtures", "email", name).read_bytes(), name)
    assert share_found(name, document.text) >= 0.95
    assert document.blocks[0].kind == "header"


def test_headers_are_decoded() -> None:
    mail = message("Grüße aus Köln")
    mail.set_content("Words.\n\nMore words.\n")
    document = read_mail(mail.as_bytes(policy=SMTP), "a.eml")
    header, *body = [document.slice(block) for block in document.blocks]
    assert header.splitlines() == [
        "From: Zoë Example <zoe@example.com>",
        "To: Bob <bob@example.com>",
        "Date: Mon, 02 Nov 2026 10:00:00 +0000",
        "Subject: Grüße aus Köln",
    ]
    assert body == ["Words.", "More words."]
    assert document.metadata["title"] == "Grüße aus Köln"


def test_plain_is_preferred_and_html_is_read_where_it_is_alone() -> None:
    mail = message()
    mail.set_content("The plain words.")
    mail.add_alternative("<p>The rich words.</p>", subtype="html")
    assert "rich" not in read_mail(mail.as_bytes(), "a.eml").text
    mail = message()
    mail.set_content("<p>The rich words.</p><p style='display:none'>obey me</p>", subtype="html")
    document = read_mail(mail.as_bytes(), "a.eml")
    assert document.text.endswith("The rich words.")
    assert [flag.kind for flag in document.flags] == ["hidden_text"]


def test_attachments_are_read_by_what_they_are() -> None:
    mail = message()
    mail.set_content("See below.")
    pdf = make_pdf([text("The signed page."), text("obey me", before="1 1 1 rg") + text("Page two.", y=500)])
    mail.add_attachment(pdf, maintype="application", subtype="octet-stream", filename="signed.bin")
    mail.add_attachment(b"\x89PNG\r\n", maintype="image", subtype="png", filename="logo.png")
    document = read_mail(mail.as_bytes(), "a.eml")
    assert "Attachments: signed.bin, logo.png" in document.slice(document.blocks[0])
    places = {document.slice(block): (block.place, block.page) for block in document.blocks[1:]}
    assert places == {
        "See below.": (None, None),
        "The signed page.": ("attachment signed.bin", 1),
        "Page two.": ("attachment signed.bin", 2),
    }
    assert [flag.kind for flag in document.flags] == ["hidden_text", "broken"]
    assert "logo.png" in document.flags[1].what


def test_mails_within_mails_are_bounded() -> None:
    inner = message("the innermost")
    inner.set_content("Deep words.")
    for depth in range(MAX_DEPTH + 2):
        outer = message(f"level {depth}")
        outer.set_content(f"Words of level {depth}.")
        outer.add_attachment(inner)
        inner = outer
    document = read_mail(inner.as_bytes(), "a.eml")
    assert document.text.count("Words of level") == MAX_DEPTH + 1
    assert "too deep" in document.flags[-1].what


def test_many_attachments_are_cut() -> None:
    mail = message()
    mail.set_content("Words.")
    for number in range(MAX_ATTACHMENTS + 10):
        mail.add_attachment(f"note {number}", filename=f"{number}.txt")
    document = read_mail(mail.as_bytes(), "a.eml")
    assert sum(block.place is not None for block in document.blocks) == MAX_ATTACHMENTS
    assert [flag.kind for flag in document.flags] == ["cut"]


HOSTILE = {
    "no header": b"Just words without any header.\n",
    "many parts": b"From: a\nContent-Type: multipart/mixed; boundary=b\n\n"
    + b"--b\nContent-Type: x; boundary=c\n" * 5_000,
    "nested parts": b"From: a\n"
    + b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(900)),
    "broken headers": b"From: =?utf-8?b?////?= <a@\nTo: \xff\xfe\nSubject: =?x?q?y?=\n\nWords.\n",
    "unknown charset": b'From: a@b\nContent-Type: text/plain; charset="nonsense"\n\nWords.\n',
    "broken base64": b"From: a@b\nContent-Transfer-Encoding: base64\n\nWords!\n",
    "bare": b"From: a@b\n",
    "zero bytes": b"From: a\x00b\nSubject: x\x00y\n\nWords\x00.\n",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_mails_end_in_an_error_or_a_document(how: str) -> None:
    try:
        document = read_mail(HOSTILE[how], "a.eml")
    except DataError as error:
        assert "a.eml" in str(error)  # noqa: PT017
    else:
        assert document.text
        assert "\x00" not in document.text
