"""ZIP archives of strangers, checked before a part is kept: Office, OpenDocument and EPUB files."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

from glasshouse.core.errors import DataError

MAX_MEMBERS = 20_000
"""Of an archive with all archives within it. A deck of 2,000 slides has about 10,000."""

MAX_UNPACKED_BYTES = 512 << 20
"""Of an archive with all archives within it."""

MAX_MEMBER_BYTES = 256 << 20
"""Of one member, unpacked."""

MAX_RATIO = 250
"""Unpacked over packed, of a member above RATIO_FREE_BYTES. A large sheet's XML reaches 50, a bomb 1,000."""

RATIO_FREE_BYTES = 8 << 20
"""A member that unpacks to less may be packed as well as it likes."""

MAX_DEPTH = 3
"""Archives in archives: a letter with an embedded deck with the sheet of a chart has three."""

_ENTRY = b"PK\1\2"  # begins a member's entry in the directory
_HEADER = struct.Struct("<4s5H3L2H")  # stands before a member's bytes
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # begins encrypted Office files, and the formats before 2007
_CHUNK_BYTES = 1 << 18
_BROKEN = (
    zipfile.BadZipFile,
    NotImplementedError,
    OverflowError,
    ValueError,
    EOFError,
    OSError,
    struct.error,
)
"""What zipfile raises on broken archives."""

_AGAIN = "copy or download the file again"
_TRUST = "if you trust it, unpack it and pass the parts that you need"


class _Bomb(DataError):
    """Made to fill memory. A broken archive within another harms nobody, but this does."""


@dataclass
class _Left:
    """Of an archive with all archives within it."""

    members: int = MAX_MEMBERS
    bytes: int = MAX_UNPACKED_BYTES


def open_archive(data: bytes, name: str) -> zipfile.ZipFile:
    """The archive, after its directory and then all of its members were checked.

    Every member was unpacked once, piece by piece and without keeping it: what it unpacks to is what the
    directory says, with the right checksum, so reading a member takes no more memory than its `file_size`,
    whoever reads it. Archives within it count with it, and are not opened by any reader.

    Raises DataError, with `name` in it, for anything but a sound ZIP archive: a bomb (too many members, too
    large, packed too well, members that overlap or that are larger than the directory says, archives nested
    too deep), a name that is absolute or has `..`, an encrypted member, a broken or cut-off file.
    """
    if not data:
        raise DataError("the file is empty", where=name, fix=_AGAIN)
    if data.startswith(_OLE):
        raise _ole(data, name)
    return _checked(data, name, _Left(), 1)


def read_member(archive: zipfile.ZipFile, member: str, name: str, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """The bytes of one member of what `open_archive` gave; `name` is the archive's.

    Raises DataError where there is no such member, or where it has more than `limit` bytes.
    """
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise DataError(f'the part "{member}" is missing', where=name, fix=_AGAIN) from None
    if info.file_size > limit:
        raise DataError(
            f'the part "{member}" has {info.file_size:,} bytes, at most {limit:,} are read',
            where=name,
            fix="split the file into smaller ones",
        )
    return archive.read(info)


def _checked(data: bytes, name: str, left: _Left, depth: int) -> zipfile.ZipFile:
    # Counted before the directory is read: each entry takes some hundred bytes of memory, and no count that
    # the file gives of its own entries has to be true.
    if data.count(_ENTRY) > left.members:
        raise _Bomb(f"a ZIP archive with more than {MAX_MEMBERS:,} members", where=name, fix=_TRUST)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _BROKEN as error:
        if data.startswith(b"PK"):
            raise DataError(f"a broken or cut-off archive ({error})", where=name, fix=_AGAIN) from None
        raise DataError("this is no ZIP archive", where=name, fix="check what kind of file it is") from None
    for member in archive.infolist():
        _check_entry(member, name)
        left.members -= 1
        left.bytes -= member.file_size
    if left.members < 0 or left.bytes < 0:
        most = f"{MAX_UNPACKED_BYTES >> 20} MiB or {MAX_MEMBERS:,} members"
        raise _Bomb(f"the archive unpacks to more than {most}", where=name, fix=_TRUST)
    for member, begin in _places(data, archive, name):
        packed = memoryview(data)[begin : begin + member.compress_size]
        nested = _unpack(member, packed, name)
        if nested is None:
            continue
        if depth == MAX_DEPTH:
            raise _Bomb(f"archives within archives, more than {MAX_DEPTH} deep", where=name, fix=_TRUST)
        try:
            _checked(nested, f"{name}: {member.filename}", left, depth + 1)
        except _Bomb:
            raise
        except DataError:
            continue  # nobody opens it
    return archive


def _check_entry(member: zipfile.ZipInfo, name: str) -> None:
    """What the directory says of a member."""
    path = member.orig_filename
    shown = repr(path[:100])
    parts = path.replace("\\", "/").split("/")
    if not parts[0] or ":" in parts[0] or ".." in parts or "\0" in path:
        raise DataError(f"the name of a member leads elsewhere: {shown}", where=name, fix="do not unpack it")
    if member.flag_bits & 1:
        raise DataError(f"the member {shown} is encrypted", where=name, fix="save it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"the member {shown} is packed by method {member.compress_type}, not stored or deflated",
            where=name,
            fix="save the file again with the program that it is of",
        )
    if member.file_size > MAX_MEMBER_BYTES:
        most = f"{MAX_MEMBER_BYTES >> 20} MiB"
        raise _Bomb(f"the member {shown} unpacks to more than {most}", where=name, fix=_TRUST)
    if member.file_size > max(RATIO_FREE_BYTES, MAX_RATIO * member.compress_size):
        sizes = f"{member.compress_size:,} bytes to {member.file_size:,}"
        raise _Bomb(f"a ZIP bomb: the member {shown} unpacks from {sizes}", where=name, fix=_TRUST)


def _places(data: bytes, archive: zipfile.ZipFile, name: str) -> list[tuple[zipfile.ZipInfo, int]]:
    """Each member and where its packed bytes begin in `data`; no two members share any."""
    places: list[tuple[zipfile.ZipInfo, int]] = []
    end = 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        begin = member.header_offset
        shown = repr(member.filename[:100])
        if begin < end:
            raise _Bomb(f"a ZIP bomb: members share their bytes ({shown})", where=name, fix=_TRUST)
        try:
            archive.open(member).close()  # checks the header against the directory
            *_, name_bytes, extra_bytes = _HEADER.unpack_from(data, begin)
        except (*_BROKEN, RuntimeError) as error:
            raise DataError(f"the member {shown} is broken ({error})", where=name, fix=_AGAIN) from None
        begin += _HEADER.size + name_bytes + extra_bytes
        end = begin + member.compress_size
        if end > len(data):
            raise DataError(f"the member {shown} is cut off", where=name, fix=_AGAIN)
        places.append((member, begin))
    return places


def _unpack(member: zipfile.ZipInfo, packed: memoryview, name: str) -> bytes | None:
    """Checks that a member unpacks to what the directory says; its bytes where it is an archive itself."""
    size, checksum, kept = 0, 0, io.BytesIO()
    nested = False
    for piece in _pieces(member, packed, name):
        if size == 0:
            nested = piece.startswith(b"PK\3\4")
        size += len(piece)
        if size > member.file_size:
            raise _Bomb(
                f"a ZIP bomb: the member {member.filename[:100]!r} unpacks to more than the "
                f"{member.file_size:,} bytes that the directory says",
                where=name,
                fix=_TRUST,
            )
        checksum = zlib.crc32(piece, checksum)
        if nested:
            kept.write(piece)
    if size != member.file_size or checksum != member.CRC:
        raise DataError(f"the member {member.filename[:100]!r} is broken", where=name, fix=_AGAIN)
    return kept.getvalue() if nested else None


def _pieces(member: zipfile.ZipInfo, packed: memoryview, name: str):
    """What a member unpacks to, in pieces of bounded length."""
    if member.compress_type == zipfile.ZIP_STORED:
        for begin in range(0, len(packed), _CHUNK_BYTES):
            yield bytes(packed[begin : begin + _CHUNK_BYTES])
        return
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    begin, rest = 0, b""
    while not unpacker.eof:
        if not rest:
            rest = bytes(packed[begin : begin + _CHUNK_BYTES])
            begin += len(rest)
        try:
            piece = unpacker.decompress(rest, _CHUNK_BYTES)
        except zlib.error as error:
            shown = repr(member.filename[:100])
            raise DataError(f"the member {shown} is broken ({error})", where=name, fix=_AGAIN) from None
        if not piece and not unpacker.eof and begin >= len(packed):
            return  # cut off: the size will not be right
        rest = unpacker.unconsumed_tail
        if piece:
            yield piece


def _ole(data: bytes, name: str) -> DataError:
    """Office encrypts a file by wrapping it in the container of its old formats."""
    if "EncryptedPackage".encode("utf-16-le") in data:
        return DataError("the file is encrypted", where=name, fix="save it without a password")
    return DataError(
        "an Office file of before 2007 (.doc, .xls, .ppt), or a broken one",
        where=name,
        fix="save it as .docx, .xlsx or .pptx",
    )
