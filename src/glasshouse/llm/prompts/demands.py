"""What sentences of a prompt demand: whether they do, how hard, against each other, and beyond any check.

These are lists of English words, not understanding: a linter must be fast, work offline and give the same
answer twice. They miss what is said in unusual words, and other languages altogether.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
        specify spell split start state stay stick stop stress strip structure substitute suggest sum summarise
        summarize support take talk tell test think translate treat trim try turn underline use validate verify
        weigh work wrap write
        """,
    )
)
"""First words of imperatives, as they stand in prompts."""

_OPENERS = _words(r"please|always|never|only|just|don't|do not|do|kindly|under no circumstances|no|also|then|first|finally|next")
_SUBJECT = _words(
    r"you|your (?:\w+ )?(?:answers?|reply|replies|responses?|outputs?|tasks?|job|role)"
    r"|the (?:\w+ )?(?:answer|reply|response|output|result)"
)
_MODAL = _words(
    r"must|shall|should|ha(?:ve|s) to|needs? to|cannot|can't|may not|required|mandatory|forbidden|prohibited"
    r"|not (?:allowed|permitted|acceptable)|unacceptable|obligatory|expected to|is to be|are to be"
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
    first, *rest = re.findall(r"[A-Za-z']+", text) or [""]
    while rest and _OPENERS.fullmatch(first):
        if first.lower() in ("never", "don't", "do", "please", "kindly", "always"):
            return True
        first, *rest = rest
    if first.lower() in _VERBS and not (rest and _VERB_AFTER_NOUN.fullmatch(rest[0])):
        return True
    return bool(_SUBJECT.search(text) and _MODAL.search(text))


def weight(sentence: Sentence) -> float:
    """How hard a demand is: 1 where words leave no choice, 0.5 for another instruction, else 0."""
    if sentence.heading:
        return 0.0
    instruction = is_instruction(sentence) or sentence.item
    if _HARD.search(sentence.text) and (instruction or _MODAL.search(sentence.text) or _short_rule(sentence)):
        return 1.0
    return 0.5 if instruction else 0.0


def _short_rule(sentence: Sentence) -> bool:
    """"Exactly two examples are required.": a statement, and a demand all the same."""
    return sentence.words <= 12


# --- demands that exclude each other --------------------------------------------------------------------

_NO = r"(?:no|not|never|don't|do not|doesn't|avoid|without|refrain from|omit|skip|leave out|forbidden|banned|prohibited|not allowed)"
_LANGUAGES = "English|German|French|Spanish|Italian|Dutch|Polish|Portuguese|Chinese|Japanese|Russian|Arabic|Turkish|Swedish"
_GIVEN = r"(?:text|document|passage|context|source|input|material|report|article|excerpt|information|facts|data)s?"
_ADDED = r"(?:introduction|intro|greeting|preamble|explanation|commentary|comment|paragraph|conclusion|summary|closing remark|sentence)"
_ONLY = r"(?:only|nothing but|nothing else|solely|exclusively|just|merely|purely|strictly|raw|bare|no other text|no additional text|nothing before|nothing after|nothing around)"


@dataclass(frozen=True)
class Opposites:
    """Two ways to be that no reply can be at once. `unless`: words that restrict a demand to some cases."""

    about: str
    one: re.Pattern[str]
    other: re.Pattern[str]
    negates: bool = False  # `other` is about the thing; the sentence must not deny it
    scoped: bool = True  # demands about parts, or about cases, stand apart


_CASES = _words(r"if|unless|when|whenever|otherwise|in case|where|wherever|except|even if")
_PARTS = re.compile(
    r"\b(?:the |each |every |a |any )?(title|headline|heading|subject(?: line)?|introduction|conclusion|abstract|"
    r"body|notes?|caption|label|reason|example|quotes?|quotations?|cell|column|field|product names?|names?|key|"
    r"summary|paragraph|line|footer|header|comment|card|bullet)\b",
    re.IGNORECASE,
)

_OPPOSITES = (
    Opposites(
        "length",
        _words(r"brief|briefly|concise|concisely|succinct|succinctly|terse|short|to the point|compact|crisp|as few words"),
        _words(
            r"(?:great|full|much|more|every) detail|in detail|detailed|comprehensive|comprehensively|exhaustive|"
            r"exhaustively|thorough|thoroughly|elaborate|at length|in[- ]depth|extensive|extensively|lengthy|"
            r"nothing out|every aspect|all aspects|verbose"
        ),
    ),
    Opposites(
        "JSON alone or words around it",
        re.compile(rf"{_ONLY}\b.{{0,60}}\bJSON\b|\bJSON\b.{{0,60}}\b{_ONLY}\b", re.IGNORECASE),
        re.compile(
            rf"\b(?:after|before|below|above|beside|around|following) the JSON\b"
            rf"|\b(?:add|append|include|prepend|begin with|start with|open with|finish with|end with|close with|"
            rf"conclude with|followed by|precede\w* by) (?:\w+ ){{0,3}}{_ADDED}\b"
            rf"|\bexplain (?:your|why|how)\b",
            re.IGNORECASE,
        ),
    ),
    Opposites(
        "tone",
        _words(r"formal|formally|professional|businesslike|official|ceremonious"),
        _words(r"casual|casually|informal|informally|chatty|slang|colloquial|buddy|laid-back|relaxed|like a friend"),
    ),
    Opposites(
        "language of the reply",
        re.compile(
            rf"\b(?:always|only|exclusively|solely|must)\b.{{0,40}}\b(?:{_LANGUAGES})\b"
            rf"|\b(?:answer|reply|respond|write|speak)(?: \w+)? in (?:{_LANGUAGES})\b"
            rf"|\b(?:answer|reply|response|output) (?:is|must be|should be) in (?:{_LANGUAGES})\b"
            rf"|\b(?:{_LANGUAGES}) only\b",
            re.IGNORECASE,
        ),
        re.compile(
            r"\blanguage (?:of|in which|that|used by|spoken by|the)\b|\b(?:which|what)ever language\b"
            r"|\b(?:user|customer|person|reader|sender)'s (?:own )?language\b|\bsame language as\b",
            re.IGNORECASE,
        ),
    ),
    Opposites(
        "lists",
        re.compile(
            rf"\b{_NO}\b.{{0,40}}\b(?:bullets?|bulleted|lists?|enumerations?)\b"
            rf"|\b(?:bullets?|bullet points|lists?|enumerations?)\b.{{0,20}}\b{_NO}\b"
            r"|\b(?:flowing|continuous|running) (?:prose|text)\b",
            re.IGNORECASE,
        ),
        _words(r"bullets?|bullet points?|bulleted list|numbered list|as a list|list format"),
        negates=True,
    ),
    Opposites(
        "sources",
        re.compile(
            rf"\b{_ONLY}\b.{{0,40}}\b{_GIVEN}\b|\b{_NO} (?:\w+ ){{0,3}}(?:own|outside|external|general|prior|world) "
            r"(?:knowledge|information|sources)\b",
            re.IGNORECASE,
        ),
        _words(r"(?:own|general|background|outside|external|prior|world|common|additional) (?:knowledge|information|facts)"),
        negates=True,
    ),
    Opposites(
        "asking back",
        re.compile(
            rf"\b{_NO}\b.{{0,25}}\b(?:ask\w*|questions?|request\w*|queries|clarif\w+|further information)\b",
            re.IGNORECASE,
        ),
        re.compile(
            r"\bask (?:\w+ ){0,3}(?:questions?|clarif\w+|back|for|whenever|when|if)\b|\bcheck back\b|\binquire\b"
            r"|\benquire\b|\bfollow-up questions?\b|\bseek clarification\b|\brequest (?:\w+ )?(?:clarif\w+|information)\b",
            re.IGNORECASE,
        ),
        negates=True,
        scoped=False,
    ),
    Opposites(
        "certainty",
        re.compile(
            r"\b(?:definite|definitive|decisive|unambiguous) (?:\w+ )?(?:answer|reply|response|verdict|statement)\b"
            r"|\b(?:no|without|never|do not|don't|avoid) hedg\w+|\bcommit to\b|\bbe (?:certain|confident|decisive)\b"
            r"|\bnever (?:say|admit|tell|state)\b.{0,30}\bknow\b|\balways (?:give|provide|have) an answer\b"
            r"|\bnever (?:express|show) (?:doubt|uncertainty)\b",
            re.IGNORECASE,
        ),
        re.compile(
            r"\b(?:do not|don't|cannot|not) (?:know|be sure|be certain)\b|\b(?:express|show|voice|state|admit|mention|"
            r"indicate|flag) (?:\w+ )?(?:uncertainty|doubts?)\b|\bnot sure\b|\bunsure\b|\bsay so if\b",
            re.IGNORECASE,
        ),
        scoped=False,
    ),
    Opposites(
        "showing the reasoning",
        re.compile(
            r"\bstep[- ]by[- ]step\b|\bshow (?:your|the|all) (?:work|working|reasoning|steps|thinking)\b"
            r"|\bchain of thought\b|\bexplain (?:your|the) (?:reasoning|thinking|steps)\b|\bthink (?:aloud|out loud)\b"
            r"|\b(?:lay out|spell out|write out|include) (?:your|the|all) (?:\w+ )?(?:reasoning|steps|thinking|thoughts?)\b",
            re.IGNORECASE,
        ),
        re.compile(
            r"\b(?:only|just|nothing but|solely|merely) (?:\w+ ){0,3}(?:answer|result|label|verdict|outcome|solution)\b"
            r"|\b(?:no|omit|without|skip|leave out|do not|don't|never)\b.{0,25}\b(?:reasoning|explanations?|steps|"
            r"justifications?|workings?|thinking)\b",
            re.IGNORECASE,
        ),
    ),
    Opposites(
        "emoji",
        re.compile(rf"\b{_NO}\b.{{0,25}}\b(?:emojis?|emoticons?|smileys?)\b|\b(?:emojis?|emoticons?)\b.{{0,20}}\b{_NO}\b", re.IGNORECASE),
        _words(r"emojis?|emoticons?|smileys?"),
        negates=True,
    ),
    Opposites(
        "vocabulary",
        re.compile(
            r"\b(?:simple|plain|easy|everyday) (?:words|language|terms|English)\b|\blay(?:people|person|man|men)\b"
            r"|\b(?:no|avoid|without|never use|do not use|don't use)\b.{0,15}\b(?:jargon|technical terms|terminology)\b"
            r"|\b(?:a child|children|beginners?|a five-year-old)\b.{0,20}\bunderstands?\b",
            re.IGNORECASE,
        ),
        re.compile(
            r"\b(?:technical|expert|specialist|specialised|specialized|scientific|professional|domain) "
            r"(?:terms?|terminology|vocabulary|language|jargon)\b",
            re.IGNORECASE,
        ),
        negates=True,
    ),
    Opposites(
        "Markdown",
        re.compile(
            rf"\b{_NO}\b.{{0,20}}\b(?:markdown|markup|formatting)\b|\bplain text only\b|\bonly plain text\b"
            r"|\bunformatted\b",
            re.IGNORECASE,
        ),
        _words(r"markdown|headings?|headers|bold|italics|a table|tables"),
        negates=True,
    ),
    Opposites(
        "tense",
        re.compile(r"(?<!not )\bpresent tense\b", re.IGNORECASE),
        re.compile(r"(?<!not )\bpast tense\b", re.IGNORECASE),
    ),
    Opposites(
        "person",
        re.compile(rf"\b{_NO}\b.{{0,20}}\bfirst person\b|\bthird person\b", re.IGNORECASE),
        _words("first person"),
        negates=True,
    ),
)

_NEGATED = _words(_NO)
_NUMBERS = {
    word: number
    for number, word in enumerate(
        "no one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
    )
}
_UNIT = r"(?P<unit>words?|sentences?|paragraphs?|pages?|lines?|items?|points?|examples?|characters?|bullets?)"
_NUMBER = rf"(?P<number>\d+|{'|'.join(_NUMBERS)}|a single|a)"
_UPPER = re.compile(
    rf"\b(?:at most|no more than|not more than|maximum of|max\.?|up to|under|below|fewer than|less than|within|"
    rf"limit\w* (?:\w+ )?to|(?:answer|reply|respond|write)(?: \w+)? in|exactly|only) {_NUMBER} {_UNIT}\b"
    rf"|\b{_NUMBER.replace('number', 'number2')} {_UNIT.replace('unit', 'unit2')} (?:at most|or less|or fewer|maximum)\b",
    re.IGNORECASE,
)
_LOWER = re.compile(
    rf"\b(?:at least|no less than|no fewer than|not less than|minimum of|more than|over|exactly) {_NUMBER} {_UNIT}\b"
    rf"|\b{_NUMBER.replace('number', 'number2')} {_UNIT.replace('unit', 'unit2')} (?:at least|or more|minimum)\b",
    re.IGNORECASE,
)
_WORDS_EACH = {"word": 1, "sentence": 18, "paragraph": 60, "page": 400, "line": 12}
"""English prose, roughly: only to tell one sentence from three paragraphs."""


@dataclass(frozen=True)
class Conflict:
    about: str
    one: Sentence
    other: Sentence


@dataclass
class _Bounds:
    upper: list[tuple[Sentence, str, str, float]] = field(default_factory=list)  # sentence, part, unit, how many
    lower: list[tuple[Sentence, str, str, float]] = field(default_factory=list)


def conflicts(sentences: Iterable[Sentence]) -> Iterator[Conflict]:
    """Pairs of sentences that no reply can follow both; one pair for each thing they are about."""
    found = [sentence for sentence in sentences if not sentence.heading]
    for opposites in _OPPOSITES:
        if pair := _opposed(opposites, found):
            yield Conflict(opposites.about, *pair)
    yield from _bounds_against(found)
    yield from _denials(found)


def _opposed(opposites: Opposites, sentences: list[Sentence]) -> tuple[Sentence, Sentence] | None:
    ones: list[Sentence] = []
    others: list[Sentence] = []
    for sentence in sentences:
        if opposites.scoped and _CASES.search(sentence.text):
            continue
        if opposites.one.search(sentence.text):
            ones.append(sentence)
        elif opposites.other.search(sentence.text) and not (
            opposites.negates and _NEGATED.search(sentence.text)
        ):
            others.append(sentence)
    for one in ones:
        for other in others:
            if not opposites.scoped or opposites.about not in ("length", "language of the reply"):
                return one, other
            if _part(one) == _part(other):
                return one, other
    return None


def _part(sentence: Sentence) -> str:
    found = _PARTS.search(sentence.text)
    return found[1].lower().rstrip("s") if found else ""


def _bounds_against(sentences: list[Sentence]) -> Iterator[Conflict]:
    bounds = _Bounds()
    for sentence in sentences:
        if _CASES.search(sentence.text):
            continue
        for pattern, kept in ((_UPPER, bounds.upper), (_LOWER, bounds.lower)):
            for found in pattern.finditer(sentence.text):
                unit = (found["unit"] or found["unit2"]).lower().rstrip("s")
                number = (found["number"] or found["number2"]).lower()
                value = int(number) if number.isdigit() else _NUMBERS.get(number, 1)
                kept.append((sentence, _bounded_part(sentence, unit), unit, value))
    for above, part, unit, most in bounds.upper:
        for below, other_part, other_unit, least in bounds.lower:
            if above is below or part != other_part:
                continue
            sizes = _WORDS_EACH.get(unit), _WORDS_EACH.get(other_unit)
            if unit == other_unit:
                clash = least > most
            else:
                clash = None not in sizes and least * (sizes[1] or 0) > 2 * most * (sizes[0] or 0)
            if clash:
                yield Conflict("size", above, below)
                return
    yield from _words_against_bounds(bounds, sentences)


def _bounded_part(sentence: Sentence, unit: str) -> str:
    """What has so many: "three sentences in each paragraph" is about paragraphs."""
    found = re.search(r"\b(?:each|every|per|in an?|of an?) (\w+)", sentence.text, re.IGNORECASE)
    if found and found[1].lower().rstrip("s") != unit:
        return found[1].lower()
    return _part(sentence) if unit not in ("line", "paragraph", "bullet", "example") else ""


def _words_against_bounds(bounds: _Bounds, sentences: list[Sentence]) -> Iterator[Conflict]:
    """One or two sentences, and in great detail."""
    length = _OPPOSITES[0]
    plain = [one for one in sentences if not _CASES.search(one.text) and not _part(one)]
    for sentence, part, unit, most in bounds.upper:
        if not part and most * _WORDS_EACH.get(unit, 1000) <= 50:
            for other in plain:
                if other is not sentence and length.other.search(other.text):
                    yield Conflict("length", sentence, other)
                    return
    for sentence, part, unit, least in bounds.lower:
        if not part and least * _WORDS_EACH.get(unit, 0) >= 150:
            for other in plain:
                if other is not sentence and length.one.search(other.text):
                    yield Conflict("length", other, sentence)
                    return


_EMPTY = frozenset(
    re.findall(r"\w+", "the a an any your you it its of to in on for with and or do not don t never always no must please")
)


def _denials(sentences: list[Sentence]) -> Iterator[Conflict]:
    """The same words with and without a "not"."""
    known = []
    for sentence in sentences:
        if _CASES.search(sentence.text) or not is_instruction(sentence):
            continue
        words = frozenset(word.lower() for word in re.findall(r"[a-zA-Z]+", sentence.text)) - _EMPTY
        if len(words) >= 2:
            known.append((sentence, words, bool(re.search(r"\b(?:not|never|don't)\b", sentence.text, re.I))))
    for (one, words, denied), (other, others, other_denied) in combinations(known, 2):
        if denied != other_denied and words == others:
            yield Conflict("the same thing", one, other)
            return


# --- demands that nobody can check ----------------------------------------------------------------------

_THING = r"(?:answers?|repl(?:y|ies)|responses?|results?|outputs?|texts?|work|wording|writing|summary|solution|content|quality)"
_UNVERIFIABLE = (
    (
        "no model can promise it",
        re.compile(
            r"\b(?:never|not|don't|no|avoid|without|zero|free of|free from)\b (?:\w+ing )?(?:be |make |contain |have |allow |"
            r"commit )?(?:any |a |a single |all )?(?:mistakes?|errors?|wrong|hallucinat\w+|inaccura\w+|incorrect)\b"
            r"|\b(?:errors?|mistakes?|inaccuracies|hallucinations?) (?:is|are) (?:not |un|never )\w+"
            r"|\binfallib\w+|\bflawless\w*|\berror-free\b|\b100 ?(?:%|percent)|\bhundred per ?cent\b"
            r"|\bguarantee\b|\babsolute(?:ly)? (?:truth|true|correct|accurate|certain|sure)\b"
            r"|\b(?:always|completely|entirely|totally|fully|perfectly) (?:be )?(?:right|correct|accurate|true|truthful|factual)\b"
            r"|\balways (?:make|take|give|choose|find) the (?:right|correct|best)\b"
            r"|\b(?:ensure|make sure|be sure)\b.{0,30}\b(?:is|are|be) (?:all |always |fully )?(?:correct|accurate|true|right)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "it pulls two ways, and nothing tells how far",
        re.compile(
            r"\b(?:creativ\w+|original\w*|imaginati\w+|inventive\w*|bold|free|fun)\b.{0,30}\b(?:but|yet|and|while|with|still|though)\b"
            r".{0,30}\b(?:accura\w+|faithful\w*|factual\w*|truth\w*|correct\w*|precise\w*|exact\w*)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "everyone sees it otherwise",
        re.compile(
            rf"\b(?:best|ideal|perfect|optimal|highest|finest|superb|outstanding|exceptional|excellent|amazing|awesome|"
            rf"brilliant|world-class|top-notch|first-class|stunning|compelling|captivating|impressive|beautiful|wonderful|"
            rf"fantastic|incredible|great|engaging|high-quality) (?:possible )?{_THING}\b"
            rf"|\b{_THING} (?:\w+ ){{0,2}}(?:is|are|be) (?:\w+ )?(?:perfect|ideal|outstanding|exceptional|excellent|amazing|"
            rf"brilliant|stunning|compelling|captivating|impressive|beautiful|wonderful|engaging|great)\b"
            r"|\b(?:write|create|make|produce|give) (?:\w+ )?something (?:\w+ )?\w+(?:ing|ful|ive|al|ent)\b"
            r"|\bas \w+ as (?:possible|you can|you possibly can|it gets)\b|\byour (?:very |absolute )?best\b"
            r"|\b(?:be|act|think|write|answer) (?:\w+ )?(?:smart|smartly|clever|cleverly|brilliant|brilliantly|wise|wisely|"
            r"intelligent|intelligently|amazing|perfect|insightful)\b|\blike an? (?:\w+ )?(?:genius|mastermind|expert of experts)\b"
            r"|\b(?:excellence|perfection|greatness|brilliance|intelligence)\b|\b(?:impress|amaze|wow|delight|astonish) \w+"
            r"|\b(?:highest|top|best|exceptional|superior) quality\b",
            re.IGNORECASE,
        ),
    ),
)


def unverifiable(sentence: Sentence) -> str | None:
    """Why nobody can tell whether a reply follows this demand; None where somebody can."""
    return next((why for why, pattern in _UNVERIFIABLE if pattern.search(sentence.text)), None)
