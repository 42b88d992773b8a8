"""Cluster: embeddings -> codebook and assignments.

A codebook is fitted on actors (:mod:`~compass_ray.cluster.actors`) or found in a bounded sample
(:mod:`~compass_ray.cluster.density`); one full pass of tasks then assigns every document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import centering, records, seeding, storage
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.cluster import outliers, sweep
from compass_ray.cluster.actors import fit_on_actors
from compass_ray.cluster.codebook import KEY, Codebook, Fitted, open_codebook, read_codebook
from compass_ray.cluster.config import ClusterConfig, HdbscanConfig
from compass_ray.cluster.density import DenseClusters, dense_clusters
from compass_ray.cluster.device import TASK_GPUS, Device, nearest_on
from compass_ray.cluster.sampling import FITTED_BY, Design, Group, Sample, collect, design_sample, known_rows
from compass_ray.configbase import identity
from compass_ray.errors import TooFewSamples
from compass_ray.runtime.stage import Session, map_keys
from compass_ray.runtime.threads import set_threads
from compass_ray.vectors import finite_rows

VERSION = 8
SWEEP = "sweep"


def frozen_codebook(config: ClusterConfig, space: Mapping[str, str]) -> Artifact | None:
    """Open the codebook that the config names. None if one is to be fitted.

    Raises
    ------
    FingerprintMismatch
        If it belongs to another encoder or centring.
    """
    return None if config.codebook == "fit" else open_codebook(storage.absolute(config.codebook), space)


@dataclass(frozen=True)
class CodebookSpec:
    """What a codebook is fitted with.

    ``space`` says what makes vectors comparable: the encoder's identity, and ``center``. ``holdout_fraction`` is the
    share of usage documents that nothing is chosen by: clusters, language means and thresholds know nothing of them.
    """

    config: ClusterConfig
    space: Mapping[str, str]
    seed: int
    holdout_fraction: float
    device: Device

    @property
    def sweeps(self) -> bool:
        """Whether the number of clusters is tried out."""
        return self.config.method == "kmeans" and self.config.n_clusters == "auto"

    def known_sample(self, groups: Counter[Group], rows: int) -> Design:
        """Design a sample of about so many rows that are not held out."""
        return design_sample(groups, rows, self.seed, self.holdout_fraction)

    def identity(self) -> dict[str, Any]:
        """List what decides the codebook's content, beside the embeddings."""
        unread = {"kmeans": ["hdbscan"], "hdbscan": ["n_clusters", "sweep", "max_iterations", "tol", "fit_rows"]}
        left_out = [*unread[self.config.method], *([] if self.sweeps else ["sweep"])]
        return {
            "space": dict(self.space),
            "config": {name: value for name, value in identity(self.config).items() if name not in left_out},
            "seed": self.seed,
            "holdout_fraction": self.holdout_fraction,
        } | _device_identity(self.device)


def fit_codebook(embeddings: Artifact, fitting: CodebookSpec, session: Session) -> Artifact:
    """Fit a codebook to the embeddings.

    Raises
    ------
    TooFewSamples
        If there are fewer documents than clusters, or no dense regions.
    """
    body = {"version": VERSION, "embeddings": embeddings.fingerprint, **fitting.identity()}
    target = artifact(session.output, "codebook", body)
    keys = [KEY]
    if fitting.space["center"] == "language":
        keys.append(centering.KEY)
    if fitting.sweeps:
        keys.append(SWEEP)
    manifest = session.complete(target, keys, lambda missing: _make_codebook(missing, embeddings, target, fitting))
    if "chosen" in manifest.receipts[KEY].summary:
        session.display.say(manifest.receipts[KEY].summary["chosen"])
    return target


def assign(embeddings: Artifact, codebook: Artifact, session: Session, device: Device) -> Artifact:
    """Give every document with a finite vector its nearest cluster.

    A usage document stands for those that will come, so it goes where it would if k-means had not been fitted to it. A
    frozen codebook knows its rows only if it was fitted to these very embeddings, and HDBSCAN's medoids are not taken
    from under a document: there it is the nearest cluster.
    """
    body = {"version": VERSION, "embeddings": embeddings.fingerprint, "codebook": codebook.fingerprint}
    target = artifact(session.output, "assign", body | _device_identity(device))
    keys = list(embeddings.manifest().receipts)
    found = read_codebook(codebook)
    if codebook.identity.get("embeddings") != embeddings.fingerprint:
        found = replace(found, fitted=None)
    session.complete(
        target,
        keys,
        lambda missing: map_keys(
            _assign_shard, missing, embeddings, found, target, device, num_gpus=_task_gpus(device)
        ),
    )
    return target


def _device_identity(device: Device) -> dict[str, str]:
    """Name the device unless it is the CPU.
    GPUs may decide near ties otherwise than CPUs, whose fingerprints stay as they were.
    """
    return {} if device == "cpu" else {"device": device}


def _task_gpus(device: Device) -> float:
    return 0 if device == "cpu" else TASK_GPUS


def _make_codebook(
    missing: list[str], embeddings: Artifact, target: Artifact, fitting: CodebookSpec
) -> Iterator[Receipt]:
    """Write the missing tables, first the means if there are to be any.

    An interrupted fit computes the means again, to the same bits.
    """
    means = centering.LanguageMeans({})
    if fitting.space["center"] == "language":
        keys = list(embeddings.manifest().receipts)
        means = centering.language_means(map_keys(_language_sums, keys, embeddings, fitting))
    if centering.KEY in missing:
        yield means.write(target)
    if KEY not in missing:
        return
    groups = _group_totals(embeddings)
    if fitting.config.method == "hdbscan":
        bare, summary = _dense(embeddings, means, groups, fitting)
    else:
        n_clusters, chosen = fitting.config.n_clusters, {}
        if n_clusters == "auto":
            rows = _sweep(embeddings, means, groups, fitting)
            n_clusters, why = sweep.choose(rows)
            chosen = {"chosen": why}
            if SWEEP in missing:
                yield target.write(SWEEP, sweep.to_table(rows))
        bare, summary = _kmeans(embeddings, means, groups, fitting, n_clusters)
        summary |= chosen
    keys = embeddings.manifest().keys_with_rows
    counts = map_keys(_similarities, keys, embeddings, bare, fitting, num_gpus=_task_gpus(fitting.device))
    thresholds, default = outliers.thresholds(counts, fitting.config)
    found = replace(bare, thresholds=thresholds, default_threshold=default)
    yield found.write(target, {"rows": groups.total(), **summary})


def _kmeans(
    embeddings: Artifact, means: centering.LanguageMeans, groups: Counter[Group], fitting: CodebookSpec, n_clusters: int
) -> tuple[Codebook, dict[str, Any]]:
    """Fit a codebook by weighted spherical k-means.
    All actors together can hold its sample; it has no thresholds yet.
    """
    config, rows = fitting.config, groups.total()
    if rows < n_clusters:
        raise TooFewSamples(
            f"cluster.n_clusters: {n_clusters} clusters cannot be fitted on {rows} documents; lower it or add data"
        )
    if config.fit_rows < n_clusters:
        raise TooFewSamples(
            f"cluster.fit_rows: {n_clusters} clusters cannot be fitted on {config.fit_rows} rows "
            f"(of {rows} documents); raise it or lower cluster.n_clusters"
        )
    design = fitting.known_sample(groups, config.fit_rows)
    fit = fit_on_actors(embeddings, means, design, config, n_clusters, fitting.device)
    found = Codebook(fit.centroids, means, {}, -1.0, Fitted(design, fit.lengths))
    return found, {"inertia": fit.inertia, "converged": fit.converged}


def _dense(
    embeddings: Artifact, means: centering.LanguageMeans, groups: Counter[Group], fitting: CodebookSpec
) -> tuple[Codebook, dict[str, Any]]:
    """Take the medoids of dense regions in a bounded sample.
    One task looks at all of it. There are no thresholds yet.
    """
    import ray

    config = fitting.config.hdbscan
    design = fitting.known_sample(groups, config.rows)
    sample, found = collect(embeddings, means, design)
    dense: DenseClusters = ray.get(ray.remote(num_cpus=1, max_retries=5)(_dense_clusters).remote(sample, config))
    why = (
        f"{len(dense.medoids)} clusters: HDBSCAN over {found:,} rows, DBCV {dense.dbcv:.2f}; "
        f"{dense.noise_fraction:.0%} of their weight lies in none and goes to the nearest"
    )
    return Codebook(dense.medoids, means, {}, -1.0), {
        "chosen": why,
        "dbcv": dense.dbcv,
        "noise_fraction": dense.noise_fraction,
        "sampled_rows": found,
    }


def _dense_clusters(sample: Sample, config: HdbscanConfig) -> DenseClusters:
    set_threads(1)
    return dense_clusters(sample.rows.x, sample.rows.weights, config)


def _sweep(
    embeddings: Artifact, means: centering.LanguageMeans, groups: Counter[Group], fitting: CodebookSpec
) -> list[sweep.SweepRow]:
    """Try each number of clusters on a sample.
    Tasks draw its centers for each seed, and try the numbers: no row comes to the driver.
    """
    import ray

    config, seed = fitting.config.sweep, fitting.seed
    design = fitting.known_sample(groups, config.rows)
    sample, found = collect(embeddings, means, design)
    draw, score = (ray.remote(num_cpus=1, max_retries=5)(task) for task in (_starts, _sweep_row))
    seeds = [seeding.child_seed(seed, "sweep", str(number)) for number in range(sweep.SEEDS)]
    starts: list[Any] = ray.get([draw.remote(sample, max(config.clusters), one) for one in seeds])
    numbers = sweep.usable(config.clusters, min(map(len, starts)), found)
    centers = ray.put(starts)
    rows: list[sweep.SweepRow] = ray.get([score.remote(sample, centers, number, seed) for number in numbers[::-1]])
    return rows


def _starts(sample: Sample, n_clusters: int, seed: int) -> Any:
    set_threads(1)
    return sweep.starts(sample, n_clusters, seed)


def _sweep_row(sample: Sample, centers: list[Any], n_clusters: int, seed: int) -> sweep.SweepRow:
    set_threads(1)
    return sweep.sweep_row(sample, centers, n_clusters, seed)


def _language_sums(key: str, embeddings: Artifact, fitting: CodebookSpec) -> centering.Sums:
    set_threads(1)
    table = embeddings.read(key, [*FITTED_BY, "vector"])
    return centering.language_sums(known_rows(table, fitting.seed, fitting.holdout_fraction))


def _group_totals(embeddings: Artifact) -> Counter[Group]:
    groups: Counter[Group] = Counter()
    for receipt in embeddings.manifest().receipts.values():
        for role, lang, count in receipt.summary["groups"]:
            groups[role, lang] += count
    return groups


def _similarities(key: str, embeddings: Artifact, codebook: Codebook, fitting: CodebookSpec) -> outliers.Counts:
    set_threads(1)
    table = embeddings.read(key, [*FITTED_BY, "vector"])
    table = known_rows(table, fitting.seed, fitting.holdout_fraction)
    return outliers.count_similarities(table, _assigned(table, codebook, fitting.device)[1])


def _assign_shard(key: str, embeddings: Artifact, codebook: Codebook, target: Artifact, device: Device) -> Receipt:
    set_threads(1)
    table = finite_rows(embeddings.read(key))
    labels, similarity, cosines = _assigned(table, codebook, device)
    limits = [codebook.threshold(lang) for lang in table["lang"].to_pylist()]
    outlier = similarity < np.array(limits, dtype=np.float64)
    assigned = table.drop_columns(["vector"])
    for name, values in (("cluster", labels), ("similarity", similarity), ("outlier", outlier)):
        assigned = assigned.append_column(name, pa.array(values))
    is_usage = _usage(table)
    offsets = pa.array(np.append(0, np.cumsum(is_usage)) * len(codebook.centroids), pa.int32())
    of_usage = pa.ListArray.from_arrays(offsets, pa.array(cosines.ravel()), mask=pa.array(~is_usage))
    assigned = assigned.append_column("similarities", of_usage)
    return target.write(key, assigned.cast(records.ASSIGNMENT), {"outliers": int(outlier.sum())})


def _assigned(
    embeddings: pa.Table, codebook: Codebook, device: Device
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float16]]:
    """Find the cluster of each row and the cosine with its centroid.

    For usage rows the cosines with all centroids come third.
    """
    x = codebook.means.unit_rows(embeddings)
    labels, similarity = nearest_on(device)(x, codebook.centroids)
    is_usage = _usage(embeddings)
    usage = embeddings.select(FITTED_BY).filter(pa.array(is_usage))
    labels[is_usage], similarity[is_usage], cosines = codebook.nearest_leave_one_out(usage, x[is_usage])
    return labels, similarity, cosines


def _usage(embeddings: pa.Table) -> NDArray[np.bool_]:
    is_usage: NDArray[np.bool_] = np.asarray(pc.equal(embeddings["role"], "usage"))
    return is_usage
