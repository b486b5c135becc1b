"""The page of many results: its figures are those of the file, and nothing in it can come alive."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re

import pytest
from lxml import html

from glasshouse.core.errors import DataError
from glasshouse.documents.folders.overview import overview, write_overview
from glasshouse.documents.folders.results_file import read_results, work_folder
from glasshouse.documents.folders.texts import TEXTS, Texts
from glasshouse.documents.result import (
    CheckFinding,
    Contradiction,
    FieldResult,
    Notice,
    QuoteCheck,
    Result,
)

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)"> & <!-- {{ 7 * 7 }} \u2028'


def quote(text: str, words: str, **changes) -> QuoteCheck:
    start = text.index(words)
    return QuoteCheck(
        asked=words, status="verbatim", start=start, end=start + len(words), page=2, text=words, **changes
    )


def result(name: str, **changes) -> Result:
    base = {"task": "extraction", "domain": "financial", "model": "m", "prompt": "extraction@1 abc"}
    return Result.model_validate({"document": name, "success": True, **base, **changes})


def some(number: int) -> list[Result]:
    rng = random.Random(3)
    made = []
    for n in range(number):
        if n % 10 == 9:
            what = f"this file is encrypted (d{n}.pdf). Fix: save it anew."
            made.append(result(f"d{n}.pdf", success=False, error=what, cost=0.0))
            continue
        fields = tuple(
            FieldResult(path=path, value=rng.randint(1, 9) if n % 3 else None, confidence=rng.random())
            for path in ("revenue", "parts[0].share", "parts[1].share")
        )
        review = tuple(field.path for field in fields if (field.confidence or 0) < 0.4)
        made.append(
            result(f"d{n}.pdf", fields=fields, review=review, cost=0.001, new_tokens=7, prompt_tokens=100)
        )
    return made


def data_of(page: str) -> dict:
    (text,) = html.fromstring(page).xpath("//script[@type='application/json']/text()")
    return json.loads(text)


def figures(page: str) -> dict[str, str]:
    items = html.fromstring(page).xpath("//ul[@class='figures']/li")
    return {item.xpath("string(span)"): item.xpath("string(b)") for item in items}


def test_the_figures_are_those_of_the_results():
    results = some(60)
    page = overview(results, "results.jsonl")
    shown = figures(page)
    assert shown["documents analyzed"] == "54"
    assert shown["failed"] == "6"
    assert shown["fields to be looked at"] == str(sum(len(r.review) for r in results))
    assert shown["cost"] == "$0.054"
    tree = html.fromstring(page)
    bars = [int(bar.text or 0) for bar in tree.xpath("//div[@class='bars']/div")]
    sure = [field.confidence or 0.0 for r in results for field in r.fields]
    assert bars == [sum(at / 10 <= c < (at + 1) / 10 for c in sure) for at in range(10)]
    assert [cell.text for cell in tree.xpath("//h2[.='Failures']/..//tbody/tr/td")] == [
        "this file is encrypted",
        "6",
        "d19.pdf",
    ]
    assert "The confidences are uncalibrated" in page


def test_the_tables_hold_every_document_every_field_to_look_at_and_lists_in_one_cell():
    results = some(60)
    data = data_of(overview(results, "results.jsonl"))
    assert {document["name"] for document in data["documents"]} == {r.document for r in results}
    looked = {(data["documents"][row["at"]]["name"], row["path"]) for row in data["review"]}
    assert looked == {(r.document, path) for r in results for path in r.review}
    confidences = [row["confidence"] for row in data["review"]]
    assert confidences == sorted(confidences), "the least sure first"
    assert [name for name, _ in data["columns"]] == ["revenue", "parts[].share"]
    first = next(document for document in data["documents"] if document["name"] == "d1.pdf")
    values = [field.value for field in results[1].fields]
    assert first["cells"]["revenue"][0] == values[0]
    assert first["cells"]["parts[].share"][0] == f"{values[1]}; {values[2]}"


def test_a_hostile_document_stays_text_everywhere():
    text = f"before {HOSTILE} Revenue was $5. {HOSTILE} after"
    sha = hashlib.sha256(text.encode()).hexdigest()
    checked = quote(text, "Revenue was $5.", difference=HOSTILE)
    hostile = result(
        HOSTILE,
        model=HOSTILE,
        domain=HOSTILE,
        prompt=HOSTILE,
        sha256=sha,
        fields=(FieldResult(path=HOSTILE, value={HOSTILE: [HOSTILE]}, quotes=(checked,), confidence=0.1),),
        review=(HOSTILE,),
        themes=(HOSTILE,),
        notices=(Notice(kind=HOSTILE, what=HOSTILE),),
        checks=(CheckFinding(check=HOSTILE, paths=(HOSTILE,), what=HOSTILE, passed=False),),
        contradictions=(
            Contradiction(path=HOSTILE, values=(HOSTILE,), quotes=(checked,), resolution=HOSTILE),
        ),
    )
    failed = result("other.pdf", success=False, error=HOSTILE)
    page = overview([hostile, failed], HOSTILE, {sha: text}.get)
    tree = html.fromstring(page)
    assert len(tree.xpath("//script")) == 2, "the data and the page's own"
    assert tree.xpath("//img") == []
    assert "49" not in re.sub(r"sha256-\S+", "", page), "no template is rendered twice"
    assert "\u2028" not in page.partition('id="data"')[2]
    data = data_of(page)
    assert data["documents"][0]["name"] == HOSTILE
    (shown,) = data["documents"][0]["fields"][0]["quotes"]
    assert shown["before"] + shown["text"] + shown["after"] == text


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded():
    page = overview(some(3), "results.jsonl")
    tree = html.fromstring(page)
    (policy,) = tree.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    (script,) = tree.xpath("//script[not(@type)]/text()")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert tree.xpath("//@src | //link/@href | //iframe") == []
    assert "innerHTML" not in script
    assert "http" not in page.replace("http-equiv", "")


def test_a_quote_stands_in_its_context_where_the_text_is_kept(tmp_path):
    text = f"{'far ' * 200}Revenue was $5 million, as the board had said.{' away' * 200}"
    sha = hashlib.sha256(text.encode()).hexdigest()
    field = FieldResult(path="revenue", value=5, quotes=(quote(text, "Revenue was $5 million"),))
    out = tmp_path / "results.jsonl"
    out.write_text(result("a.pdf", sha256=sha, fields=(field,)).model_dump_json() + "\n")
    page = write_overview(out).read_text()
    (shown,) = data_of(page)["documents"][0]["fields"][0]["quotes"]
    assert shown["text"] == "Revenue was $5 million"
    assert "before" not in shown
    work_folder(out).mkdir()
    texts = Texts(work_folder(out) / TEXTS)
    texts.put(sha, text)
    texts.close()
    page = write_overview(out).read_text()
    (shown,) = data_of(page)["documents"][0]["fields"][0]["quotes"]
    assert shown["before"].startswith("… ")
    assert shown["after"].startswith(", as the board had said.")
    assert len(shown["before"]) < 200


def test_numbers_that_json_has_not_do_not_break_the_page(tmp_path):
    out = tmp_path / "results.jsonl"
    odd = FieldResult(path="x", value=float("nan"))
    text = json.dumps(result("a.pdf", fields=(odd,)).model_dump())
    out.write_text(text + "\n")
    data = data_of(write_overview(out).read_text())
    assert data["documents"][0]["fields"][0]["value"] == "NaN"


def test_five_thousand_documents_are_one_page_with_their_rows_made_on_demand():
    page = overview(some(5000), "results.jsonl")
    assert len(data_of(page)["documents"]) == 5000
    assert len(html.fromstring(page).xpath("//tr | //details")) < 100


def test_a_file_without_results_is_an_error(tmp_path):
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(DataError, match="no result"):
        write_overview(tmp_path / "results.jsonl")
    (tmp_path / "other.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="line 1"):
        list(read_results(tmp_path / "other.jsonl"))
