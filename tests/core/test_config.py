"""Settings refuse what they do not know and say what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from glasshouse.core.config import Config, apply_overrides, load_yaml
from glasshouse.core.errors import ConfigError, GlasshouseError


class Inner(Config):
    tokens: int = 5
    rate: float = 0.1


class Outer(Config):
    seed: int = 0
    inner: Inner = Inner()
    maybe: Inner | None = None


def test_unknown_key_names_the_nearest_known_one():
    """A misspelt key deep inside is named with its path and the key that was meant."""
    with pytest.raises(ConfigError, match=r"unknown key 'inner\.tokns' \(recipe\).*'inner\.tokens'"):
        Outer.parse({"inner": {"tokns": 3}}, "recipe")
    with pytest.raises(ConfigError, match=r"'maybe\.rate'"):
        Outer.parse({"maybe": {"rat": 3}})


def test_unknown_key_far_from_all_lists_the_known_ones():
    with pytest.raises(ConfigError, match="known keys: seed, inner, maybe"):
        Outer.parse({"zzzzzz": 1})


def test_wrong_value_names_key_and_value():
    with pytest.raises(ConfigError, match=r"'seed': .*integer.*'x'"):
        Outer.parse({"seed": "x"})


def test_contradicting_settings_are_named_without_the_whole_section():
    """What a validator of the section says stands alone."""

    class Both(Config):
        a: int = 1

        @model_validator(mode="after")
        def _refuse(self):
            raise ValueError("a and b exclude each other")

    with pytest.raises(ConfigError, match=r"a and b exclude each other \(settings\)$"):
        Both.parse({"a": 2})


def test_overrides_reach_into_sections_and_leave_the_original_alone():
    original = {"inner": {"tokens": 1}}
    changed = apply_overrides(original, ["inner.tokens=2", "inner.rate=3e-4", "new.deep=true"])
    assert changed == {"inner": {"tokens": 2, "rate": 3e-4}, "new": {"deep": True}}
    assert original == {"inner": {"tokens": 1}}


@pytest.mark.parametrize("bad", ["seed", "=3", "a..b=1", "seed.x=1", "a=[1"])
def test_an_unreadable_override_is_a_usage_error(bad):
    with pytest.raises(ConfigError):
        apply_overrides({"seed": 1}, [bad])


def test_broken_yaml_names_file_and_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: 1\nb: [1\nc: 2\n")
    with pytest.raises(ConfigError, match=r"r\.yaml, line \d"):
        load_yaml(path)
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "absent.yaml")


@given(st.text(), st.text())
def test_every_error_is_one_line(what, fix):
    """Whatever a message is made of, a person sees one line."""
    assert "\n" not in str(GlasshouseError(what, where="a\nb", fix=fix))
