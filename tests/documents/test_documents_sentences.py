"""Sentence ends, against a list made by hand and against texts that others divided into sentences."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.documents.chunking.sentences import sentences

HAND = [
    ["Mr. Smith of Acme Inc. paid $1.5 million.", "The U.S. Court agreed; see Sec. 2.1.3 and Fig. 4."],
    ["Was it fair?", "No.", "It was not.", "See No. 5 of the list."],
    ["J. R. R. Tolkien wrote it.", "Roe v. Wade was decided.", "Smith et al. (2019) say so."],
    [
        "It grew at Acme Inc.",
        "The company is old.",
        "At 5 p.m. we left.",
        "Dr. Who is e.g. a film (cf. Bond).",
    ],
    [
        'He said, "Stop."',
        "Then he left.",
        "(It was late.)",
        "She wrote to a.b@c.org and looked at x.com/a.b.",
    ],
    ["Wait... what?", "It went on...", "And on!"],
    [
        "1. Services.",
        "1.1 Provision of Services.",
        "(a) Provider agrees.",
        "(b) Recipient may.",
        "2.1.3 Fees are due.",
    ],
    ["¿Qué hora es?", "Son las 3.", "¡Vaya!", "El Sr. García llegó a las 5 p. m. y se fue."],
    ["Die Firma z. B. Müller GmbH wuchs um 3,5 %.", "Am 3. Mai kam Hr. Meier.", "Gut."],
    ["Что это?", "Это книга.", "А. С. Пушкин родился в Москве."],
    ["The lists are: a. Trucks; b. Cranes; and c. Loaders.", "They are old."],
    ["It rose to 3.5.", "Then 12 % more.", "Profit was (12.3) million."],
]


@pytest.mark.parametrize("expected", HAND, ids=lambda lines: lines[0][:20])
def test_a_paragraph_of_known_sentences(expected: list[str]) -> None:
    text = " ".join(expected)
    assert [text[start:end] for start, end in sentences(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("彼は来た。「本当？」と言った。次の日！", ["彼は来た。", "「本当？」と言った。", "次の日！"]),
        ("हिन्दी में लिखा। दूसरा वाक्य।", ["हिन्दी में लिखा।", "दूसरा वाक्य।"]),
        ("A heading\nThe first line of a text that is wrapped where the\nline ends. And more of it.",
         ["A heading", "The first line of a text that is wrapped where the\nline ends.", "And more of it."]),
        ("We need:\n- one thing\n- another\n\nThe end", ["We need:", "- one thing", "- another", "The end"]),
        ("Revenue | 2019 | 2018\nTotal | 5 | 6", ["Revenue | 2019 | 2018", "Total | 5 | 6"]),
        ("The parties agree that the\n\n7\n\nSupplier delivers. Done.\n\n8\n\nNew",
         ["The parties agree that the\n\n7\n\nSupplier delivers.", "Done.", "8", "New"]),
        ("", []),
        (" \n\n ", []),
    ],
)  # fmt: skip
def test_stops_without_spaces_and_line_breaks(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


def test_a_pack_brings_its_own_abbreviations() -> None:
    text = "It is in Smth. Quux and more."
    assert len(sentences(text)) == 2
    assert len(sentences(text, frozenset(["Smth."]))) == 1


WORDS = ["The cat", "sat", "Inc.", "No. 5", "(a)", "1.2", "é", "e.g.", "A.", "x" * 50]
SIGNS = [".", "!", "?", "...", ")", '"', "。", "|", " | ", "- ", ":", ";"]
SPACES = [" ", " ", "\n", "\n\n", "\n7\n\n", "\u00a0", "\f", "\u2028"]
PIECES = st.sampled_from(WORDS + SIGNS + SPACES)


@given(st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=80))
def test_sentences_hold_everything_but_white_space_once_and_in_order(text: str) -> None:
    at = 0
    for start, end in sentences(text):
        assert text[at:start].strip() == ""
        assert start < end
        assert text[start:end] == text[start:end].strip()
        at = end
    assert text[at:].strip() == ""


def conll(path: Path) -> tuple[str, set[int]]:
    """The tokens of a CoNLL file as running text, and where its sentences end: at its blank lines."""
    text, ends = "", set[int]()
    sentence: list[str] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in [*lines, ""]:
            words = line.split()
            if words and words[0] != "-DOCSTART-":
                sentence.append(words[0])
            elif sentence:
                text = _joined(text, sentence)
                ends.add(len(text))
                text, sentence = text + " ", []
    return text.rstrip(), ends


def _joined(text: str, words: list[str]) -> str:
    """`words` behind `text`, with the spaces that people write."""
    quoted, glued = False, True
    for place, word in enumerate(words):
        opening = word in ('"', "''", "``") and not quoted and place < len(words) - 1
        if word in ('"', "''", "``"):
            left = not opening
            quoted = opening
        else:
            left = bool(re.fullmatch(r"[.,;:!?%)\]]|\.{2,}|n't|'(s|re|ve|ll|d|m)?|[)\"]+[.,;]*|\.,", word))
            inner = place > 1 and words[place - 1] in ".," and words[place - 2][-1].isdigit()
            left = left or (inner and word[0].isdigit())
        text += word if glued or left or text[-1:] in "([$" else f" {word}"
        glued = opening
    return text


@pytest.mark.parametrize(
    ("file", "precision", "recall"),
    # Articles: what is missed are mostly headings, which have no stop in a running text. Loan agreements: the
    # file also ends sentences at ":", ";" and headings within a line, which ours keep.
    [("ner_wikigold.conll.gz", 0.985, 0.945), ("ner_sec_fin5.conll.gz", 0.985, 0.74)],
)
def test_texts_that_others_divided(file: str, precision: float, recall: float) -> None:
    root = os.environ.get("GLASSHOUSE_TEST_DATA")
    if not root:
        pytest.skip("GLASSHOUSE_TEST_DATA is not set")
    text, ends = conll(Path(root) / "docs" / file)
    found = {end for _, end in sentences(text)}
    right = len(found & ends)
    print(f"{file}: precision {right / len(found):.4f}, recall {right / len(ends):.4f}, "
          f"F1 {2 * right / (len(found) + len(ends)):.4f}")  # fmt: skip
    assert right / len(found) >= precision
    assert right / len(ends) >= recall
