"""Words that end in a full stop without ending a sentence."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BEFORE_NAME = _words(
    """
    mr mrs ms messrs dr prof st ste hon rev gen col capt lt sgt maj gov sen rep pres amb adm cmdr
    sr sra srta dra mme mlle herr fr hr mt ft vs v b cf viz e.g i.e eg ie ca approx esp incl excl
    """
)
"""Never the end: a name, a place or an example follows."""

BEFORE_NUMBER = _words(
    """
    no nos nr núm n° sec secs sect § art arts fig figs tab eq eqs eqn ch chap vol vols ed eds p pp pg pt para
    paras cl ex exh exs sched app col cols l ll fn ser reg regs tel ext op jan feb mar apr jun jul aug sep
    sept oct nov dec rm bldg
    """
)
"""Not the end where a number, a letter or a bracket follows: "No. 5", "Fig. A", "Sec. (b)"; but "No. That is
wrong." is two sentences."""

WITHIN_NAME = _words(
    """
    inc corp co ltd llc l.l.c l.p llp l.l.p plc p.l.c n.a n.v b.v s.a s.a.s s.r.l s.p.a pty pte bros jr sr esq
    m.d ph.d d.c u.s u.s.a u.k e.u a.m p.m etc al assn assoc dept div univ inst natl intl mfg ave blvd rd hwy
    b.a m.a b.s m.s j.d c.p.a a.d b.c fed supp cir dist ct bankr int'l gmbh a.g mio mrd bzw usw ggf evtl
    avda admón cía d.h z.b u.a
    """
)
"""The end only where a word follows that often begins a sentence: "Acme Inc. The company" is two."""

STARTERS = _words(
    """
    The This That These Those It Its He She We They You I A An In On At For From If When While Where As After
    Before However But And Or So Such Each Any All No Not Neither Either Both Upon Under Unless Subject
    Notwithstanding Except During Pursuant There Here His Her Our Your Their To With By Although Because Since
    Then Thus Therefore Furthermore Moreover Additionally Other Some Many Most Nothing What Who Why How Once
    Until Through Within Without Between Following Also Every Another Only Even Despite Like Later Today Now
    El La Los Las Un Una En Se Le Les Il Elle Der Die Das Ein Eine Er Sie Es Im
    """
)
"""Words that, with a capital letter, begin sentences far more often than they stand in a name."""

MONTHS = _words(
    """
    Januar Februar März April Mai Juni Juli August September Oktober November Dezember
    januar februar marts april maj juni juli august september oktober november desember
    """
)
"""A day's number with a full stop stands before them: "am 3. Mai"."""
