"""Chunks: the whole text once, never over the limit by the exact count, and nothing cut that fits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import DataError, UsageError
from glasshouse.documents.chunking.chunks import Chunk, chunk
from glasshouse.documents.chunking.sentences import sentences
from glasshouse.documents.values.figures import figures
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document

TOKEN = re.compile(r"[^\W\d_]{1,6}|\d{1,3}|[^\w\s]|_|\s+(?=\s)|\n")


def words(text: str) -> int:
    """Tokens by a pattern that merges over the borders of pieces, as real ones do."""
    return len(TOKEN.findall(text))


def checked(document: Document, limit: int, **options: int) -> list[Chunk]:
    """Chunks that keep every promise that holds for all documents."""
    chunks = chunk(document, limit, words, **options)
    at = 0
    for place, part in enumerate(chunks):
        assert part.index == place
        assert document.text[at : part.start].strip() == ""
        assert part.start < part.end
        assert part.text == document.text[part.start : part.end]
        assert part.text == part.text.strip()
        assert part.tokens == words(part.text) <= limit
        at = part.end
    assert document.text[at:].strip() == ""
    assert chunks == chunk(document, limit, words, **options)
    return chunks


def of(*blocks: tuple[str, str] | str, **more: int) -> Document:
    builder = Builder()
    for block in blocks:
        kind, text = ("paragraph", block) if isinstance(block, str) else block
        level = int(kind[-1]) if kind[-1].isdigit() else None
        builder.add(text, kind.rstrip("123"), level=level)  # pyright: ignore[reportArgumentType]
    return builder.document("a.txt", "text")


SENTENCES = [
    "The cat sat on the mat.",
    "It rained.",
    "Who knows; perhaps, in the end, nobody does?",
    "1.2 Fees.",
    "(a) The buyer pays the price that was agreed on.",
    "Acme Inc. agreed",
    "x" * 40,
    "a, b, c, d, e, f, g, h",
    "多くの人が来た。本を読む。",
    "of the\nwrapped line",
    "Total | 5 | 6\nMore | 7 | 8",
]
BLOCKS = st.tuples(
    st.sampled_from(
        ["paragraph", "paragraph", "heading1", "heading2", "list_item", "table", "code", "caption"]
    ),
    st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=12).map(" ".join),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(BLOCKS, max_size=25), st.integers(8, 120))
def test_any_document_at_any_limit(blocks: list[tuple[str, str]], limit: int) -> None:
    document = of(*blocks)
    chunks, spans = checked(document, limit), sentences(document.text)
    for part in chunks[1:]:  # whatever a cut goes through is too long to stand whole
        for block in document.blocks:
            # A sentence that runs on from one block to the next is cut as one, wherever that must be.
            runs_on = any(first < block.start < last or first < block.end < last for first, last in spans)
            if block.start < part.start < block.end and not runs_on:
                cut = document.slice(block)
                units = [span for span in sentences(cut) if block.kind not in ("table", "code")]
                units += [
                    match.span() for match in re.finditer(r".+", cut) if block.kind in ("table", "code")
                ]
                inside = [span for span in units if span[0] < part.start - block.start < span[1]]
                assert all(words(cut[slice(*span)].strip()) > limit for span in inside)
                assert words(cut) > limit


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.integers(3, 40))
def test_any_text_at_all(text: str, limit: int) -> None:
    checked(of(text), limit)


def test_a_document_that_fits_is_one_chunk_and_counted_once() -> None:
    calls: list[str] = []
    document = of(("heading1", "Title"), "Some text.", "More.")
    chunks = chunk(document, 100, lambda text: len(calls.append(text) or text.split()), context=50)
    assert [part.text for part in chunks] == [document.text]
    assert (chunks[0].before, chunks[0].after, len(calls)) == ("", "", 1)


def test_an_empty_document_has_no_chunks() -> None:
    assert chunk(Document("a", "", (), "text"), 10, words) == []
    assert chunk(Document("a", " \n ", (), "text"), 10, words) == []


def test_text_outside_of_any_block_is_not_lost() -> None:
    chunks = checked(Document("a", "One two three. Four five six. Seven eight nine.", (), "text"), 6)
    assert [part.text for part in chunks] == ["One two three.", "Four five six.", "Seven eight nine."]


def test_cuts_prefer_headings_to_paragraphs_to_sentences() -> None:
    long = "One two three four. Five six seven eight."
    chunks = checked(of(("heading1", "A"), long, long, ("heading1", "B"), long, long), 32)
    assert [part.text[:5] for part in chunks] == ["A\n\nOn", "B\n\nOn"]
    chunks = checked(of(long, long, long), 22)
    assert [words(part.text) for part in chunks] == [22, 10]
    chunks = checked(of(f"{long} {long}"), 14)
    assert all(part.text.endswith(".") for part in chunks)


def test_a_numbered_section_in_a_long_paragraph_stays_whole() -> None:
    clause = "2.{} Term. This holds for a year. It is renewed for a year. Either party may end it."
    text = " ".join(clause.format(number) for number in range(9))
    for limit in range(words(clause) + 3, 200, 7):
        for part in checked(of(text), limit):
            assert part.text.startswith("2.")


def test_no_heading_stands_at_the_end_of_a_chunk() -> None:
    blocks = [block for n in range(40) for block in (("heading2", f"Part {n}"), f"It is about {n}. " * 3)]
    for part in checked(of(*blocks), 60):
        assert not re.search(r"Part \d+\Z", part.text)


def test_a_sentence_that_a_page_breaks_is_not_cut_there() -> None:
    first, last = "One two three. The buyer shall", "pay the price. Four five six."
    chunks = checked(of(first, "7", last), 16)
    assert any("shall\n\n7\n\npay the price." in part.text for part in chunks)


def test_a_long_table_is_cut_between_rows_and_its_first_row_repeated() -> None:
    rows = ["Name | Revenue", *(f"Company {n} | {n * 100}" for n in range(60))]
    document = of("Before.", ("table", "\n".join(rows)), "After.")
    chunks = checked(document, 50)
    assert len(chunks) > 5
    for part in chunks:
        assert all(line in rows or line in ("Before.", "After.", "") for line in part.text.split("\n"))
        inside = part.start > document.blocks[1].start and part.start < document.blocks[1].end
        assert part.before == ("Name | Revenue" if inside else "")


def test_the_path_of_headings_is_what_stands_above_the_first_character() -> None:
    document = of(("heading1", "One"), ("heading2", "One A"), "Text here. " * 6, ("heading2", "One B"),
                  "Text here. " * 6, "More text. " * 6, ("heading1", "Two"), "Last text. " * 6)  # fmt: skip
    chunks = checked(document, 27)
    paths = {part.text[:9]: part.headings for part in chunks}
    assert paths == {
        "One\n\nOne ": (),
        "One B\n\nTe": ("One",),
        "More text": ("One", "One B"),
        "Two\n\nLast": (),
    }


def test_pages_are_those_of_a_chunks_blocks() -> None:
    builder = Builder()
    for page in range(1, 7):
        builder.add(f"This is page {page}. It says little.", page=page)
    chunks = checked(builder.document("a.pdf", "pdf", pages=6), 20)
    assert [part.pages for part in chunks] == [(1, 2), (3, 4), (5, 6)]
    assert checked(of("no pages"), 20)[0].pages is None


def test_context_is_whole_sentences_next_to_the_chunk_within_its_tokens() -> None:
    text = " ".join(f"This is the sentence number {n} of them." for n in range(60))
    document = of(text)
    known = {text[start:end] for start, end in sentences(text)}
    for part in checked(document, 70, context=25):
        assert words(part.before) <= 25
        assert words(part.after) <= 25
        assert (len(sentences(part.before)), len(sentences(part.after))) == (
            0 if part.start == 0 else 2,
            0 if part.end == len(text) else 2,
        )
        for side in (part.before, part.after):
            assert {side[start:end] for start, end in sentences(side)} <= known
        assert f"{part.before} {part.text} {part.after}".strip() in text


def test_sizes_are_even() -> None:
    text = " ".join("One two three four five six seven eight nine." for _ in range(41))  # 10 tokens each
    sizes = [part.tokens for part in checked(of(text), 100)]
    assert sizes == pytest.approx([82] * 5, abs=10)


def test_counting_is_asked_for_a_few_times_a_chunk() -> None:
    calls = 0

    def count(text: str) -> int:
        nonlocal calls
        calls += 1
        return words(text)

    paragraph = "The buyer pays what the seller asks. " * 6
    chunks = chunk(of(*[paragraph] * 400), 300, count)
    assert calls <= 4 * len(chunks)
    calls = 0
    chunks = chunk(of(*[paragraph] * 400), 300, count, context=40)
    assert calls <= 8 * len(chunks)


def test_a_count_that_the_estimates_cannot_foresee_still_keeps_the_limit() -> None:
    def count(text: str) -> int:  # capital letters are dear, and pairs of them dearer
        return len(text.split()) + 9 * sum(letter.isupper() for letter in text) + 5 * text.count("QQ")

    blocks = [
        "plain words here and there. " * 5,
        "QQQQ ABC. " * 6,
        "more plain words in a row. " * 8,
        "XYZ QQ " * 30,
    ]
    document = of(*blocks * 6)
    chunks = chunk(document, 120, count)
    assert all(count(part.text) <= 120 for part in chunks)
    assert re.sub(r"\s", "", "".join(part.text for part in chunks)) == re.sub(r"\s", "", document.text)


def test_limits_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(UsageError, match="0 tokens"):
        chunk(of("a"), 0, words)
    with pytest.raises(DataError, match="one character takes more than 2 tokens"):
        chunk(of("aaaa"), 2, lambda text: 3 * len(text))


@pytest.mark.parametrize(
    "unit", [" ", "\n", " \n", "\u00a0", ". ", " .", "(", "( ", "the\n\n7\n\n", "Inc. ", "$ ", '."']
)
def test_the_work_does_not_grow_faster_than_the_text(unit: str) -> None:
    """Runs of one thing are where patterns become slow: this takes minutes if one of them is quadratic."""
    text = "a" + unit * (60_000 // len(unit)) + "b"
    spans = sentences(text)
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert figures(text) == [] or "7" in unit
    assert chunk(of(text), 6_000, len)[-1].text.endswith("b")
