"""The codebook: centroids, language means, outlier thresholds and how it was fitted, frozen in one artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import centering, records
from compass_ray.artifacts import Artifact, Receipt, open_artifact
from compass_ray.centering import LanguageMeans, read_means
from compass_ray.cluster import kernels
from compass_ray.cluster.sampling import Design
from compass_ray.errors import FingerprintMismatch

KEY = "codebook"


@dataclass(frozen=True)
class Fitted:
    """What is behind centroids: each is the direction of the weighted sum of the rows of its cluster.

    Attributes
    ----------
    design : Design
        Which rows are in these sums, and with what weight.
    lengths : ndarray of shape (n_clusters,), float64
        Of the sums; 0 for a centroid that is none.
    """

    design: Design
    lengths: NDArray[np.float64]


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
    fitted : Fitted or None
        None if centroids are no such directions, or were fitted to other rows than those at hand.
    """

    centroids: NDArray[np.float32]
    means: LanguageMeans
    thresholds: Mapping[str, float]
    default_threshold: float
    fitted: Fitted | None = None

    def threshold(self, lang: str) -> float:
        """Look up the similarity below which documents of a language are outliers."""
        return self.thresholds.get(lang, self.default_threshold)

    def nearest_leave_one_out(
        self, rows: pa.Table, x: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float16]]:
        """Find clusters of usage as if each text had not been fitted; see :func:`kernels.nearest_leave_one_out`.

        A text that was asked for several times is left out with all of its copies.

        Parameters
        ----------
        rows : Table
            Columns of ``sampling.FITTED_BY``; all usage of a shard, and equal content lies in one shard.
        x : ndarray of shape (n, n_features), float32
            Their vectors, as the means move them.
        """
        if self.fitted is None:
            return kernels.nearest_leave_one_out(x, np.zeros(len(x)), self.centroids, np.zeros(len(self.centroids)))
        weights = kernels.with_copies(self.fitted.design.weights_of(rows), records.codes_of(rows["content_id"]))
        return kernels.nearest_leave_one_out(x, weights, self.centroids, self.fitted.lengths)

    def write(self, target: Artifact, summary: Mapping[str, Any]) -> Receipt:
        """Write centroids and thresholds; the means are written before, as the fit needs them."""
        n_clusters, n_features = self.centroids.shape
        centroid = pa.FixedSizeListArray.from_arrays(pa.array(self.centroids.ravel()), n_features)
        table = pa.table({"cluster": pa.array(range(n_clusters), pa.int32()), "centroid": centroid})
        body = {**summary, "thresholds": dict(self.thresholds), "default_threshold": self.default_threshold}
        if self.fitted is not None:
            table = table.append_column("length", pa.array(self.fitted.lengths))
            body["design"] = self.fitted.design.to_json()
        return target.write(KEY, table, body)


def read_codebook(source: Artifact) -> Codebook:
    """Read the codebook of a finished artifact."""
    table = source.read(KEY)
    column = table["centroid"].combine_chunks()
    centroids = column.flatten().to_numpy().reshape(len(column), -1)
    receipts = source.manifest().receipts
    means = read_means(source) if centering.KEY in receipts else LanguageMeans({})
    summary = receipts[KEY].summary
    fitted = None
    if "design" in summary:
        fitted = Fitted(Design.from_json(summary["design"]), table["length"].to_numpy())
    return Codebook(centroids, means, summary["thresholds"], summary["default_threshold"], fitted)


def open_codebook(url: str, space: Mapping[str, str]) -> Artifact:
    """Open a codebook made by an earlier run. Its vectors must be comparable with ours.

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
