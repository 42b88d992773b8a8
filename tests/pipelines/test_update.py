"""The loop: usage is watched, champions are updated where it has drifted, a gate promotes what is better."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from loop import Loop
from tiny_base import write_tiny_base

from compass_ray import RunConfig, gate_candidates, monitor_usage, update_adapters
from compass_ray.artifacts import Artifact
from compass_ray.errors import AdaptationError, ConfigError, GateRefused
from compass_ray.pipelines.reference import VersionReference
from compass_ray.pipelines.run import CurationRun
from compass_ray.registry.store import Registry

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.slow]

Configured = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def place(champion_loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    return champion_loop.copied(tmp_path_factory.mktemp("updates"))


@pytest.fixture(scope="module")
def configured(place: Loop) -> Configured:
    """``configured("moved", *sets)``: one config for all commands of the loop, and which usage is watched."""
    return lambda usage, *sets: place.config(usage, *sets)


@pytest.fixture(scope="module")
def registry(place: Loop) -> Registry:
    """With a champion of Swahili."""
    return place.registry


def test_without_drift_nothing_is_done_and_that_is_said(configured: Configured, registry: Registry) -> None:
    before = registry.history(*registry.places()[0])
    run = update_adapters(configured("same"))
    assert run.languages == {}
    assert run.unchanged["sw"] == "its usage has not drifted"
    assert registry.history(*registry.places()[0]) == before


def test_the_loop(configured: Configured, registry: Registry) -> None:
    champion = registry.open("sw@champion")
    assert monitor_usage(configured("moved")).verdicts["sw"] == "drift"

    run = update_adapters(configured("moved"))
    line = run.languages["sw"]
    candidate = registry.open("sw@candidate")
    assert (line["champion"], candidate.lineage.parent) == (champion.lineage.version,) * 2
    assert registry.open("sw@champion") == champion, "an update moves no champion"
    curve = run.curve("sw").to_pylist()
    assert all(row["penalty"] is not None and row["replay_loss"] is not None for row in curve)
    assert curve[0]["penalty"] == 0, "training begins with the champion's weights"
    _check_selection(CurationRun(line["curation"]), VersionReference(champion))
    _check_reference(VersionReference(champion), VersionReference(candidate))
    again = update_adapters(configured("moved"))
    assert again.languages == run.languages, "the same update again finds it done"

    gated = gate_candidates(configured("moved", "gate.margin=0.5"))
    assert (gated.outcomes, gated.promoted) == ({"sw": "pass"}, ["sw"])
    assert [line["about"] for line in gated.verdict("sw")["lines"]][:2] == ["new_usage", "former_usage"]
    promoted = registry.open("sw@champion")
    assert promoted.lineage == candidate.lineage
    assert registry.open("sw@previous").lineage == champion.lineage
    kept = json.loads(promoted.read_attached(gated.verdict("sw")["attached"]))
    assert (kept["outcome"], kept["champion"]) == ("pass", champion.lineage.version)

    assert monitor_usage(configured("moved")).verdicts["sw"] == "stable", "the champion was made for this"
    registry.rollback(*registry.places()[0])
    assert registry.open("sw@champion").lineage == champion.lineage


def _check_selection(curation: CurationRun, champion: VersionReference) -> None:
    """What the champion knows is current data, and none of it is drawn again; former usage has its half."""
    rows = curation.histograms.to_pylist()
    known = sum(row["documents"] for row in rows if row["role"] == "current")
    assert known == champion.trained.num_rows > 0
    new, former = (sum(row["documents"] for row in rows if row["role"] == role) for role in ("usage", "former"))
    assert new == former > 0
    (select,) = curation.artifacts("select")
    drawn = pc.unique(
        pa.chunked_array([part["content_id"].combine_chunks() for part in select.read_all(_keys(select))])
    )
    for known in (champion.trained["content_id"].combine_chunks(), champion.unseen):
        assert not pc.any(pc.is_in(drawn, value_set=known)).as_py()


def _keys(artifact: Artifact) -> list[str]:
    return artifact.manifest().keys_with_rows


def _check_reference(before: VersionReference, after: VersionReference) -> None:
    """The history goes on."""
    old, new = (set(each.trained["content_id"].to_pylist()) for each in (before, after))
    assert old < new
    old, new = (set(each.unseen.to_pylist()) for each in (before, after))
    assert {*before.usage["content_id"].to_pylist()} <= old < new
    old, new = (set(each.replay["doc_id"].to_pylist()) for each in (before, after))
    assert old <= new
    measures = after.usage.group_by("measures").aggregate([("doc_id", "count")]).to_pylist()
    counts = {row["measures"]: row["doc_id_count"] for row in measures}
    assert counts["former_usage"] == before.usage.num_rows
    assert counts["new_usage"] > 30
    assert after.usage["cluster"].null_count == 0


def test_a_candidate_that_unlearns_is_refused_and_the_champion_stays(
    configured: Configured, registry: Registry
) -> None:
    champion = registry.open("sw@champion")
    update_adapters(configured("moved", "update.method=naive", "adapt.training.epochs=4"))
    with pytest.raises(GateRefused, match=r"fails, and .* stays champion: former usage: .* worse") as refused:
        gate_candidates(configured("moved"))
    assert refused.value.exit_code == 6
    assert registry.open("sw@champion") == champion
    assert registry.open("sw@candidate").lineage.config["update"]["method"] == "naive"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("monitor.reference=run",), r"monitor\.reference: found 'run', but updates go on with champions"),
        (("sample=null",), r"sample: update needs the section"),
        (("monitor.base=other-12345678",), r"monitor\.base: found 'other-12345678', but adapt\.base is base-"),
    ],
)
def test_what_cannot_be_an_update_is_refused(
    configured: Configured, registry: Registry, sets: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        update_adapters(configured("same", *sets))


def test_a_champion_with_other_layers_is_left_as_it_is(configured: Configured, registry: Registry) -> None:
    run = update_adapters(configured("moved", "adapt.lora.rank=8"))
    assert run.languages == {}
    assert run.unchanged["sw"].startswith("its champion has rank 4, adapt.lora another")


def test_a_champion_of_another_base_is_none_of_this_one(
    configured: Configured, registry: Registry, tmp_path: Path
) -> None:
    other = write_tiny_base(tmp_path / "other", ["maji na mvua"] * 50, seed=1)
    run = update_adapters(configured("moved", f"adapt.base={other}"))
    assert run.languages == {}
    assert "there are adapters of base-" in run.unchanged["sw"]


def test_a_tampered_fisher_is_found_out(configured: Configured, registry: Registry) -> None:
    champion = registry.open("sw@champion")
    (name,) = [name for name in champion.attached() if name.startswith("fisher")]
    path = Path(champion.url, "attached", name)
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\0\0\0\0")
    try:
        with pytest.raises(AdaptationError, match=r"champions are as they were:\n  sw: ArtifactCorrupt: .*fisher"):
            update_adapters(configured("moved", "update.ewc_weight=3"))
    finally:
        path.write_bytes(data)
    assert registry.open("sw@champion") == champion
