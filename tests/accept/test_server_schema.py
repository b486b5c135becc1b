"""The server against its own OpenAPI document: schemathesis writes requests, valid and not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from glasshouse.model import ModelConfig, initialise, save
from glasshouse.tokenizer import Tokenizer

pytestmark = pytest.mark.accept

COMMAND = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
KEY = "sk-" + "a" * 40
SECONDS = 120
"""Of fuzzing, for each run."""

if COMMAND is None:
    pytest.skip("schemathesis is not installed", allow_module_level=True)


@pytest.fixture(scope="module", params=[None, KEY], ids=["open", "keys"])
def server(request, tmp_path_factory):
    """`glasshouse serve` on a random model: (address, the key it asks for, its log)."""
    tokenizer = Tokenizer.train(["to be or not to be"] * 4, 300)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        max_position_embeddings=4096,
    )
    work = tmp_path_factory.mktemp("schema")
    save(initialise(config, seed=0), tokenizer, work / "model")
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    line = [sys.executable, "-c", code, "serve", str(work / "model"), "--port", "0"]
    line += ["--set", "request_timeout=20"]
    keys = {} if request.param is None else {"GLASSHOUSE_API_KEYS": request.param}
    with (work / "log").open("w") as out:
        process = subprocess.Popen(line, stdout=out, stderr=out, env=os.environ | keys)
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", (work / "log").read_text())):
        assert process.poll() is None, (work / "log").read_text()
        time.sleep(0.1)
    yield found[0], request.param, work / "log"
    process.terminate()
    process.wait(30)


def fetch(address: str, key: str | None) -> dict[str, Any]:
    asked = urllib.request.Request(f"{address}/openapi.json")
    if key is not None:
        asked.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(asked) as reply:
        return json.load(reply)


def minimal(schema: Any) -> Any:
    """A schema with nothing but what it requires, texts as plain strings, and short."""
    if isinstance(schema, list):
        return [minimal(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: minimal(value) for key, value in schema.items()}
    for union in ("anyOf", "oneOf"):
        texts = [kind for kind in schema.get(union, []) if kind.get("type") == "string"]
        if texts:
            schema = {key: value for key, value in schema.items() if key != union} | texts[0]
    roles = schema.get("discriminator", {}).get("mapping", {})
    if "user" in roles:  # a conversation of the user's words alone
        schema = {"$ref": roles["user"]}
    if isinstance(schema.get("properties"), dict):
        required = schema.get("required", [])
        schema["properties"] = {name: schema["properties"][name] for name in required}
        schema["additionalProperties"] = False
    if schema.get("type") == "array":
        schema["maxItems"] = 4
    if schema.get("type") == "string" and not {"const", "enum", "format", "pattern"} & schema.keys():
        schema["maxLength"] = 40
    return schema


def minimal_document(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {name: minimal(schema) for name, schema in schemas.items()}
    for path in document["paths"].values():
        for operation in path.values():
            operation["parameters"] = [p for p in operation.get("parameters", []) if p.get("required")]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                content["schema"] = minimal(content["schema"])
    return document


def schemathesis(document: dict[str, Any], server: tuple, work: Path, *options: str) -> None:
    address, key, log = server
    path = work / "openapi.json"
    path.write_text(json.dumps(document))
    assert COMMAND is not None
    line = [COMMAND, "run", str(path), "--url", address, "--phases", "coverage,fuzzing"]
    line += ["--max-time", str(SECONDS), "--continue-on-failure", "--request-timeout", "60", *options]
    if key is not None:
        line += ["--header", f"Authorization: Bearer {key}"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=work)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:] + log.read_text()[-3000:]


def test_no_request_makes_the_server_fail_or_break_its_own_description(server, tmp_path):
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    schemathesis(fetch(*server[:2]), server, tmp_path, "--checks", checks)


def test_a_wrong_key_is_refused_everywhere(server, tmp_path):
    if server[1] is None:
        pytest.skip("this server asks for no key")
    schemathesis(fetch(*server[:2]), server, tmp_path, "--checks", "ignored_auth,not_a_server_error")


def test_every_minimal_valid_request_is_answered(server, tmp_path):
    document = minimal_document(fetch(*server[:2]))
    checks = "not_a_server_error,positive_data_acceptance"
    schemathesis(document, server, tmp_path, "--mode", "positive", "--checks", checks)
