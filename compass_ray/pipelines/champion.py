"""A champion that is to be updated, and what it knows of its usage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compass_ray.artifacts import Artifact
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

    def usage_shares(self) -> NDArray[np.float64]:
        """Compute the share of usage of every cluster, shape (n_clusters,), outliers apart."""
        counts = self.reference.usage_by_cluster()[:-1].astype(np.float64)
        shares: NDArray[np.float64] = counts / max(1.0, float(counts.sum()))
        return shares
