"""What a model grown here reads out of real contracts and annual reports.

    python benchmarks/document_reader.py [--data $GLASSHOUSE_TEST_DATA] [--work FOLDER] [--n 40]

A small model learns to predict the text of contracts and annual reports, then to answer as the document
analyzer asks, from the labels of CUAD and TAT-QA. `glasshouse eval --suite documents` measures it, before and
after the second step, on contracts and tables that it has not met in either. The same command measures any
model; this one is tiny and has read nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glasshouse.core.devices import machine
from glasshouse.documents.chunking.chunks import chunk
from glasshouse.documents.chunking.quotable import quotable
from glasshouse.documents.evaluation import cuad, tatqa
from glasshouse.documents.evaluation.example import rows, sample
from glasshouse.documents.packs.pack import load_pack
from glasshouse.documents.question import Question, template
from glasshouse.documents.reply_schema import plain_schema
from glasshouse.llm.local import LocalLLM
from glasshouse.tokenizer import Tokenizer

RESULTS = Path(__file__).parent / "results" / "document_reader.json"

SEED = 0
"""Of the sample that is measured: the suite's own default."""

CHUNK_TOKENS = 900
EMPTY = 0.15
"""Of the parts of a contract in which nothing is labelled, the share that is learnt from."""

PACK = """name: reader
description: Fields by a schema, asked for in as few words as a small context has room for.
"""

PROMPT = """---
name: extraction
version: 1
description: The fields of a part of a document.
inputs:
  document: {type: string, description: The part.}
  schema: {type: string, trusted: true, description: The fields as a JSON Schema.}
settings: {temperature: 0, max_new_tokens: 480}
---
@user
{{ schema }}

{{ document }}
"""

MODEL = {
    "model.max_position_embeddings": 2048,
    "pretrain.sequence_length": 1024,
    "pretrain.batch_tokens": 8192,
    "pretrain.tokens": 6_000_000,
}
TUNING = {"sequence_length": 2048, "batch_tokens": 8192, "epochs": 1, "validation_fraction": 0.03}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("GLASSHOUSE_TEST_DATA"))
    parser.add_argument("--work", type=Path, help="keep what is grown here; go on with what is there")
    parser.add_argument("--n", type=int, default=20, help="contracts, and questions, that are measured")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the folder of labelled documents with --data or GLASSHOUSE_TEST_DATA")
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        found = measured(options.data, work, options.n)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def measured(data: Path, work: Path, n: int) -> dict[str, Any]:
    contracts, tables = list(rows(data / cuad.FILE)), list(rows(data / tatqa.FILE))
    kept = {row["id"] for row in sample(contracts, n, SEED)}
    learnt = [row for row in contracts if row["id"] not in kept]
    tables = sample(tables, len(tables), SEED)[n:]
    texts = [row["text"] for row in learnt] + [tatqa.document(row).text for row in tables]
    write(work / "texts" / "texts.jsonl", ({"text": text} for text in texts))
    pack = work / "pack"
    (pack / "prompts" / "extraction").mkdir(parents=True, exist_ok=True)
    (pack / "pack.yaml").write_text(PACK)
    (pack / "prompts" / "extraction" / "1.md").write_text(PROMPT)
    glasshouse("run", "own-text", "--data", work / "texts", "--out", work / "base", *settings(MODEL))
    base = work / "base" / "pretrain" / "model"
    rng = random.Random(SEED)
    with LocalLLM.load(base) as llm:
        tokenizer = llm.model.tokenizer
        asked = [*about_contracts(learnt, llm, pack, tokenizer, rng), *about_tables(tables, llm, pack)]
    rng.shuffle(asked)
    write(work / "chats.jsonl", ({"messages": messages} for messages in asked))
    tuned = work / "reader"
    glasshouse(
        "train", "sft", "--model", base, "--data", work / "chats.jsonl", "--out", tuned, *settings(TUNING)
    )
    figures = {}
    few = max(5, n // 4)  # what has learnt no reply writes as much as it may: many times as long
    for name, model, count in (("fine-tuned", tuned, n), ("before", base, few)):
        out = work / f"{name}.json"
        told = {"n": count, "seed": SEED, "domain": pack, "chunk_tokens": CHUNK_TOKENS}
        place = ("--model", model, "--data", data, "--out", out)
        glasshouse("eval", "--suite", "documents", *place, *settings(told))
        figures[name] = json.loads(out.read_text())
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "contracts": len(learnt),
        "tables": len(tables),
        "conversations": len(asked),
        "figures": figures,
    }


# --- what is learnt -------------------------------------------------------------------------------------


def about_contracts(
    contracts: Sequence[Mapping[str, Any]],
    llm: LocalLLM,
    pack: Path,
    tokenizer: Tokenizer,
    rng: random.Random,
) -> Iterator[list[dict[str, str]]]:
    """Of every part of a contract the fields that are labelled in it."""
    categories = [category for category in cuad.CATEGORIES if category.name in cuad.FIELDS]
    asked = question(llm, pack, {category.name: category.schema for category in categories})
    for row in contracts:
        document = cuad.contract(row["id"], row["text"])
        told: set[str] = set()  # names and dates come back in later parts, where nobody labelled them
        for part in chunk(document, CHUNK_TOKENS, lambda text: len(tokenizer.encode(text))):
            lines = quotable(document, part.start, part.end)
            reply = {
                each.name: nothing(each)
                if each.name in told
                else labelled(each, row["labels"][each.label], lines)
                for each in categories
            }
            new = {each.name for each in categories if reply[each.name] != nothing(each)}
            told |= new
            if new or rng.random() < EMPTY:
                yield conversation(asked, llm, part.text, reply)


def nothing(category: cuad.Category) -> Any:
    return [] if category.kind == "parties" else {"quote": None, "value": None}


def labelled(category: cuad.Category, label: Mapping[str, Any], lines: Sequence[str]) -> Any:
    """The field as the analyzer's replies have it, by the clauses that stand in this part."""
    clauses = [" ".join(clause.split()) for clause in label["clauses"]]
    if category.kind == "parties":
        names = cuad.party_names(label["answer"])
        signed = [clause for clause in clauses if cuad.party(clause) in names]
        pairs = ((name, holding(name, lines)) for name in signed)
        return [{"quote": line, "value": name} for name, line in pairs if line is not None]
    line = next((line for clause in clauses if (line := holding(clause, lines)) is not None), None)
    if line is None:
        return nothing(category)
    answer = label["answer"]
    value: Any = answer if answer not in ("", "Yes", "No") else clauses[0]
    if category.kind == "yes":
        value = True
    elif category.kind == "text":
        value = clauses[0]
    elif category.kind == "date" and (day := cuad.date(answer)) is not None and None not in day:
        value = "{:04}-{:02}-{:02}".format(*day)
    return {"quote": line, "value": value}


def holding(clause: str, lines: Sequence[str]) -> str | None:
    """The first line that has the clause in it, or that the clause begins with."""
    for line in lines:
        if clause in line or (len(line) > 20 and clause.startswith(line)):
            return line
    return next((line for line in lines if cuad.jaccard(line, clause) >= cuad.OVERLAP), None)


def about_tables(
    tables: Sequence[Mapping[str, Any]], llm: LocalLLM, pack: Path
) -> Iterator[list[dict[str, str]]]:
    """Every question of a table, with a row or sentence that states the answer, or a part of it."""
    for row in tables:
        document = tatqa.document(row)
        lines = quotable(document, 0, len(document.text))
        for each in row["questions"]:
            schema = tatqa.question(row, each).schema
            answer = each["answer"] if isinstance(each["answer"], list) else [each["answer"]]
            stated = [*map(str, answer), *re.findall(r"[\d.,]*\d", each["derivation"])]
            line = next((line for told in stated for line in lines if told in line), lines[0])
            items = [
                {"quote": next((line for line in lines if str(item) in line), line), "value": str(item)}
                for item in answer
            ]
            scale = each["scale"] or None
            reply = {"answer": items, "scale": {"quote": line if scale else None, "value": scale}}
            yield conversation(question(llm, pack, schema["properties"]), llm, document.text, reply)


def question(llm: LocalLLM, pack: Path, fields: Mapping[str, Any]) -> Question:
    schema = plain_schema({"type": "object", "properties": dict(fields)})
    return Question("extraction", template("extraction", load_pack(pack)), schema)


def conversation(asked: Question, llm: LocalLLM, text: str, reply: Any) -> list[dict[str, str]]:
    messages = [dict(message) for message in asked.request(llm, 1, text).messages]
    return [*messages, {"role": "assistant", "content": json.dumps(reply, ensure_ascii=False)}]


# --- around it ------------------------------------------------------------------------------------------


def write(path: Path, found: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


def settings(values: Mapping[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def glasshouse(*words: object) -> None:
    print("glasshouse", *words, flush=True)
    subprocess.run([sys.executable, "-m", "glasshouse", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
