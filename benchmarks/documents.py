"""Quotes looked up in contracts, here and by langextract's resolver: how many, how exactly, how fast.

    python benchmarks/documents.py --langextract PYTHON [--data DIR] [--rounds 5]

The labelled clauses of CUAD that stand in their contracts up to white space, and the same with one number or
one negation changed. Both sides get the same texts and clauses, each as a process of its own, in turn;
reading and importing do not count, making an index or tokens of a text does. `--langextract` names the Python
of an environment that has langextract; without it only our own side runs. The works:

contracts  all clauses of a contract in one call; langextract without its fuzzy part
alone      one clause a call, in the whole contract; langextract without its fuzzy part. (Of several clauses
           in one call it expects that they come in the order of the text, and labels do not.)
windows    one clause a call, in the 1,000 characters before it and after it, which is the size of part that
           langextract makes of a text: with its fuzzy part, its default, and without
changed    the same of changed clauses
whole      changed clauses in the whole contract, with the fuzzy part: the few that are cheapest for it,
           whose time grows with the tokens of the text times the square of the clause's
all        our side alone: many changed clauses in their whole contracts

langextract takes a part of a clause for a match where it finds no more; "no parts" tells it not to
(`accept_match_lesser=False`), so that its fuzzy part has to find the whole of a changed clause.

`right` says that the place is the one that a regular expression of the words finds (of changed clauses, that
intersection over union with it is 0.9 at least); `called_exact` counts changed clauses that a side calls an
exact match. Ratios are of processor time, medians over the rounds: the machine may be busy.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "documents.json"

LANGEXTRACT = """
import json, sys, time
from importlib.metadata import version
from langextract.core.data import Extraction
from langextract.resolver import Resolver
with open(sys.argv[1], encoding="utf-8") as file:
    works = json.load(file)
options = json.loads(sys.argv[2])
resolver = Resolver()
found = {}
text, clause = json.loads(sys.argv[3])
list(resolver.align([Extraction(extraction_class="quote", extraction_text=clause)], text, 0, 0, **options))
for name, calls in works.items():
    places = []
    began, processor = time.perf_counter(), time.process_time()
    for text, clauses in calls:
        asked = [Extraction(extraction_class="quote", extraction_text=clause) for clause in clauses]
        list(resolver.align(asked, text, 0, 0, **options))
        for each in asked:
            at = each.char_interval
            status = each.alignment_status
            places.append(None if at is None else
                          [at.start_pos, at.end_pos, status is not None and status.value == "match_exact"])
    found[name] = {"seconds": time.perf_counter() - began, "processor": time.process_time() - processor,
                   "places": places}
print(json.dumps({"version": version("langextract"), "works": found}))
"""

WARM_UP = ("to import what is imported late, like", "to import what was imported late, like")
"""A text and a clause that both sides look up first."""

Call = tuple[str, list[str]]
"""A text, and the clauses to be looked up in it."""
Places = list[tuple[int, int]]


def ours(works: dict[str, list[Call]]) -> dict[str, dict[str, Any]]:
    from glasshouse.documents.quotes.search import Source

    found = {}
    text, clause = WARM_UP
    Source(text).find(clause)
    for name, calls in works.items():
        places = []
        began, processor = time.perf_counter(), time.process_time()
        for text, clauses in calls:
            source = Source(text)
            for clause in clauses:
                quote = source.find(clause)
                places.append(quote and [quote.start, quote.end, quote.verbatim])
        found[name] = {
            "seconds": time.perf_counter() - began,
            "processor": time.process_time() - processor,
            "places": places,
        }
    return found


class Works:
    """What is looked up, and where it stands."""

    def __init__(self, data: Path, seed: int, count: int) -> None:
        sys.path.insert(0, str(HERE.parent))
        from tests.documents.changed_clauses import changes, contracts, reference

        self.calls: dict[str, list[Call]] = {}
        self.truth: dict[str, list[Places]] = {}
        rng = random.Random(seed)
        every = [contract for contract in contracts(data) if len(contract.clauses) > 4]
        some = rng.sample(every, max(2, count // 2))
        standing = [
            (contract, clause, places)
            for contract in some
            for clause in contract.clauses
            if (places := reference(contract.text, clause))
        ]
        for contract, rows in itertools.groupby(standing, key=lambda row: row[0]):
            rows = list(rows)
            self._add("contracts", contract.text, [row[1] for row in rows], [row[2] for row in rows])
        alone = rng.sample(standing, count)
        for contract, clause, places in alone:
            self._add("alone", contract.text, [clause], [places])
        short = [row for row in standing if len(row[1]) <= 300]
        for contract, clause, places in rng.sample(short, count):
            self._window("windows", contract.text, clause, places[0], clause, reference)
        pairs = [(contract, clause) for contract, clause, _ in standing]
        endless = changes([(contract, clause) for contract, clause, _ in short], seed)
        changed = list(itertools.islice(endless, 4 * count))
        for contract, change in changed[:count]:
            at = reference(contract.text, change.clause)[0]
            self._window("changed", contract.text, change.clause, at, change.quote, reference)
        cheap = sorted(changed, key=lambda row: len(row[0].text) * len(row[1].quote) ** 2)
        for contract, change in [row for row in cheap if len(row[1].quote) >= 40][: max(3, count // 10)]:
            self._add("whole", contract.text, [change.quote], [reference(contract.text, change.clause)])
        many: dict[str, tuple[str, list[str], list[Places]]] = {}
        for contract, change in itertools.islice(changes(pairs, seed + 1), 25 * count):
            row = many.setdefault(contract.id, (contract.text, [], []))
            row[1].append(change.quote)
            row[2].append(reference(contract.text, change.clause))
        for row in many.values():
            self._add("all", *row)

    def _add(self, work: str, text: str, clauses: list[str], truth: list[Places]) -> None:
        self.calls.setdefault(work, []).append((text, clauses))
        self.truth.setdefault(work, []).extend(truth)

    def _window(self, work: str, text: str, clause: str, at: tuple[int, int], asked: str, reference) -> None:
        window = text[max(0, at[0] - 1000) : at[1] + 1000]
        self._add(work, window, [asked], [reference(window, clause)])


def judged(work: str, found: dict[str, Any], truth: list[Places]) -> dict[str, float]:
    """Figures of one side in one work."""
    least = 0.9 if work in ("changed", "whole", "all") else 1.0
    right = 0
    for place, spans in zip(found["places"], truth, strict=True):
        right += place is not None and any(_overlap(place, span) >= least for span in spans)
    figures = {
        "seconds": found["seconds"],
        "processor": found["processor"],
        "quotes": len(truth),
        "found": sum(place is not None for place in found["places"]),
        "right": right,
    }
    if work in ("changed", "whole", "all"):
        figures["called_exact"] = sum(bool(place and place[2]) for place in found["places"])
    return figures


def _overlap(place: list[int], span: tuple[int, int]) -> float:
    """Intersection over union."""
    both = min(place[1], span[1]) - max(place[0], span[0])
    return both / (max(place[1], span[1]) - min(place[0], span[0]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--langextract", metavar="PYTHON")
    parser.add_argument("--data", type=Path, default=os.environ.get("GLASSHOUSE_TEST_DATA"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=40, help="clauses of a work; of contracts half as many")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    if given.data is None:
        parser.error("set GLASSHOUSE_TEST_DATA, or name the folder with --data")
    from glasshouse.core.devices import machine

    works = Works(given.data, given.seed, given.count)
    exact: dict[str, bool] = {"enable_fuzzy_alignment": False}
    strict: dict[str, bool] = {"accept_match_lesser": False}
    sides: dict[str, tuple[dict[str, bool], tuple[str, ...]]] = {
        "langextract": ({}, ("windows", "changed", "whole")),
        "langextract, exact alone": (exact, ("contracts", "alone", "windows", "changed")),
        "langextract, no parts": (strict, ("changed", "whole")),
    }
    rounds: dict[str, dict[str, list[dict[str, float]]]] = {}
    versions = {name: version(name) for name in ("glasshouse-lm", "rapidfuzz")}
    for _ in range(given.rounds):
        for work, found in ours(works.calls).items():
            figures = judged(work, found, works.truth[work])
            rounds.setdefault(work, {}).setdefault("glasshouse", []).append(figures)
        for side, (settings, names) in sides.items() if given.langextract else ():
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "works.json")
                file.write_text(json.dumps({name: works.calls[name] for name in names}), encoding="utf-8")
                line = [given.langextract, "-c", LANGEXTRACT, str(file)]
                line += [json.dumps(settings), json.dumps(WARM_UP)]
                environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
                done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
            reply = json.loads(done.stdout.splitlines()[-1])
            versions["langextract"] = reply["version"]
            for work, found in reply["works"].items():
                rounds[work].setdefault(side, []).append(judged(work, found, works.truth[work]))
    summary: dict[str, dict[str, Any]] = {}
    for work, by_side in rounds.items():
        for side, figures in by_side.items():
            against = [
                theirs["processor"] / mine["processor"]
                for theirs, mine in zip(figures, by_side["glasshouse"], strict=True)
            ]
            row = summary.setdefault(work, {})[side] = {
                **figures[0],
                "seconds": round(statistics.median(each["seconds"] for each in figures), 4),
                "processor": round(statistics.median(each["processor"] for each in figures), 4),
                "times_ours": [round(f(against), 2) for f in (statistics.median, min, max)],
            }
            print(
                f"{work:10} {side:24} {row['processor']:9.3f} s  "
                f"found {row['found']:4} right {row['right']:4} of {row['quotes']}  "
                f"called exact {row.get('called_exact', '-')}  x ours {row['times_ours']}"
            )
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions,
        "rounds": given.rounds,
        "summary": summary,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"documents": {work: row.get("glasshouse") for work, row in summary.items()}}))


if __name__ == "__main__":
    main()
