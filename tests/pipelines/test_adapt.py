"""From current data to registered adapters, on a real local Ray with real Ray Train workers and DeepSpeed."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import adapt_config, tree_bytes
from rich.console import Console

from compass_ray import AdaptedRun, train_adapters
from compass_ray.errors import AdaptationError, ConfigError, ResourcesMissing
from compass_ray.registry.store import Registry
from compass_ray.runtime.progress import Display

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def base_bytes(tiny_base: Path) -> dict[str, bytes]:
    """The base before anything was trained on it."""
    return tree_bytes(tiny_base)


@pytest.fixture(scope="module")
def adapted(
    local_ray: None, tiny_base: Path, base_bytes: object, tmp_path_factory: pytest.TempPathFactory
) -> AdaptedRun:
    """Adapters of Swahili and Tamil, from one worker start."""
    return train_adapters(adapt_config(tmp_path_factory.mktemp("adapted"), tiny_base))


def output_of(run: AdaptedRun) -> Path:
    return Path(run.path).parent.parent


def said(config: object) -> tuple[AdaptedRun, str]:
    """The run, and what the display said on the way."""
    lines = io.StringIO()
    run = train_adapters(config, Display(Console(file=lines, width=200)))  # type: ignore[arg-type]
    return run, lines.getvalue()


def test_every_language_has_a_candidate_in_the_registry_with_its_lineage(adapted: AdaptedRun, tiny_base: Path) -> None:
    registry = Registry(str(output_of(adapted) / "registry"))
    key = adapted.record["base"]["key"]
    for lang in ("sw", "ta"):
        (version,) = registry.versions(key, lang)
        assert registry.aliases(key, lang).candidate == version == adapted.record["languages"][lang]["version"]
        opened = registry.open(f"{lang}@candidate")
        lineage = opened.lineage
        assert lineage.base.weights_hash == adapted.record["base"]["weights_hash"]
        assert set(lineage.scores["heldout"]) == {"sw", "ta"}
        assert lineage.config["adapt"]["lora"]["rank"] == 4
        assert {"reference/heldout.parquet", "reference/replay.parquet"} <= set(lineage.files)
        assert (
            pq.read_table(io.BytesIO(opened.read("reference/heldout.parquet"))).num_rows == lineage.documents["heldout"]
        )


def test_training_lowers_the_loss_on_documents_it_has_not_seen(adapted: AdaptedRun) -> None:
    for lang in ("sw", "ta"):
        own = next(row for row in adapted.scores(lang).to_pylist() if row["lang"] == lang)
        assert own["bits_per_byte"] < own["base_bits_per_byte"]
        losses = adapted.curve(lang)["loss"].to_pylist()
        assert losses[-1] < losses[0]
        assert adapted.curve(lang)["step"].to_pylist() == list(range(1, len(losses) + 1))


def test_the_base_is_the_same_before_each_adapter(adapted: AdaptedRun) -> None:
    rows = [row for lang in ("sw", "ta") for row in adapted.scores(lang).to_pylist()]
    for lang in ("sw", "ta"):
        assert len({row["base_loss"] for row in rows if row["lang"] == lang}) == 1


def test_the_base_has_the_same_bytes_and_the_adapter_loads_on_it(
    adapted: AdaptedRun, tiny_base: Path, base_bytes: dict[str, bytes], tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert tree_bytes(tiny_base) == base_bytes
    Registry(str(output_of(adapted) / "registry")).open("sw@candidate").download(tmp_path / "sw")
    plain = AutoModelForCausalLM.from_pretrained(str(tiny_base))
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    model = PeftModel.from_pretrained(plain, str(tmp_path / "sw"))
    assert all(param.any() for name, param in model.named_parameters() if "lora_B" in name)
    after = model.unload().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_second_run_reuses_every_stage_and_registers_nothing_new(adapted: AdaptedRun, tiny_base: Path) -> None:
    before = tree_bytes(output_of(adapted) / "registry")
    again, lines = said(adapt_config(output_of(adapted), tiny_base))
    stages = [line.split()[0] for line in lines.splitlines()]
    assert stages == [
        "ingest", "quarantine", "gather", "tokenise", "adapter-sw", "scores-sw", "adapter-ta", "scores-ta",
    ]  # fmt: skip
    assert all(line.endswith("reused") for line in lines.splitlines())
    assert tree_bytes(output_of(adapted) / "registry") == before
    assert again.record["languages"] == adapted.record["languages"]


def test_another_config_under_the_same_name_is_refused_before_it_trains(adapted: AdaptedRun, tiny_base: Path) -> None:
    with pytest.raises(ConfigError, match="holds adapters of another config or other data"):
        train_adapters(adapt_config(output_of(adapted), tiny_base, "adapt.training.learning_rate=0.02"))


def test_more_workers_than_the_cluster_has_are_refused_in_seconds(tiny_base: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ResourcesMissing, match=r"adapt\.workers\.count: 99 workers .* has room for 4"):
        train_adapters(adapt_config(tmp_path, tiny_base, "adapt.workers.count=99"))
    assert time.monotonic() - started < 30
    assert not (tmp_path / "cache").exists()


def test_a_language_without_data_is_refused_with_those_that_have_some(tiny_base: Path, adapted: AdaptedRun) -> None:
    with pytest.raises(
        ConfigError, match=r"adapt\.languages: no document to train on for pl; there are some for hi, sw, ta"
    ):
        train_adapters(adapt_config(output_of(adapted), tiny_base, "adapt.languages=[pl, sw]", "name=other"))


def test_a_language_that_cannot_be_trained_does_not_stop_the_others(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_base.parent)  # workers run elsewhere, and find the base all the same
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"q": f"swali la {n}"}) + "\n" for n in range(20)))
    config = adapt_config(
        tmp_path / "out",
        tiny_base.name,
        f'sources.asked={{role: current, path: "{questions}", columns: {{prompt: q}}, lang: zu}}',
        "adapt.languages=[ta, zu]",
    )
    with pytest.raises(AdaptationError) as caught:
        train_adapters(config)
    assert caught.value.exit_code == 5
    assert "1 of 2 languages have no adapter" in str(caught.value)
    assert "zu: NothingTrained: zu: no token to train on is left of 20 documents" in str(caught.value)
    record = json.loads((tmp_path / "out" / "runs" / "adapted" / "adapt.json").read_text())
    assert list(record["languages"]) == ["ta"]
    assert "20 × no_trainable_token" in record["failed"]["zu"]


def test_a_loss_that_is_not_finite_names_step_language_and_documents_and_registers_nothing(
    tiny_base: Path, tmp_path: Path
) -> None:
    config = adapt_config(tmp_path, tiny_base, "adapt.training.learning_rate=1.0e30", "adapt.training.clip_norm=1.0e30")
    started = time.monotonic()
    with pytest.raises(AdaptationError) as caught:
        train_adapters(config)
    text = str(caught.value)
    for lang in ("sw", "ta"):  # the first that failed did not stop the second, and neither was tried again
        assert f"{lang}: NonFiniteLoss: {lang}: the loss is" in text
    assert " at step " in text
    ids = {
        row["doc_id"].hex()
        for path in tmp_path.glob("cache/gather-*/*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    named = text.split("in packs with the documents ")[1].split(";")[0].split(" and ")[0].split(", ")
    assert named
    assert set(named) <= ids
    assert not (tmp_path / "registry").exists()
    assert time.monotonic() - started < 150


def test_patience_ends_a_training_and_keeps_the_weights_of_its_best_evaluation(tiny_base: Path, tmp_path: Path) -> None:
    config = adapt_config(
        tmp_path, tiny_base, "adapt.languages=[sw]", "adapt.training.eval_steps=3", "adapt.training.patience=2",
        "adapt.training.epochs=60", "adapt.training.learning_rate=0.05", "adapt.heldout_fraction=0.3",
        "adapt.workers.gradient_checkpointing=true",
    )  # fmt: skip
    run = train_adapters(config)
    heldout = [loss for loss in run.curve("sw")["heldout_loss"].to_pylist() if loss is not None]
    steps = run.curve("sw").num_rows
    assert steps == 3 * len(heldout) < 60 * 4, "it stopped on an evaluation, long before the schedule's end"
    assert heldout.index(min(heldout)) == len(heldout) - 3, "two evaluations after the best one"
    (score,) = run.scores("sw").to_pylist()
    assert score["loss"] == pytest.approx(min(heldout), rel=1e-5)
