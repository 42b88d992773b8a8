"""Codebooks and assignments of whole runs: centred, frozen, found, and blind to what is assigned by them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from demo import demo_config
from trees import tree_bytes

from compass_ray import CurationRun, RunConfig, curate
from compass_ray.artifacts import Artifact, _read_manifest, open_artifact
from compass_ray.cluster.codebook import read_codebook
from compass_ray.cluster.kernels import row_weights
from compass_ray.errors import FingerprintMismatch, TooFewSamples
from compass_ray.holdout import heldout_mask
from compass_ray.vectors import from_column, unit_rows

Make = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("local_ray")


def test_a_frozen_codebook_is_used_as_it_is(demo: Make, finished_demo: CurationRun) -> None:
    cache = Path(finished_demo.path).parent.parent / "cache"
    codebook = cache / finished_demo.record["stages"]["codebook"]["artifact"]
    run = curate(demo(f"cluster.codebook={codebook}", "sample.budget=20", "cluster.n_clusters=7"))
    assert "codebook" not in {stage.stage for stage in run.stages}
    assert len({gap["cluster"] for gap in run.gaps.to_pylist()}) == 24
    with pytest.raises(FingerprintMismatch, match="prompt:  there, query:  here"):
        curate(demo(f"cluster.codebook={codebook}", "embed.prompt='query: '", "name=other"))


@pytest.mark.release
def test_two_copied_codebooks_do_not_share_assignments(demo: Make, finished_demo: CurationRun, tmp_path: Path) -> None:
    cache = Path(finished_demo.path).parent.parent / "cache"
    other = curate(demo("seed=1"))
    selections = []
    for name, run in (("a", finished_demo), ("b", other)):
        shutil.copytree(cache / run.record["stages"]["codebook"]["artifact"], tmp_path / name / "team-codebook")
        frozen = curate(demo(f"cluster.codebook={tmp_path}/{name}/team-codebook", f"name=frozen-{name}"))
        selections.append(tree_bytes(f"{frozen.path}/selection/sw"))
    assert selections[0] == tree_bytes(f"{finished_demo.path}/selection/sw")
    assert selections[1] != selections[0]


@pytest.fixture(scope="module")
def centred(finished_demo: CurationRun) -> CurationRun:
    """A run beside the finished demo that differs from it in ``embed.center`` alone."""
    return curate(demo_config(Path(finished_demo.path).parent.parent, "name=centred", "embed.center=language"))


def _artifact(run: CurationRun, stage: str) -> Artifact:
    return open_artifact(f"{Path(run.path).parent.parent}/cache/{run.record['stages'][stage]['artifact']}")


def test_centring_reuses_the_embeddings_and_fits_and_assigns_what_is_left_without_the_language_means(
    centred: CurationRun, finished_demo: CurationRun
) -> None:
    reused = {stage.stage: stage.reused for stage in centred.stages}
    assert (reused["ingest"], reused["embed"], reused["codebook"], reused["assign"]) == (True, True, False, False)
    embeddings, assignments = _artifact(centred, "embed"), _artifact(centred, "assign")
    assert embeddings.url == _artifact(finished_demo, "embed").url
    keys = list(embeddings.manifest().receipts)
    whole = pa.concat_tables([embeddings.read(key) for key in keys])
    langs = np.array(whole["lang"].to_pylist())
    rows = unit_rows(from_column(whole["vector"])).astype(np.float64)
    known = ~heldout_mask(whole, 0, 0.3)
    for lang in set(langs):
        rows[langs == lang] -= rows[(langs == lang) & known].mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    codebook = read_codebook(_artifact(centred, "codebook"))
    similarity = rows @ codebook.centroids.T.astype(np.float64)
    assigned = pa.concat_tables([assignments.read(key) for key in keys])
    assert assigned["doc_id"].equals(whole["doc_id"])
    is_usage = np.array(whole["role"].to_pylist()) == "usage"
    usage = (whole.filter(pa.array(is_usage)), rows[is_usage].astype(np.float32))
    of_usage = assigned["similarity"].to_numpy()[is_usage]
    np.testing.assert_allclose(codebook.nearest_leave_one_out(*usage)[1], of_usage, atol=1e-4)
    similarity, others = similarity[~is_usage], assigned.filter(pa.array(~is_usage))
    np.testing.assert_allclose(similarity.max(axis=1), others["similarity"].to_numpy(), atol=1e-4)
    found = similarity[np.arange(len(similarity)), others["cluster"].to_numpy()]
    np.testing.assert_allclose(similarity.max(axis=1), found, atol=1e-4)


def test_usage_is_assigned_as_if_the_codebook_had_been_fitted_without_it(finished_demo: CurationRun) -> None:
    """Against sums of all rows but held-out usage, by role and the root of a language's size."""
    embeddings, assignments = _artifact(finished_demo, "embed"), _artifact(finished_demo, "assign")
    keys = list(embeddings.manifest().receipts)
    whole = pa.concat_tables([embeddings.read(key) for key in keys])
    assigned = pa.concat_tables([assignments.read(key) for key in keys])
    x = unit_rows(from_column(whole["vector"])).astype(np.float64)
    groups = list(zip(whole["role"].to_pylist(), whole["lang"].to_pylist(), strict=True))
    counts = {group: count * (0.7 if group[0] == "usage" else 1) for group, count in Counter(groups).items()}
    of_row = row_weights(counts, {"pool": 0.5, "usage": 0.25, "current": 0.25})
    is_usage = np.array([role == "usage" for role, _ in groups])
    weights = np.where(heldout_mask(whole, 0, 0.3), 0.0, [of_row[group] for group in groups])
    centroids = read_codebook(_artifact(finished_demo, "codebook")).centroids.astype(np.float64)
    labels = (x @ centroids.T).argmax(axis=1)
    moved, off = 0, []
    for row in np.flatnonzero(is_usage):
        expected = x[row] @ centroids.T
        own, cluster = labels[row], assigned["cluster"][row].as_py()
        rest = (weights * (labels == own) * (np.arange(len(x)) != row)) @ x
        expected[own] = rest @ x[row] / np.linalg.norm(rest) if rest.any() else expected.min()
        found = np.array(assigned["similarities"][row].as_py())
        np.testing.assert_allclose(np.delete(found, own), np.delete(expected, own), atol=1e-3)  # of 16 bits
        assert found[cluster] == pytest.approx(found.max(), abs=1e-3)
        off.append(abs(found[own] - max(expected[own], expected.min())))
        moved += own != cluster
    assert np.median(off) < 1e-3
    assert np.quantile(off, 0.9) < 0.02  # rows of a few small clusters had come or gone when the fit ended
    assert moved > 0


def test_a_codebook_of_other_documents_is_taken_as_it_is(demo: Make, finished_demo: CurationRun) -> None:
    """Bounds on length leave out a few: whether a document was among those that were fitted can no longer be told."""
    codebook = _artifact(finished_demo, "codebook")
    frozen = (f"cluster.codebook={codebook.url}", "name=shorter", "sample.budget=50")
    run = curate(demo("sources.usage.min_characters=30", *frozen))
    embeddings, assignments = _artifact(run, "embed"), _artifact(run, "assign")
    keys = list(embeddings.manifest().receipts)
    whole, assigned = (pa.concat_tables([source.read(key) for key in keys]) for source in (embeddings, assignments))
    assert 0 < whole.num_rows < _artifact(finished_demo, "embed").manifest().rows
    similarity = unit_rows(from_column(whole["vector"])) @ read_codebook(codebook).centroids.T
    np.testing.assert_allclose(assigned["similarity"].to_numpy(), similarity.max(axis=1), atol=1e-5)


def test_a_centred_fit_that_was_interrupted_after_the_means_ends_in_the_same_bytes_on_one_actor(
    centred: CurationRun, finished_demo: CurationRun
) -> None:
    codebook = _artifact(centred, "codebook")
    before, means = tree_bytes(codebook.url), codebook.manifest().receipts["means"]
    folder = Path(codebook.url)
    for name in ("manifest.json", "codebook.parquet"):
        (folder / name).unlink()
    (folder / "_progress").mkdir(exist_ok=True)
    (folder / "_progress" / "means.json").write_text(json.dumps(asdict(means)))
    _read_manifest.cache_clear()
    overrides = ("name=centred", "embed.center=language", "cluster.actors=1")
    again = curate(demo_config(Path(finished_demo.path).parent.parent, *overrides))
    stage = next(stage for stage in again.stages if stage.stage == "codebook")
    assert (stage.reused, stage.resumed_keys) == (False, 1)
    assert tree_bytes(codebook.url) == before


@pytest.mark.slow
@pytest.mark.release
def test_a_centred_codebook_moves_the_documents_of_another_run_and_is_refused_by_one_without_centring(
    centred: CurationRun, demo: Make, fresh: Make, tmp_path: Path
) -> None:
    copy = tmp_path / "team-codebook"
    shutil.copytree(_artifact(centred, "codebook").url, copy)
    frozen = curate(fresh(f"cluster.codebook={copy}", "embed.center=language"))
    assert "codebook" not in {stage.stage for stage in frozen.stages}
    before, after = (tree_bytes(_artifact(run, "assign").url) for run in (centred, frozen))
    assert after == before
    assert tree_bytes(f"{frozen.path}/selection/sw") == tree_bytes(f"{centred.path}/selection/sw")
    with pytest.raises(FingerprintMismatch) as caught:
        curate(demo(f"cluster.codebook={copy}"))
    assert str(caught.value) == (
        f"cluster.codebook: {copy} is not a codebook for these embeddings (center: language there, none here); "
        "fit a new one or use its encoder and centring"
    )


AUTO = ("cluster.n_clusters=auto", "cluster.sweep={clusters: [6, 12], rows: 1000}")
HDBSCAN = ("cluster.method=hdbscan", "cluster.hdbscan={rows: 1000}")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        pytest.param(AUTO, "clusters: smallest within one standard error of the best usage gain", id="auto"),
        pytest.param(HDBSCAN, "clusters: HDBSCAN over", id="hdbscan", marks=pytest.mark.release),
    ],
)
def test_a_found_number_of_clusters_is_explained_the_same_for_any_actors_and_can_be_frozen(
    overrides: tuple[str, ...], why: str, demo: Make, finished_demo: CurationRun
) -> None:
    run = curate(demo(*overrides))
    codebook = _artifact(run, "codebook")
    number = len(read_codebook(codebook).centroids)
    assert run.record["clusters"]["n_clusters"] == number
    assert run.record["clusters"]["chosen"].startswith(f"{number} {why}")
    before = tree_bytes(codebook.url)
    shutil.rmtree(codebook.url)
    _read_manifest.cache_clear()
    curate(demo(*overrides, "cluster.actors=1"))
    assert tree_bytes(codebook.url) == before
    frozen = curate(demo(f"cluster.codebook={codebook.url}", f"name=frozen-{number}"))
    assert tree_bytes(f"{frozen.path}/selection/sw") == tree_bytes(f"{run.path}/selection/sw")


def test_fewer_fitting_rows_than_clusters_are_an_error_with_both_numbers(demo: Make) -> None:
    with pytest.raises(TooFewSamples, match=r"fit_rows: 400 clusters cannot be fitted on 100 rows \(of \d+ documents"):
        curate(demo("cluster.fit_rows=100", "cluster.n_clusters=400"))
