"""Teachers: encoders whose vectors of the training texts are computed once, and used by every training on the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray.embed import load_encoder
from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.stage import encoder_identity
from compass_ray.embed.training.config import EncoderTraining, Teacher
from compass_ray.embed.training.fingerprint import fingerprint
from compass_ray.languages import canonical_language
from compass_ray.runtime.progress import Display
from compass_ray.vectors import scaled_rows

_BATCH = 64


def languages_of(teacher: Teacher, config: EncoderTraining) -> set[str | None]:
    """Collect the languages that a teacher knows, as BCP-47 tags: the pivot alone if it names none."""
    return {*map(canonical_language, teacher.languages or [config.pivot])} - {None}


def revision_of(teacher: Teacher) -> str:
    """Say which weights a teacher has, wherever they lie."""
    return encoder_identity(EmbedConfig(model=teacher.model, revision=teacher.revision))["revision"]


def teacher_vectors(
    texts: pa.Table, config: EncoderTraining, parts: Path, display: Display
) -> NDArray[np.float32] | None:
    """Compute vectors of all groups, those of several teachers side by side.

    Parameters
    ----------
    texts : pyarrow.Table
        ``records.PARALLEL``.
    config : EncoderTraining
    parts : Path
        Folder where vectors are kept, and found again.
    display : Display

    Returns
    -------
    ndarray of shape (n_groups, d), float32, or None
        By the groups' numbers in the table. Vectors of several teachers are as long as each other. None without a
        teacher.
    """
    found = [_kept_vectors(texts, teacher, config, parts, display) for teacher in config.teachers]
    if len(found) < 2:
        return found[0] if found else None
    return np.concatenate([scaled_rows(vectors) for vectors in found], axis=1)


def _kept_vectors(
    texts: pa.Table, teacher: Teacher, config: EncoderTraining, parts: Path, display: Display
) -> NDArray[np.float32]:
    """Read the vectors of one teacher, or compute and keep them."""
    languages = languages_of(teacher, config)
    saved = parts / f"teacher-{fingerprint([sorted(map(str, languages)), revision_of(teacher)], texts)}.npy"
    if saved.exists():
        return np.asarray(np.load(saved, allow_pickle=False))
    vectors = _centred_vectors(texts, teacher, languages, display)
    with Path(f"{saved}.partial").open("wb") as stream:
        np.save(stream, vectors, allow_pickle=False)
    Path(f"{saved}.partial").rename(saved)
    return vectors


def _centred_vectors(
    texts: pa.Table, teacher: Teacher, languages: set[str | None], display: Display
) -> NDArray[np.float32]:
    """Compute centred vectors of all groups, each the mean over the teacher's languages.

    They are zero where it has none of them.
    """
    sides = {
        (group, tag): text
        for group, lang, text in zip(*(texts[name].to_pylist() for name in ("group", "lang", "text")), strict=True)
        if (tag := canonical_language(lang)) in languages
    }
    encoder = load_encoder(teacher.model, revision=teacher.revision)
    ordered = sorted(sides, key=lambda side: len(sides[side]))
    vectors = np.zeros((texts["group"].to_numpy().max() + 1, encoder.dim), dtype=np.float32)
    counts = np.zeros((len(vectors), 1), dtype=np.float32)
    with display.stage("teacher", total=len(ordered), unit="sentences") as bar:
        for start in range(0, len(ordered), _BATCH):
            part = ordered[start : start + _BATCH]
            groups = np.array([group for group, _ in part])
            np.add.at(vectors, groups, encoder.encode([sides[side] for side in part]))
            np.add.at(counts, groups, 1)
            bar.advance(len(part))
    known = counts[:, 0] > 0
    vectors[known] /= counts[known]
    vectors[known] -= vectors[known].mean(axis=0)
    return vectors
