"""CUAD v1 (Hendrycks et al. 2021, arXiv:2103.06268; CC BY 4.0): contracts, labelled by lawyers.

Of each of 41 categories a contract has the clauses that speak of it, and an answer. Here each is a field of
an extraction. A field is right where it is mentioned if and only if the contract has such a clause, and, if
the category has an answer, where it says the same:

    dates           the same day, as far as the label knows it ("[]/[]/2020" knows the year)
    periods         the same number of the same unit: "two (2) years" is "24 months"
    parties         the same names, each of them, without their legal forms and the words that define them
    governing law   all words of a place in the label, and few others
    document name   the same words, half of all at least

Where the label has clauses but no answer, only the mention counts. The quote of a field that is right to be
mentioned is compared with the labelled clauses as the paper does: half of their words in common (Jaccard).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glasshouse.core.config import nearest
from glasshouse.core.errors import UsageError
from glasshouse.documents.evaluation.example import Example, Grade, rows, sample
from glasshouse.documents.result import FieldResult, Result
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document

FILE = "docs/cuad_contracts.jsonl.gz"

OVERLAP = 0.5
"""Words in common from which on a quote is the labelled clause: the paper's."""


@dataclass(frozen=True)
class Category:
    """A label of CUAD's as a field: its name there, what is asked, and how answers are compared."""

    label: str
    asked: str
    kind: str  # "text", "date", "period", "place", "parties", "yes"

    @property
    def name(self) -> str:
        return re.sub(r"\W+", "_", self.label.lower()).strip("_")

    @property
    def schema(self) -> dict[str, Any]:
        if self.kind == "parties":
            return {"type": "array", "items": {"type": "string"}, "description": self.asked}
        kind = "boolean" if self.kind == "yes" else "string"
        return {"type": kind, "description": self.asked}


def _yes(label: str, asked: str) -> Category:
    return Category(label, f"True where {asked}.", "yes")


CATEGORIES = (
    Category("Document Name", "The contract's title.", "text"),
    Category("Parties", "The full names of all parties that sign the contract.", "parties"),
    Category("Agreement Date", "The date of the contract, as YYYY-MM-DD.", "date"),
    Category("Effective Date", "The date on which the contract becomes effective, as YYYY-MM-DD.", "date"),
    Category("Expiration Date", 'The date on which it expires, as YYYY-MM-DD, or "perpetual".', "date"),
    Category("Renewal Term", "How long it is renewed after the first term, such as 1 year.", "period"),
    Category("Notice Period to Terminate Renewal", "How long before the end a renewal is refused.", "period"),
    Category("Governing Law", "The state or country whose law governs the contract.", "place"),
    _yes("Most Favored Nation", "one party gets terms as good as any third party's"),
    _yes("Non-Compete", "one party may not compete with the other, or work in some place or field"),
    _yes("Exclusivity", "one party deals only with the other, or gives it sole rights"),
    _yes("No-Solicit of Customers", "one party may not solicit the other's customers"),
    _yes("No-Solicit of Employees", "one party may not hire or solicit the other's employees"),
    _yes("Competitive Restriction Exception", "there are exceptions to a non-compete or exclusivity"),
    _yes("Non-Disparagement", "one party may not speak ill of the other"),
    _yes("Termination for Convenience", "one party may end the contract without cause"),
    _yes("Rofr/Rofo/Rofn", "one party has a right of first refusal, offer or negotiation"),
    _yes("Change of Control", "a change of control or a merger of one party has consequences"),
    _yes("Anti-Assignment", "the contract may not be assigned without consent or notice"),
    _yes("Revenue/Profit Sharing", "one party shares revenue or profit with the other"),
    _yes("Price Restrictions", "one party may not raise or lower prices freely"),
    _yes("Minimum Commitment", "one party must buy a minimum amount or number"),
    _yes("Volume Restriction", "use beyond some volume costs more or needs consent"),
    _yes("IP Ownership Assignment", "intellectual property made by one party becomes the other's"),
    _yes("Joint IP Ownership", "intellectual property is owned jointly"),
    _yes("License Grant", "one party licenses something to the other"),
    _yes("Non-Transferable License", "a license may not be transferred"),
    _yes("Affiliate License-Licensor", "affiliates of the licensor give licenses too"),
    _yes("Affiliate License-Licensee", "affiliates of the licensee are licensed too"),
    _yes("Unlimited/All-You-Can-Eat-License", "a license is unlimited in use or number"),
    _yes("Irrevocable or Perpetual License", "a license is irrevocable or perpetual"),
    _yes("Source Code Escrow", "source code is put into escrow"),
    _yes("Post-Termination Services", "one party has duties after the contract ends"),
    _yes("Audit Rights", "one party may audit the books, records or places of the other"),
    _yes("Uncapped Liability", "liability is unlimited for some breach"),
    _yes("Cap on Liability", "liability is limited in amount or in time"),
    _yes("Liquidated Damages", "a breach or an early end costs a fixed sum or a fee"),
    _yes("Warranty Duration", "a warranty lasts for a stated time"),
    _yes("Insurance", "one party must keep insurance for the other's benefit"),
    _yes("Covenant Not to Sue", "one party may not contest the other's rights or bring claims"),
    _yes("Third Party Beneficiary", "somebody who is no party has rights from the contract"),
)

FIELDS = (
    *(category.name for category in CATEGORIES if category.kind != "yes"),
    "exclusivity",
    "termination_for_convenience",
    "anti_assignment",
    "cap_on_liability",
)
"""Asked for by default: those with an answer, and four that are often there and often not."""


def load(folder: str | Path, n: int, seed: int, fields: Collection[str] = FIELDS) -> list[Example]:
    """`n` contracts, drawn by the seed. Raises DataError where the file is not there, UsageError for a field
    that no category is called."""
    known = {category.name: category for category in CATEGORIES}
    for field in fields:
        if field not in known:
            close = nearest(field, known)
            fix = f"did you mean '{close}'?" if close else f"fields: {', '.join(known)}"
            raise UsageError(f"CUAD has no field '{field}'", where="fields", fix=fix)
    asked = [known[field] for field in dict.fromkeys(fields)]
    schema = {
        "type": "object",
        "properties": {category.name: category.schema for category in asked},
    }
    return [
        Example(
            contract(row["id"], row["text"]),
            schema,
            _judge(row["labels"], asked),
        )
        for row in sample(list(rows(Path(folder) / FILE)), n, seed)
    ]


def contract(name: str, text: str) -> Document:
    """A paragraph for each stretch between empty lines."""
    builder = Builder()
    for paragraph in re.split(r"\n\s*\n", text):
        builder.add(paragraph)
    return builder.document(name, "txt")


def _judge(labels: Mapping[str, Any], asked: Sequence[Category]) -> Callable[[Result], list[Grade]]:
    def grade(result: Result) -> list[Grade]:
        return [grade_field(category, labels[category.label], result) for category in asked]

    return grade


def grade_field(category: Category, label: Mapping[str, Any], result: Result) -> Grade:
    """One category of one contract. `label`: {"clauses", "answer"}."""
    name = category.name
    clauses, answer = label["clauses"], label["answer"]
    found = [field for field in result.fields if field.path == name or field.path.startswith(f"{name}[")]
    told = [field for field in found if field.value not in (None, "", False)]
    if category.kind == "parties":
        return _parties(name, answer, clauses, told, result)
    due = bool(clauses) or answer not in ("", "No")
    value = told[0].value if told else None
    if not due or value is None:
        right = result.success and due == (value is not None)
    else:
        wanted = [] if answer == "Yes" else [part.strip() for part in answer.split(";") if part.strip()]
        right = not wanted or any(SAME[category.kind](str(value), part) for part in wanted)
    hits = tuple(is_clause(quote.text, clauses) for field in told if due for quote in field.quotes)
    return Grade(name, right, told=tuple((field, right) for field in found), clauses=hits)


def _parties(
    name: str, answer: str, clauses: Sequence[str], told: Sequence[FieldResult], result: Result
) -> Grade:
    """Right: all names of the answer, and none that no label knows. F1: of the given names those that are
    known, of the answer's names those that are given."""
    gold = party_names(answer)
    known = [*gold, *(party(clause) for clause in clauses)]
    given = [party(str(field.value)) for field in told]
    fine = [any(_same_party(name, other) for other in known) for name in given]
    found = [any(_same_party(wanted, name) for name in given) for wanted in gold]
    right = result.success and all(fine) and all(found) and bool(given or not gold)
    precision, recall = (sum(hits) / len(hits) if hits else float(right) for hits in (fine, found))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    pairs = tuple(zip(told, fine, strict=True))
    hits = tuple(is_clause(quote.text, clauses) for field in told for quote in field.quotes)
    return Grade(name, right, f1, pairs, hits)


# --- how answers are compared ---------------------------------------------------------------------------

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
_NUMBERS |= {"eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "eighteen": 18}
_NUMBERS |= {"twenty": 20, "thirty": 30, "forty": 40, "sixty": 60, "ninety": 90}
_DAYS = {"day": 1.0, "week": 7.0, "month": 365.25 / 12, "year": 365.25}
_ISO = re.compile(r"(\d{4})-(\d{1,2})(?:-(\d{1,2}))?")
_SLASHED = re.compile(r"(\d{1,2}|\[ ?\])[/.](\d{1,2}|\[ ?\])[/.](\d{4}|\d{2}(?:\[ ?\])?|\[ ?\](?:\[ ?\])?)")
_NAMED = re.compile(
    r"(?P<month>[a-z]{3,9})\.? +(?P<day>\d{1,2})(?:st|nd|rd|th)?,? +(?P<year>\d{4})"
    r"|(?P<day2>\d{1,2})(?:st|nd|rd|th)?(?: day)?(?: of)? +(?P<month2>[a-z]{3,9})\.?,? +(?P<year2>\d{4})"
    r"|(?P<month3>[a-z]{3,9})\.?,? +(?P<year3>\d{4})",
)
_BARE = re.compile(r"\b(?:19|20)\d\d\b")
_PERIOD = re.compile(r"(\d+|[a-z]+)?(?: *\((\d+)\)| *\))?[ -]*(day|week|month|year)")
_FORMS = re.compile(
    r"\b(?:incorporated|inc|corporation|corp|company|co|limited|ltd|llc|l l c|llp|lp|l p|plc|gmbh|ag|sa|s a|"
    r"nv|n v|bv|b v|pte|the|and|et al)\b"
)
_WORD = re.compile(r"\w+")

Day = tuple[int | None, int | None, int | None]
"""Year, month, day, as far as they are known."""


def date(text: str) -> Day | None:
    """The first date in a text; a slashed one has the month first, and [] for what nobody knows.

    >>> date("as of the 3rd day of May, 2020"), date("[]/[]/99")
    ((2020, 5, 3), (1999, None, None))
    """
    text = " ".join(text.lower().split())
    if iso := _ISO.search(text):
        return int(iso[1]), int(iso[2]), int(iso[3]) if iso[3] else None
    if slashed := _SLASHED.search(text):
        month, day = (None if "[" in part else int(part) for part in (slashed[1], slashed[2]))
        return _year(slashed[3]), month, day
    for named in _NAMED.finditer(text):
        parts = {key.rstrip("23"): value for key, value in named.groupdict().items() if value}
        if parts["month"][:3] in _MONTHS:
            month = _MONTHS.index(parts["month"][:3]) + 1
            return int(parts["year"]), month, int(parts["day"]) if "day" in parts else None
    bare = _BARE.search(text)
    return (int(bare[0]), None, None) if bare else None


def _year(text: str) -> int | None:
    if "[" in text:
        return None
    return int(text) if len(text) == 4 else int(text) + (1900 if int(text) > 50 else 2000)


def same_date(value: str, label: str) -> bool:
    """Whether they agree in all that the label knows."""
    wanted, given = date(label), date(value)
    if wanted is None:
        return _words(label) <= _words(value)  # "perpetual"
    return given is not None and all(w is None or w == g for w, g in zip(wanted, given, strict=True))


def period(text: str) -> float | None:
    """Days of the last period in a text: "two successive 1 year" renews by one year at a time.

    >>> period("thirty (30) days"), period("successive 1 year")
    (30.0, 365.25)
    """
    found = None
    for number, bracketed, unit in _PERIOD.findall(text.lower()):
        count = bracketed or number
        if count.isdigit() or count in _NUMBERS:
            found = (int(count) if count.isdigit() else _NUMBERS[count]) * _DAYS[unit]
    return found


def same_period(value: str, label: str) -> bool:
    wanted, given = period(label), period(value)
    if wanted is None:
        return bool(_words(label) & _words(value)) or not _words(label)
    return given is not None and abs(wanted - given) <= 0.02 * wanted  # 12 months are a year


def same_place(value: str, label: str) -> bool:
    """The label's words, and at most six others: "the laws of the State of New York" names New York."""
    wanted, given = _words(label), _words(value)
    if not wanted:  # "[]": blanked out in the contract
        return True
    core = _words(label.split(",")[0]) or wanted
    return core <= given and len(given - wanted) <= 6


def same_text(value: str, label: str) -> bool:
    return jaccard(value, label) >= OVERLAP


SAME: dict[str, Callable[[str, str], bool]] = {
    "date": same_date,
    "period": same_period,
    "place": same_place,
    "text": same_text,
    "yes": lambda _value, _label: True,
}


def party_names(answer: str) -> list[str]:
    """The names in an answer, without the aliases in brackets and the sentences about them.

    >>> party_names('ACME, Inc. ("Buyer"); Bob ("Seller"); (each a "Party")')
    ['acme', 'bob']
    """
    found: dict[str, None] = {}
    for part in answer.split(";"):
        bare = _OPEN.sub("", _BRACKETS.sub(" ", part.lstrip(" (")))
        if (name := party(bare)) and not _SENTENCE.search(name):
            found[name] = None
    # a sum of the others: "A and B (each a Party)"
    return [name for name in found if sum(other != name and other in name for other in found) < 2]


_BRACKETS, _OPEN = re.compile(r"\([^()]*\)"), re.compile(r"\(.*")
_SENTENCE = re.compile(r"\b(?:each|hereinafter|referred|collectively|parties|party|hereto)\b")


def party(text: str) -> str:
    """A name without its legal form, its case and its signs."""
    plain = " ".join(re.sub(r"[^\w&]+", " ", text.casefold()).split())
    return " ".join(_FORMS.sub(" ", plain).split()).strip("& ") or plain


def _same_party(first: str, second: str) -> bool:
    return first == second or jaccard(first, second) >= 0.75


def is_clause(quote: str | None, clauses: Sequence[str]) -> bool:
    return quote is not None and any(jaccard(quote, clause) >= OVERLAP for clause in clauses)


def jaccard(first: str, second: str) -> float:
    """Shared words over all words."""
    one, two = _words(first), _words(second)
    return len(one & two) / len(one | two) if one or two else 0.0


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
