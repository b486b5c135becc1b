"""API keys: who may do what, and which addresses need them."""

from __future__ import annotations

import hashlib

import pytest
from tests.server.conftest import serving

from glasshouse.core.errors import ConfigError, UsageError
from glasshouse.server.keys import VARIABLE, Keys, check_address

ALICE, METER = "alice-has-a-long-key", "the-meter-has-another"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def keyed(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    digest = hashlib.sha256(METER.encode()).hexdigest()
    file.write_text(
        f"keys:\n- {{name: alice, key: {ALICE}, scopes: [generate, tokenize]}}\n"
        f"- {{name: meter, sha256: {digest}, scopes: [metrics]}}\n"
    )
    with serving(model, Keys.load(file, {})) as running:
        yield running


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_a_request_without_a_key_is_a_401_in_either_dialect(keyed):
    told = keyed.post("/v1/chat/completions", **HELLO)
    assert (told.status, told.error["code"]) == (401, "missing_api_key")
    assert told.headers["www-authenticate"] == "Bearer"
    told = keyed.post("/v1/messages", **HELLO)
    assert (told.status, told.error["type"]) == (401, "authentication_error")


def test_an_unknown_key_is_a_401(keyed):
    told = keyed.ask("GET", "/v1/models", None, bearer("alice-has-a-long-kex"))
    assert (told.status, told.error["code"]) == (401, "invalid_api_key")


def test_a_key_is_read_from_both_headers(keyed):
    body = {"model": "tiny", **HELLO}
    for headers in (bearer(ALICE), {"x-api-key": ALICE}):
        assert keyed.ask("POST", "/v1/chat/completions", body, headers).status == 200


def test_a_key_may_do_no_more_than_its_scopes_say(keyed):
    told = keyed.ask("POST", "/v1/embeddings", {"model": "tiny", "input": "x"}, bearer(ALICE))
    assert (told.status, told.error["code"]) == (403, "insufficient_scope")
    assert "embed" in told.error["message"]
    assert keyed.ask("GET", "/metrics", None, bearer(ALICE)).status == 403
    assert keyed.ask("GET", "/metrics", None, bearer(METER)).status == 200
    assert keyed.ask("GET", "/v1/models", None, bearer(METER)).status == 200


def test_health_and_documentation_need_no_key(keyed):
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert keyed.get(path).status == 200


def test_a_path_that_does_not_exist_tells_strangers_nothing(keyed):
    assert keyed.get("/nowhere").status == 401


def test_the_log_names_the_key_and_never_holds_it(keyed):
    told = keyed.ask("POST", "/v1/chat/completions", {"model": "tiny", **HELLO}, bearer(ALICE))
    assert keyed.logged(told.headers["x-request-id"])["key"] == "alice"
    assert ALICE not in keyed.log.getvalue()


def test_keys_of_the_environment_may_do_everything():
    keys = Keys.load(None, {VARIABLE: f"{ALICE}, {METER}"})
    found = keys.find(METER)
    assert found is not None
    assert found.scopes == {"generate", "embed", "tokenize", "metrics"}
    assert keys.find(METER + " ") is None


def test_a_short_key_is_refused_and_not_shown():
    with pytest.raises(ConfigError) as error:
        Keys.load(None, {VARIABLE: "guessme"})
    assert "guessme" not in str(error.value)


def test_a_broken_file_of_keys_does_not_show_them(tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text(f"keys: [{{name: a, key: {ALICE}, sha256: {'0' * 64}}}]")
    with pytest.raises(ConfigError) as error:
        Keys.load(file, {})
    assert ALICE not in str(error.value)
    file.write_text("keys: [{name: a, key: short-secret}]")
    with pytest.raises(ConfigError) as error:
        Keys.load(file, {})
    assert "short-secret" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_this_machine_needs_no_key(host):
    check_address(host, Keys())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_any_other_address_needs_one(host):
    with pytest.raises(UsageError, match="no API key"):
        check_address(host, Keys())
    check_address(host, Keys.load(None, {VARIABLE: ALICE}))
