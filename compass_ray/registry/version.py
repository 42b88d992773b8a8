"""One adapter version as it lies in the registry: how it is written, once, and read again.

A file of a version is created and never written over, so neither an interrupted nor a simultaneous writer can tear a
version that somebody reads. The lineage comes last: without it there is no version.

What is found out later, as the record of a gate, is attached: ``attached/<name>`` beside the files of the version, then
a receipt with its size and hash. It is written once too, belongs to no lineage, and is not taken along by downloads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from compass_ray import storage
from compass_ray.artifacts import canonical_json, digest
from compass_ray.errors import ArtifactCorrupt, RegistryError
from compass_ray.models import is_chat_template
from compass_ray.registry.card import model_card
from compass_ray.registry.contents import CONFIG, WEIGHTS, check_adapter
from compass_ray.registry.lineage import Lineage
from compass_ray.registry.names import check_attached, check_file, is_attached

LINEAGE = "lineage.json"
CARD = "README.md"
ATTACHED = "attached"


@dataclass(frozen=True)
class AdapterVersion:
    """A finished version.

    Attributes
    ----------
    url : str
        Its folder.
    lineage : Lineage
        Where it comes from, and its files.
    aliases : tuple of str
        The aliases that pointed to it when it was opened.
    """

    url: str
    lineage: Lineage
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.lineage.base.key}/{self.lineage.lang}@{self.lineage.version}"

    def read(self, name: str) -> bytes:
        """Read one file, checked against the lineage.

        Raises
        ------
        RegistryError
            If the version has no such file.
        ArtifactCorrupt
            If the file is missing, or holds other bytes than were added.
        """
        entry = self.lineage.files.get(name)
        if entry is None:
            raise RegistryError(f"{self}: has no file '{name}'; there is {', '.join(sorted(self.lineage.files))}")
        url = storage.join(self.url, name)
        remedy = f"restore it, or remove {self.url} and add the version again"
        try:
            data = storage.read_bytes(url)
        except FileNotFoundError as exc:
            raise ArtifactCorrupt(f"{url}: listed in the lineage but missing; {remedy}") from exc
        if digest(data) != entry["hash"]:
            raise ArtifactCorrupt(
                f"{url}: expected {entry['bytes']} bytes with hash {entry['hash']}, found {len(data)} bytes with hash "
                f"{digest(data)}; {remedy}"
            )
        return data

    @property
    def chat_templates(self) -> tuple[str, ...]:
        """The files of the chat template that its conversations were rendered in; none if it was trained on text."""
        return tuple(filter(is_chat_template, sorted(self.lineage.files)))

    def download(self, folder: Path, names: Iterable[str] | None = None) -> None:
        """Copy files into a local folder, each checked; all of them and the lineage if no names are given."""
        for name in sorted(self.lineage.files) if names is None else names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(name))
        if names is None:
            (folder / LINEAGE).write_bytes(self.lineage.to_json())

    def attach(self, name: str, data: bytes) -> None:
        """Add a file to the finished version; attaching the same bytes again does nothing.

        Parameters
        ----------
        name : str
            With one dot, as ``gate-1a2b3c4d.json``.

        Raises
        ------
        RegistryError
            If the name is none, or other bytes are there under it.
        ArtifactCorrupt
            If its receipt is something else.
        """
        url = storage.join(self.url, ATTACHED, check_attached(name))
        for where, content in ((url, data), (_receipt_url(url), canonical_json(_entry(data)).encode())):
            try:
                storage.replace_if(where, content, None)
            except storage.Changed as exc:
                if _bytes_at(where) != content:
                    raise self._other_bytes(url) from exc

    def attached(self) -> list[str]:
        """List the names of the attached files, sorted."""
        folder = storage.join(storage.literal(self.url), ATTACHED, "*")
        found = {file.url.rsplit("/", 1)[-1] for file in storage.list_files(folder)}
        return sorted(name for name in found if is_attached(name) and _receipt_url(name) in found)

    def read_attached(self, name: str) -> bytes:
        """Read an attached file, checked against its receipt.

        Raises
        ------
        RegistryError
            If no such file is attached.
        ArtifactCorrupt
            If the file is missing, or holds other bytes than were attached.
        """
        url = storage.join(self.url, ATTACHED, check_attached(name))
        entry = _read_receipt(url)
        if entry is None:
            there = ", ".join(self.attached()) or "nothing"
            raise RegistryError(f"{self}: '{name}' is not attached; there is {there}")
        data = _bytes_at(url)
        if data is None:
            raise ArtifactCorrupt(f"{url}: has a receipt but is missing; {_restore(url)}")
        if _entry(data) != entry:
            raise ArtifactCorrupt(
                f"{url}: expected {entry['bytes']} bytes with hash {entry['hash']}, found {len(data)} bytes with hash "
                f"{digest(data)}; {_restore(url)}"
            )
        return data

    def _other_bytes(self, url: str) -> RegistryError:
        if _read_receipt(url) is None:
            return RegistryError(
                f"{url}: holds other bytes, from an interrupted or simultaneous attachment; if nobody is attaching it, "
                "remove this file and attach again"
            )
        return RegistryError(
            f"{url}: other bytes are attached under this name; what is attached is never changed, so attach these "
            "under another name"
        )


def _receipt_url(url: str) -> str:
    return f"{url}.json"


def _restore(url: str) -> str:
    return f"restore it, or remove it and {_receipt_url(url)} and attach it again"


def _bytes_at(url: str) -> bytes | None:
    try:
        return storage.read_bytes(url)
    except FileNotFoundError:
        return None


def _read_receipt(url: str) -> dict[str, int | str] | None:
    data = _bytes_at(_receipt_url(url))
    if data is None:
        return None
    try:
        entry = json.loads(data)
        return {"bytes": int(entry["bytes"]), "hash": str(entry["hash"])}
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactCorrupt(
            f"{_receipt_url(url)}: not a receipt ({type(exc).__name__}: {exc}); {_restore(url)}"
        ) from exc


def read_lineage(url: str) -> Lineage | None:
    """Read the lineage of the version in a folder.

    The folder is ``.../<base>/<lang>/<version>``; None if no version is there.

    Raises
    ------
    ArtifactCorrupt
        If it is not a lineage, or that of another place.
    """
    where = storage.join(url, LINEAGE)
    try:
        data = storage.read_bytes(where)
    except FileNotFoundError:
        return None
    lineage = Lineage.from_json(data, where)
    place = f"{lineage.base.key}/{lineage.lang}/{lineage.version}"
    if not url.endswith(f"/{place}"):
        raise ArtifactCorrupt(f"{where}: is the lineage of {place}; move the folder back to where it belongs")
    return lineage


def write_version(url: str, lineage: Lineage, files: Mapping[str, bytes | Path]) -> Lineage:
    """Write a version into its folder, unless it is there already; see ``Registry.add``."""
    if missing := {CONFIG, WEIGHTS} - files.keys():
        raise RegistryError(f"{lineage.lang}@{lineage.version}: lacks {', '.join(sorted(missing))}")
    for name in files.keys() - {CONFIG, WEIGHTS}:
        check_file(name)
    check_adapter(_bytes(files[CONFIG]), _bytes(files[WEIGHTS]))
    contents = {**files, CARD: model_card(lineage).encode()}
    lineage = replace(lineage, files={name: _entry(_bytes(contents[name])) for name in sorted(contents)})
    if read_lineage(url) is None:
        for name, content in sorted(contents.items()):
            _create(storage.join(url, name), _bytes(content), url)
        with suppress(storage.Changed):  # somebody else has added it meanwhile; whether the same is seen below
            storage.replace_if(storage.join(url, LINEAGE), lineage.to_json(), None)
    found = read_lineage(url)
    theirs = found.files if found else {}
    if found is None or theirs != lineage.files:
        differ = sorted(name for name in theirs | lineage.files if theirs.get(name) != lineage.files.get(name))
        raise RegistryError(
            f"{url}: exists with another {', '.join(differ)}; a version is never changed, so give this training a "
            "version of its own"
        )
    return found


def _bytes(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _entry(data: bytes) -> dict[str, int | str]:
    return {"bytes": len(data), "hash": digest(data)}


def _create(url: str, data: bytes, folder: str) -> None:
    """Write a file that is not there; one with the same bytes is a part of an interrupted add, and is kept."""
    try:
        storage.replace_if(url, data, None)
    except storage.Changed as exc:
        found = storage.read_versioned(url)
        if found is None or found[0] != data:
            raise RegistryError(
                f"{url}: holds other bytes, from an interrupted or simultaneous add of this version; if nobody is "
                f"adding it, remove {folder} and add it again"
            ) from exc
