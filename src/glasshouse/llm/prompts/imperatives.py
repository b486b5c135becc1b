"""Whether a sentence of a prompt demands something, and how hard.

These are lists of English words, not understanding: a linter must be fast, work offline and give the same
answer twice. They miss what is said in unusual words, and other languages altogether.
"""

# ruff: noqa: E501 -- lists of alternatives are searched for a word, not read line by line

from __future__ import annotations

import re

from glasshouse.llm.prompts.patterns import words
from glasshouse.llm.prompts.reading import Sentence

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

_OPENERS = words(
    r"please|always|never|only|just|don't|do not|do|kindly|also|then|first|finally|next|and|oh|but|so|now|instead"
)
_SUBJECT = words(
    r"you|your (?:\w+ )?(?:answers?|reply|replies|responses?|outputs?|tasks?|job|role)"
    r"|the (?:\w+ )?(?:answer|reply|response|output|result)"
)
_MODAL = words(
    r"must|shall|should|ha(?:ve|s) to|needs? to|cannot|can't|may not|required|mandatory|forbidden|prohibited"
    r"|not (?:allowed|permitted|acceptable)|unacceptable|obligatory|expected to|is to be|are to be"
)
_WISH = words(
    r"(?:we|i) (?:\w+ )?(?:want|need|expect|ask|would like|'d like) (?:you|the reply|the answer)|i'd like you"
)
_HARD = words(
    r"must|shall|ha(?:ve|s) to|needs? to|need|cannot|can't|may not|no \w+ may|not a single|required|mandatory"
    r"|forbidden|prohibited|permitted|acceptable|never|always|only|exactly|precisely|strictly|at most|at least"
    r"|no more than|no less than|no later than|maximum|minimum|don't|do not|under no circumstances|ensure"
    r"|make sure|every|each|avoid|refrain|stick to|without exception|not use"
)
_VERB_AFTER_NOUN = words(r"is|are|was|were|has|have|had|may|can|will|of")


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
