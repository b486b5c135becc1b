"""Demands of a prompt that exclude each other.

These are lists of English words, not understanding: a linter must be fast, work offline and give the same
answer twice. They miss what is said in unusual words, and other languages altogether.
"""

# ruff: noqa: E501, ISC004 -- lists of alternatives are searched for a word, not read line by line

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

from glasshouse.llm.prompts.imperatives import is_instruction
from glasshouse.llm.prompts.patterns import any_of, words
from glasshouse.llm.prompts.reading import Sentence

_NO = (
    r"(?:no|not|never|don't|do not|doesn't|avoid|without|refrain from|omit|skip|leave out|forbidden|banned|"
    r"prohibited|off limits|off-limits|out of the question|a no-go|taboo|unwelcome|free of)"
)
_LANGUAGES = (
    r"(?:English|German|French|Spanish|Italian|Dutch|Polish|Portuguese|Chinese|Japanese|Russian|Arabic|Turkish|"
    r"Swedish|Danish|Norwegian|Finnish|Greek|Czech|Korean|Hindi|Latin)"
)
_GIVEN = (
    r"(?:texts?|documents?|passages?|context|sources?|inputs?|material|reports?|articles?|excerpts?|information|"
    r"facts|data|file|transcript|letter|page)"
)
_ADDED = (
    r"(?:introduction|intro|greeting|preamble|explanation|commentary|comments?|paragraph|conclusion|summary|"
    r"sentence|sign-off|farewell|remarks?|notes?|recap|disclaimer|rationale|justification|thoughts|thank[- ]you|"
    r"few words|some words|bit of context|overview|preface|outro|wish)"
)
_ONLY = (
    r"(?:only|nothing but|nothing else|solely|exclusively|just|merely|purely|strictly|raw|bare|no other text|"
    r"no additional text|nothing before|nothing after|nothing around|without any other|alone|no prose|no extra)"
)


@dataclass(frozen=True)
class Opposites:
    """Two ways to be that no reply can be at once."""

    about: str
    one: re.Pattern[str]
    other: re.Pattern[str]
    negates: bool = False  # a sentence that denies something is not `other`
    cases: bool = (
        False  # both speak of cases by nature ("when unsure"); elsewhere cases and parts stand apart
    )


_CASES = words(r"if|unless|when|whenever|otherwise|in case|where|wherever|except|even if")
_PARTS = re.compile(
    r"\b(?:the |each |every |a |any )?(title|headline|heading|subject(?: line)?|introduction|conclusion|abstract|"
    r"body|notes?|caption|label|reason|example|quotes?|quotations?|cell|column|field|product names?|names?|key|"
    r"summary|paragraph|line|footer|header|comment|card|bullet|salutation)\b",
    re.IGNORECASE,
)

_OPPOSITES = (
    Opposites(
        "length",
        any_of(
            r"brief|briefly|brevity|concise|concisely|succinct|succinctly|terse|short|to the point|compact|crisp",
            r"(?:as )?few words|tl;?dr|(?:a )?(?:couple of|few) (?:lines|words|sentences)|one-liner|a line or two",
            r"snappy|bite-sized?|minimal|laconic|don't (?:ramble|waffle)|no (?:rambling|waffling|padding)|pithy",
            r"in a nutshell|summary style|keep it (?:tight|lean|light)|condensed|the shorter the better",
        ),
        any_of(
            r"(?:great|full|much|more|every|rich|ample|all the|all|complete) details?|in detail|detailed",
            r"comprehensive|comprehensively|exhaustive|exhaustively|thorough|thoroughly|elaborate|at length",
            r"in[- ]depth|extensive|extensively|lengthy|nothing out|every aspect|all aspects|verbose|go deep",
            r"deep dive|full picture|nuances?|the longer the better|don't hold back|expansive|long[- ]form",
            r"(?:long|full) (?:answer|reply|account|explanation|text|report)|spare no|every angle|wordy",
            r"leave no stone|all there is|as much as (?:possible|you can)|don't leave anything|essay-length",
        ),
    ),
    Opposites(
        "JSON alone or words around it",
        any_of(rf"{_ONLY}\b.{{0,60}}\bJSON\b", rf"JSON\b.{{0,60}}\b{_ONLY}", r"JSON[- ]only"),
        any_of(
            r"(?:after|before|below|above|beside|around|following|beneath|under|outside) the (?:JSON|object)",
            r"(?:add|append|include|prepend|begin|start|start off|open|finish|end|close|conclude|wrap up|round off|"
            rf"followed|preceded|preface|accompanied|attach|sign off)(?: it| the \w+)?(?: with| by)? (?:\w+ ){{0,3}}{_ADDED}",
            r"explain (?:your|why|how)|(?:justify|comment on|describe|discuss) (?:your|the) (?:choices?|decisions?|"
            r"reasoning|thinking|answers?|results?)|(?:walk|talk|guide|take) (?:me|us|the \w+|them) through",
        ),
    ),
    Opposites(
        "tone",
        any_of(
            r"formal|formally|professional|professionally|businesslike|official|ceremonious|serious|sober|solemn",
            r"dignified|corporate|academic|matter-of-fact|buttoned-up|earnest|stately",
        ),
        any_of(
            r"casual|casually|informal|informally|chatty|slang|colloquial|buddy|laid-back|relaxed|like a friend",
            r"jok(?:e|es|ing)|playful|humou?r|humorous|funny|witty|banter|light-hearted|breezy|easygoing|cheeky",
            r"conversational|as if you were (?:texting|chatting)|pals?|mates?|goofy|silly|puns?",
        ),
        negates=True,
    ),
    Opposites(
        "language of the reply",
        any_of(
            rf"(?:always|only|exclusively|solely|must|stick to|nothing but)\b.{{0,40}}\b{_LANGUAGES}",
            rf"(?:answer|reply|respond|write|speak)(?: \w+)? in {_LANGUAGES}",
            rf"(?:is|are|be|stays?|remains?)(?: written| always)? in {_LANGUAGES}|{_LANGUAGES} (?:only|throughout)",
        ),
        any_of(
            r"language (?:of|in which|that|used by|spoken by|the)|(?:which|what)ever language|same language",
            r"(?:\w+'s|their|his|her) (?:own |native )?(?:language|mother tongue)|language as",
            r"match (?:\w+ ){0,3}language",
        ),
    ),
    Opposites(
        "lists",
        any_of(
            rf"{_NO}\b.{{0,40}}\b(?:bullets?|bulleted|bullet points|lists?|enumerations?)",
            rf"(?:bullets?|bullet points|lists?|enumerations?)\b.{{0,20}}\b{_NO}",
            r"(?:flowing|continuous|running|connected) (?:prose|text)|prose only|only prose",
        ),
        any_of(
            r"bullets?|bullet points?|bulleted list|numbered list|(?:as|into|in) an? (?:\w+ )?list|list format"
        ),
        negates=True,
    ),
    Opposites(
        "sources",
        any_of(
            rf"{_ONLY}\b.{{0,40}}\b{_GIVEN}",
            rf"{_NO} (?:\w+ ){{0,3}}(?:own|outside|external|general|prior|world) (?:knowledge|information|sources)",
            rf"(?:not|beyond|outside|other than)\b.{{0,25}}\b(?:the|this|that|given|provided) {_GIVEN}",
            rf"(?:stay within|stick to|confine yourself to|restrict yourself to|limit yourself to) (?:\w+ ){{0,3}}{_GIVEN}",
        ),
        any_of(
            r"(?:own|general|background|outside|external|prior|world|common|additional) "
            r"(?:knowledge|information|facts)",
            r"what (?:else )?you (?:already )?know|you (?:already )?know (?:about|of|on)|your training|from memory",
            r"(?:other|further|additional|outside|external) sources|supplement|enrich|draw on your|look (?:it|things) up",
        ),
        negates=True,
    ),
    Opposites(
        "asking back",
        any_of(
            rf"{_NO}\b.{{0,25}}\b(?:ask\w*|questions?|request\w*|queries|clarif\w+|further information|follow-?ups?)",
        ),
        any_of(
            r"ask (?:\w+ ){0,3}(?:questions?|clarif\w+|back|for|whenever|when|if|about)|check back|inquire|enquire",
            r"follow-up questions?|seek clarification|request (?:\w+ )?(?:clarif\w+|information)|get back to",
            r"check with (?:the|your)|clarify with|query the",
        ),
        negates=True,
        cases=True,
    ),
    Opposites(
        "certainty",
        any_of(
            r"(?:definite|definitive|decisive|unambiguous|firm|straight|clear-cut) (?:\w+ )?"
            r"(?:answer|reply|response|verdict|statement)",
            r"(?:no|without|never|do not|don't|avoid) (?:hedg\w+|caveats?|qualifiers?|maybes?|ifs)|commit to",
            r"be (?:certain|confident|decisive|assertive|categorical|firm)|on the fence",
            r"never (?:say|admit|tell|state)\b.{0,30}\bknow|always (?:give|provide|have|offer) an? answer",
            r"never (?:express|show|sound) (?:doubt|uncertainty|unsure|uncertain)|take a (?:clear )?(?:stand|side|position)",
            r"with (?:full|complete|absolute|total|utmost) (?:confidence|certainty|conviction)",
        ),
        any_of(
            r"(?:do not|don't|cannot|not|aren't|isn't) (?:know|be sure|be certain|sure|certain)|unsure|uncertain",
            r"(?:express|show|voice|state|admit|mention|indicate|flag|acknowledge|note) (?:\w+ )?"
            r"(?:uncertainty|uncertainties|doubts?|limitations|caveats|confidence)",
            r"say so if|how (?:sure|certain|confident)|degree of (?:confidence|certainty)|with caveats|hedge (?:where|if|when)",
        ),
        cases=True,
    ),
    Opposites(
        "showing the reasoning",
        any_of(
            r"step[- ]by[- ]step|show (?:your|the|all) (?:work|working|reasoning|steps|thinking|calculations?)",
            r"chain of thought|explain (?:your|the) (?:reasoning|thinking|steps|answer)|think (?:aloud|out loud)",
            r"(?:lay out|spell out|write out|include|give) (?:your|the|all) (?:\w+ )?"
            r"(?:reasoning|steps|thinking|thoughts?|rationale)",
            r"how you (?:arrived|got|came|reached|concluded|decided)|intermediate steps|(?:each|every) step of",
            r"(?:walk|talk|guide|take) (?:me|us|the \w+|them) through",
        ),
        any_of(
            r"(?:only|just|nothing but|solely|merely) (?:\w+ ){0,3}(?:answers?|results?|labels?|verdict|outcome|"
            r"solution|number|figure|value|letter)|(?:answers?|results?|labels?|verdict) only|bare (?:answer|result)",
            r"(?:no|omit|without|skip|leave out|do not|don't|never|hide|keep to yourself)\b.{0,25}\b(?:reasoning|"
            r"explanations?|explain\w*|steps|justif\w+|workings?|thinking|derivation|rationale)",
        ),
    ),
    Opposites(
        "emoji",
        any_of(
            rf"{_NO}\b.{{0,25}}\b(?:emojis?|emoticons?|smileys?)",
            rf"(?:emojis?|emoticons?|smileys?)\b.{{0,20}}\b{_NO}",
        ),
        any_of(r"emojis?|emoticons?|smileys?"),
        negates=True,
    ),
    Opposites(
        "vocabulary",
        any_of(
            r"(?:simple|plain|easy|everyday|basic) (?:words|language|terms|English|vocabulary)|lay ?(?:people|persons?|man|men)",
            r"(?:no|avoid|without|never use|do not use|don't use|free of)\b.{0,15}\b(?:jargon|technical terms|terminology)",
            r"(?:child|children|kids?|beginners?|novices?|five-year-old|grandmother|teenager)\b.{0,20}\bunderstands?",
            r"non-?(?:experts?|specialists?|technical)|without (?:any )?(?:background|prior knowledge)|general (?:public|audience)",
            r"(?:for|to) (?:a |an )?(?:\w+ )?(?:beginners?|newcomers?|novices?|child|children|outsiders?)",
        ),
        any_of(
            r"(?:technical|expert|specialist|specialised|specialized|scientific|professional|domain|proper|correct|"
            r"medical|legal|advanced) (?:terms?|terminology|vocabulary|language|jargon|names)",
            r"(?:is|are) (?:an? )?(?:experts?|specialists?|professionals?|insiders?)|(?:for|among) (?:experts|specialists|peers|insiders)",
        ),
        negates=True,
    ),
    Opposites(
        "Markdown",
        any_of(
            rf"{_NO}\b.{{0,20}}\b(?:markdown|markup|formatting|headings|bold)",
            r"plain[- ]text|only plain text|unformatted|(?:markdown|markup|formatting) (?:is|are) (?:not|off|forbidden)",
        ),
        any_of(r"markdown|headings?|headers|bold|italics|an? (?:\w+ )?table|tables"),
        negates=True,
    ),
    Opposites(
        "quoting",
        any_of(
            r"(?:never|do not|don't|no|without|avoid) (?:direct(?:ly)? )?quot\w+|always paraphrase|paraphrase (?:everything|all)"
        ),
        any_of(r"quote|verbatim|word for word|literal quotations?|quotations? (?:from|of)"),
        negates=True,
    ),
    Opposites("tense", any_of(r"(?<!not )present tense"), any_of(r"(?<!not )past tense")),
    Opposites(
        "person",
        any_of(rf"{_NO}\b.{{0,20}}\bfirst person", r"third person"),
        any_of(r"first person|(?:speak|write) as 'I'"),
        negates=True,
    ),
    Opposites("voice", any_of(r"active voice"), any_of(r"passive voice"), negates=True),
    Opposites("spelling", any_of(r"British (?:spelling|English)"), any_of(r"American (?:spelling|English)")),
    Opposites("units", any_of(r"metric"), any_of(r"imperial|miles|inches|feet|fahrenheit"), negates=True),
    Opposites(
        "case", any_of(r"upper ?case|capitals|all caps"), any_of(r"lower ?case|small letters"), negates=True
    ),
    Opposites(
        "precision",
        any_of(r"round(?:ed)?(?: off| up)? (?:\w+ ){0,3}(?:numbers|figures|amounts|values)|rounded"),
        any_of(r"exact (?:numbers|figures|amounts|values)|unrounded|to the cent|all decimals|every decimal"),
        negates=True,
    ),
    Opposites(
        "praise and blame",
        any_of(
            r"(?:only|nothing but|solely) (?:\w+ )?(?:positive|praise|encouraging)|(?:no|never|avoid) (?:\w+ )?critici\w+"
        ),
        any_of(
            r"critical|harsh|blunt|merciless|brutally|point out (?:\w+ ){0,3}(?:weaknesses|flaws|faults|problems)"
        ),
        negates=True,
    ),
)

_NEGATED = words(_NO)
_NUMBERS = {
    "a": 1,
    "an": 1,
    "a single": 1,
    "a couple of": 2,
    "a few": 3,
    "half a": 0.5,
    "fifteen": 15,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "eighty": 80,
    "a hundred": 100,
    "one hundred": 100,
    "two hundred": 200,
    "three hundred": 300,
    "five hundred": 500,
    "a thousand": 1000,
} | {
    word: number
    for number, word in enumerate(
        re.findall(r"\w+", "no one two three four five six seven eight nine ten eleven twelve")
    )
}
_COUNT = rf"(\d+|{'|'.join(sorted(map(re.escape, _NUMBERS), key=len, reverse=True))})"
_UNIT = r"(words?|sentences?|paragraphs?|pages?|lines?|items?|points?|examples?|characters?|bullets?|tokens?)"
_SIZES = tuple(  # what is said, the least and the most of it as shares of the number
    (re.compile(pattern, re.IGNORECASE), least, most)
    for pattern, least, most in (
        (
            r"\b(?:at most|(?:no|not) more than|no longer than|(?:a )?maximum(?: of)?|max\.?|up to|under|below|fewer than|"
            r"less than|shorter than|within|cap\w* at|limit\w* (?:\w+ )?(?:to|of|is)|not exceed|exceed|only|just|"
            rf"(?:answer|reply|respond|write)(?: \w+)? in) {_COUNT} {_UNIT}\b",
            None,
            1.0,
        ),
        (
            rf"\b{_COUNT} {_UNIT} (?:at most|or less|or fewer|max\w*|tops|is plenty|are plenty|suffices?|is enough)\b",
            None,
            1.0,
        ),
        (
            r"\b(?:at least|no less than|no fewer than|not less than|(?:a )?minimum(?: of)?|min\.?|more than|over|upwards of) "
            rf"{_COUNT} {_UNIT}\b",
            1.0,
            None,
        ),
        (rf"\b{_COUNT}\+? {_UNIT} (?:at least|or more|or longer|minimum|and up)\b", 1.0, None),
        (rf"\bexactly {_COUNT} {_UNIT}\b", 1.0, 1.0),
        (
            rf"\b(?:about|around|some|roughly|approximately|circa|nearly|run to|length of) (?:some |about |around )?{_COUNT} {_UNIT}\b",
            0.7,
            1.4,
        ),
    )
)
_WORDS_EACH = {
    "word": 1,
    "sentence": 18,
    "paragraph": 60,
    "page": 400,
    "line": 12,
    "token": 0.75,
    "character": 0.2,
}
"""English prose, roughly: only to tell one sentence from three paragraphs."""


@dataclass(frozen=True)
class Conflict:
    about: str
    one: Sentence
    other: Sentence


@dataclass(frozen=True)
class _Bound:
    """So many units of a part of the reply ("" is all of it), as a least or as a most."""

    sentence: Sentence
    part: str
    unit: str
    number: float

    @property
    def words(self) -> float | None:
        each = _WORDS_EACH.get(self.unit)
        return None if each is None else each * self.number


def conflicts(sentences: Iterable[Sentence]) -> Iterator[Conflict]:
    """Pairs of sentences that no reply can follow both; one pair for each thing they are about."""
    found = [sentence for sentence in sentences if not sentence.heading]
    for opposites in _OPPOSITES:
        if pair := _opposed(opposites, found):
            yield Conflict(opposites.about, *pair)
    yield from _sizes(found)
    yield from _denials(found)
    yield from _wanted_and_not(found)


def _opposed(opposites: Opposites, sentences: list[Sentence]) -> tuple[Sentence, Sentence] | None:
    ones: list[Sentence] = []
    others: list[Sentence] = []
    for sentence in sentences:
        if not opposites.cases and _CASES.search(sentence.text):
            continue
        if (one := opposites.one.search(sentence.text)) and opposites.about in ("length", "tone"):
            other = opposites.other.search(sentence.text)
            between = (
                sentence.text[min(one.end(), other.end()) : max(one.start(), other.start())] if other else ""
            )
            if not _part(sentence) and re.fullmatch(
                r",? (?:but|yet|and|while)(?: also)?(?: \w+){0,2} ", between
            ):
                return sentence, sentence  # "Be concise but thorough."
        if one:
            ones.append(sentence)
        elif opposites.other.search(sentence.text) and not (
            opposites.negates and _NEGATED.search(sentence.text)
        ):
            others.append(sentence)
    by_part = opposites.about in ("length", "language of the reply")  # a short title and a long body are fine
    return next(
        ((one, other) for one in ones for other in others if not by_part or _part(one) == _part(other)), None
    )


def _part(sentence: Sentence) -> str:
    found = _PARTS.search(sentence.text)
    return found[1].lower().rstrip("s") if found else ""


def _sizes(sentences: list[Sentence]) -> Iterator[Conflict]:
    """More at least than at most; and one or two sentences, but in great detail."""
    lower: list[_Bound] = []
    upper: list[_Bound] = []
    for sentence in sentences:
        if _CASES.search(sentence.text):
            continue
        for pattern, least, most in _SIZES:
            for found in pattern.finditer(sentence.text):
                unit = found[2].lower().rstrip("s")
                said = found[1].lower()
                number = float(said) if said.isdigit() else _NUMBERS[said]
                part = _sized_part(sentence, unit)
                if least is not None:
                    lower.append(_Bound(sentence, part, unit, number * least))
                if most is not None:
                    upper.append(_Bound(sentence, part, unit, number * most))
    for above in upper:
        for below in lower:
            if above.sentence is below.sentence or above.part != below.part:
                continue
            if above.unit == below.unit:
                clash = below.number > above.number
            else:
                clash = below.words is not None and above.words is not None and below.words > 2 * above.words
            if clash:
                yield Conflict("size", above.sentence, below.sentence)
                return
    length = _OPPOSITES[0]
    plain = [one for one in sentences if not _CASES.search(one.text) and not _part(one)]
    few = [bound for bound in upper if not bound.part and bound.words is not None and bound.words <= 50]
    many = [bound for bound in lower if not bound.part and bound.words is not None and bound.words >= 150]
    for bounds, opposite in ((few, length.other), (many, length.one)):
        for bound in bounds:
            for other in plain:
                if other is not bound.sentence and opposite.search(other.text):
                    yield Conflict("length", bound.sentence, other)
                    return


def _sized_part(sentence: Sentence, unit: str) -> str:
    """What has so many: "three sentences in each paragraph" is about paragraphs."""
    found = re.search(r"\b(?:each|every|per|in an?|of an?) (\w+)", sentence.text, re.IGNORECASE)
    if found and found[1].lower().rstrip("s") not in (unit, "maximum", "minimum"):
        return found[1].lower()
    return _part(sentence) if unit not in ("line", "paragraph", "bullet", "example") else ""


_EMPTY = frozenset(
    re.findall(
        r"\w+",
        "the a an any all every each your you it its of to in on for with and or do not don t never always no "
        "must please should are is be at",
    )
)


def _content(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in re.findall(r"[a-zA-Z]+", text)) - _EMPTY


def _denials(sentences: list[Sentence]) -> Iterator[Conflict]:
    """The same words with and without a "not"."""
    known = []
    for sentence in sentences:
        words = _content(sentence.text)
        if not _CASES.search(sentence.text) and is_instruction(sentence) and len(words) >= 2:
            known.append((sentence, words, bool(re.search(r"\b(?:not|never|don't)\b", sentence.text, re.I))))
    for (one, words, denied), (other, others, other_denied) in combinations(known, 2):
        if denied != other_denied and words == others:
            yield Conflict("the same thing", one, other)
            return


_WANTED = re.compile(
    r"^(?:please |always |also )*(?:include|mention|list|name|add|give|show|state|use|keep|provide|cite|put in|insert|"
    r"tell|report|write)\b (?P<thing>[^,.;:!]{3,40})[.!]?$",
    re.IGNORECASE,
)
_UNWANTED = re.compile(
    r"^(?:please |always )*(?:omit|leave out|skip|remove|exclude|drop|avoid|(?:do not|don't|never) (?:include|mention|list|"
    r"name|add|give|show|state|use|keep|provide|cite|insert|tell|report|write)|no)\b (?P<thing>[^,.;:!]{3,40})[.!]?$",
    re.IGNORECASE,
)


def _wanted_and_not(sentences: list[Sentence]) -> Iterator[Conflict]:
    """The same thing to be put in and to be left out."""
    wanted = [(one, _content(found["thing"])) for one in sentences if (found := _WANTED.match(one.text))]
    unwanted = [(one, _content(found["thing"])) for one in sentences if (found := _UNWANTED.match(one.text))]
    for one, thing in wanted:
        for other, same in unwanted:
            if thing and thing == same and not _UNWANTED.match(one.text):
                yield Conflict("the same thing", one, other)
                return
