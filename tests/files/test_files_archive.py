"""A ZIP archive is read only after it was shown to be what its directory says, and not too much of it."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.core.errors import DataError
from glasshouse.files import archive
from glasshouse.files.archive import open_archive, read_member


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


@given(
    st.dictionaries(st.text("abcdef/é", min_size=1).filter(lambda n: n[0] != "/"), st.binary(), max_size=5)
)
def test_a_sound_archive_gives_its_members(members: dict[str, bytes]) -> None:
    opened = open_archive(zipped(members), "a.zip")
    assert {name: read_member(opened, name, "a.zip") for name in members} == members


def test_stored_members_are_checked_too() -> None:
    data = zipped({"a": b"some words"}, zipfile.ZIP_STORED)
    assert read_member(open_archive(data, "a.zip"), "a", "a.zip") == b"some words"
    with pytest.raises(DataError, match="broken"):
        open_archive(data.replace(b"some words", b"other word"), "a.zip")


def bomb(size: int) -> bytes:
    """A deflated member of zeros, made without ever holding them."""
    packer, crc, packed = zlib.compressobj(9, zlib.DEFLATED, -15), 0, []
    chunk = bytes(1 << 20)
    for _ in range(size >> 20):
        packed.append(packer.compress(chunk))
        crc = zlib.crc32(chunk, crc)
    return member_archive(b"".join([*packed, packer.flush()]), size, crc)


def member_archive(packed: bytes, size: int, crc: int, name: bytes = b"word/document.xml") -> bytes:
    """An archive of one member whose directory says what it is told to say."""
    fields = (20, 0, 8, 0, 0, crc, len(packed), size, len(name), 0)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name + packed
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, 0, 0, 0, 0, 0) + name
    return local + entry + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bomb(64 << 20)
    monkeypatch.setattr(archive, "_unpack", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(DataError, match=r"ZIP bomb.*b\.docx"):
        open_archive(data, "b.docx")


def test_a_bomb_that_lies_in_its_directory_takes_no_memory() -> None:
    honest = bomb(64 << 20)
    packed = honest[30 + 17 : honest.index(b"PK\1\2")]
    lying = member_archive(packed, 1000, zlib.crc32(bytes(1000)))
    tracemalloc.start()
    with pytest.raises(DataError, match="more than the 1,000 bytes that the directory says"):
        open_archive(lying, "b.docx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_member_that_says_too_much_is_broken() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b"word " * 10) + packer.flush()
    with pytest.raises(DataError, match="broken"):
        open_archive(member_archive(packed, 60, zlib.crc32(b"word " * 10)), "b.docx")


def test_many_members_that_are_each_small_enough_are_too_large_together(monkeypatch) -> None:
    monkeypatch.setattr(
        archive._Left, "__init__", lambda self: self.__dict__.update(members=99, bytes=1 << 20)
    )
    with pytest.raises(DataError, match="unpacks to more than"):
        open_archive(zipped({f"{n}": bytes(100_000) for n in range(11)}), "b.zip")


def test_too_many_members_are_refused() -> None:
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *([0] * 16)) * (archive.MAX_MEMBERS + 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), 0, 0)  # and it says that it is one
    with pytest.raises(DataError, match="more than 20,000 members"):
        open_archive(entry + end, "b.zip")


def nested(depth: int, innermost: bytes) -> bytes:
    for _ in range(depth):
        innermost = zipped({"inner.zip": innermost, "words.txt": b"words"})
    return innermost


def test_embedded_files_are_let_through_but_not_a_tower_of_them() -> None:
    assert open_archive(nested(2, zipped({"a": b"b"})), "letter.docx").namelist()
    with pytest.raises(DataError, match="archives within archives"):
        open_archive(nested(3, zipped({"a": b"b"})), "letter.docx")


def test_a_nested_bomb_is_a_bomb() -> None:
    with pytest.raises(DataError, match="ZIP bomb"):
        open_archive(nested(1, bomb(64 << 20)), "letter.docx")


def test_nested_archives_share_one_limit(monkeypatch) -> None:
    monkeypatch.setattr(
        archive._Left, "__init__", lambda self: self.__dict__.update(members=99, bytes=1 << 20)
    )
    inner = zipped({f"{n}": bytes(300_000) for n in range(2)})
    open_archive(zipped({"1.zip": inner}), "one.zip")
    with pytest.raises(DataError, match="unpacks to more than"):
        open_archive(zipped({"1.zip": inner, "2.zip": inner}), "two.zip")


def test_a_broken_archive_within_is_let_through() -> None:
    assert open_archive(zipped({"inner.zip": zipped({"a": b"b"})[:-9]}), "a.docx").namelist() == ["inner.zip"]


def test_overlapping_members_are_refused() -> None:
    data = bytearray(zipped({"a": b"1" * 1000, "b": b"2" * 1000}))
    second = data.rindex(b"PK\1\2")
    first_offset = 0
    data[second + 42 : second + 46] = struct.pack("<L", first_offset)
    data[second + 46 : second + 47] = b"a"
    with pytest.raises(DataError, match="share their bytes"):
        open_archive(bytes(data), "b.zip")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "..\\x", "C:\\x", "c:x"])
def test_a_name_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(DataError, match="leads elsewhere"):
        open_archive(zipped({path: b"x"}), "b.zip")


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(zipped({"a": b"words"}))
    for at in (data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8):
        data[at] |= 1
    with pytest.raises(DataError, match="encrypted"):
        open_archive(bytes(data), "b.docx")


def test_an_encrypted_office_file_is_told_from_an_old_one() -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    with pytest.raises(DataError, match="encrypted"):
        open_archive(ole + "EncryptedPackage".encode("utf-16-le"), "a.docx")
    with pytest.raises(DataError, match="before 2007"):
        open_archive(ole, "a.docx")


def test_every_cut_of_an_archive_is_an_error() -> None:
    data = zipped({"a.xml": b"<a>some words</a>" * 20, "b.xml": b"<b/>"})
    for length in range(len(data)):
        with pytest.raises(DataError):
            open_archive(data[:length], "a.docx")


@given(st.data())
def test_a_changed_byte_never_ends_in_anything_but_a_data_error(drawn: st.DataObject) -> None:
    data = bytearray(zipped({"a.xml": b"<a>some words</a>" * 20, "b/": b"", "b/c.xml": b"<b/>"}))
    for _ in range(drawn.draw(st.integers(1, 3))):
        data[drawn.draw(st.integers(0, len(data) - 1))] = drawn.draw(st.integers(0, 255))
    try:
        opened = open_archive(bytes(data), "a.docx")
    except DataError:
        return
    for info in opened.infolist():
        assert len(opened.read(info)) == info.file_size


def test_other_content_is_told() -> None:
    with pytest.raises(DataError, match="no ZIP archive"):
        open_archive(b"%PDF-1.7 words", "a.docx")
    with pytest.raises(DataError, match="empty"):
        open_archive(b"", "a.docx")


def test_a_missing_or_too_large_part_is_named() -> None:
    opened = open_archive(zipped({"a": b"12345"}), "a.docx")
    with pytest.raises(DataError, match=r'"b" is missing.*a\.docx'):
        read_member(opened, "b", "a.docx")
    with pytest.raises(DataError, match="at most 4 are read"):
        read_member(opened, "a", "a.docx", limit=4)
