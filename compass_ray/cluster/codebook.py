"""The codebook: centroids, language means and outlier thresholds, frozen in one artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray.artifacts import Artifact, Receipt, open_artifact
from compass_ray.cluster import centering
from compass_ray.cluster.centering import LanguageMeans, read_means
from compass_ray.errors import FingerprintMismatch

KEY = "codebook"


@dataclass(frozen=True)
class Codebook:
    """What assigns a vector to a cluster.

    Attributes
    ----------
    centroids : ndarray of shape (n_clusters, n_features), float32
        Unit rows.
    means : LanguageMeans
        Subtracted from a vector before it is compared; none with ``embed.center: none``.
    thresholds : mapping of language to float
        A document less similar than this to its centroid is an outlier.
    default_threshold : float
        The threshold of languages with too few rows for their own.
    """

    centroids: NDArray[np.float32]
    means: LanguageMeans
    thresholds: Mapping[str, float]
    default_threshold: float

    def threshold(self, lang: str) -> float:
        """The similarity below which a document of a language is an outlier."""
        return self.thresholds.get(lang, self.default_threshold)

    def write(self, target: Artifact, summary: Mapping[str, Any]) -> Receipt:
        """Write centroids and thresholds; the means are written before, as the fit needs them."""
        n_clusters, n_features = self.centroids.shape
        centroid = pa.FixedSizeListArray.from_arrays(pa.array(self.centroids.ravel()), n_features)
        table = pa.table({"cluster": pa.array(range(n_clusters), pa.int32()), "centroid": centroid})
        outliers = {"thresholds": dict(self.thresholds), "default_threshold": self.default_threshold}
        return target.write(KEY, table, {**summary, **outliers})


def read_codebook(source: Artifact) -> Codebook:
    """The codebook of a finished artifact."""
    column = source.read(KEY)["centroid"].combine_chunks()
    centroids = column.flatten().to_numpy().reshape(len(column), -1)
    receipts = source.manifest().receipts
    means = read_means(source) if centering.KEY in receipts else LanguageMeans({})
    summary = receipts[KEY].summary
    return Codebook(centroids, means, summary["thresholds"], summary["default_threshold"])


def open_codebook(url: str, space: Mapping[str, str]) -> Artifact:
    """A codebook made by an earlier run, if its vectors can be compared with ours.

    Raises
    ------
    FingerprintMismatch
        If it was made from vectors of another encoder, or with another centring.
    """
    found = open_artifact(url)
    theirs = found.identity.get("space", {})
    differing = [
        f"{name}: {theirs.get(name)} there, {value} here" for name, value in space.items() if theirs.get(name) != value
    ]
    if found.stage != "codebook" or differing:
        raise FingerprintMismatch(
            f"cluster.codebook: {url} is not a codebook for these embeddings "
            f"({'; '.join(differing) or 'it is of stage ' + found.stage}); "
            "fit a new one or use its encoder and centring"
        )
    return found
