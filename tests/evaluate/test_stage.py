"""Losses as an artifact: one base load an actor, shards that go on where they stopped, and refusals."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from probing import KINDS, base_ref, mixed_probes, probe, register, table, write_adapter
from processes import descendants, title
from rich.console import Console
from tiny_base import write_tiny_base

from compass_ray import records
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.tokenizer import TokenizerSource
from compass_ray.artifacts import Artifact, Receipt
from compass_ray.errors import IncompatibleAdapter, NonFiniteLoss
from compass_ray.evaluate import probes, stage
from compass_ray.evaluate.probes import probe_artifact
from compass_ray.evaluate.stage import LossMeter, counts_of, measure_losses
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import session

Adapters = Mapping[str, AdapterVersion | None]
LONG = probe(" ".join(["mahindi"] * 100))


@pytest.fixture(scope="module")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    place = tmp_path_factory.mktemp("adapters")
    registry = Registry(str(place / "registry"))
    made = {
        kind: register(registry, write_adapter(place / kind, tiny_base, kind, number), tiny_base, number + 1)
        for number, kind in enumerate(KINDS)
    }
    return {"base": None, **made}


def source_of(base: Path, **fields: Any) -> TokenizerSource:
    return TokenizerSource(AdaptConfig(base=str(base), **{"max_length": 64, **fields}), None)


@pytest.fixture
def laid_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[dict[str, Any]]], Artifact]:
    """Documents in shards of eight."""
    monkeypatch.setattr(probes, "SHARD_DOCUMENTS", 8)

    def lay_down(rows: list[dict[str, Any]]) -> Artifact:
        with session(str(tmp_path), RayConfig(), None, "probes") as opened:
            return probe_artifact([table(rows)], opened)

    return lay_down


def here(
    found: Artifact, adapters: Adapters, base: Path, output: Path, keys: list[str] | None = None, **fields: Any
) -> tuple[Artifact, list[Receipt]]:
    """The receipts of an actor in this process, of all shards if none are named; nothing is committed."""
    source = source_of(base, **fields)
    target = stage._target(found, adapters, base_ref(base), source, str(output))
    meter = LossMeter(found, target, adapters, base_ref(base), source)
    told = meter(pa.table({"key": list(found.manifest().receipts) if keys is None else keys}))
    return target, [Receipt(**json.loads(line)) for line in told["receipt"].to_pylist()]


def test_there_is_a_row_for_each_adapter_and_document_in_order(
    laid_down: Any, adapters: Adapters, tiny_base: Path, tmp_path: Path
) -> None:
    documents = laid_down([*mixed_probes(19), probe("", measures="other")])
    target, receipts = here(documents, adapters, tiny_base, tmp_path)
    target.commit(receipts)
    for key in documents.manifest().receipts:
        rows, losses = documents.read(key).to_pylist(), target.read(key)
        assert losses.schema == records.LOSS
        expected = [(name, row["doc_id"]) for name in sorted(adapters) for row in rows if row["text"]]
        assert [(row["adapter"], row["doc_id"]) for row in losses.to_pylist()] == expected
        assert losses["cluster"].to_pylist() == [row["cluster"] for row in rows if row["text"]] * len(adapters)
        assert np.isfinite(losses["nats"].to_numpy()).all()
    assert counts_of(target) == {
        "documents": 20,
        "scored": 19,
        "truncated": 0,
        "not_in_template": {},
        "dropped_reasons": {"no_trainable_token": 1},
    }


def test_a_document_has_the_same_loss_whatever_its_shard_and_the_other_adapters(
    laid_down: Any, adapters: Adapters, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(documents: Artifact, adapters: Adapters, place: str) -> dict[tuple[str, bytes], float]:
        target, receipts = here(documents, adapters, tiny_base, tmp_path / place)
        target.commit(receipts)
        rows = [row for key in target.manifest().receipts for row in target.read(key).to_pylist()]
        return {(row["adapter"], row["doc_id"]): row["nats"] for row in rows}

    small = losses(laid_down(mixed_probes(20)), adapters, "small")
    monkeypatch.setattr(probes, "SHARD_DOCUMENTS", 512)
    some = {name: adapters[name] for name in ("large", "base")}
    large = losses(laid_down(mixed_probes(20)), some, "large")
    assert len(large) == 40
    assert large == pytest.approx({key: small[key] for key in large}, rel=1e-5)


def test_a_loss_that_is_no_number_is_an_error_that_names_the_document() -> None:
    documents = table(mixed_probes(3))
    shown = documents["doc_id"][1].as_py().hex()
    with pytest.raises(NonFiniteLoss, match=f"under large the loss of the documents {shown} is not finite"):
        stage._check_finite(np.array([1.0, np.nan, 2.0]), documents, "large")


def test_what_decides_losses_is_in_the_identity_and_the_order_of_adapters_is_not(
    laid_down: Any, adapters: Adapters, tiny_base: Path, tmp_path: Path
) -> None:
    documents, base = laid_down(mixed_probes(3)), base_ref(tiny_base)

    def fingerprint(adapters: Adapters = adapters, **fields: Any) -> str:
        source = source_of(tiny_base, **fields)
        return stage._target(documents, adapters, base, source, str(tmp_path)).fingerprint

    backwards = dict(reversed(adapters.items()))
    assert fingerprint(backwards) == fingerprint() == fingerprint(workers={"count": 3, "micro_batch": 4})
    others = [
        fingerprint({**adapters, "small": adapters["large"]}),
        fingerprint({"base": None}),
        fingerprint(max_length=32),
        fingerprint(dtype="bfloat16"),
        fingerprint(template_date="2026-01-01"),
    ]
    assert len({fingerprint(), *others}) == len(others) + 1


def test_an_adapter_of_another_base_is_refused_before_any_work(
    laid_down: Any, adapters: Adapters, tmp_path: Path
) -> None:
    other = write_tiny_base(tmp_path / "other", ["some text"] * 9, seed=1)
    documents = laid_down(mixed_probes(3))
    with (
        session(str(tmp_path), RayConfig(), None, "refused") as opened,
        pytest.raises(IncompatibleAdapter, match="but the base given is other with weights"),
    ):
        measure_losses(documents, adapters, base_ref(other), source_of(other), opened)


def test_another_base_on_a_node_is_refused(laid_down: Any, adapters: Adapters, tiny_base: Path, tmp_path: Path) -> None:
    source = source_of(write_tiny_base(tmp_path / "other", ["some text"] * 9, seed=1))
    documents = laid_down(mixed_probes(3))
    with pytest.raises(IncompatibleAdapter, match=r"on this node .*other has weights"):
        LossMeter(documents, documents, adapters, base_ref(tiny_base), source)


def test_no_document_makes_no_row_and_starts_no_actor(
    laid_down: Any, adapters: Adapters, tiny_base: Path, tmp_path: Path
) -> None:
    with session(str(tmp_path), RayConfig(), None, "empty") as opened:
        target = measure_losses(laid_down([]), adapters, base_ref(tiny_base), source_of(tiny_base), opened)
        assert not opened._connected
    assert target.manifest().rows == 0
    assert counts_of(target)["documents"] == 0


def test_losses_that_are_there_are_not_measured_again(
    laid_down: Any, adapters: Adapters, tiny_base: Path, tmp_path: Path
) -> None:
    documents = laid_down([*mixed_probes(20), LONG, probe("")])
    target, receipts = here(documents, adapters, tiny_base, tmp_path)
    target.commit(receipts)
    said = StringIO()
    with session(str(tmp_path), RayConfig(), Display(Console(file=said, width=300)), "losses") as opened:
        found = measure_losses(documents, adapters, base_ref(tiny_base), source_of(tiny_base), opened)
        assert (opened.stages[-1].reused, opened._connected) == (True, False)
    assert found.fingerprint == target.fingerprint
    told = "losses: of 22 documents 1 have nothing to predict (1 × no_trainable_token) and 1 are cut at 64 tokens"
    assert told in said.getvalue()


@pytest.mark.slow
def test_a_stage_goes_on_with_the_shards_that_are_missing(
    local_ray: None, laid_down: Any, adapters: Adapters, tiny_base: Path, tmp_path: Path
) -> None:
    documents = laid_down(mixed_probes(20))
    keys = list(documents.manifest().receipts)
    left, receipts = here(documents, adapters, tiny_base, tmp_path, keys[1:2])
    with session(str(tmp_path), RayConfig(), None, "losses") as opened:
        target = measure_losses(documents, adapters, base_ref(tiny_base), source_of(tiny_base), opened)
        assert (opened.stages[-1].resumed_keys, opened.stages[-1].reused) == (1, False)
    assert target.fingerprint == left.fingerprint
    again, receipts = here(documents, adapters, tiny_base, tmp_path / "again")
    assert again.commit(receipts).receipts == target.manifest().receipts  # the same bytes, in other processes


@pytest.mark.slow
def test_the_shards_of_a_killed_actor_are_done_again_to_the_same_bytes(
    local_ray: None, laid_down: Any, adapters: Adapters, tiny_base: Path, tmp_path: Path
) -> None:
    documents = laid_down(mixed_probes(160))
    source, killed = source_of(tiny_base), []
    target = stage._target(documents, adapters, base_ref(tiny_base), source, str(tmp_path))

    def kill_after_the_first_shard() -> None:
        while not target.finished():
            time.sleep(0.005)
        killed.extend(pid for pid in descendants(os.getpid()) if "LossMeter" in title(pid))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_after_the_first_shard, daemon=True)
    with session(str(tmp_path), RayConfig(), None, "losses") as opened:
        killer.start()
        measure_losses(documents, adapters, base_ref(tiny_base), source, opened)
    killer.join(timeout=10)
    assert killed
    again, receipts = here(documents, adapters, tiny_base, tmp_path / "again")
    assert again.commit(receipts).receipts == target.manifest().receipts
