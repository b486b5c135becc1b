"""Every labelled clause of CUAD, and 10,000 of them with one number or one negation changed."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path

import pytest
from tests.documents.changed_clauses import Contract, changes, contracts, misplaced, reference, unshown

from glasshouse.documents.quotes.search import Source

pytestmark = [
    pytest.mark.accept,
    pytest.mark.skipif(
        "GLASSHOUSE_TEST_DATA" not in os.environ, reason="GLASSHOUSE_TEST_DATA names no folder"
    ),
]


@pytest.fixture(scope="module")
def found() -> list[tuple[Contract, str, list[tuple[int, int]]]]:
    """The clauses that stand in their contracts up to white space, and where."""
    rows = []
    for contract in contracts(Path(os.environ["GLASSHOUSE_TEST_DATA"])):
        for clause in contract.clauses:
            if places := reference(contract.text, clause):
                rows.append((contract, clause, places))
    assert len(rows) > 8900
    return rows


def test_every_clause_that_stands_in_its_contract_is_found_verbatim_and_where_it_stands(found):
    for contract, rows in itertools.groupby(found, key=lambda row: row[0]):
        source = Source(contract.text)
        for _, clause, places in rows:
            assert not misplaced(source.find(clause), contract.text, clause, places), clause


@pytest.mark.parametrize("seed", [5303, 7717])
def test_a_changed_number_or_negation_is_never_verbatim_and_nearly_always_shown(found, seed):
    by_id = {contract.id: contract for contract, _, _ in found}
    sources = {name: Source(contract.text) for name, contract in by_id.items()}
    wrong, kinds = Counter(), Counter()
    standing = [(contract, clause) for contract, clause, _ in found]
    for contract, change in itertools.islice(changes(standing, seed), 10_000):
        wrong[unshown(sources[contract.id].find(change.quote), contract.text, change)] += 1
        kinds[change.kind] += 1
    print(dict(wrong), dict(kinds))
    assert wrong["verbatim"] == 0
    assert wrong[None] >= 9900
    assert min(kinds.values()) >= 100
