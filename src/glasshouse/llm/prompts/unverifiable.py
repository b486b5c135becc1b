"""Demands of a prompt that nobody can check.

These are lists of English words, not understanding: a linter must be fast, work offline and give the same
answer twice. They miss what is said in unusual words, and other languages altogether.
"""

# ruff: noqa: E501 -- lists of alternatives are searched for a word, not read line by line

from __future__ import annotations

from glasshouse.llm.prompts.patterns import any_of
from glasshouse.llm.prompts.reading import Sentence

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
        any_of(
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
        any_of(
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
        any_of(
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
