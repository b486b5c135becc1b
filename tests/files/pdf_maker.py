"""PDF files for tests, written byte by byte so that each shows one thing."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

FONTS = b"""<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding
<< /Type /Encoding /BaseEncoding /WinAnsiEncoding /Differences [1 /fi /fl] >> >>
/F2 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>
/F3 << /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>
/F4 << /Type /Font /Subtype /Type3 /FontBBox [0 0 8 8] /FontMatrix [1 0 0 1 0 0] /Resources << >>
/CharProcs << /a 9999 0 R >> /Encoding << /Type /Encoding /Differences [97 /a] >>
/FirstChar 97 /LastChar 97 /Widths [9] >> >>"""
DRAWN = b"9 0 0 0 8 8 d1 0 0 3 8 re f 5 0 3 8 re f"  # the letter of F4: two bars
PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def text(
    words: str, x: float = 72, y: float = 700, size: float = 12, font: str = "F1", before: str = ""
) -> str:
    """The operators that write one line at a place of the page."""
    escaped = words.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return f"q BT {before} /{font} {size} Tf {x} {y} Td ({escaped}) Tj ET Q\n"


def lines(
    *rows: str, x: float = 72, y: float = 700, size: float = 12, pitch: float = 14, font: str = "F1"
) -> str:
    """Lines below each other."""
    return "".join(text(row, x, y - place * pitch, size, font) for place, row in enumerate(rows))


def make_pdf(
    pages: Sequence[str],
    *,
    image: tuple[int, int, bytes] | None = None,  # width, height, grey values; "/Im1 Do", full page "/Fm1 Do"
    note: str = "",  # a box with words that lies over the first page, as viewers add them
    rotate: int = 0,
    box: str = "0 0 612 792",
    compress: bool = False,
    password: str | None = None,
    shared: bool = False,  # all pages show the first one's content
) -> bytes:
    """A PDF 1.4 file with one content stream a page."""
    key, encrypt = _encryption(password)

    def stream(number: int, header: bytes, data: bytes) -> bytes:
        if compress:
            data, header = zlib.compress(data, 9), header + b" /Filter /FlateDecode"
        if key is not None:
            data = _rc4(
                hashlib.md5(key + number.to_bytes(3, "little") + b"\0\0").digest()[: len(key) + 5], data
            )
        return b"<< " + header + b" /Length %d >>\nstream\n" % len(data) + data + b"\nendstream"

    objects: dict[int, bytes] = {1: b"<< /Type /Catalog /Pages 2 0 R >>"}
    resources = b"/Font 3 0 R /ExtGState << /Clear << /ca 0 >> >>"
    objects[3] = FONTS.replace(b"9999", b"%d" % (9 + 2 * len(pages)))
    objects[9 + 2 * len(pages)] = stream(9 + 2 * len(pages), b"", DRAWN)
    if image is not None:
        width, height, grey = image
        header = b"/Type /XObject /Subtype /Image /Width %d /Height %d" % (width, height)
        objects[4] = stream(4, header + b" /ColorSpace /DeviceGray /BitsPerComponent 8", grey)
        last = 5 + 2 * len(pages)
        form = b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << /XObject << /Im1 4 0 R >> >>"
        objects[last] = stream(last, form, b"q 612 0 0 792 0 0 cm /Im1 Do Q")
        resources += b" /XObject << /Im1 4 0 R /Fm1 %d 0 R >>" % last
    kids = []
    if note:
        last = 7 + 2 * len(pages)
        header = b"/Type /XObject /Subtype /Form /BBox [0 0 328 30] /Resources << /Font 3 0 R >>"
        objects[last] = stream(last, header, text(note, 5, 10).encode())
        look = b"/F 4 /DA () /AP << /N %d 0 R >>" % last
        objects[last + 1] = b"<< /Type /Annot /Subtype /FreeText /Rect [72 300 400 330] %s >>" % look
    for place, content in enumerate(pages):
        page, stream_number = 5 + 2 * place, 6 + 2 * place
        kids.append(b"%d 0 R" % page)
        if not shared or place == 0:
            objects[stream_number] = stream(stream_number, b"", content.encode("latin-1"))
        shown = 6 if shared else stream_number
        notes = b"/Annots [%d 0 R]" % (8 + 2 * len(pages)) if note and place == 0 else b""
        objects[page] = b"<< /Type /Page /Parent 2 0 R /MediaBox [%s] /Rotate %d" % (
            box.encode(),
            rotate,
        ) + b" /Resources << %s >> /Contents %d 0 R %s >>" % (resources, shown, notes)
    objects[2] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(pages), b" ".join(kids))
    if encrypt:
        objects[max(objects) + 1] = encrypt
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = {}
    for number in sorted(objects):
        places[number] = len(out)
        out += b"%d 0 obj\n" % number + objects[number] + b"\nendobj\n"
    start = len(out)
    size = max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % places[number] if number in places else b"0000000000 00000 f \n"
    trailer = b"/Size %d /Root 1 0 R" % size
    if encrypt:
        trailer += b" /Encrypt %d 0 R /ID [<00> <00>]" % (size - 1)
    return bytes(out + b"trailer\n<< " + trailer + b" >>\nstartxref\n%d\n%%%%EOF\n" % start)


def _encryption(password: str | None) -> tuple[bytes | None, bytes]:
    """The file's key and its encryption dictionary: the standard handler of PDF 1.1, RC4 with 40 bits."""
    if password is None:
        return None, b""
    user = (password.encode() + PAD)[:32]
    owner = _rc4(hashlib.md5((b"owner" + PAD)[:32]).digest()[:5], user)
    permissions = (-4).to_bytes(4, "little", signed=True)
    key = hashlib.md5(user + owner + permissions + b"\x00").digest()[:5]
    dictionary = b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (
        owner.hex().encode(),
        _rc4(key, PAD).hex().encode(),
    )
    return key, dictionary


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)
