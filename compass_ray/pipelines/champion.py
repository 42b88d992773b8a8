"""A champion that is to be updated, and what it knows of its usage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compass_ray.artifacts import Artifact
from compass_ray.cluster.codebook import KEY
from compass_ray.pipelines.reference import VersionReference
from compass_ray.registry.version import AdapterVersion


@dataclass(frozen=True)
class Champion:
    """The version that serves a language, and the codebook over which it knows its usage."""

    reference: VersionReference
    codebook: Artifact

    @property
    def version(self) -> AdapterVersion:
        """As it lies in the registry."""
        return self.reference.version

    @property
    def lang(self) -> str:
        """The language that it serves."""
        return self.version.lineage.lang

    @property
    def n_clusters(self) -> int:
        """Clusters of the codebook."""
        return self.codebook.manifest().receipts[KEY].rows

    def usage_shares(self) -> NDArray[np.float64]:
        """Compute the share of usage of every cluster, shape (n_clusters,), outliers apart."""
        rows = self.reference.usage_counts
        counts = np.zeros(self.n_clusters + 1)
        np.add.at(counts, rows["cluster"].to_numpy(), rows["documents"].to_numpy())
        shares: NDArray[np.float64] = counts[:-1] / max(1.0, float(counts[:-1].sum()))
        return shares
