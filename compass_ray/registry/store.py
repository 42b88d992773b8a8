"""The registry: immutable adapter versions, and aliases that move between them.

``<registry>/<base>/<lang>/<version>/`` holds a version, ``<registry>/<base>/<lang>/aliases.json`` the aliases; both
local or on S3. A file of a version is created once and never written over, so that neither an interrupted nor a
simultaneous writer can tear a version that somebody reads.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from compass_ray import storage
from compass_ray.errors import AliasMoved, RegistryError
from compass_ray.registry import aliases as alias_file
from compass_ray.registry.aliases import Aliases
from compass_ray.registry.lineage import Lineage
from compass_ray.registry.names import (
    ALIASES,
    AdapterRef,
    check_base_key,
    check_lang,
    check_version,
    is_place,
    is_version_path,
)
from compass_ray.registry.version import LINEAGE, AdapterVersion, read_lineage, write_version

_ATTEMPTS = 100
_PAUSE_MS = 50
_ALIASES_FILE = "aliases.json"


class Registry:
    """Adapter versions below one folder, local or ``s3://``.

    Parameters
    ----------
    url : str
        The folder. It need not exist before the first version is added.
    """

    def __init__(self, url: str) -> None:
        storage.refuse_read_only(url)  # aliases move in it
        self.url = storage.absolute(url)

    # --- versions -----------------------------------------------------------------------------------

    def add(self, lineage: Lineage, files: Mapping[str, bytes | Path]) -> AdapterVersion:
        """Add a version; adding the same one again does nothing.

        Parameters
        ----------
        lineage : Lineage
            Its history; ``files`` are filled in here.
        files : mapping
            ``adapter_config.json``, ``adapter_model.safetensors``, chat templates and any ``reference/...``: bytes, or
            a local path to read. The model card and the lineage are written here.

        Raises
        ------
        RegistryError
            If the version exists with other files, or a file is not what an adapter consists of.
        """
        url = self._version_url(lineage.base.key, lineage.lang, lineage.version)
        written = write_version(url, lineage, files)
        return self._opened(written, self.aliases(written.base.key, written.lang))

    def places(self) -> list[tuple[str, str]]:
        """List every base and language with a version, or aliases of one, sorted."""
        found = {(base, lang) for base, lang, _ in self._listed("*", "*")}
        for file in storage.list_files(storage.join(storage.literal(self.url), "*", "*", _ALIASES_FILE)):
            _, base, lang, _ = file.url.rsplit("/", 3)
            if is_place(base, lang):
                found.add((base, lang))
        return sorted(found)

    def versions(self, base: str, lang: str) -> list[str]:
        """List the finished versions of a base and language, sorted by name."""
        return sorted(version for *_, version in self._listed(check_base_key(base), check_lang(lang)))

    def history(self, base: str, lang: str) -> list[AdapterVersion]:
        """List the finished versions of a base and language, oldest first."""
        aliases = self.aliases(base, lang)
        found = (read_lineage(self._version_url(base, lang, version)) for version in self.versions(base, lang))
        return [self._opened(each, aliases) for each in sorted(filter(None, found), key=lambda each: each.created)]

    def locate(self, ref: AdapterRef | str) -> tuple[str, str]:
        """Find the base and language that a reference means.

        Raises
        ------
        RegistryError
            If it leaves out the base and the registry holds none, or several.
        """
        ref = AdapterRef.parse(ref) if isinstance(ref, str) else ref
        if ref.base is not None:
            return ref.base, ref.lang
        bases = sorted({base for base, *_ in self._listed("*", ref.lang)})
        if len(bases) == 1:
            return bases[0], ref.lang
        if bases:
            raise RegistryError(f"{self.url}: has '{ref.lang}' for several bases; say which: {', '.join(bases)}")
        there = ", ".join(f"{base}/{lang}" for base, lang in self.places()) or "nothing"
        raise RegistryError(f"{self.url}: has no adapter of '{ref.lang}'; there is {there}")

    def open(self, ref: AdapterRef | str) -> AdapterVersion:
        """Open the version that a reference means.

        Raises
        ------
        RegistryError
            If there is none, or several.
        """
        ref = AdapterRef.parse(ref) if isinstance(ref, str) else ref
        base, lang = self.locate(ref)
        aliases = self.aliases(base, lang)
        version = self._resolve(base, lang, ref.ref, aliases)
        lineage = read_lineage(self._version_url(base, lang, version))
        if lineage is None:
            if ref.ref in ALIASES:
                raise RegistryError(
                    f"{self.url}: the {ref.ref} of {base}/{lang} is version {version}, whose folder is gone; there is "
                    f"{self._there(base, lang)}; restore it, or promote another"
                )
            raise self._unknown(base, lang, version)
        return self._opened(lineage, aliases)

    def dangling(self, base: str, lang: str) -> dict[str, list[str]]:
        """Find versions that aliases point to and that are not there. Each comes with these aliases."""
        aliases = self.aliases(base, lang)
        there = self.versions(base, lang)
        gone = {aliases.version(alias) for alias in ALIASES} - {None, *there}
        return {str(version): aliases.of(str(version)) for version in sorted(map(str, gone))}

    # --- aliases ------------------------------------------------------------------------------------

    def aliases(self, base: str, lang: str) -> Aliases:
        """Read the aliases of a base and language as they are now."""
        return alias_file.read(self._aliases_url(base, lang)).aliases

    def move(
        self, base: str, lang: str, transition: Callable[[Aliases], Aliases], seen: Aliases | None = None
    ) -> Aliases:
        """Move aliases by compare-and-swap.

        Parameters
        ----------
        transition : callable
            From the aliases as they are to those that are wanted.
        seen : Aliases or None
            The aliases on which the decision was taken, if they were read before.

        Returns
        -------
        Aliases
            As they stand now, one generation later if they changed.

        Raises
        ------
        AliasMoved
            If somebody else has moved them since ``seen``, or while this moved them.
        """
        url = self._aliases_url(base, lang)
        snapshot = alias_file.read(url)
        if seen is not None and seen != snapshot.aliases:
            raise AliasMoved(
                f"{url}: decided on generation {seen.generation}, but the aliases are at generation "
                f"{snapshot.aliases.generation}; look at them again (compass-ray registry list) and decide anew"
            )
        return alias_file.swap(url, snapshot, transition(snapshot.aliases))

    def set_candidate(self, base: str, lang: str, version: str) -> Aliases:
        """Make a version the candidate, whoever else does the same: the newest wins.

        A version that is champion already stays it, and is no candidate.

        Raises
        ------
        RegistryError
            If there is no such version.
        AliasMoved
            If others moved the aliases faster than this a hundred times in a row.
        """
        self._require(base, lang, version)
        for _ in range(_ATTEMPTS - 1):
            try:
                return self.move(base, lang, lambda seen: seen.with_candidate(version))
            except AliasMoved:
                time.sleep(secrets.randbelow(_PAUSE_MS) / 1000)
        return self.move(base, lang, lambda seen: seen.with_candidate(version))

    def promote(self, ref: AdapterRef | str, seen: Aliases | None = None) -> Aliases:
        """Make a version the champion, and the champion the previous one; see :meth:`move`."""
        ref = AdapterRef.parse(ref) if isinstance(ref, str) else ref
        base, lang = self.locate(ref)

        def transition(now: Aliases) -> Aliases:
            version = self._resolve(base, lang, ref.ref, now)
            self._require(base, lang, version)
            return now.promoted(version)

        return self.move(base, lang, transition, seen)

    def rollback(self, base: str, lang: str, seen: Aliases | None = None) -> Aliases:
        """Exchange champion and previous, if that is still there; see :meth:`move`."""

        def transition(now: Aliases) -> Aliases:
            back = now.rolled_back()
            self._require(base, lang, str(back.champion))
            return back

        try:
            return self.move(base, lang, transition, seen)
        except AliasMoved:
            raise
        except RegistryError as exc:
            raise RegistryError(f"{self.url}: {base}/{lang}: {exc}; promote a version by name instead") from exc

    # --- where and which ----------------------------------------------------------------------------

    def _resolve(self, base: str, lang: str, ref: str, aliases: Aliases) -> str:
        """Find the version that an alias, a version or its prefix means."""
        if ref in ALIASES:
            version = aliases.version(ref)
            if version is None:
                raise RegistryError(
                    f"{self.url}: {base}/{lang} has no {ref}; there is {self._there(base, lang)}; name a version, or "
                    "promote one (compass-ray registry promote)"
                )
            return version
        found = [version for version in self.versions(base, lang) if version.startswith(ref)]
        if ref in found:
            return ref
        if not found:
            raise self._unknown(base, lang, ref)
        if len(found) > 1:
            raise RegistryError(f"{self.url}: {base}/{lang}@{ref} means several versions: {', '.join(found)}")
        return found[0]

    def _require(self, base: str, lang: str, version: str) -> None:
        if read_lineage(self._version_url(base, lang, version)) is None:
            raise self._unknown(base, lang, version)

    def _unknown(self, base: str, lang: str, version: str) -> RegistryError:
        return RegistryError(f"{self.url}: {base}/{lang} has no version {version}; there is {self._there(base, lang)}")

    def _there(self, base: str, lang: str) -> str:
        return ", ".join(self.versions(base, lang)) or "none"

    def _opened(self, lineage: Lineage, aliases: Aliases) -> AdapterVersion:
        url = self._version_url(lineage.base.key, lineage.lang, lineage.version)
        return AdapterVersion(url, lineage, tuple(aliases.of(lineage.version)))

    def _listed(self, base: str, lang: str) -> list[tuple[str, str, str]]:
        """List (base, lang, version) of every finished version. What is not named like one is somebody else's."""
        pattern = storage.join(storage.literal(self.url), base, lang, "*", LINEAGE)
        parts = (file.url.rsplit("/", 4) for file in storage.list_files(pattern))
        return [(base, lang, version) for _, base, lang, version, _ in parts if is_version_path(base, lang, version)]

    def _aliases_url(self, base: str, lang: str) -> str:
        return storage.join(self.url, check_base_key(base), check_lang(lang), _ALIASES_FILE)

    def _version_url(self, base: str, lang: str, version: str) -> str:
        return storage.join(self.url, check_base_key(base), check_lang(lang), check_version(version))
