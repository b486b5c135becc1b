"""C files become libraries: compiled once, again after every change, never when switched off."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from glasshouse.core import native_library as module
from glasshouse.core.native_library import native_library

pytestmark = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources whose library tells one number, which stands in a header of another folder."""
    monkeypatch.setattr(module, "_cache_folder", lambda: _made(tmp_path / "cache"))
    monkeypatch.delenv("GLASSHOUSE_KERNELS", raising=False)
    (_made(tmp_path / "headers") / "number.h").write_text("#define NUMBER 41\n")
    (_made(tmp_path / "c") / "tell.c").write_text(
        '#include "number.h"\nint tell(void) { return NUMBER + PLUS; }\n'
    )
    return tmp_path


def _made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def load(folder: Path, plus: int = 1) -> ctypes.CDLL | None:
    native_library.cache_clear()
    return native_library((folder / "c", folder / "headers"), (f"-DPLUS={plus}",), "something is slow")


def test_a_library_is_compiled_once(folder: Path) -> None:
    """The second time it comes from the cache."""
    library = load(folder)
    assert library is not None
    assert library.tell() == 42
    (made,) = (folder / "cache").glob("*.so")
    before = made.stat().st_mtime_ns
    load(folder)
    assert [path.stat().st_mtime_ns for path in (folder / "cache").glob("*.so")] == [before]


def test_options_and_headers_make_a_library_of_their_own(folder: Path) -> None:
    """Whatever could change the code is part of the cache's key."""
    told = [library.tell() if (library := load(folder, plus)) else None for plus in (1, 5)]
    (folder / "headers" / "number.h").write_text("#define NUMBER 10\n")
    changed = load(folder)
    assert [*told, changed and changed.tell()] == [42, 46, 11]
    assert len(list((folder / "cache").glob("*.so"))) == 3


def test_switched_off_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GLASSHOUSE_KERNELS=off."""
    monkeypatch.setenv("GLASSHOUSE_KERNELS", "off")
    assert load(folder) is None


def test_code_that_does_not_compile_costs_a_notice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the compiler's own words and what it costs."""
    (folder / "c" / "tell.c").write_text('#include "nothing.h"\n')
    assert load(folder) is None
    error = capsys.readouterr().err
    assert "nothing.h" in error
    assert "something is slow" in error
