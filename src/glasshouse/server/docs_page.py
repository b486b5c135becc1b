"""GET /docs: the OpenAPI document as a page of its own, without a script or a style from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b2a2f; background: #fff }}
code {{ font: 14px ui-monospace, monospace; overflow-wrap: anywhere }}
h2 {{ margin-top: 2.5rem; font-size: 1.1rem }}
.verb {{ color: #00695c; font-weight: 600 }}
table {{ border-collapse: collapse; width: 100% }}
td:first-child {{ white-space: nowrap; width: 14rem }}
td, th {{ text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid #dde5e5 }}
@media (prefers-color-scheme: dark) {{ body {{ color: #dbe7e7; background: #10181a }}
  .verb {{ color: #4db6ac }} td, th {{ border-color: #2a3a3d }} a {{ color: #80cbc4 }} }}
</style></head><body>
<h1>{title}</h1><p>{about}</p>
<p>The same as a document for programs: <a href="openapi.json">openapi.json</a></p>
{operations}
{types}
</body></html>
"""


def page(document: dict[str, Any]) -> str:
    """HTML with every operation, the fields of its body, and the ways it may end."""
    info = document["info"]
    operations = [
        _operation(verb, path, operation, document)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    ]
    return _PAGE.format(
        title=escape(info["title"]),
        about=escape(info.get("description", "")),
        operations="\n".join(operations),
        types="\n".join(
            f'<h2 id="{escape(name)}"><code>{escape(_short(name))}</code></h2>{_fields(schema)}'
            for name, schema in document.get("components", {}).get("schemas", {}).items()
            if "properties" in schema
        ),
    )


def _operation(verb: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    text = [
        f'<h2><span class="verb">{escape(verb.upper())}</span> <code>{escape(path)}</code></h2>',
        f"<p>{escape(operation.get('description', ''))}</p>",
    ]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content:
        text.append(_fields(_resolve(content["schema"], document)))
    answers = "".join(
        f"<tr><td><code>{escape(status)}</code></td><td>{escape(answer.get('description', ''))}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    text.append(f"<table><tr><th>answer</th><th></th></tr>{answers}</table>")
    return "\n".join(text)


def _fields(schema: dict[str, Any]) -> str:
    """A table of an object's fields; a star marks those that are required."""
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' *' if name in required else ''}</td>"
        f"<td><code>{_kind(field)}</code></td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table><tr><th>field</th><th>type</th><th></th></tr>{rows}</table>"


def _short(name: str) -> str:
    """A type's name without the module that tells two of one name apart."""
    return name.rsplit("__", 1)[-1]


def _resolve(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return document["components"]["schemas"][reference.rsplit("/", 1)[-1]] if reference else schema


def _kind(field: dict[str, Any]) -> str:
    """A type in a few words, as HTML."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return f'<a href="#{escape(name)}">{escape(_short(name))}</a>'
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " | ".join(_kind(one) for one in field[key] if one.get("type") != "null")
    if "enum" in field:
        return escape(" | ".join(map(str, field["enum"])))
    if "const" in field:
        return escape(str(field["const"]))
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    return escape(str(field.get("type", "anything")))
