"""The two documents of examples/documents, with all that is right about them."""

import json
from pathlib import Path

import pytest

from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.loading import load

FOLDER = Path(__file__).parents[2] / "examples" / "documents"
RIGHT = {
    "quarterly-report": {
        "revenue": ("Revenue was 48.6 million crowns in the third quarter", 48.6),
        "margin": ("The operating margin fell to 14.2%, from 15.1% in the second quarter", 14.2),
        "margin_previous_quarter": ("from 15.1% in the second quarter", 15.1),
        "income": ("Net income came to 5.3 million crowns.", 5.3),
        "income_expected": ("Analysts had expected 4.9 million crowns on average.", 4.9),
        "cash_flow": ("Cash flow from operations was 7.1 million crowns", 7.1),
        "outlook": (
            "For the fourth quarter the board expects revenue between 49 and 51 million crowns and an",
            "revenue between 49 and 51 million crowns",
        ),
    },
    "company-profile": {
        "name": ("Tallow Reach Ferries carries people and goods", "Tallow Reach Ferries"),
        "revenue": ("The company earned revenue of 212 million crowns last year.", 212),
        "employees": ("It employs 1,340 people, of whom 900 are at sea.", 1340),
        "industry": ("Its business is passenger and freight shipping.", "passenger and freight shipping"),
    },
}


@pytest.mark.parametrize("domain", ["general", "financial"])
@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_found_borne_out_and_shown(scripted, pairs, name, domain):
    text = load(FOLDER / f"{name}.txt")
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text())
    assert list(schema["properties"]) == list(RIGHT[name])
    llm = scripted([pairs(**RIGHT[name])])
    result = Analyzer(llm, domain=domain).analyze(text, "extraction", schema=schema)
    assert result.value == {field: value for field, (_, value) in RIGHT[name].items()}
    assert result.quotes_dropped == 0
    for field in result.fields:
        (quote,) = field.quotes
        assert (quote.status, quote.times, field.quote_match) == ("verbatim", 1, 1.0)
        assert text.text[quote.start : quote.end] == quote.text
    shown = llm.asked[0].model_dump_json()
    assert all(json.dumps(field["description"])[1:-1] in shown for field in schema["properties"].values())
