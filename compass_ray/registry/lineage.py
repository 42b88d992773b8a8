"""Where an adapter version comes from, and what it consists of: ``lineage.json``.

It is the manifest of its folder, written last: a version without it does not exist.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from compass_ray.artifacts import canonical_json
from compass_ray.errors import ArtifactCorrupt, IncompatibleAdapter, RegistryError
from compass_ray.models import BaseRef
from compass_ray.registry.names import check_base_key, check_lang, check_version

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Lineage:
    """The history of one adapter version.

    Attributes
    ----------
    base : BaseRef
        The model that the adapter was trained on: name, revision and the hash of its weights.
    lang : str
        Canonical tag of the language that it serves.
    version : str
        Fingerprint of the training that made it, in hex.
    created : str
        When, in UTC, ISO 8601. No part of the identity.
    code_version : str
        Version of this package that made it.
    parent : str or None
        The version that training started from; None for a fresh adapter.
    selection : str or None
        Fingerprint of the selection that it was trained on.
    config : dict
        The part of the config that training depended on.
    scores : dict
        What was measured, by name. ``heldout`` is a list of rows as in ``records.SCORE``, in that order.
    documents : dict
        Number of documents by their part in training.
    files : dict
        All other files of the version: name -> ``{"bytes": int, "hash": str}``. Filled in by ``Registry.add``.
    """

    base: BaseRef
    lang: str
    version: str
    created: str
    code_version: str
    parent: str | None = None
    selection: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_base_key(self.base.key)
        check_lang(self.lang)
        check_version(self.version)
        if self.parent is not None:
            check_version(self.parent)

    def to_json(self) -> bytes:
        """Write the bytes of ``lineage.json``."""
        return canonical_json({"schema_version": SCHEMA_VERSION, **asdict(self)}).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Lineage:
        """Read ``lineage.json``; ``where`` is its URL, for messages.

        Raises
        ------
        ArtifactCorrupt
            If it is not JSON, is of another schema, or lacks a field.
        """
        try:
            body = json.loads(data)
            found = body.pop("schema_version", None)
            if found != SCHEMA_VERSION:
                raise ArtifactCorrupt(
                    f"{where}: expected a lineage of schema {SCHEMA_VERSION}, found {found!r}; read it with the "
                    "version of compass_ray that wrote it"
                )
            wanted = {each.name for each in fields(cls)}
            if body.keys() != wanted:
                raise KeyError(", ".join(sorted(body.keys() ^ wanted)))
            for name, entry in body["files"].items():
                if not (isinstance(entry["bytes"], int) and isinstance(entry["hash"], str)):
                    raise TypeError(f"files: {name}: no size and hash")
            return cls(**{**body, "base": BaseRef(**body["base"])})
        except (AttributeError, KeyError, TypeError, ValueError, RegistryError) as exc:
            raise ArtifactCorrupt(
                f"{where}: not a lineage ({type(exc).__name__}: {exc}); delete its folder and add the version again"
            ) from exc


def check_base(lineage: Lineage, found: BaseRef) -> None:
    """Refuse a base model whose weights are not those that the adapter was trained on.

    Raises
    ------
    IncompatibleAdapter
    """
    expected = lineage.base
    if found.weights_hash != expected.weights_hash:
        raise IncompatibleAdapter(
            f"adapter {lineage.lang}@{lineage.version}: trained on {_described(expected)}, but the base given is "
            f"{_described(found)}; give the base that it was trained on, or adapt again on {found.name}"
        )


def _described(base: BaseRef) -> str:
    revision = f" at revision {base.revision}" if base.revision else ""
    return f"{base.name}{revision} with weights {base.weights_hash}"
