"""What is known of a run before it begins, and once its documents are in clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compass_ray.artifacts import Artifact
from compass_ray.cluster.device import Device
from compass_ray.embed.meaning import Meaning
from compass_ray.ingest.stage import IngestPlan
from compass_ray.pipelines.run import CurationRun
from compass_ray.sample.stage import SampleInputs


@dataclass(frozen=True)
class Plan:
    """What a config will work on, known before any work is done."""

    run: CurationRun
    ingest: IngestPlan
    space: Mapping[str, str]
    frozen: Artifact | None  # a codebook that the config names
    device: Device  # where centroids are compared


@dataclass(frozen=True)
class Clustered:
    """The artifacts up to assignments, and what sampling reads of them."""

    quarantined: Artifact
    embeddings: Artifact
    codebook: Artifact
    copies: Meaning | None  # how translations are told, where that was fitted
    inputs: SampleInputs
