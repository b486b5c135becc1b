"""GPT-2's way to write any bytes as printable characters, used by every byte-level tokenizer.json.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 2.2, and the
files that came with it. Printable bytes of Latin-1 stand for themselves; the other 68 get U+0100 and up.
"""

from __future__ import annotations


def _characters() -> list[str]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


CHARACTER_OF_BYTE: list[str] = _characters()
BYTE_OF_CHARACTER: dict[str, int] = {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)}

_TO_CHARACTERS = {byte: ord(character) for byte, character in enumerate(CHARACTER_OF_BYTE)}


def to_characters(token: bytes) -> str:
    """b' the' -> 'Ġthe'."""
    return token.decode("latin-1").translate(_TO_CHARACTERS)


def to_bytes(written: str) -> bytes:
    """'Ġthe' -> b' the'. Raises KeyError for a character outside the alphabet."""
    return bytes([BYTE_OF_CHARACTER[character] for character in written])
