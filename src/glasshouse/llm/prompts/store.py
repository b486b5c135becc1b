"""A folder of prompts with all their versions: prompts/summary/1.md, 2.md; the highest is the newest.

A version that was used is part of a record: labels, measurements and experiments name it. So its hash is
written into prompts.lock.json when it is first used, and a file that has changed since then is refused. Keep
the lock file under version control, beside the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from glasshouse.core.config import nearest
from glasshouse.core.errors import ConfigError, StorageError, UsageError
from glasshouse.core.storage import read_json, write_json
from glasshouse.llm.interface import Request
from glasshouse.llm.prompts.template import Template

LOCK = "prompts.lock.json"

State = Literal["new", "used", "changed", "gone"]
"""Never used; used and as it was; used and changed since; used and no longer there."""


class PromptStore:
    """Templates by name and version. `lock=False` records no use, for folders that may not be written to."""

    def __init__(self, folder: str | Path = "prompts", *, lock: bool = True) -> None:
        self.folder, self.lock = Path(folder), lock
        if not self.folder.is_dir():
            raise UsageError(
                "no such folder of prompts",
                where=folder,
                fix="make it, with a file NAME/1.md for each prompt",
            )
        self._read: dict[Path, tuple[tuple[int, int], Template]] = {}
        self._locked = self._read_lock()

    def names(self) -> list[str]:
        """Every prompt, sorted."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and _numbers(path))

    def versions(self, name: str) -> list[int]:
        """Oldest first. Raises UsageError for a name that nobody knows."""
        found = _numbers(self.folder / name) if name in self.names() else []
        if not found:
            close = nearest(name, self.names())
            known = f"known: {', '.join(self.names()) or 'none'}"
            raise UsageError(
                f"no prompt is called '{name}'",
                where=self.folder,
                fix=f"did you mean '{close}'?" if close else known,
            )
        return found

    def path(self, name: str, version: int | None = None) -> Path:
        """The file of a version, by default the newest. Raises UsageError."""
        known = self.versions(name)
        if version is not None and version not in known:
            raise UsageError(
                f"the prompt '{name}' has no version {version}",
                where=self.folder,
                fix=f"versions: {', '.join(map(str, known))}",
            )
        return self.folder / name / f"{known[-1] if version is None else version}.md"

    def template(self, name: str, version: int | None = None) -> Template:
        """To look at: nothing is recorded, and a changed version is given too. Raises ConfigError."""
        path = self.path(name, version)
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        if path not in self._read or self._read[path][0] != stamp:
            template = Template.load(path)
            if (template.name, str(template.version)) != (name, path.stem):
                raise ConfigError(
                    f"the header says {template.name} version {template.version}, the path another",
                    where=path,
                    fix=f"write name: {name} and version: {path.stem}",
                )
            self._read[path] = (stamp, template)
        return self._read[path][1]

    def use(self, name: str, version: int | None = None) -> Template:
        """To ask a model with: the version's hash is written down, and must be what it was.

        Raises ConfigError for a version that was changed after it was used.
        """
        template = self.template(name, version)
        key = str(template.version)
        known = self._locked.get(name, {}).get(key)
        if known is None and self.lock:
            self._record(name, key, template)
            known = self._locked[name][key]
        if known not in (None, template.hash):
            newest = self.versions(name)[-1]
            raise ConfigError(
                f"version {key} of the prompt '{name}' was changed after it was used",
                where=template.path,
                fix=f"restore it, and keep the change as {self.folder / name / str(newest + 1)}.md",
            )
        return template

    def render(self, name: str, inputs: Mapping[str, Any], version: int | None = None) -> Request:
        """The request of a prompt, by default of its newest version; it counts as used."""
        return self.use(name, version).render(inputs)

    def state(self, name: str, version: int) -> State:
        known = self._locked.get(name, {}).get(str(version))
        if known is None:
            return "new"
        if not (self.folder / name / f"{version}.md").is_file():
            return "gone"
        return "used" if known == self.template(name, version).hash else "changed"

    def gone(self) -> list[tuple[str, int]]:
        """Versions that were used and are no longer there."""
        return [
            (name, int(version))
            for name, versions in sorted(self._locked.items())
            for version in versions
            if not (self.folder / name / f"{version}.md").is_file()
        ]

    def _read_lock(self) -> dict[str, dict[str, str]]:
        path = self.folder / LOCK
        if not path.exists():
            return {}
        content = read_json(path)
        if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
            raise ConfigError("not a lock file of prompts", where=path, fix="restore it")
        return content

    def _record(self, name: str, version: str, template: Template) -> None:
        self._locked = self._read_lock()  # another process may have written since
        versions = self._locked.setdefault(name, {})
        if version in versions:
            return
        versions[version] = template.hash
        in_order = {
            name: dict(sorted(self._locked[name].items(), key=lambda pair: int(pair[0])))
            for name in sorted(self._locked)
        }
        try:
            write_json(self.folder / LOCK, in_order)
        except OSError as error:
            raise StorageError(
                f"the use of a prompt cannot be recorded: {error}",
                where=self.folder / LOCK,
                fix="make the folder writable, or open the store with lock=False",
            ) from None


def _numbers(folder: Path) -> list[int]:
    return sorted(
        int(path.stem) for path in folder.glob("*.md") if path.stem.isascii() and path.stem.isdigit()
    )
