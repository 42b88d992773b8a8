"""The Fisher information of an adapter: an artifact from its weights and documents.

A later update weighs changes of the adapter by it. Cost: forward and backward of every document, one at a time on each
worker; see ``training/fisher``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from compass_ray.adapt.packing import Packs
from compass_ray.adapt.training.fisher import FISHER
from compass_ray.adapt.training.worker import FisherJob, Settings, packs_digest
from compass_ray.artifacts import Artifact, artifact, digest
from compass_ray.runtime.stage import Session

VERSION = 1


def fit_fisher(
    lang: str,
    weights: bytes,
    packs: Packs,
    documents: Sequence[str],
    settings: Settings,
    folder: Path,
    session: Session,
) -> Artifact:
    """Compute the Fisher information of an adapter, unless it is there.

    Parameters
    ----------
    lang : str
    weights : bytes
        The adapter's ``adapter_model.safetensors``.
    packs : Packs
        Of one document each, as ``packing.make_packs`` makes them without packing.
    documents : sequence of str
        Ids in hex of the documents that packs number.
    settings : Settings
    folder : Path
        Of the base model.
    session : Session

    Returns
    -------
    Artifact
        Its file ``fisher.FISHER`` is for ``fisher.read_fisher``.

    Raises
    ------
    AdaptationError, ResourcesMissing
    """
    body = {
        "version": VERSION,
        "lang": lang,
        **settings.model_identity(folder),
        "weights": digest(weights),
        "packs": packs_digest(packs),
    }
    target = artifact(session.output, f"fisher-{lang}", body)
    started, reused = time.monotonic(), target.exists()
    if not reused:
        from compass_ray.adapt.training.trainer import fit_fisher as fit

        session.connect()
        fit(FisherJob(lang, weights, packs, list(documents), target), settings, session.output, session.display)
    session.record(target, target.manifest(), started, reused=reused, unit="documents")
    return target


def fisher_of(target: Artifact) -> bytes:
    """Read the file that :func:`fit_fisher` has made."""
    return target.read_bytes(FISHER)
