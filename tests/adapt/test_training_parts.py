"""The parts of training that need no cluster: rates, checkpoints, adapter files, isolation, trackers, dealing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compass_ray.adapt.config import AdaptConfig, TrackerConfig, TrainingConfig
from compass_ray.adapt.training import adapter_files as files
from compass_ray.adapt.training import model as models
from compass_ray.adapt.training.checkpoints import Checkpoint, Checkpoints, load
from compass_ray.adapt.training.engine import CausalLoss
from compass_ray.adapt.training.isolation import check_isolation
from compass_ray.adapt.training.loop import State, learning_rates
from compass_ray.adapt.training.reporter import model_size
from compass_ray.adapt.training.track import check_tracker, open_tracker
from compass_ray.adapt.training.trainer import assign_longest_first
from compass_ray.errors import ArtifactCorrupt, ConfigError, IncompatibleAdapter, NothingTrained, ResourcesMissing


def adapter_on(base: Path, **lora: Any) -> Any:
    config = AdaptConfig(base=str(base), lora={"rank": 4, "alpha": 8, **lora})
    return models.with_adapter(models.load_base(base, config), config, 0, "sw")


def trained(model: Any) -> dict[str, torch.Tensor]:
    """The adapter's weights with something in every B, as after training."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(param.shape, generator=generator) if "lora_B" in name else param.detach().clone()
        for name, param in model.named_parameters()
        if param.requires_grad
    }


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"])
def test_every_update_of_every_schedule_has_a_rate_above_nothing_and_none_above_the_peak(schedule: str) -> None:
    for steps in (1, 2, 3, 40):
        rate = learning_rates(TrainingConfig(schedule=schedule, learning_rate=0.5, warmup_fraction=0.2), steps)
        rates = [rate(step) for step in range(steps)]
        assert all(0 < value <= 0.5 for value in rates), (schedule, steps, rates)


def test_a_cosine_with_warm_up_rises_to_its_peak_and_falls() -> None:
    rate = learning_rates(TrainingConfig(schedule="cosine", learning_rate=1.0, warmup_fraction=0.25), 16)
    rates = [rate(step) for step in range(16)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_a_checkpoint_comes_back_as_it_was_and_the_last_two_are_kept(tmp_path: Path) -> None:
    folder = Checkpoints(str(tmp_path / "training"))
    assert folder.latest() is None
    for step in (5, 10, 15):
        state = State(step, [{"step": step, "loss": 0.1 * step}], best_loss=1.5, worse=1)
        weights = {"a.weight": torch.full((2, 3), float(step))}
        folder.save(Checkpoint(state, weights, {"a.weight/exp_avg": torch.ones(2, 3)}, None))
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == [
        "step-00000010.safetensors",
        "step-00000015.safetensors",
    ]
    newest = folder.latest()
    assert newest is not None
    checkpoint = load(newest)
    assert checkpoint.state == State(15, [{"step": 15, "loss": 1.5}], 1.5, 1)
    assert checkpoint.best is None
    assert torch.equal(checkpoint.weights["a.weight"], torch.full((2, 3), 15.0))
    assert list(checkpoint.moments) == ["a.weight/exp_avg"]
    folder.clear()
    assert folder.latest() is None


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.safetensors"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(ArtifactCorrupt, match=r"step-00000001\.safetensors: not a checkpoint of a training"):
        load(str(path))


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_adapter_files_open_with_peft_on_the_untouched_base(method: str, tiny_base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = adapter_on(tiny_base, method=method)
    weights = trained(model)
    model.load_state_dict(weights, strict=False)
    for name, data in files.adapter_files(model, weights, "tiny", None).items():
        (tmp_path / name).write_bytes(data)
    settings = json.loads((tmp_path / files.CONFIG).read_text())
    assert (settings["base_model_name_or_path"], settings["bias"], settings["modules_to_save"]) == (
        "tiny",
        "none",
        None,
    )
    assert settings["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(tiny_base)), str(tmp_path))
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        expected, found = (m.eval()(input_ids=tokens).logits for m in (model, opened))
    torch.testing.assert_close(found, expected)


def test_an_adapter_that_learnt_nothing_is_not_written(tiny_base: Path) -> None:
    model = adapter_on(tiny_base)
    untrained = {name: param.detach() for name, param in model.named_parameters() if param.requires_grad}
    with pytest.raises(NothingTrained, match="all updates of the base are zero"):
        files.adapter_files(model, untrained, "tiny", None)


def test_weights_that_are_still_pieces_are_not_written(tiny_base: Path) -> None:
    model = adapter_on(tiny_base)
    weights = trained(model)
    name = next(name for name in weights if "lora_B" in name)
    weights[name] = weights[name].flatten()[:5]
    with pytest.raises(
        IncompatibleAdapter, match=r"1 tensors are not the adapter's, as .*expected \(32, 4\), found \(5,\)"
    ):
        files.adapter_files(model, weights, "tiny", None)


def test_layers_that_the_base_does_not_have_are_refused_with_those_it_has(tiny_base: Path) -> None:
    with pytest.raises(ConfigError, match=r"adapt\.lora\.target_modules: .*its linear layers are .*down_proj"):
        adapter_on(tiny_base, target_modules=["query_key_value"])


def test_an_adapter_starts_from_the_same_weights_on_every_worker_and_from_others_in_another_language(
    tiny_base: Path,
) -> None:
    config = AdaptConfig(base=str(tiny_base))

    def first(lang: str) -> torch.Tensor:
        model = models.with_adapter(models.load_base(tiny_base, config), config, 0, lang)
        return next(param.detach() for name, param in model.named_parameters() if "lora_A" in name)

    assert torch.equal(first("sw"), first("sw"))
    assert not torch.equal(first("sw"), first("ta"))


def isolated(model: Any, rows: int) -> None:
    loss = CausalLoss(model)
    with torch.no_grad():
        check_isolation(lambda batch: loss(**batch), 400, rows, torch.device("cpu"))


def test_documents_of_a_pack_do_not_see_each_other_on_this_base(tiny_base: Path) -> None:
    for attention in ("sdpa", "eager"):
        config = AdaptConfig(base=str(tiny_base), workers={"attention": attention})
        isolated(models.load_base(tiny_base, config), rows=2)


def test_a_base_that_mixes_packed_documents_is_refused(tiny_base: Path) -> None:
    base = models.load_base(tiny_base, AdaptConfig(base=str(tiny_base)))
    forward = base.forward

    def blind(**inputs: Any) -> Any:  # as an architecture that does not read document borders from positions
        return forward(**{**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])})

    base.forward = blind
    with pytest.raises(ConfigError, match=r"adapt\.packing: .* let packed documents see each other"):
        isolated(base, rows=1)


def test_the_size_of_a_model_counts_a_tied_output_layer_once_and_looked_up_embeddings_not(tiny_base: Path) -> None:
    model = adapter_on(tiny_base)
    size = model_size(model)
    base = sum(param.numel() for name, param in model.named_parameters() if not param.requires_grad)
    assert size.output == model.get_input_embeddings().weight.numel()  # the output layer is the embedding matrix
    assert size.frozen + size.output == base
    assert size.trained == sum(param.numel() for param in model.parameters() if param.requires_grad)
    assert (size.layers, size.attention_width) == (2, 32)


def test_languages_go_to_the_group_that_has_the_least_to_do() -> None:
    jobs: list[Any] = [SimpleNamespace(lang=lang) for lang in ("a", "b", "c", "d")]
    groups = assign_longest_first(jobs, {"a": 5, "b": 9, "c": 4, "d": 1}, 2)
    assert [[job.lang for job in group] for group in groups] == [["b", "d"], ["a", "c"]]


@pytest.fixture
def numbers() -> Iterator[dict[str, float]]:
    yield {"loss": 2.5, "tokens_per_s": 100.0}


def test_tensorboard_gets_every_number(tmp_path: Path, numbers: dict[str, float]) -> None:
    tracker = open_tracker(TrackerConfig(kind="tensorboard", uri=str(tmp_path)), "run-sw")
    tracker.log(1, numbers)
    tracker.close()
    (events,) = (tmp_path / "run-sw").iterdir()
    assert b"tokens_per_s" in events.read_bytes()


def test_mlflow_gets_a_run_for_each_training(
    tmp_path: Path, numbers: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # for use without a server, as here
    import mlflow

    uri = (tmp_path / "mlruns").as_uri()
    tracker = open_tracker(TrackerConfig(kind="mlflow", uri=uri, experiment="tests"), "run-sw")
    tracker.log(1, numbers)
    tracker.log(2, {"loss": 2.0})
    tracker.close()
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.info.run_name == "run-sw"
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "loss")] == [
        (1, 2.5), (2, 2.0),
    ]  # fmt: skip


def test_a_tracker_whose_package_is_missing_is_refused_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourcesMissing, match=r"pip install 'compass_ray\[track\]'"):
        check_tracker(TrackerConfig(kind="mlflow", uri="somewhere"))
