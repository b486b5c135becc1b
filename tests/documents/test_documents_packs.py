"""Domain packs: what ships, what a folder of one's own may say, and what it is told when it is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema_rs
import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.documents.chunking.sentences import sentences
from glasshouse.documents.packs.pack import load_pack, shipped_packs
from glasshouse.documents.result import TASKS


def test_the_packs_that_ship() -> None:
    """The four domains, and the invented world's, which has no other tasks than its models are taught."""
    assert shipped_packs() == ("financial", "general", "land", "legal", "scientific")


@pytest.mark.parametrize("name", ["financial", "general", "legal", "scientific"])
def test_a_shipped_pack_is_whole(name: str) -> None:
    pack = load_pack(name)
    assert pack.name == name
    assert set(pack.instructions) == set(TASKS)
    assert pack.schema_ is not None
    jsonschema_rs.validator_for(pack.schema_)
    for field, inner in pack.schema_["properties"].items():
        assert inner.get("description") or inner["type"] == "array", field
    assert "other" in pack.labels
    for word in pack.abbreviations:
        assert len(sentences(f"It is {word} xy.", frozenset(pack.abbreviations))) == 1


def test_the_legal_packs_fields_are_cuads_categories() -> None:
    pack = load_pack("legal")
    assert pack.schema_ is not None
    assert len(pack.schema_["properties"]) == 41
    assert {"parties", "governing_law", "cap_on_liability", "anti_assignment"} <= set(
        pack.schema_["properties"]
    )


def test_a_model_is_told_what_labels_mean() -> None:
    told = load_pack("legal").words("classification")
    assert "- franchise: One party runs a business under the other's name" in told
    assert load_pack("legal").words("summary") == load_pack("legal").instructions["summary"].strip()


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'financial'"):
        load_pack("finance")
    with pytest.raises(ConfigError, match="take one of financial, general, land, legal, scientific"):
        load_pack("zzzz")


PACK = """
name: notes
description: Notes of a club.
schema:
  type: object
  properties:
    day: {type: string}
    rows: {type: array, items: {type: object, properties: {x: {type: number}}}}
    total: {type: number}
checks:
  - {kind: sum, total: total, parts: ["rows[].x"]}
"""


def written(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pack.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_pack_of_ones_own_is_a_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "club", PACK)
    pack = load_pack(folder)
    assert (pack.name, pack.prompts, len(pack.checks), pack.labels) == ("notes", None, 1, {})
    (folder / "prompts").mkdir()
    assert load_pack(str(folder)).prompts == folder / "prompts"
    assert load_pack(written(tmp_path / "tiny", "description: Less.")).name == "tiny"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("description:", "descripton:", "unknown key 'descripton'.*did you mean 'description'"),
        ("kind: sum", "kind: summ", "no kind of rule is called 'summ'.*did you mean 'sum'"),
        ("parts:", "part:", r"unknown key 'part' .*checks\[0\].*did you mean 'parts'"),
        ("total: total", "total: totl", r"about 'totl'.*checks\[0\].*did you mean 'total'"),
        ("type: object\n  prop", "type: array\n  prop", "'schema' has to be an object with properties"),
        ("{type: string}", "{type: text}", "'schema' is no JSON Schema"),
        ("name: notes", "prompts: here", "unknown key 'prompts'.*folder of that name"),
        ("name: notes", "instructions: {extracton: x}", "extracton"),
        ("name: notes", "name: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_in_a_pack_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PACK
    folder = written(tmp_path / "club", PACK.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        load_pack(folder)
    assert "pack.yaml" in str(caught.value)


def test_a_folder_without_a_pack_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no pack\.yaml"):
        load_pack(tmp_path)
    with pytest.raises(ConfigError, match="is a folder"):
        load_pack(written(tmp_path, PACK) / "pack.yaml")


def test_the_worked_example_of_the_docs_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "domain-packs.md").read_text(encoding="utf-8")
    [pack], [code], [printed] = (
        re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("yaml", "python", "text")
    )
    written(tmp_path / "deliveries", pack)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "domain-packs.md", "exec"), {})  # our own page
    assert capsys.readouterr().out == printed
