"""XML of strangers: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from glasshouse.core.errors import DataError
from glasshouse.files.xml import MAX_DEPTH, MAX_MARKS, parse_xml


def text(data: bytes) -> str:
    return "".join(parse_xml(data, "file.xml").itertext())


def refused(data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why) as caught:
        parse_xml(data, "file.xml")
    assert caught.value.where == "file.xml"
    assert caught.value.fix


def test_named_signs_of_an_external_dtd_are_known_without_it():
    """Nothing is fetched; a name that only the DTD knows stays as it stands."""
    doctype = b'<!DOCTYPE a PUBLIC "-//X//EN" "http://192.0.2.1/x.dtd">'
    root = parse_xml(doctype + b'<a b="&ndash;">&mdash;&lsqb;1&rsqb; &amp; &house;</a>', "file.xml")
    assert root.text == "—[1] & &house;"
    assert root.get("b") == "–"


def test_comments_and_cdata_are_not_touched():
    assert text(b"<a>x<!-- &mdash; --><![CDATA[&mdash;<b>]]>&mdash;</a>") == "x&mdash;<b>—"


def test_an_entity_that_is_one_sign_is_read():
    """Books declare `nbsp` themselves; patents name their pictures."""
    dtd = (
        b'<!DOCTYPE a [<!ENTITY nbsp "&#160;"> <!ENTITY b "&#38;#91;"><!ENTITY p SYSTEM "p.tif" NDATA TIF>]>'
    )
    assert text(dtd + b"<a>x&nbsp;y&b;</a>") == "x\xa0y["


@pytest.mark.parametrize(
    "dtd",
    [
        '<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">',
        '<!ENTITY c "' + "x" * 100_000 + '">',
        '<!ENTITY c "<b>x</b>">',
        '<!ENTITY c SYSTEM "file:///etc/hostname">',
        '<!ENTITY c PUBLIC "x" "http://192.0.2.1/">',
        '<!ENTITY % c SYSTEM "http://192.0.2.1/x.dtd"> %c;',
        "<!ENTITY % c '<!ENTITY d \"x\">'>",
        "<!-- > --><!ENTITY c SYSTEM 'file:///etc/hostname'>",
        '<!ENTITY\nc\nSYSTEM\n"file:///etc/hostname">',
        "<!ENTITY c>",
        '<!ENTITY c "&#0;">',
    ],
)
def test_entities_of_text_are_refused(dtd: str):
    """Billion laughs, quadratic blow-up, reads of local files and of the network."""
    refused(f"<!DOCTYPE a [{dtd}]><a>{'&c;' * 1000}</a>".encode(), "entity|entities")


def test_a_local_file_is_not_read(tmp_path: Path):
    secret = tmp_path / "secret.dtd"
    secret.write_text('<!ENTITY c "SECRET">')
    assert "SECRET" not in text(f'<!DOCTYPE a SYSTEM "{secret.as_uri()}"><a>&c;</a>'.encode())
    include = f'<xi:include href="{secret.as_uri()}" parse="text"/>'
    assert text(f'<a xmlns:xi="http://www.w3.org/2001/XInclude">{include}</a>'.encode()) == ""


@pytest.mark.parametrize("count", [MAX_DEPTH + 1, 100_000])
def test_deep_trees_are_refused(count: int):
    refused(b"<a>" * count + b"</a>" * count, "deep|depth")


def test_trees_as_deep_as_allowed_are_read():
    depth = MAX_DEPTH - 1
    assert text(b"<a>" * depth + b"x" + b"</a>" * depth) == "x"


def test_large_inputs_are_refused():
    with pytest.raises(DataError, match="at most 10 are read"):
        parse_xml(b"<a>12345678</a>", "file.xml", max_bytes=10)
    refused(b"<a>" + b"<b/>" * MAX_MARKS + b"</a>", "more than 6,000,000 tags")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00\x00",
        b"words",
        b"<a>",
        b"<a></b>",
        b"<a>&unknown;</a>",
        b"<a>\xff</a>",
        b"<!DOCTYPE a [",
        b"<!DOCTYPE a [<!-- ",
        b'<?xml version="1.0" encoding="zip"?><a/>',
        b'<?xml version="1.0" encoding="idna"?><a/>',
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b"<a/><!DOCTYPE a [<!ENTITY c 'x'>]>",
        b"\xff\xfe<",
    ],
)
def test_what_is_not_xml_is_refused(data: bytes):
    refused(data, ".")


def test_encodings():
    """By the mark, the declaration, or UTF-8."""
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert text("<a>é</a>".encode(encoding)) == "é"
    assert text('<?xml version="1.0" encoding="iso-8859-1"?><a>é</a>'.encode("latin-1")) == "é"
    assert text('<?xml version="1.0" encoding="UTF-16"?><a>é</a>'.encode("utf-16-le")) == "é"
    assert text("<?xml version='1.0' encoding='Shift_JIS'?><a>日本</a>".encode("shift_jis")) == "日本"
