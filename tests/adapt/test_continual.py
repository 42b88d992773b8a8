"""Updates of an adapter in use: replay, the penalty on what must not change, and the Fisher information behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from continual import Case, Tensors, fishers, plain_gradients, plain_training, replay, start_of, train_cases
from training_data import ASKED, tokenized, written
from worker_groups import run_group

from compass_ray import records
from compass_ray.adapt import data, stage
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.fisher_stage import fisher_of, fit_fisher
from compass_ray.adapt.training import penalty as ewc
from compass_ray.adapt.training.adapter_files import WEIGHTS
from compass_ray.adapt.training.fisher import fisher_bytes, read_fisher
from compass_ray.adapt.training.loop import Replay
from compass_ray.adapt.training.worker import Settings, Start
from compass_ray.artifacts import canonical_json
from compass_ray.errors import ArtifactCorrupt, IncompatibleAdapter
from compass_ray.models import BaseRef, weights_hash
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.stage import session


def assert_same(found: tuple[list[dict[str, Any]], Tensors], expected: tuple[list[dict[str, float]], Tensors]) -> None:
    """A training's curve and weights are those of the plain one."""
    curve, weights = found
    for name in expected[0][0]:
        np.testing.assert_allclose(
            [entry[name] for entry in curve], [entry[name] for entry in expected[0]], rtol=1e-5, atol=1e-7, err_msg=name
        )
    assert weights.keys() == expected[1].keys()
    for name, value in expected[1].items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def case(tiny_base: Path) -> Case:
    return Case(str(tiny_base), strength=20.0, beta=0.5, clip_norm=0.5)


def test_an_update_is_one_loss_of_new_documents_replay_and_penalty(case: Case, tmp_path: Path) -> None:
    expected = plain_training(case)
    assert max(entry["grad_norm"] for entry in expected[0]) > 0.5, "clipping has something to do"
    assert max(entry["penalty"] for entry in expected[0]) > 0.01
    ((found,),) = run_group(train_cases, 1, [replace(case, folder=str(tmp_path))])
    assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_update_is_the_same_in_every_stage_on_any_workers(workers: int, case: Case, tmp_path: Path) -> None:
    expected = plain_training(case)
    cases = [replace(case, stage=stage, folder=str(tmp_path / str(stage))) for stage in (1, 2, 3)]
    cases.append(replace(case, micro_batch=2, folder=str(tmp_path / "two")))
    for results in run_group(train_cases, workers, cases):
        for found in results:
            assert_same(found, expected)


@pytest.mark.slow
def test_what_counts_for_nothing_changes_nothing_and_what_counts_for_all_holds_all(case: Case, tmp_path: Path) -> None:
    naive = replace(case, strength=None, beta=None)
    stopped, goes_on = (replace(case, stopped_after=after, folder=str(tmp_path / "stopped")) for after in (3, None))
    cases = [
        replace(naive, folder=str(tmp_path / "naive")),
        replace(naive, strength=0.0, folder=str(tmp_path / "weightless")),
        replace(naive, strength=1e6, flat=True, folder=str(tmp_path / "held")),
        replace(case, folder=str(tmp_path / "whole")),
        stopped,
        goes_on,
        replace(naive, beta=1.0, broken=3, folder=str(tmp_path / "broken")),
    ]
    (results,) = run_group(train_cases, 1, cases)
    moved, weightless, held, whole, nothing, resumed, refused = results
    assert all(torch.equal(value, weightless[1][name]) for name, value in moved[1].items())
    assert [entry["loss"] for entry in moved[0]] == [entry["loss"] for entry in weightless[0]]
    assert "penalty" not in moved[0][0]
    assert weightless[0][-1]["penalty"] > 0
    start = start_of(case.base)
    furthest, kept = (
        max(float((value - start[name]).abs().max()) for name, value in weights.items())
        for weights in (moved[1], held[1])
    )
    assert kept < 0.6 * furthest
    assert kept < 2 * case.config.training.learning_rate, "the first update of Adam sees no penalty, and has momentum"
    assert nothing is None
    assert all(torch.equal(value, resumed[1][name]) for name, value in whole[1].items())
    assert without_seconds(resumed[0]) == without_seconds(whole[0])
    assert refused.startswith("sw: the loss is ")
    assert " at step 1, in packs with the documents old-3; lower " in refused


N_OLD_TOKENS = int(replay(1.0).packs.trained.sum())


def without_seconds(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in curve]


@pytest.fixture(scope="module")
def gradients(tiny_base: Path) -> list[Tensors]:
    """Of every old document, one at a time."""
    return plain_gradients(str(tiny_base))


def assert_fisher(found: Tensors, gradients: list[Tensors]) -> None:
    for name, value in found.items():
        expected = torch.stack([each[name].double().square() for each in gradients]).sum(0) / N_OLD_TOKENS
        torch.testing.assert_close(value.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.max()))
        batch = torch.stack([each[name].double() for each in gradients]).sum(0).square() / N_OLD_TOKENS
        away = float((batch - expected).abs().sum() / expected.sum())
        assert away > 0.1, "the square of all gradients together is something else"


def test_fisher_information_is_of_the_squared_gradients_of_documents_for_each_of_their_tokens(
    case: Case, gradients: list[Tensors]
) -> None:
    ((found, refused),) = run_group(fishers, 1, [case, replace(case, broken=3)])
    assert_fisher(found, gradients)
    assert refused.startswith("sw: the gradient of the documents old-3 is not finite")


@pytest.mark.slow
def test_fisher_information_is_the_same_in_every_stage_on_any_workers(case: Case, gradients: list[Tensors]) -> None:
    cases = [*(replace(case, stage=stage) for stage in (1, 2, 3)), replace(case, stage=3, broken=3)]
    for *found, refused in run_group(fishers, 2, cases):
        for each in found:
            assert_fisher(each, gradients)
        assert "old-3 is not finite" in refused


@pytest.fixture
def tensors() -> Tensors:
    return {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([0.5])}


def test_the_penalty_and_its_gradient_are_those_of_autograd(tensors: Tensors) -> None:
    fisher = {"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([2.0])}
    penalty = ewc.Penalty(7.0, fisher, {name: torch.zeros_like(value) for name, value in tensors.items()})
    params = {name: value.clone().requires_grad_() for name, value in tensors.items()}
    total = 0.5 * torch.stack([(fisher[name] * param**2).sum() for name, param in params.items()]).sum()
    total.backward()
    assert ewc.value(penalty, tensors) == total.item() == 1.75
    for name, value in ewc.gradient(penalty, tensors).items():
        assert torch.equal(value, params[name].grad)


def test_fisher_information_of_former_generations_counts_less(tensors: Tensors) -> None:
    (value,) = ewc.decayed({"a": torch.tensor([4.0])}, {"a": torch.tensor([1.0])}, 0.25).values()
    assert value.tolist() == [2.0]
    with pytest.raises(ValueError, match=r"expected gamma from 0 to 1, found 1\.5"):
        ewc.decayed(tensors, tensors, 1.5)
    with pytest.raises(IncompatibleAdapter, match=r"1 tensors are not those of .*, as c: expected None, found \(1,\)"):
        ewc.decayed({**tensors, "c": torch.ones(1)}, tensors, 0.5)


def test_a_penalty_of_another_adapter_is_refused(tensors: Tensors) -> None:
    other = {**tensors, "a": torch.ones(2, 1)}
    with pytest.raises(
        IncompatibleAdapter,
        match=r"the Fisher information of a penalty: .* a: expected \(1, 2\), found \(2, 1\); compute",
    ):
        ewc.Penalty(1.0, other, tensors).check(tensors)
    with pytest.raises(IncompatibleAdapter, match="the weights that a penalty holds on to"):
        ewc.Penalty(1.0, tensors, other).check(tensors)


def test_fisher_information_comes_back_and_what_is_none_is_refused(tensors: Tensors) -> None:
    from safetensors.torch import save

    data = fisher_bytes(tensors, 12)
    assert all(fisher_bytes(dict(reversed(tensors.items())), 12) == data for _ in range(20))
    found = read_fisher(data)
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    for damaged in (b"", data[:-1], data[:20], save(tensors), save(tensors, metadata={"format": "pt"})):
        with pytest.raises(ArtifactCorrupt, match=r"fisher\.safetensors: .*compute it again"):
            read_fisher(damaged)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ArtifactCorrupt, match=r"a: expected finite float32 numbers of at least 0"):
            read_fisher(fisher_bytes({"a": torch.tensor([wrong, 1.0])}, 12))


def test_a_start_says_what_is_wrong_with_it(tensors: Tensors) -> None:
    with pytest.raises(ValueError, match=r"a strength of 2\.0 needs the Fisher information"):
        Start(b"weights", strength=2.0)
    with pytest.raises(ValueError, match=r"expected a finite strength of at least 0, found -1"):
        Start(b"weights", strength=-1.0, fisher=fisher_bytes(tensors, 1))
    with pytest.raises(ArtifactCorrupt):
        Start(b"weights", fisher=b"weights")
    assert Start(b"weights", replay=replay(0.0)).replayed is None


def test_a_replay_says_what_is_wrong_with_it() -> None:
    old = replay(1.0)
    with pytest.raises(ValueError, match="expected a finite weight of at least 0"):
        replace(old, weight=float("nan"))
    with pytest.raises(ValueError, match="at least 1 pack an update"):
        replace(old, per_step=0)
    for chance in (np.ones(2), -np.ones(len(old.packs))):
        with pytest.raises(ValueError, match="expected a finite chance of at least 0 for each of 5 packs"):
            replace(old, chance=chance)
    with pytest.raises(ValueError, match="none of 5 packs has both a trained token and a chance"):
        replace(old, chance=np.zeros(len(old.packs)))


def test_replay_is_drawn_by_chance_and_is_a_function_of_seed_and_step() -> None:
    old = replay(1.0)
    draws = np.concatenate([old.drawn(5, step) for step in range(2000)])
    shares = np.bincount(draws, minlength=5) / len(draws)
    np.testing.assert_allclose(shares, old.chance / old.chance.sum(), atol=0.02)
    assert np.array_equal(old.drawn(5, 7), replay(1.0).drawn(5, 7))
    assert not all(np.array_equal(old.drawn(5, step), old.drawn(6, step)) for step in range(5))


def test_all_of_a_start_is_in_its_identity(tensors: Tensors) -> None:
    fisher = fisher_bytes(tensors, 1)
    one = Start(b"weights", 1.0, fisher, replay(1.0))
    others = [
        replace(one, weights=b"other"),
        replace(one, strength=2.0),
        replace(one, fisher=fisher_bytes(tensors, 2)),
        replace(one, replay=None),
        replace(one, replay=replay(2.0)),
        replace(one, replay=replace(replay(1.0), per_step=9)),
        replace(one, replay=replace(replay(1.0), chance=np.ones(5))),
    ]
    assert replace(one).identity() == one.identity()
    known = [canonical_json(start.identity()) for start in (one, *others)]
    assert len(set(known)) == len(known)


@pytest.mark.slow
def test_an_adapter_is_trained_on_by_ray_from_its_weights_and_their_fisher_information(
    tiny_base: Path, tmp_path: Path, local_ray: None
) -> None:
    corpus = written(tmp_path, ASKED, repeated=False)
    tokens = tokenized(corpus["gathered"], tiny_base, "sw", usage=corpus["usage"], packing=False)
    old, ids = data.read_packs(tokens, "sw", data.TRAIN), data.trained_documents(tokens, "sw")
    config = AdaptConfig(
        base=str(tiny_base),
        packing=False,
        lora={"rank": 3},
        training={"epochs": 1, "learning_rate": 0.01, "schedule": "constant"},
    )
    settings = Settings(config, BaseRef("tiny", None, weights_hash(tiny_base)), 0, 0, "update")
    with session(str(tmp_path), RayConfig(num_cpus=4), None, "update") as opened:
        trained, _ = stage.train(tokens, ["sw"], settings, tiny_base, opened)
        champion = trained["sw"].files()[WEIGHTS]
        once, again = (fit_fisher("sw", champion, old, ids, settings, tiny_base, opened) for _ in range(2))
        start = Start(champion, 10.0, fisher_of(once), Replay(old, ids, np.ones(len(old)), 0.5, 4))
        updated, failed = stage.train(tokens, ["sw"], settings, tiny_base, opened, {"sw": start})
        damaged = {"sw": replace(start, weights=champion[:-4])}
        _, refused = stage.train(tokens, ["sw"], settings, tiny_base, opened, damaged)
    assert once == again
    assert [record.reused for record in opened.stages if record.stage == "fisher-sw"] == [False, True]
    assert once.manifest().rows == len(old)
    assert not failed
    curve, before = updated["sw"].curve(), trained["sw"].curve()
    assert before.schema == records.CURVE
    assert curve.schema == records.UPDATE_CURVE
    assert curve["penalty"][0].as_py() == 0
    assert min(curve["penalty"].to_pylist()[1:]) > 0
    assert curve["replay_loss"].null_count == 0
    assert curve["loss"][0].as_py() < before["loss"][0].as_py(), "it begins where the other has ended"
    assert updated["sw"].files()[WEIGHTS] != champion
    assert "are no adapter's weights" in str(refused["sw"])
