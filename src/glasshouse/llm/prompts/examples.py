"""Does a prompt do what its examples say? Each example is asked of a model, and its reply is checked."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glasshouse.llm.errors import InvalidOutputError, LLMError
from glasshouse.llm.interface import LLM
from glasshouse.llm.prompts.template import Example, Template
from glasshouse.llm.structured import structured


@dataclass(frozen=True)
class Outcome:
    """What came of one example. `problems`: what its reply is not; none where it passed."""

    example: str  # its name, or its place from 1
    reply: str
    problems: tuple[str, ...]
    cost: float | None = None  # US dollars

    @property
    def passed(self) -> bool:
        return not self.problems


async def run_examples(template: Template, llm: LLM) -> list[Outcome]:
    """Ask each example once, all at the same time. A failed call is a problem of its example.

    One try, also where there is an output schema: a prompt whose reply must be asked for anew is not right.
    """
    examples = enumerate(template.header.examples, 1)
    return list(await asyncio.gather(*(_run(template, llm, one, str(place)) for place, one in examples)))


async def _run(template: Template, llm: LLM, example: Example, place: str) -> Outcome:
    name = example.name or place
    request = template.render(example.inputs)
    try:
        if template.header.output is None:
            completion = await llm.complete(request)
            text, value = completion.text, completion.text.strip()
            stopped = {"length": ("the reply was cut",), "refusal": ("the model refused",)}
            problems = stopped.get(completion.finish, ())
        else:
            got = await structured(llm, request, tries=1)
            completion, value, problems = got.completion, got.value, ()
            text = json.dumps(value, ensure_ascii=False)
    except InvalidOutputError as error:
        return Outcome(name, error.text, (error.problem,), error.cost)
    except LLMError as error:
        return Outcome(name, "", (str(error),), error.cost)
    return Outcome(name, text, (*problems, *check(example, text, value)), completion.cost)


def check(example: Example, text: str, value: Any) -> list[str]:
    """What a reply lacks, given as text and, where it is JSON, as its value."""
    problems = []
    if "output" in example.model_fields_set:
        wanted = example.output.strip() if isinstance(example.output, str) else example.output
        if not same(value, wanted):
            problems.append(f"the reply is not {json.dumps(wanted, ensure_ascii=False)}")
    for name, wanted in example.fields.items():
        if not isinstance(value, Mapping) or name not in value:
            problems.append(f"it has no field '{name}'")
        elif not same(value[name], wanted):
            was = json.dumps(value[name], ensure_ascii=False)
            problems.append(f"'{name}' is {was}, not {json.dumps(wanted, ensure_ascii=False)}")
    problems += [f"it does not contain {part!r}" for part in example.contains if part not in text]
    problems += [f"it contains {part!r}" for part in example.excludes if part in text]
    if example.matches is not None and not re.search(example.matches, text):
        problems.append(f"it does not match {example.matches!r}")
    return problems


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: true is not 1, and 1.0 is 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if (
        isinstance(a, Sequence)
        and isinstance(b, Sequence)
        and not isinstance(a, str)
        and not isinstance(b, str)
    ):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
