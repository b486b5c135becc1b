"""Streaming text: whole characters only, and stop strings never shown in part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glasshouse.inference.text_stream import TextStream


def stream_of(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[TextStream, list[str]]:
    stream = TextStream(lambda index: pieces[index], stop)
    out = [stream.feed(index) for index in range(len(pieces)) if not stream.stopped]
    return stream, [*out, stream.finish()]


@given(st.text(), st.lists(st.integers(1, 4), min_size=1))
def test_pieces_are_whole_characters(text: str, cuts: list[int]) -> None:
    """However the bytes are cut into tokens, pieces join to the text, and none holds half a character."""
    raw, pieces, place = text.encode("utf-8", "surrogatepass"), [], 0
    if b"\xed" in raw and text.encode("utf-8", "replace") != raw:
        return  # a lone surrogate is no text
    while place < len(raw):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(raw[place : place + size])
        place += size
    _, out = stream_of(pieces)
    assert "".join(out) == text
    assert (
        all("\N{REPLACEMENT CHARACTER}" not in piece for piece in out) or "\N{REPLACEMENT CHARACTER}" in text
    )


@given(st.lists(st.binary(max_size=5), max_size=20))
def test_any_bytes_decode_as_the_tokenizer_does(pieces: list[bytes]) -> None:
    """Broken bytes become U+FFFD, exactly as decoding everything at once gives them."""
    _, out = stream_of(pieces)
    assert "".join(out) == b"".join(pieces).decode("utf-8", errors="replace")


@given(
    st.lists(st.text("ab\n", max_size=4), max_size=12),
    st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_text_ends_before_the_first_stop_string(words: list[str], stops: list[str]) -> None:
    """What is given out is the text before the first stop string, and never any part of one too many."""
    text = "".join(words)
    stream, out = stream_of([word.encode() for word in words], tuple(stops))
    # The text grows token by token: the first token after which a stop string is complete decides.
    grown = ""
    for word in words:
        grown += word
        places = [grown.find(stop) for stop in stops if stop in grown]
        if places:
            assert stream.stopped
            assert "".join(out) == grown[: min(places)]
            return
    assert not stream.stopped
    assert "".join(out) == text


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    """`User` is not shown while `User:` may follow; it is when something else does."""
    stream, out = stream_of([b"Yes. Us", b"er", b" agrees. ", b"User", b":"], ("User:",))
    assert out == ["Yes. ", "", "User agrees. ", "", "", ""]
    assert stream.stopped
