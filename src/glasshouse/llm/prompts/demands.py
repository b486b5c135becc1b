"""What sentences of a prompt demand: whether they do, how hard, against each other, and beyond any check.

These are lists of English words, not understanding: a linter must be fast, work offline and give the same
answer twice. They miss what is said in unusual words, and other languages altogether.
"""

# ruff: noqa: E501, ISC004 -- lists of alternatives are searched for a word, not read line by line

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

from glasshouse.llm.prompts.reading import Sentence


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


_VERBS = frozenset(
    re.findall(
        r"\w+",
        """
        accept act add address adopt aim align allow analyse analyze annotate answer append apply argue arrange
        ask assess assign assume attach attribute avoid back balance base be begin break bring build calculate
        capitalise capitalize categorise categorize change check choose cite clarify classify clean close code
        collect combine comment compare complete compose compress compute conclude condense confine confirm
        consider consult contain continue convert copy correct count cover create decide define deliver describe
        detect determine discard discuss disregard distinguish divide do draft draw edit elaborate emphasise
        emphasize employ end ensure enumerate estimate evaluate examine exclude expand explain express extract
        fill filter find finish fix flag focus follow format formulate generate give go greet group guarantee
        guess handle highlight hold identify ignore illustrate imagine improve include indent indicate infer
        insert inspect interpret introduce invent judge justify keep label lay leave let limit link list locate
        look maintain make map mark match measure mention merge mimic mirror move name narrate never normalise
        normalize note number obey observe offer omit open order organise organize outline output paraphrase
        pay perform pick place plan point prefer prepare present preserve prioritise prioritize proceed process
        produce proofread propose prove provide put quote raise rank rate read recall recommend record reduce
        refer reflect refrain refuse reject rely remember remove render repeat rephrase replace reply report
        request resolve respect respond restate restrict return reveal review revise rewrite round say scan
        score search select send separate serve set shorten show simplify sketch skip solve sort sound speak
        sign specify spell split start state stay stick stop stress strip structure substitute suggest sum summarise
        summarize support take talk tell test think translate treat trim try turn underline use validate verify
        weigh work wrap write abstain acknowledge admit advise amend anonymise anonymize assist avoid bear bold boldface
        cap cast catch collapse conform consolidate craft cut debug declare decline default defer depict derive design
        diagnose differentiate drop email embed encode enforce enter evaluate exercise exit file fetch flatten foreground
        forget frame front gather grade hide hyphenate impersonate import incorporate index initial inform interpolate
        invert invite iterate join jot jump label lead learn leverage lower log love mask mind mock model name nest notify
        opt own paste pause phrase pin play portray pose postpone practise practice praise predict print pretend prune
        pull push query reach redact reformat register reorder reserve respell retain retell retrieve retype reuse say
        scale screen seek segregate shift sign signal silence simulate single skim slice smooth sound space spot square
        stand step store strike strive study subtract supply surface swap switch synthesise synthesize tabulate tag tailor
        target tell tie title tone total touch trace track transcribe transform translate transliterate trust type unify
        update upper value view voice wait walk warn watch withhold
        """,
    )
)
"""First words of imperatives, as they stand in prompts."""

_OPENERS = _words(
    r"please|always|never|only|just|don't|do not|do|kindly|also|then|first|finally|next|and|oh|but|so|now|instead"
)
_SUBJECT = _words(
    r"you|your (?:\w+ )?(?:answers?|reply|replies|responses?|outputs?|tasks?|job|role)"
    r"|the (?:\w+ )?(?:answer|reply|response|output|result)"
)
_MODAL = _words(
    r"must|shall|should|ha(?:ve|s) to|needs? to|cannot|can't|may not|required|mandatory|forbidden|prohibited"
    r"|not (?:allowed|permitted|acceptable)|unacceptable|obligatory|expected to|is to be|are to be"
)
_WISH = _words(
    r"(?:we|i) (?:\w+ )?(?:want|need|expect|ask|would like|'d like) (?:you|the reply|the answer)|i'd like you"
)
_HARD = _words(
    r"must|shall|ha(?:ve|s) to|needs? to|need|cannot|can't|may not|no \w+ may|not a single|required|mandatory"
    r"|forbidden|prohibited|permitted|acceptable|never|always|only|exactly|precisely|strictly|at most|at least"
    r"|no more than|no less than|no later than|maximum|minimum|don't|do not|under no circumstances|ensure"
    r"|make sure|every|each|avoid|refrain|stick to|without exception|not use"
)
_VERB_AFTER_NOUN = _words(r"is|are|was|were|has|have|had|may|can|will|of")


def is_instruction(sentence: Sentence) -> bool:
    """Whether a sentence tells the model to do something, rather than how things are."""
    text = sentence.text.strip("\"'*_ ")
    if _SUBJECT.search(text) and _MODAL.search(text):
        return True
    if _WISH.search(text):
        return True
    clauses = re.split(r"[,;:–—]\s+", text)  # "For each name, write ..."
    return _imperative(clauses[0]) or (len(clauses) > 1 and _imperative(clauses[1]))


def _imperative(clause: str) -> bool:
    first, *rest = re.findall(r"[A-Za-z']+", clause) or [""]
    while rest and _OPENERS.fullmatch(first):
        if first.lower() in ("never", "don't", "do", "please", "kindly", "always"):
            return True
        first, *rest = rest
    return first.lower() in _VERBS and not (rest and _VERB_AFTER_NOUN.fullmatch(rest[0]))


def weight(sentence: Sentence) -> float:
    """How hard a demand is: 1 where words leave no choice, 0.5 for another instruction, else 0."""
    if sentence.heading:
        return 0.0
    instruction = is_instruction(sentence) or sentence.item
    if _HARD.search(sentence.text) and (instruction or _MODAL.search(sentence.text) or _short_rule(sentence)):
        return 1.0
    return 0.5 if instruction else 0.0


def _short_rule(sentence: Sentence) -> bool:
    """ "Exactly two examples are required.": a statement, and a demand all the same."""
    return sentence.words <= 12


# --- demands that exclude each other --------------------------------------------------------------------

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


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(rf"\b(?:{pattern})(?!\w)" for pattern in patterns), re.IGNORECASE)


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


_CASES = _words(r"if|unless|when|whenever|otherwise|in case|where|wherever|except|even if")
_PARTS = re.compile(
    r"\b(?:the |each |every |a |any )?(title|headline|heading|subject(?: line)?|introduction|conclusion|abstract|"
    r"body|notes?|caption|label|reason|example|quotes?|quotations?|cell|column|field|product names?|names?|key|"
    r"summary|paragraph|line|footer|header|comment|card|bullet|salutation)\b",
    re.IGNORECASE,
)

_OPPOSITES = (
    Opposites(
        "length",
        _any(
            r"brief|briefly|brevity|concise|concisely|succinct|succinctly|terse|short|to the point|compact|crisp",
            r"(?:as )?few words|tl;?dr|(?:a )?(?:couple of|few) (?:lines|words|sentences)|one-liner|a line or two",
            r"snappy|bite-sized?|minimal|laconic|don't (?:ramble|waffle)|no (?:rambling|waffling|padding)|pithy",
            r"in a nutshell|summary style|keep it (?:tight|lean|light)|condensed|the shorter the better",
        ),
        _any(
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
        _any(rf"{_ONLY}\b.{{0,60}}\bJSON\b", rf"JSON\b.{{0,60}}\b{_ONLY}", r"JSON[- ]only"),
        _any(
            r"(?:after|before|below|above|beside|around|following|beneath|under|outside) the (?:JSON|object)",
            r"(?:add|append|include|prepend|begin|start|start off|open|finish|end|close|conclude|wrap up|round off|"
            rf"followed|preceded|preface|accompanied|attach|sign off)(?: it| the \w+)?(?: with| by)? (?:\w+ ){{0,3}}{_ADDED}",
            r"explain (?:your|why|how)|(?:justify|comment on|describe|discuss) (?:your|the) (?:choices?|decisions?|"
            r"reasoning|thinking|answers?|results?)|(?:walk|talk|guide|take) (?:me|us|the \w+|them) through",
        ),
    ),
    Opposites(
        "tone",
        _any(
            r"formal|formally|professional|professionally|businesslike|official|ceremonious|serious|sober|solemn",
            r"dignified|corporate|academic|matter-of-fact|buttoned-up|earnest|stately",
        ),
        _any(
            r"casual|casually|informal|informally|chatty|slang|colloquial|buddy|laid-back|relaxed|like a friend",
            r"jok(?:e|es|ing)|playful|humou?r|humorous|funny|witty|banter|light-hearted|breezy|easygoing|cheeky",
            r"conversational|as if you were (?:texting|chatting)|pals?|mates?|goofy|silly|puns?",
        ),
        negates=True,
    ),
    Opposites(
        "language of the reply",
        _any(
            rf"(?:always|only|exclusively|solely|must|stick to|nothing but)\b.{{0,40}}\b{_LANGUAGES}",
            rf"(?:answer|reply|respond|write|speak)(?: \w+)? in {_LANGUAGES}",
            rf"(?:is|are|be|stays?|remains?)(?: written| always)? in {_LANGUAGES}|{_LANGUAGES} (?:only|throughout)",
        ),
        _any(
            r"language (?:of|in which|that|used by|spoken by|the)|(?:which|what)ever language|same language",
            r"(?:\w+'s|their|his|her) (?:own |native )?(?:language|mother tongue)|language as",
            r"match (?:\w+ ){0,3}language",
        ),
    ),
    Opposites(
        "lists",
        _any(
            rf"{_NO}\b.{{0,40}}\b(?:bullets?|bulleted|bullet points|lists?|enumerations?)",
            rf"(?:bullets?|bullet points|lists?|enumerations?)\b.{{0,20}}\b{_NO}",
            r"(?:flowing|continuous|running|connected) (?:prose|text)|prose only|only prose",
        ),
        _any(
            r"bullets?|bullet points?|bulleted list|numbered list|(?:as|into|in) an? (?:\w+ )?list|list format"
        ),
        negates=True,
    ),
    Opposites(
        "sources",
        _any(
            rf"{_ONLY}\b.{{0,40}}\b{_GIVEN}",
            rf"{_NO} (?:\w+ ){{0,3}}(?:own|outside|external|general|prior|world) (?:knowledge|information|sources)",
            rf"(?:not|beyond|outside|other than)\b.{{0,25}}\b(?:the|this|that|given|provided) {_GIVEN}",
            rf"(?:stay within|stick to|confine yourself to|restrict yourself to|limit yourself to) (?:\w+ ){{0,3}}{_GIVEN}",
        ),
        _any(
            r"(?:own|general|background|outside|external|prior|world|common|additional) "
            r"(?:knowledge|information|facts)",
            r"what (?:else )?you (?:already )?know|you (?:already )?know (?:about|of|on)|your training|from memory",
            r"(?:other|further|additional|outside|external) sources|supplement|enrich|draw on your|look (?:it|things) up",
        ),
        negates=True,
    ),
    Opposites(
        "asking back",
        _any(
            rf"{_NO}\b.{{0,25}}\b(?:ask\w*|questions?|request\w*|queries|clarif\w+|further information|follow-?ups?)",
        ),
        _any(
            r"ask (?:\w+ ){0,3}(?:questions?|clarif\w+|back|for|whenever|when|if|about)|check back|inquire|enquire",
            r"follow-up questions?|seek clarification|request (?:\w+ )?(?:clarif\w+|information)|get back to",
            r"check with (?:the|your)|clarify with|query the",
        ),
        negates=True,
        cases=True,
    ),
    Opposites(
        "certainty",
        _any(
            r"(?:definite|definitive|decisive|unambiguous|firm|straight|clear-cut) (?:\w+ )?"
            r"(?:answer|reply|response|verdict|statement)",
            r"(?:no|without|never|do not|don't|avoid) (?:hedg\w+|caveats?|qualifiers?|maybes?|ifs)|commit to",
            r"be (?:certain|confident|decisive|assertive|categorical|firm)|on the fence",
            r"never (?:say|admit|tell|state)\b.{0,30}\bknow|always (?:give|provide|have|offer) an? answer",
            r"never (?:express|show|sound) (?:doubt|uncertainty|unsure|uncertain)|take a (?:clear )?(?:stand|side|position)",
            r"with (?:full|complete|absolute|total|utmost) (?:confidence|certainty|conviction)",
        ),
        _any(
            r"(?:do not|don't|cannot|not|aren't|isn't) (?:know|be sure|be certain|sure|certain)|unsure|uncertain",
            r"(?:express|show|voice|state|admit|mention|indicate|flag|acknowledge|note) (?:\w+ )?"
            r"(?:uncertainty|uncertainties|doubts?|limitations|caveats|confidence)",
            r"say so if|how (?:sure|certain|confident)|degree of (?:confidence|certainty)|with caveats|hedge (?:where|if|when)",
        ),
        cases=True,
    ),
    Opposites(
        "showing the reasoning",
        _any(
            r"step[- ]by[- ]step|show (?:your|the|all) (?:work|working|reasoning|steps|thinking|calculations?)",
            r"chain of thought|explain (?:your|the) (?:reasoning|thinking|steps|answer)|think (?:aloud|out loud)",
            r"(?:lay out|spell out|write out|include|give) (?:your|the|all) (?:\w+ )?"
            r"(?:reasoning|steps|thinking|thoughts?|rationale)",
            r"how you (?:arrived|got|came|reached|concluded|decided)|intermediate steps|(?:each|every) step of",
            r"(?:walk|talk|guide|take) (?:me|us|the \w+|them) through",
        ),
        _any(
            r"(?:only|just|nothing but|solely|merely) (?:\w+ ){0,3}(?:answers?|results?|labels?|verdict|outcome|"
            r"solution|number|figure|value|letter)|(?:answers?|results?|labels?|verdict) only|bare (?:answer|result)",
            r"(?:no|omit|without|skip|leave out|do not|don't|never|hide|keep to yourself)\b.{0,25}\b(?:reasoning|"
            r"explanations?|explain\w*|steps|justif\w+|workings?|thinking|derivation|rationale)",
        ),
    ),
    Opposites(
        "emoji",
        _any(
            rf"{_NO}\b.{{0,25}}\b(?:emojis?|emoticons?|smileys?)",
            rf"(?:emojis?|emoticons?|smileys?)\b.{{0,20}}\b{_NO}",
        ),
        _any(r"emojis?|emoticons?|smileys?"),
        negates=True,
    ),
    Opposites(
        "vocabulary",
        _any(
            r"(?:simple|plain|easy|everyday|basic) (?:words|language|terms|English|vocabulary)|lay ?(?:people|persons?|man|men)",
            r"(?:no|avoid|without|never use|do not use|don't use|free of)\b.{0,15}\b(?:jargon|technical terms|terminology)",
            r"(?:child|children|kids?|beginners?|novices?|five-year-old|grandmother|teenager)\b.{0,20}\bunderstands?",
            r"non-?(?:experts?|specialists?|technical)|without (?:any )?(?:background|prior knowledge)|general (?:public|audience)",
            r"(?:for|to) (?:a |an )?(?:\w+ )?(?:beginners?|newcomers?|novices?|child|children|outsiders?)",
        ),
        _any(
            r"(?:technical|expert|specialist|specialised|specialized|scientific|professional|domain|proper|correct|"
            r"medical|legal|advanced) (?:terms?|terminology|vocabulary|language|jargon|names)",
            r"(?:is|are) (?:an? )?(?:experts?|specialists?|professionals?|insiders?)|(?:for|among) (?:experts|specialists|peers|insiders)",
        ),
        negates=True,
    ),
    Opposites(
        "Markdown",
        _any(
            rf"{_NO}\b.{{0,20}}\b(?:markdown|markup|formatting|headings|bold)",
            r"plain[- ]text|only plain text|unformatted|(?:markdown|markup|formatting) (?:is|are) (?:not|off|forbidden)",
        ),
        _any(r"markdown|headings?|headers|bold|italics|an? (?:\w+ )?table|tables"),
        negates=True,
    ),
    Opposites(
        "quoting",
        _any(
            r"(?:never|do not|don't|no|without|avoid) (?:direct(?:ly)? )?quot\w+|always paraphrase|paraphrase (?:everything|all)"
        ),
        _any(r"quote|verbatim|word for word|literal quotations?|quotations? (?:from|of)"),
        negates=True,
    ),
    Opposites("tense", _any(r"(?<!not )present tense"), _any(r"(?<!not )past tense")),
    Opposites(
        "person",
        _any(rf"{_NO}\b.{{0,20}}\bfirst person", r"third person"),
        _any(r"first person|(?:speak|write) as 'I'"),
        negates=True,
    ),
    Opposites("voice", _any(r"active voice"), _any(r"passive voice"), negates=True),
    Opposites("spelling", _any(r"British (?:spelling|English)"), _any(r"American (?:spelling|English)")),
    Opposites("units", _any(r"metric"), _any(r"imperial|miles|inches|feet|fahrenheit"), negates=True),
    Opposites(
        "case", _any(r"upper ?case|capitals|all caps"), _any(r"lower ?case|small letters"), negates=True
    ),
    Opposites(
        "precision",
        _any(r"round(?:ed)?(?: off| up)? (?:\w+ ){0,3}(?:numbers|figures|amounts|values)|rounded"),
        _any(r"exact (?:numbers|figures|amounts|values)|unrounded|to the cent|all decimals|every decimal"),
        negates=True,
    ),
    Opposites(
        "praise and blame",
        _any(
            r"(?:only|nothing but|solely) (?:\w+ )?(?:positive|praise|encouraging)|(?:no|never|avoid) (?:\w+ )?critici\w+"
        ),
        _any(
            r"critical|harsh|blunt|merciless|brutally|point out (?:\w+ ){0,3}(?:weaknesses|flaws|faults|problems)"
        ),
        negates=True,
    ),
)

_NEGATED = _words(_NO)
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
    for bounds, words in ((few, length.other), (many, length.one)):
        for bound in bounds:
            for other in plain:
                if other is not bound.sentence and words.search(other.text):
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


# --- demands that nobody can check ----------------------------------------------------------------------

_THING = (
    r"(?:answers?|repl(?:y|ies)|responses?|results?|outputs?|texts?|work|wording|writing|summary|solution|content|quality|"
    r"prose|style|job|piece|copy|effort|performance|it|this)"
)
_PRAISE = (
    r"(?:best|ideal|perfect|optimal|highest|finest|superb|outstanding|exceptional|excellent|amazing|awesome|brilliant|"
    r"world-class|top-notch|top-tier|first-class|first-rate|stunning|compelling|captivating|impressive|beautiful|wonderful|"
    r"fantastic|incredible|great|engaging|high-quality|stellar|masterful|magnificent|extraordinary|remarkable|unmatched|"
    r"unparalleled|memorable|unforgettable|delightful|fascinating|irresistible|catchy|inspiring|inspired|elegant|"
    r"award-winning|premium|superior|phenomenal|marvell?ous|gripping|dazzling|thought-provoking|powerful|spectacular|"
    r"mind-blowing|impeccable|sublime|exquisite|interesting|insightful|charming|seamless|natural|helpful|valuable)"
)
_TRUE = r"(?:right|correct|accurate|true|truthful|factual|reliable|exact|error-free|precise)"
_UNVERIFIABLE = (
    (
        "no model can promise it",
        _any(
            r"(?:never|not|don't|do not|no|avoid|without|zero|free of|free from|cannot|can't|isn't|aren't) (?:\w+ing )?"
            r"(?:be |make |contain |have |allow |commit |room for |tolerance for |allowed to be )?(?:any |a |a single |all )?"
            r"(?:mistakes?|errors?|err|wrong|hallucinat\w+|inaccura\w+|incorrect|fail|mistaken)",
            r"(?:errors?|mistakes?|inaccuracies|hallucinations?|failure) (?:is|are|will|must|may|can|shall) (?:not|un|never|no)\w*(?: \w+)?",
            r"(?:under no circumstances|at no point|by no means|in no case)\b.{0,20}\b(?:hallucinat\w*|err|wrong|invent|fail)",
            r"infallib\w+|flawless\w*|faultless\w*|error-free|mistake-free|foolproof|bulletproof|fail-safe|spotless|unerring\w*",
            r"\d\d\d? ?(?:%|per ?cent) (?:\w+ )?(?:accura\w+|correct\w*|right|certain\w*|sure|reliab\w+|true)",
            r"(?:accuracy|correctness|reliability|precision) (?:\w+ )?(?:is|of|at|must be|should be|has to be) (?:\w+ )?(?:100|one hundred|perfect|total)",
            r"hundred per ?cent|guarantee\w*|absolute(?:ly)? (?:truth|true|correct|accurate|certain|sure|right|precision|accuracy)",
            rf"(?:always|completely|entirely|totally|fully|perfectly|invariably|unfailingly) (?:be |give |tell )?(?:the )?{_TRUE}",
            r"always (?:make|take|give|choose|find|pick) the (?:right|correct|best)|be right (?:every|all)",
            rf"(?:ensure|make sure|be sure|see to it|make certain)\b.{{0,30}}\b(?:is|are|be) (?:all |always |fully )?{_TRUE}",
            r"(?:every|each|all|any|everything|nothing)\b.{0,25}\b(?:must|has to|have to|needs? to|should|shall|may) be "
            rf"(?:\w+ )?(?:{_TRUE}|wrong|false)",
            r"get (?:it|this|that|everything|things|all) (?:\w+ )?right|beyond (?:any )?doubt|the truth and nothing but",
            rf"be (?:\w+ and )?{_TRUE}|most {_TRUE}|perfect accuracy|know everything|know it all|all-knowing|omniscient",
        ),
    ),
    (
        "it pulls two ways, and nothing tells how far",
        _any(
            r"(?:creativ\w+|original\w*|imaginati\w+|inventive\w*|bold|free|fun|artistic|poetic|playful)\b.{0,30}\b(?:but|yet|and|"
            r"while|with|still|though|without)\b.{0,30}\b(?:accura\w+|faithful\w*|factual\w*|facts|truth\w*|correct\w*|precise\w*|"
            r"exact\w*|reality)",
            r"(?:accura\w+|faithful\w*|factual\w*|truth\w*|correct\w*|precise\w*)\b.{0,30}\b(?:but|yet|and|while|with|still|though)\b"
            r".{0,30}\b(?:creativ\w+|original\w*|imaginati\w+|inventive\w*|artistic|poetic)",
            r"(?:balance|combine|mix|marry|reconcile) (?:\w+ )?(?:creativity|imagination|originality|fantasy)",
        ),
    ),
    (
        "everyone sees it otherwise",
        _any(
            rf"{_PRAISE}(?:,? \w+)? (?:possible )?{_THING}|most \w+ (?:possible )?{_THING}",
            rf"(?:{_THING}|you) (?:\w+ ){{0,2}}(?:is|are|be|feels?|sounds?|reads?|looks?) (?:as )?(?:\w+ )?(?:and )?{_PRAISE}",
            rf"(?:be|sound|feel|read|look|make it) (?:more |truly |really |very |as )?{_PRAISE}",
            r"(?:write|create|make|produce|give|craft|deliver) (?:\w+ )?something (?:\w+ )?\w+(?:ing|ful|ive|al|ent|able|ous)",
            r"as \w+ as (?:possible|you can|you possibly can|it gets|a human|if)|(?:your|the) (?:very |absolute )?best",
            r"(?:be|act|think|write|answer|reply) (?:\w+ )?(?:smart|smartly|clever|cleverly|brilliantly|wise|wisely|sensible|"
            r"sensibly|intelligent|intelligently|thoughtful|thoughtfully|helpful|reasonable|sharp|ingenious|amazing|creative)",
            r"like an? (?:\w+ )?(?:genius|mastermind|pro|master|virtuoso|wizard|human|star|legend|guru)|expert's expert",
            r"excellence|perfection|greatness|brilliance|intelligence|genius|masterpiece|mastery|wow factor",
            r"(?:impress|amaze|wow|delight|astonish|dazzle|thrill|blow away|captivate|enchant) (?:the|your|our|my|every|us|me|them)",
            r"(?:highest|top|best|exceptional|superior|utmost|maximum|premium|finest) (?:\w+ )?(?:quality|standards?|care|level|precision)",
            r"make (?:it|this|the text|them|every word|each word) (?:\w+ )?(?:pop|shine|sing|sparkle|great|count|stand out|special|amazing|nice)",
            r"(?:out of the park|above and beyond|a-game|nail it|blow \w+ (?:away|minds?)|exceed (?:\w+ )?expectations?|second to none)",
            r"(?:really |always )?think (?:really |very |extra )?(?:hard|carefully|deeply|twice|long|like)|really think|use your (?:head|brain)",
            r"use (?:your |some )?(?:own )?(?:common sense|good judge?ment|best judge?ment|sound judge?ment|intuition|wits|imagination)",
            r"to the best of your|do (?:a|an) (?:\w+ )?(?:good|great|nice|excellent|proper) job|try (?:really |very )?hard",
        ),
    ),
)


def unverifiable(sentence: Sentence) -> str | None:
    """Why nobody can tell whether a reply follows this demand; None where somebody can."""
    return next((why for why, pattern in _UNVERIFIABLE if pattern.search(sentence.text)), None)
