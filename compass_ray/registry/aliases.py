"""Which version is champion, candidate and previous: one small file per base and language, moved as a whole.

The transitions are pure; the swap is the only thing that is written. Two that decide on the same state cannot both
have their way: the later one gets :class:`AliasMoved`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from compass_ray import storage
from compass_ray.errors import AliasMoved, ArtifactCorrupt, RegistryError
from compass_ray.registry.names import ALIASES, check_version


@dataclass(frozen=True)
class Aliases:
    """The aliases of one base and language at one moment.

    Attributes
    ----------
    generation : int
        Number of moves so far: it tells apart two moments with the same aliases.
    champion : str or None
        The version that is served.
    candidate : str or None
        The newest version that has not been decided on.
    previous : str or None
        The champion before this one: what a rollback returns to.
    """

    generation: int = 0
    champion: str | None = None
    candidate: str | None = None
    previous: str | None = None

    def version(self, alias: str) -> str | None:
        """Look up the version that an alias points to."""
        return {"champion": self.champion, "candidate": self.candidate, "previous": self.previous}[alias]

    def of(self, version: str) -> list[str]:
        """List the aliases that point to a version."""
        return [alias for alias in ALIASES if self.version(alias) == version]

    def with_candidate(self, version: str) -> Aliases:
        """Make the version the candidate. No change if it is the champion already."""
        return self if version == self.champion else replace(self, candidate=version)

    def promoted(self, version: str) -> Aliases:
        """Make the version the champion, and the champion the previous one.

        A candidate that was promoted is one no more.
        """
        candidate = None if self.candidate == version else self.candidate
        if version == self.champion:
            return replace(self, candidate=candidate)
        return replace(self, champion=version, previous=self.champion, candidate=candidate)

    def rolled_back(self) -> Aliases:
        """Exchange champion and previous.

        Raises
        ------
        RegistryError
            If there is no previous champion.
        """
        if self.previous is None:
            raise RegistryError("there is no previous champion to return to")
        return replace(self, champion=self.previous, previous=self.champion)


@dataclass(frozen=True)
class Snapshot:
    """The aliases as read, and the version of the file that held them; None if there was no file."""

    aliases: Aliases
    stored: str | None


def read(url: str) -> Snapshot:
    """Read the aliases in a file; all None where there is no file.

    Raises
    ------
    ArtifactCorrupt
        If the file is something else.
    """
    found = storage.read_versioned(url)
    if found is None:
        return Snapshot(Aliases(), None)
    data, stored = found
    try:
        aliases = Aliases(**json.loads(data))
        if type(aliases.generation) is not int:
            raise TypeError(f"generation: {aliases.generation!r} is not a whole number")
        for version in filter(None, map(aliases.version, ALIASES)):
            check_version(version)
    except (TypeError, ValueError, RegistryError) as exc:
        raise ArtifactCorrupt(
            f"{url}: not a file of aliases ({exc}); remove it and promote the version that is to be served"
        ) from exc
    return Snapshot(aliases, stored)


def swap(url: str, seen: Snapshot, wanted: Aliases) -> Aliases:
    """Replace the aliases that were read by others, unless somebody else has done so; nothing to do if they are equal.

    Returns
    -------
    Aliases
        As they stand now, one generation later if they changed.

    Raises
    ------
    AliasMoved
        If the aliases have been moved since they were read.
    """
    if wanted == seen.aliases:
        return wanted
    moved = replace(wanted, generation=seen.aliases.generation + 1)
    try:
        storage.replace_if(url, json.dumps(asdict(moved)).encode(), seen.stored)
    except storage.Changed as exc:
        raise AliasMoved(
            f"{url}: somebody else has moved the aliases since generation {seen.aliases.generation}; "
            "look at them again (compass-ray registry list) and decide anew"
        ) from exc
    return moved
