"""Similarity of languages by the feature tables of URIEL (Littell et al., 2017), from a folder that the user names.

``features.npz`` (as lang2vec ships it) holds syntactic (S_), phonological (P_) and inventory (INV_) features;
``family_features.npz``, if it is there, families (F_).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from compass_ray import storage
from compass_ray.artifacts import digest
from compass_ray.errors import ConfigError
from compass_ray.languages import language_codes

_FILES = ("features.npz", "family_features.npz")
_SETS = ("S_", "P_", "INV_", "F_")


@dataclass(frozen=True)
class Uriel:
    """Features of languages, one table for each set.

    Attributes
    ----------
    tables : dict of set to (languages, values)
        ISO 639-3 codes by row, and an array of shape (n_languages, n_features), float32, NaN where nothing is known.
    """

    tables: dict[str, tuple[dict[str, int], NDArray[np.float32]]]

    def similarity(self, target_lang: str, languages: Sequence[str]) -> NDArray[np.float64]:
        """Compute how alike each language's features are to the target language's.

        Parameters
        ----------
        target_lang, languages : BCP-47 tags

        Returns
        -------
        ndarray of shape (n_languages,), float64
            Mean over the sets of the cosine over features known of both, in [0, 1]; NaN for a language of which
            nothing is known.
        """
        return np.array([self._pair(target_lang, language) for language in languages], dtype=np.float64)

    def _pair(self, one: str, other: str) -> float:
        if one == other:
            return 1.0
        values = [self._cosine(name, one, other) for name in self.tables]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else float("nan")

    def _cosine(self, table: str, one: str, other: str) -> float | None:
        rows, values = self.tables[table]
        first, second = (_first_known(language_codes(tag), rows, values) for tag in (one, other))
        if first is None or second is None:
            return None
        both = ~np.isnan(values[first]) & ~np.isnan(values[second])
        a, b = values[first][both].astype(np.float64), values[second][both].astype(np.float64)
        length = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / length) if length else None


def _first_known(codes: Sequence[str], rows: dict[str, int], values: NDArray[np.float32]) -> int | None:
    """Find the row of the first code of which anything is known. lang2vec has empty rows of macro-languages."""
    return next((rows[code] for code in codes if code in rows and not np.isnan(values[rows[code]]).all()), None)


@lru_cache(maxsize=4)
def read_features(folder: str) -> Uriel:
    """Read the tables in a folder, local or on an object store.

    Raises
    ------
    ConfigError
        If there is no ``features.npz``, or a file is not a table of plain numbers.
    """
    tables: dict[str, tuple[dict[str, int], NDArray[np.float32]]] = {}
    for name in _FILES:
        url = storage.join(folder, name)
        try:
            data = storage.read_bytes(url)
        except FileNotFoundError as exc:
            if name == _FILES[0]:
                raise ConfigError(
                    f"sample.language_features: {url} does not exist; give the folder that holds lang2vec's {name}"
                ) from exc
            continue
        tables |= _tables(url, data)
    return Uriel(tables)


def fingerprint(folder: str) -> str:
    """Hash the bytes of the tables."""
    urls = [storage.join(folder, name) for name in _FILES]
    return digest(b"".join(storage.read_bytes(url) for url in urls if storage.exists(url)))


def _tables(url: str, data: bytes) -> dict[str, tuple[dict[str, int], NDArray[np.float32]]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            names, langs, values = file["feats"], file["langs"], file["data"]
    except (ValueError, KeyError, OSError) as exc:
        raise ConfigError(
            f"sample.language_features: {url} is no table of lang2vec; expected arrays feats, langs and data without "
            f"pickled objects: {exc}"
        ) from exc
    rows = {str(lang): row for row, lang in enumerate(langs)}
    result = {}
    for prefix in _SETS:
        columns = np.flatnonzero(np.char.startswith(names, prefix))
        if len(columns):
            result[prefix] = rows, _mean_of_sources(values[:, columns])
    return result


def _mean_of_sources(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the mean over the last axis of what is known. The mark of the unknown is -1."""
    known = values >= 0
    count = known.sum(axis=-1)
    total = np.where(known, values, 0).sum(axis=-1)
    mean: NDArray[np.float32] = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean
