"""What new usage is compared with: the usage that a selection, or an adapter, was made for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import storage
from compass_ray.artifacts import Artifact
from compass_ray.cluster.codebook import KEY, open_codebook
from compass_ray.config import RunConfig
from compass_ray.embed.stage import vector_space
from compass_ray.errors import CompassError, FingerprintMismatch, IncomparableReference, RegistryError
from compass_ray.monitor.config import MonitorConfig
from compass_ray.monitor.judge import Reference
from compass_ray.monitor.windows import histogram
from compass_ray.pipelines.adapt import registry_url
from compass_ray.pipelines.reference import VersionReference
from compass_ray.pipelines.run import CurationRun, run_of
from compass_ray.pipelines.usage_vectors import usage_vectors
from compass_ray.registry.names import ALIASES, AdapterRef
from compass_ray.registry.store import Registry
from compass_ray.runtime.stage import Session
from compass_ray.text import without_controls
from compass_ray.vectors import from_column


@dataclass(frozen=True)
class ReferenceUsage:
    """Usage over one codebook, by target language."""

    codebook: Artifact
    references: Mapping[str, Reference]
    vectors: Mapping[str, NDArray[np.float16]]
    """A sample of each target language's, of shape (n, d), where some were kept."""

    @property
    def n_clusters(self) -> int:
        """How many clusters the codebook has."""
        return self.codebook.manifest().receipts[KEY].rows


@dataclass(frozen=True)
class Known:
    """What is known of reference usage."""

    usages: Sequence[ReferenceUsage]
    """One for each codebook, at least one."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why that of a language cannot be used, and what to do."""


def reference_usage(config: RunConfig, section: MonitorConfig, session: Session) -> Known:
    """Read what ``monitor.reference`` means.

    Codebooks that a registry keeps come into the cache, where the tasks of all machines find them.

    Raises
    ------
    IncomparableReference
        If it does not say what usage was; of a registry, if it does so of no language.
    FingerprintMismatch
        If its vectors are of another encoder or centring than the config's; of a registry, if there is no other.
    """
    if section.reference in ALIASES:
        return _of_registry(config, section, session.output)
    run = run_of(config) if section.reference == "run" else CurationRun(storage.absolute(section.reference))
    codebook = open_codebook(run.record["codebook"], vector_space(config.embed, config.ingest.view))
    labels = run.gaps.select(["target_lang", "cluster", "label"])
    references = _references(codebook, run.path, run.histograms, labels, run.certificate)
    kept = usage_vectors(run, session)
    vectors = {
        target_lang: from_column(kept.read(target_lang)["vector"]) for target_lang in kept.manifest().keys_with_rows
    }
    return Known([ReferenceUsage(codebook, references, vectors)])


def _of_registry(config: RunConfig, section: MonitorConfig, output: str) -> Known:
    """Read it by language. One that cannot be used does not stop the others."""
    registry = Registry(registry_url(config))
    space = vector_space(config.embed, config.ingest.view)
    by_codebook: dict[str, ReferenceUsage] = {}
    faults: dict[str, CompassError] = {}
    for lang, bases in _bases(registry, section).items():
        try:
            version = registry.open(AdapterRef(_only(lang, bases, section), lang, section.reference))
            kept = VersionReference(version)
            codebook = open_codebook(kept.codebook(output).url, space)
            histograms = kept.histograms
        except (IncomparableReference, RegistryError, FingerprintMismatch) as exc:
            faults[lang] = exc
            continue
        mine = _references(codebook, str(version), histograms, kept.labels, [lang])
        made = datetime.fromisoformat(version.lineage.created)
        mine = {lang: replace(one, made=made) for lang, one in mine.items()}
        known = by_codebook.get(codebook.fingerprint) or ReferenceUsage(codebook, {}, {})
        vectors = {**known.vectors, **_vectors(kept.vectors, lang)}
        by_codebook[codebook.fingerprint] = ReferenceUsage(codebook, {**known.references, **mine}, vectors)
    if by_codebook:
        return Known(list(by_codebook.values()), {lang: str(fault) for lang, fault in faults.items()})
    for fault in faults.values():
        raise fault
    raise IncomparableReference(
        f"monitor.reference: {registry.url} has no adapter that is {section.reference}"
        + ("" if section.base is None else f" on '{section.base}' (monitor.base)")
        + "; promote one (compass-ray registry promote), or compare with a run"
    )


def _bases(registry: Registry, section: MonitorConfig) -> dict[str, list[str]]:
    """List the bases on which each language has an adapter of the alias, of those that are asked for."""
    found: dict[str, list[str]] = {}
    for base, lang in registry.places():
        if section.base in (None, base) and registry.aliases(base, lang).version(section.reference) is not None:
            found.setdefault(lang, []).append(base)
    return found


def _only(lang: str, bases: Sequence[str], section: MonitorConfig) -> str:
    if len(bases) > 1:
        raise IncomparableReference(
            f"monitor.reference: '{lang}' has a {section.reference} on several bases; say which (monitor.base): "
            f"{', '.join(bases)}"
        )
    return bases[0]


def _vectors(kept: pa.Table | None, lang: str) -> dict[str, NDArray[np.float16]]:
    return {} if kept is None else {lang: from_column(kept["vector"])}


def _references(
    codebook: Artifact, origin: str, histograms: pa.Table, labels: pa.Table | None, target_langs: Iterable[str]
) -> dict[str, Reference]:
    """Make each target language's reference from all its usage, held out or not. Nothing is chosen by it here."""
    n_clusters = codebook.manifest().receipts[KEY].rows
    usage = histograms.filter(pc.is_in(histograms["role"], pa.array(["usage", "heldout"])))
    found = {}
    for target_lang in target_langs:
        mine = usage.filter(pc.equal(usage["target_lang"], target_lang))
        named = {} if labels is None else _names(labels, target_lang)
        found[target_lang] = Reference(origin, histogram(mine["cluster"], mine["documents"], n_clusters), named)
    return found


def _names(labels: pa.Table, target_lang: str) -> dict[int, str]:
    mine = labels.filter(pc.equal(labels["target_lang"], target_lang))
    labels = map(without_controls, mine["label"].to_pylist())
    return dict(zip(mine["cluster"].to_pylist(), labels, strict=True))
