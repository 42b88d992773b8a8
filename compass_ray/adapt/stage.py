"""Adapt: training documents -> one adapter per language, and held-out scores.

``gather`` and ``tokenise`` (see ``data``) make packs; worker groups (see ``trainer``) train on them. An adapter is an
artifact like any other: the same tokens, base, config and seed are never trained twice, and an interrupted training
goes on from its last checkpoint. Cost: per worker the base's weights, 16 bytes an adapter weight (fewer with ZeRO), and
the activations of one micro-batch; see ``preflight`` for the sum.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from compass_ray.adapt import data
from compass_ray.adapt.schedule import Schedule
from compass_ray.adapt.training.adapter_files import CONFIG, WEIGHTS
from compass_ray.adapt.training.worker import CURVE, SCORES, Job, Scored, Settings, Start
from compass_ray.artifacts import Artifact, artifact
from compass_ray.configbase import identity
from compass_ray.errors import CompassError, NothingTrained
from compass_ray.runtime.stage import Session

VERSION = 1
SCORES_VERSION = 2


@dataclass(frozen=True)
class Adapted:
    """A trained adapter and its scores."""

    lang: str
    adapter: Artifact
    scores: Artifact

    def files(self) -> dict[str, bytes]:
        """Read the adapter's files as PEFT reads them."""
        return {name: self.adapter.read_bytes(name) for name in (CONFIG, WEIGHTS)}

    def curve(self) -> pa.Table:
        """Read the curve: one row an update, schema ``records.CURVE``, or ``UPDATE_CURVE`` of what had a start."""
        return self.adapter.read(CURVE)

    def score_table(self) -> pa.Table:
        """Read the scores, schema ``records.SCORE``.

        One row is for usage, one for the mixture, then one for each other language.
        """
        return self.scores.read(SCORES)


def train(
    tokens: Artifact,
    languages: Sequence[str],
    settings: Settings,
    folder: Path,
    session: Session,
    starts: Mapping[str, Start] | None = None,
    purposes: Mapping[str, str] | None = None,
) -> tuple[dict[str, Adapted], dict[str, CompassError]]:
    """Train an adapter for every language; one that fails does not stop the others.

    Parameters
    ----------
    tokens : Artifact
        What ``data.tokenize`` has made, for these languages at least.
    settings : Settings
    folder : Path
        Of the base model.
    starts : mapping of str to Start, optional
        Adapters that trainings begin with, by language; others begin with a fresh one.
    purposes : mapping of str to str, optional
        By language, the hash of what its adapter is made for, where equal tokens do not make equal versions.

    Returns
    -------
    adapted : dict of Adapted by language
    failed : dict of CompassError by language

    Raises
    ------
    ConfigError, ResourcesMissing
        What would stop every language.
    """
    counts = {lang: data.counts_of(tokens, lang) for lang in languages}
    failed: dict[str, CompassError] = {
        lang: _nothing(lang, counts[lang]) for lang in languages if not counts[lang]["trained_tokens"]
    }
    jobs = [
        _job(lang, tokens, languages, settings, folder, session, (starts or {}).get(lang), (purposes or {}).get(lang))
        for lang in languages
        if lang not in failed
    ]
    started = time.monotonic()
    made = {result.url for job in jobs for result in (job.adapter, job.scores) if result.exists()}
    missing = [job for job in jobs if not {job.adapter.url, job.scores.url} <= made]
    if missing:
        from compass_ray.adapt.training.trainer import train_all

        session.connect()
        work = {job.lang: counts[job.lang]["tokens"] for job in missing}
        total = sum(schedule_of(counts[job.lang], settings).steps for job in missing)
        failed |= train_all(missing, work, settings, session.output, session.display, total)
    adapted = {}
    for job in jobs:
        if job.lang not in failed:
            for result, unit in ((job.adapter, "updates"), (job.scores, "scores")):
                session.record(result, result.manifest(), started, reused=result.url in made, unit=unit)
            adapted[job.lang] = Adapted(job.lang, job.adapter, job.scores)
    return adapted, failed


def schedule_of(counts: Mapping[str, Any], settings: Settings) -> Schedule:
    """Plan the updates of a training on so many packs."""
    training = settings.config.training
    return Schedule(counts["packs"], training.batch_size, training.epochs, training.max_steps, settings.seed)


def _job(
    lang: str,
    tokens: Artifact,
    languages: Sequence[str],
    settings: Settings,
    folder: Path,
    session: Session,
    start: Start | None = None,
    purpose: str | None = None,
) -> Job:
    config, receipts = settings.config, tokens.manifest().receipts
    body = {
        "version": VERSION,
        "lang": lang,
        **settings.model_identity(folder),
        "train": receipts[data.key_of(lang, data.TRAIN)].hash,
        "heldout": receipts[data.key_of(lang, data.HELDOUT)].hash,
        "training": identity(config.training),
        "seed": settings.seed,
    }
    if start is not None:
        body["start"] = start.identity()
    if purpose is not None:
        body["purpose"] = purpose
    adapter = artifact(session.output, f"adapter-{lang}", body)
    scored = _scored(lang, tokens, languages)
    measured = [
        [each.measures, each.lang, receipts[data.key_of(each.lang, each.part)].hash, each.in_language]
        for each in scored
    ]
    scores = artifact(
        session.output,
        f"scores-{lang}",
        {"version": SCORES_VERSION, "adapter": adapter.fingerprint, "scored": measured},
    )
    return Job(lang, tokens, adapter, scores, scored, start)


def _scored(lang: str, tokens: Artifact, languages: Sequence[str]) -> tuple[Scored, ...]:
    """List what the adapter of a language is scored on, in the order of ``records.MEASURES``."""
    counts = {other: data.counts_of(tokens, other) for other in languages}
    mixtures = [("mixture", lang), *(("other", other) for other in languages if other != lang)]
    return (
        Scored("usage", lang, data.USAGE, counts[lang]["usage"]["in_language"]),
        *(
            Scored(measures, other, data.HELDOUT, counts[other]["in_language"][data.HELDOUT])
            for measures, other in mixtures
        ),
    )


def _nothing(lang: str, counts: Mapping[str, Any]) -> NothingTrained:
    reasons = ", ".join(f"{rows} × {reason}" for reason, rows in counts["dropped_reasons"].items())
    return NothingTrained(
        f"{lang}: no token to train on is left of {counts['train'] + counts['heldout'] + counts['dropped']} documents "
        f"({counts['heldout']} held out; dropped: {reasons or 'none'}); training needs answers of the assistant or "
        "plain text, and adapt.max_length must leave room for an answer after its prompt"
    )
