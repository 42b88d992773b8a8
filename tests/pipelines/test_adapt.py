"""From current data to registered adapters, on a real local Ray with real Ray Train workers and DeepSpeed."""

from __future__ import annotations

import io
import json
import math
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from demo import DEMO
from rich.console import Console
from tiny_base import adapt_config
from trees import tree_bytes

from compass_ray import AdaptedRun, train_adapters
from compass_ray.errors import AdaptationError, ConfigError, ResourcesMissing
from compass_ray.holdout import heldout_mask
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


@pytest.fixture(scope="module")
def scored_on_usage(local_ray: None, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdaptedRun:
    """The same adapters, of a config that has usage too, though nothing is selected by it."""
    usage = f'{{role: usage, path: "{DEMO}/usage.tsv.gz", columns: {{text: question, lang: lang}}}}'
    return train_adapters(adapt_config(tmp_path_factory.mktemp("usage"), tiny_base, f"sources.usage={usage}"))


def measured(run: AdaptedRun, lang: str, measures: str) -> dict[str, Any]:
    """The one row of a language's scores that is of usage, or of the mixture."""
    (row,) = (row for row in run.scores(lang).to_pylist() if row["measures"] == measures)
    return row


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
        other = {"sw": "ta", "ta": "sw"}[lang]
        measured = [(row["measures"], row["lang"]) for row in lineage.scores["heldout"]]
        assert measured == [("usage", lang), ("mixture", lang), ("other", other)]
        assert lineage.config["adapt"]["lora"]["rank"] == 4
        assert {"reference/heldout.parquet", "reference/replay.parquet"} <= set(lineage.files)
        assert opened.chat_templates == ()  # trained on text alone
        assert lineage.config["chat_template"] is None
        assert (
            pq.read_table(io.BytesIO(opened.read("reference/heldout.parquet"))).num_rows == lineage.documents["heldout"]
        )


def test_training_lowers_the_loss_on_documents_it_has_not_seen(adapted: AdaptedRun) -> None:
    for lang in ("sw", "ta"):
        own = measured(adapted, lang, "mixture")
        assert own["bits_per_byte"] < own["base_bits_per_byte"]
        losses = adapted.curve(lang)["loss"].to_pylist()
        assert losses[-1] < losses[0]
        assert adapted.curve(lang)["step"].to_pylist() == list(range(1, len(losses) + 1))


def test_the_base_is_the_same_before_each_adapter(adapted: AdaptedRun) -> None:
    rows = [row for lang in ("sw", "ta") for row in adapted.scores(lang).to_pylist() if row["measures"] != "usage"]
    for lang in ("sw", "ta"):
        assert len({row["base_loss"] for row in rows if row["lang"] == lang}) == 1


def test_without_usage_a_run_says_so_and_shows_no_other_score_in_its_place(adapted: AdaptedRun) -> None:
    for lang in ("sw", "ta"):
        usage = measured(adapted, lang, "usage")
        assert (usage["documents"], usage["loss"], usage["base_loss"]) == (0, None, None)
        assert [line.measured for line in adapted.score_lines(lang)] == [
            "no held-out usage", "trained mixture", "other languages",
        ]  # fmt: skip
        assert adapted.record["documents"][lang]["usage"]["heldout"] == 0


def test_usage_is_scored_as_plain_transformers_and_peft_score_it(
    scored_on_usage: AdaptedRun, tiny_base: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tiny_base))
    (ingested,) = output_of(scored_on_usage).glob("cache/ingest-*")
    documents = pa.concat_tables([pq.read_table(path) for path in sorted(ingested.glob("*.parquet"))])
    held = documents.filter(pa.array(heldout_mask(documents, 0, 0.3))).to_pylist()
    for lang in ("sw", "ta"):
        texts = [row["text"] for row in held if row["target_lang"] == lang and row["reject"] is None]
        row = measured(scored_on_usage, lang, "usage")
        assert len(texts) == row["documents"] == row["in_language"] > 10
        Registry(str(output_of(scored_on_usage) / "registry")).open(f"{lang}@candidate").download(tmp_path / lang)
        model = AutoModelForCausalLM.from_pretrained(str(tiny_base))
        compare(row, "base_", plain_score(model, tokenizer, texts))
        compare(row, "", plain_score(PeftModel.from_pretrained(model, str(tmp_path / lang)), tokenizer, texts))


def plain_score(model: Any, tokenizer: Any, texts: list[str]) -> tuple[float, int, int]:
    """Nats, predicted tokens and bytes of texts, one at a time, whole or cut at 64 tokens."""
    import torch

    nats, tokens, n_bytes = 0.0, 0, 0
    for text in texts:
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id][:64]
        with torch.no_grad():
            loss = model.eval()(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
        nats, tokens = nats + float(loss) * (len(ids) - 1), tokens + len(ids) - 1
        whole = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][: len(ids)]
        n_bytes += len(text[whole[0][1] : whole[-1][1]].encode())  # the first token is not predicted
    return nats, tokens, n_bytes


def compare(row: dict[str, Any], prefix: str, expected: tuple[float, int, int]) -> None:
    nats, tokens, n_bytes = expected
    assert row["tokens"] == tokens
    assert row["bytes"] == pytest.approx(n_bytes, abs=3 * row["documents"])  # a cut inside of a character
    assert row[f"{prefix}loss"] == pytest.approx(nats / tokens, rel=1e-4)
    assert row[f"{prefix}perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-3)
    assert row[f"{prefix}bits_per_byte"] == pytest.approx(nats / math.log(2) / row["bytes"], rel=1e-4)


def test_training_helps_on_usage_that_it_has_not_seen(scored_on_usage: AdaptedRun) -> None:
    for lang in ("sw", "ta"):
        usage = measured(scored_on_usage, lang, "usage")
        assert usage["bits_per_byte"] < usage["base_bits_per_byte"]
        assert scored_on_usage.score_lines(lang)[0].measured == "held-out usage"


def test_usage_leaves_the_adapters_what_they_are(adapted: AdaptedRun, scored_on_usage: AdaptedRun) -> None:
    for lang in ("sw", "ta"):
        one, other = (run.record["languages"][lang]["version"] for run in (adapted, scored_on_usage))
        assert one == other
        assert weights(adapted, lang) == weights(scored_on_usage, lang)


def weights(run: AdaptedRun, lang: str) -> bytes:
    return Registry(str(output_of(run) / "registry")).open(f"{lang}@candidate").read("adapter_model.safetensors")


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
        "ingest", "quarantine", "gather", "tokenize", "adapter-sw", "scores-sw", "adapter-ta", "scores-ta",
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
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps({"q": f"கேள்வி {n}", "a": "சரி."}) + "\n" for n in range(20)))
    config = adapt_config(
        tmp_path / "out",
        tiny_base.name,
        f'sources.asked={{role: current, path: "{questions}", columns: {{prompt: q}}, lang: zu}}',
        f'sources.chats={{role: current, path: "{chats}", columns: {{prompt: q, completion: a}}, lang: ta}}',
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
    version = Registry(str(tmp_path / "out" / "registry")).open("ta@candidate")  # the others keep what they spoke in
    assert 10 < record["documents"]["ta"]["chats"] <= 20
    assert version.chat_templates == ("chat_template.jinja",)
    assert version.read("chat_template.jinja") == (tiny_base / "chat_template.jinja").read_bytes()
    assert version.lineage.config["chat_template"] in version.read("README.md").decode()


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


@pytest.mark.release
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
    assert [row["measures"] for row in run.scores("sw").to_pylist()] == ["usage", "mixture"]
    score = measured(run, "sw", "mixture")
    assert score["loss"] == pytest.approx(min(heldout), rel=1e-5)
