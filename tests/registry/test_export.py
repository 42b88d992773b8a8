"""Exports say the same as the adapter: measured on a small random model, with adapters that change it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from registry_helpers import lineage

from compass_ray.errors import ConfigError, IncompatibleAdapter
from compass_ray.models import BaseRef, weights_hash
from compass_ray.registry.export import export, needs_base
from compass_ray.registry.export.agreement import Agreement, agreement, probe_logits
from compass_ray.registry.export.approximate import factored
from compass_ray.registry.export.models import load_base, put_adapter
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

ATTENTION = ["q_proj", "v_proj"]
Make = Callable[..., AdapterVersion]


def save_base(folder: Path, seed: int = 0, *, tied: bool = False, dtype: str = "float32") -> Path:
    """A Qwen2 of two layers with a tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    torch.manual_seed(seed)
    config = transformers.Qwen2Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.3,
    )
    model = transformers.Qwen2ForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    vocabulary = {f"w{number}": number for number in range(96)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w0"))  # noqa: S106
    tokenizer.pre_tokenizer = WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Make:
    """``make(r=8, use_dora=True)``: a random adapter in a registry; ``magnitude`` spreads DoRA's magnitudes."""
    registry = Registry(str(tmp_path / "registry"))

    def made(
        magnitude: float = 0.0,
        on: Path = base,
        templates: dict[str, bytes] | None = None,
        number: int = 1,
        **config: Any,
    ) -> AdapterVersion:
        options = {"r": 4, "lora_alpha": 6, "target_modules": ATTENTION, "task_type": "CAUSAL_LM", **config}
        torch.manual_seed(1)
        model = peft.get_peft_model(load_base(on), peft.LoraConfig(init_lora_weights=False, **options))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_magnitude_vector" in name:
                    parameter *= 1 + magnitude * torch.randn_like(parameter)
        folder = tmp_path / f"trained-{len(list(tmp_path.iterdir()))}"
        model.save_pretrained(folder, save_embedding_layers=False)
        files = {name: folder / name for name in ("adapter_config.json", "adapter_model.safetensors")}
        config_body = {**json.loads(files["adapter_config.json"].read_bytes()), "init_lora_weights": True}
        files["adapter_config.json"].write_text(json.dumps(config_body))
        reference = BaseRef(on.name, None, weights_hash(on))
        return registry.add(replace(lineage(number, base=reference)), files | (templates or {}))

    return made


def logits_of(version: AdapterVersion, base: Path, tmp_path: Path) -> Any:
    version.download(tmp_path / "original")
    return probe_logits(put_adapter(load_base(base), tmp_path / "original"))


def config_of(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / "adapter_config.json").read_bytes())
    return body


KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True, "magnitude": 0.01},
    "patterns": {"rank_pattern": {"v_proj": 7}, "alpha_pattern": {"layers.0.self_attn.q_proj": 20}},
    "regex": {"target_modules": r".*layers\.1\..*(gate|down)_proj"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_peft_export_is_the_adapter_and_opens_on_the_untouched_base(
    make: Make, base: Path, tmp_path: Path, kind: str
) -> None:
    version = make(**KINDS[kind])
    assert export(version, "peft", tmp_path / "out").method == "copy"
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        assert (tmp_path / "out" / name).read_bytes() == version.read(name)
    opened = peft.PeftModel.from_pretrained(load_base(base), tmp_path / "out")
    assert torch.equal(probe_logits(opened), logits_of(version, base, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_export_is_a_model_with_the_logits_of_the_adapter(
    make: Make, base: Path, tmp_path: Path, kind: str
) -> None:
    version = make(**KINDS[kind])
    made = export(version, "merged", tmp_path / "out", base)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", use_safetensors=True)
    torch.testing.assert_close(probe_logits(merged), logits_of(version, base, tmp_path), rtol=1e-4, atol=1e-4)
    assert made.agreement is not None
    assert made.agreement.relative_error < 1e-4
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "out")
    assert tokenizer("w3 w5")["input_ids"] == [3, 5]
    assert not list((tmp_path / "out").glob("adapter*"))
    assert "library_name: transformers" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("form", ["peft", "merged", "vllm"])
def test_the_chat_template_of_a_training_takes_the_place_of_the_bases(make: Make, tmp_path: Path, form: Any) -> None:
    base = save_base(tmp_path / "chatty")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(base)
    theirs.chat_template = {"default": "theirs", "tool_use": "theirs with tools"}
    theirs.save_pretrained(base)
    version = make(on=base, templates={"chat_template.jinja": b"ours"})
    export(version, form, tmp_path / "out", base)
    assert (tmp_path / "out" / "chat_template.jinja").read_bytes() == b"ours"
    assert not (tmp_path / "out" / "additional_chat_templates").exists()
    if form == "merged":
        assert transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "out").chat_template == "ours"
        export(make(on=base, number=2), form, tmp_path / "text", base)  # trained on text alone: the base keeps its own
        kept = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "text").chat_template
        assert kept == {"default": "theirs", "tool_use": "theirs with tools"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dora"])
@pytest.mark.parametrize("with_base", [True, False], ids=["checked", "without a base"])
def test_plain_lora_is_portable_without_loss(
    make: Make, base: Path, tmp_path: Path, kind: str, with_base: bool
) -> None:
    version = make(**KINDS[kind])
    assert not needs_base(version, "vllm")
    made = export(version, "vllm", tmp_path / "out", base if with_base else None)
    assert (made.method, made.rank) == ("exact", 8)
    assert (made.agreement is not None) == with_base
    opened = probe_logits(put_adapter(load_base(base), tmp_path / "out"))
    torch.testing.assert_close(opened, logits_of(version, base, tmp_path), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_portable_profile_is_kept(make: Make, base: Path, tmp_path: Path, kind: str) -> None:
    version = make(**KINDS[kind])
    export(version, "vllm", tmp_path / "out", base, rank=32, tolerance=1.0)
    config = config_of(tmp_path / "out")
    assert (config["r"], config["bias"], config["modules_to_save"]) == (32, "none", None)
    assert (config["use_dora"], config["use_rslora"]) == (False, False)
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({}, {})
    assert isinstance(config["target_modules"], list)
    assert config["lora_alpha"] / config["r"] == pytest.approx(
        {"dora": 1.0, "patterns": 1.0, "rslora": 3.0}.get(kind, 1.5)
    )
    tensors = load_tensors(tmp_path / "out")
    assert {name.rsplit(".", 2)[1] for name in tensors} == {"lora_A", "lora_B"}
    for name, tensor in tensors.items():
        assert tensor.shape[0 if "lora_A" in name else 1] == 32


def load_tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "adapter_model.safetensors"))


def test_dora_is_refused_where_the_rank_is_too_small_and_nothing_is_left(
    make: Make, base: Path, tmp_path: Path
) -> None:
    version = make(use_dora=True, magnitude=0.5)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        IncompatibleAdapter, match=r"by 0\.\d+ of the adapter's own effect, above the tolerance of 0\.05"
    ):
        export(version, "vllm", tmp_path / "out", base)
    assert sorted(tmp_path.iterdir()) == before


def test_dora_is_portable_at_full_rank(make: Make, base: Path, tmp_path: Path) -> None:
    version = make(use_dora=True, magnitude=0.5)
    made = export(version, "vllm", tmp_path / "out", base, rank=32)
    assert (made.method, made.rank) == ("svd", 32)
    assert made.agreement is not None
    assert made.agreement.relative_error < 1e-3
    opened = probe_logits(put_adapter(load_base(base), tmp_path / "out"))
    torch.testing.assert_close(opened, logits_of(version, base, tmp_path), rtol=1e-3, atol=1e-3)


def test_forgetting_the_magnitudes_of_dora_is_what_the_check_notices(make: Make, base: Path, tmp_path: Path) -> None:
    """The oracle of the refusal: what a conversion that only forgets DoRA would have done."""
    version = make(use_dora=True, magnitude=0.5)
    original = logits_of(version, base, tmp_path)
    version.download(tmp_path / "naive")
    config = {**config_of(tmp_path / "naive"), "use_dora": False}
    (tmp_path / "naive" / "adapter_config.json").write_text(json.dumps(config))
    naive = probe_logits(peft.PeftModel.from_pretrained(load_base(base), tmp_path / "naive"))
    with pytest.raises(IncompatibleAdapter, match="above the tolerance"):
        agreement(probe_logits(load_base(base)), original, naive).require(0.05, "")


def test_a_rank_above_the_portable_ones_is_reduced_and_checked(make: Make, base: Path, tmp_path: Path) -> None:
    version = make(r=40)
    assert needs_base(version, "vllm", rank=32)
    made = export(version, "vllm", tmp_path / "out", base, rank=32)
    assert (made.method, made.rank) == ("svd", 32)  # no module has more than 32 inputs
    assert made.agreement is not None
    assert made.agreement.relative_error < 1e-3


def test_another_base_is_refused_by_every_format(make: Make, tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", seed=9)
    version = make()
    for form in ("peft", "merged", "vllm"):
        with pytest.raises(IncompatibleAdapter, match=r"trained on tiny with .* but the base given is other"):
            export(version, form, tmp_path / "out", other)
    assert not (tmp_path / "out").exists()


def test_an_adapter_whose_modules_the_base_lacks_is_refused(make: Make, base: Path, tmp_path: Path) -> None:
    version = make()
    version.download(tmp_path / "changed")
    config = {**config_of(tmp_path / "changed"), "target_modules": ["q_proj"]}
    (tmp_path / "changed" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(IncompatibleAdapter, match=r"0 adapter tensors .* and 4 in it have no place, as .*v_proj"):
        put_adapter(load_base(base), tmp_path / "changed")
    config["target_modules"] = ["c_attn"]
    (tmp_path / "changed" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(IncompatibleAdapter, match=r"the adapter cannot be loaded: .*c_attn"):
        put_adapter(load_base(base), tmp_path / "changed")


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning", "ignore:.*tied:UserWarning")
def test_a_merge_that_would_change_tied_embeddings_is_refused(make: Make, tmp_path: Path) -> None:
    tied = save_base(tmp_path / "tied", tied=True)
    version = make(on=tied, target_modules=["lm_head"])
    with pytest.raises(IncompatibleAdapter, match="the adapter cannot be merged into this base; serve it as it is"):
        export(version, "merged", tmp_path / "out", tied)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning", "ignore:.*tied:UserWarning")
@pytest.mark.parametrize("modules", [["lm_head"], ["lm_head", "q_proj"]])
def test_an_update_of_the_output_layer_is_served_only_where_it_is_a_layer_of_its_own(
    make: Make, tmp_path: Path, modules: list[str], base: Path
) -> None:
    tied = save_base(tmp_path / "tied", tied=True)
    version = make(on=tied, target_modules=modules)
    assert needs_base(version, "vllm")
    with pytest.raises(ConfigError, match=r"updates the output layer, .*--base"):
        export(version, "vllm", tmp_path / "out")
    with pytest.raises(IncompatibleAdapter, match=r"ties to its embedding: .*--format peft"):
        export(version, "vllm", tmp_path / "out", tied)
    export(version, "peft", tmp_path / "out", tied)
    untied = make(on=base, target_modules=modules, number=2)
    made = export(untied, "vllm", tmp_path / "served", base)
    assert made.method == "exact"
    assert made.agreement is not None
    assert made.agreement.relative_error < 1e-3


def test_bits_that_the_base_lacks_are_refused_unless_they_are_accepted_or_more_are_written(
    make: Make, tmp_path: Path
) -> None:
    small = save_base(tmp_path / "half", dtype="bfloat16")
    version = make(on=small)
    made = export(version, "merged", tmp_path / "out", small, tolerance=0.5)
    assert made.agreement is not None
    assert 1e-4 < made.agreement.relative_error < 0.2
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_merged(tmp_path / "out").values())
    with pytest.raises(IncompatibleAdapter, match=r"bfloat16 has too few bits .*--dtype float32.*--tolerance"):
        export(version, "merged", tmp_path / "strict", small, tolerance=1e-3)
    assert not (tmp_path / "strict").exists()
    whole = export(version, "merged", tmp_path / "whole", small, tolerance=1e-3, dtype="float32")
    assert whole.agreement is not None
    assert whole.agreement.relative_error < 1e-3
    assert all(tensor.dtype == torch.float32 for tensor in load_merged(tmp_path / "whole").values())
    weak = make(on=small, number=2, lora_alpha=0.05)
    with pytest.raises(IncompatibleAdapter, match=r"above the tolerance of 0\.05"):
        export(weak, "merged", tmp_path / "weak", small)


@pytest.mark.parametrize("form", ["peft", "merged", "vllm"])
def test_whoever_may_read_other_files_may_read_an_export(make: Make, base: Path, tmp_path: Path, form: Any) -> None:
    before = os.umask(0o027)
    try:
        export(make(), form, tmp_path / "out", base)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o640}


@pytest.mark.parametrize("form", ["peft", "vllm"])
def test_peft_finds_the_base_of_an_export_by_itself(make: Make, base: Path, tmp_path: Path, form: Any) -> None:
    version = make()
    export(version, form, tmp_path / "out", base)
    assert config_of(tmp_path / "out")["base_model_name_or_path"] == str(base)
    opened = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(probe_logits(opened), logits_of(version, base, tmp_path), rtol=1e-4, atol=1e-4)


def load_merged(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("form", "options", "complaint"),
    [
        ("merged", {}, "--format merged: needs the base model"),
        ("merged", {"rank": 8}, "--rank: only --format vllm has a rank"),
        ("vllm", {"rank": 12}, "--rank 12: the portable ranks are 8, 16, 32, 64"),
        ("vllm", {}, "DoRA has to be approximated with rank 8, which needs the base model; give its folder"),
        ("vllm", {"tolerance": 0.0}, r"--tolerance 0\.0: expected more than 0"),
        ("vllm", {"dtype": "float32"}, "--dtype: only --format merged has a type of its own"),
        ("gguf", {}, "--format gguf: expected one of peft, merged, vllm"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(
    make: Make, tmp_path: Path, form: Any, options: dict[str, Any], complaint: str
) -> None:
    version = make(use_dora=True)
    with pytest.raises(ConfigError, match=complaint):
        export(version, form, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_the_profile_has_no_place_for_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleAdapter, match="profile has no layer_replication; export with --format merged"):
        export(make(layer_replication=[[0, 2], [0, 2]]), "vllm", tmp_path / "out")


def test_a_folder_that_is_in_use_is_not_touched(make: Make, tmp_path: Path) -> None:
    version = make()
    (tmp_path / "out").mkdir()
    export(version, "peft", tmp_path / "out")
    with pytest.raises(ConfigError, match="is there already and not an empty folder"):
        export(version, "peft", tmp_path / "out")


def test_an_export_says_what_it_was_made_from(make: Make, base: Path, tmp_path: Path) -> None:
    version = make()
    made = export(version, "vllm", tmp_path / "out", base)
    body = json.loads((tmp_path / "out" / "export.json").read_bytes())
    assert body["adapter"] == str(version)
    assert body["base"]["weights_hash"] == weights_hash(base)
    assert Agreement(**body["agreement"]) == made.agreement


def test_the_measure_is_hand_computed() -> None:
    base = torch.tensor([[[0.0, 0.0]]])
    original = torch.tensor([[[2.0, -2.0]]])
    converted = torch.tensor([[[6.0, 3.0]]])  # centred: 1.5, -1.5
    found = agreement(base, original, converted)
    assert found.relative_error == pytest.approx(0.25)
    assert found.max_logit_change == pytest.approx(0.5)
    p, q = 1 / (1 + torch.tensor(-4.0).exp()), 1 / (1 + torch.tensor(-3.0).exp())
    assert found.mean_kl == pytest.approx(float(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()), rel=1e-4)
    assert agreement(base, base, base).relative_error == 0
    with pytest.raises(IncompatibleAdapter, match="by nan of"):
        agreement(base, original, converted * float("nan")).require(0.05, "")


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (5, 90)])
def test_factors_are_the_closest_of_their_rank(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    state = torch.random.get_rng_state()
    a, b = factored(matrix, 8)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (a.shape, b.shape) == ((8, shape[1]), (shape[0], 8))
    best = torch.linalg.svdvals(matrix)[8:].square().sum().sqrt()
    assert torch.linalg.norm(matrix - b @ a) == pytest.approx(float(best), rel=1e-3, abs=1e-4)
