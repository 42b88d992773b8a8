"""Hidden states of a base model as embeddings: the demo's base, against plain transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from configs import good
from demo import demo_config
from transformers import AutoModelForCausalLM, AutoTokenizer

import compass_ray.demo
from compass_ray import curate
from compass_ray.config import load_config
from compass_ray.configbase import identity
from compass_ray.embed import load_encoder
from compass_ray.embed.base import BaseEncoder, _pooled, base_folder
from compass_ray.embed.batching import token_batches
from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.encoder import Input
from compass_ray.embed.kinds import encoder_from
from compass_ray.embed.stage import encode_in_batches, encoder_identity
from compass_ray.errors import ConfigError
from compass_ray.models import folder_revision

BASE = Path(compass_ray.demo.__file__).parent / "base"
TEXTS = [
    "Wash your hands.",
    "Daktari alimwambia mgonjwa apumzike hospitalini.",
    "सरकार ने चुनाव के बाद एक नया कानून पारित किया।",
    "漢字 🙂",
    "x",
    "one two three four five six seven eight nine ten " * 4,
]


@pytest.fixture(scope="module")
def encoder() -> BaseEncoder:
    return loaded(BASE)


def loaded(folder: Path, **options: Any) -> BaseEncoder:
    encoder = load_encoder("base", base=str(folder), **options)
    assert isinstance(encoder, BaseEncoder)
    return encoder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASE, tmp_path / "copy"))


def edit(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


# --- vectors ------------------------------------------------------------------------------------


def test_a_vector_is_the_position_weighted_mean_of_the_last_hidden_states(encoder: BaseEncoder) -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[-1][0]
        weights = torch.arange(1, len(states) + 1)
        mean = (states * weights[:, None]).sum(dim=0) / weights.sum()
        expected.append((mean / mean.norm()).numpy())
    np.testing.assert_allclose(encoder.encode(TEXTS), np.stack(expected), atol=1e-5)


def test_padding_makes_no_difference(encoder: BaseEncoder) -> None:
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-5)


class States:
    """A model whose state of token t at any place is (t, 1), and which overflows where there is padding."""

    device = torch.device("cpu")

    def __call__(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        states = torch.stack([input_ids.float(), torch.ones(input_ids.shape)], dim=2)
        states[attention_mask == 0] = torch.inf
        return SimpleNamespace(last_hidden_state=states)


def test_the_second_of_two_tokens_weighs_twice_the_first_and_padding_nothing() -> None:
    ids = [np.array(one, dtype=np.int32) for one in ([3, 6], [9], [6, 6, 12])]
    # (3 + 2·6) / 3, 9, (6 + 2·6 + 3·12) / 6
    np.testing.assert_allclose(_pooled(States(), ids), [[5, 1], [9, 1], [9, 1]], rtol=1e-6)


def test_the_same_batch_gives_the_same_bits(encoder: BaseEncoder) -> None:
    assert encoder.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


@pytest.mark.parametrize("prompt", ["", "query: "])
def test_what_the_tokenizer_made_of_texts_encodes_to_the_same_bytes(prompt: str) -> None:
    encoder = loaded(BASE, prompt=prompt, max_tokens=24)
    assert encoder.encode(encoder.tokenize(TEXTS).inputs).tobytes() == encoder.encode(TEXTS).tobytes()


def test_a_prompt_is_a_prefix_of_every_text(encoder: BaseEncoder) -> None:
    prompted = loaded(BASE, prompt="query: ")
    assert prompted.encode(TEXTS).tobytes() == encoder.encode([f"query: {text}" for text in TEXTS]).tobytes()
    assert prompted.tokenize(TEXTS).counts.tolist() == encoder.tokenize(TEXTS).counts.tolist()


def test_a_text_without_tokens_gets_the_first_unit_vector_and_no_nan(encoder: BaseEncoder) -> None:
    first = np.eye(1, encoder.dim)[0]
    np.testing.assert_array_equal(encoder.encode([""]), [first])
    vectors = encoder.encode(["", TEXTS[0], ""])
    np.testing.assert_array_equal(vectors[[0, 2]], [first, first])
    np.testing.assert_array_equal(vectors[1], encoder.encode(TEXTS[:1])[0])


def test_no_texts_are_no_vectors(encoder: BaseEncoder) -> None:
    assert encoder.encode([]).shape == (0, 192)
    assert encoder.tokenize([]).counts.shape == encoder.tokenize([]).sizes().shape == (0,)


@pytest.mark.parametrize("text", [" ", "\x00", "\u200d", "🙂🙃", "ꙮ" * 50, "word " * 20_000])
def test_any_text_gives_a_finite_unit_vector(encoder: BaseEncoder, text: str) -> None:
    [vector] = encoder.encode([text])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_a_tokenizer_needs_no_padding_token(encoder: BaseEncoder, copy: Path) -> None:
    edit(copy / "config.json", pad_token_id=None)
    without = loaded(copy)
    without._tokenizer.pad_token = None  # this kind has one by default
    with pytest.raises(ValueError, match="does not have a padding token"):
        without._tokenizer(TEXTS, padding=True)
    assert without.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


def test_half_precision_is_near_and_its_exact_second_try_is_that_of_float32(encoder: BaseEncoder) -> None:
    half = loaded(BASE, dtype="bfloat16")
    error = np.abs(half.encode(TEXTS) - encoder.encode(TEXTS)).max()
    assert 0 < error < 0.02
    assert half.encode_exactly(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


# --- batches ------------------------------------------------------------------------------------


def test_tokens_are_counted_before_truncation_and_batches_sized_after_it() -> None:
    encoder = loaded(BASE, max_tokens=8, prompt="query: ")
    tokenized = encoder.tokenize([*TEXTS, ""])
    assert tokenized.counts.tolist() == loaded(BASE).tokenize([*TEXTS, ""]).counts.tolist()
    assert tokenized.counts.max() > 8
    assert tokenized.counts[-1] == 0
    assert tokenized.sizes().tolist() == [len(ids) for ids in tokenized.inputs]
    assert tokenized.sizes().max() == 8
    assert tokenized.sizes().min() == tokenized.sizes()[-1] > 0  # the prompt alone


@pytest.mark.parametrize("batch_tokens", [16, 50, 400])
def test_what_a_model_is_given_keeps_to_the_budget_of_tokens(
    batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = loaded(BASE, max_tokens=16, prompt="query: ")
    given: list[int] = []
    encode = encoder.encode

    def watched(inputs: Sequence[Input]) -> Any:
        given.append(len(inputs) * max(map(len, inputs)))
        return encode(inputs)

    monkeypatch.setattr(encoder, "encode", watched)
    tokenized = encoder.tokenize(TEXTS * 5)
    encode_in_batches(encoder, tokenized.inputs, token_batches(tokenized.sizes(), batch_tokens, 256))
    assert max(given) <= batch_tokens
    assert len(given) > 1


def test_a_batch_without_room_is_halved(encoder: BaseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = encoder.encode

    def small(inputs: Sequence[Input]) -> Any:
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("no room")
        return encode(inputs)

    expected = encoder.encode(TEXTS)
    monkeypatch.setattr(encoder, "encode", small)
    vectors, halved = encode_in_batches(encoder, encoder.tokenize(TEXTS).inputs, [np.arange(len(TEXTS))])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert halved == 3


def test_no_more_tokens_are_read_than_the_model_has_positions_for(copy: Path) -> None:
    edit(copy / "config.json", max_position_embeddings=12)
    assert loaded(copy).tokenize(TEXTS).sizes().max() == 12
    assert loaded(copy, max_tokens=99).tokenize(TEXTS).sizes().max() == 12
    assert loaded(copy, max_tokens=5).tokenize(TEXTS).sizes().max() == 5


# --- which models are accepted ------------------------------------------------------------------


def test_without_a_base_there_is_no_encoder() -> None:
    with pytest.raises(ConfigError, match=r"^embed\.model: 'base' needs a base model; give embed\.base \(and"):
        load_encoder("base")


def test_a_hub_id_without_a_revision_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^embed\.revision: the hub model owner/name needs a commit"):
        base_folder("owner/name", None)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^embed\.base: .* has no config\.json, so it is not a transformers causal"):
        base_folder(str(tmp_path), None)


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match=r"^embed\.base: .* holds pickled weights \(pytorch_model\.bin\)"):
        loaded(copy)


def test_a_model_that_is_not_causal_is_refused(copy: Path) -> None:
    edit(copy / "config.json", model_type="t5", architectures=None)
    with pytest.raises(ConfigError, match=r"^embed\.base: .* cannot be loaded as a causal language model with"):
        loaded(copy)


def test_a_model_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"^embed\.base: .* cannot be loaded as a causal language model"):
        loaded(copy)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("qwen2", "has no vocabulary; copy"), ("llama", "has no tokenizer that loads without remote code")],
)
def test_a_model_without_a_tokenizer_is_refused(copy: Path, kind: str, reason: str) -> None:
    (copy / "tokenizer.json").unlink()
    edit(copy / "config.json", model_type=kind)
    with pytest.raises(ConfigError, match=rf"^embed\.base: .* {reason}"):
        loaded(copy)


def test_remote_code_in_a_model_is_not_run(copy: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(flag)!r}, 'w').close()\nclass Evil: pass\n")
    edit(
        copy / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.E"}
    )
    with pytest.raises(ConfigError, match=r"^embed\.base: "):
        loaded(copy)
    assert not flag.exists()


# --- config and identity ------------------------------------------------------------------------


def on_base(**embed: Any) -> EmbedConfig:
    return EmbedConfig(model="base", **{"base": str(BASE), **embed})


def test_the_base_is_that_of_the_adapters_unless_another_is_given() -> None:
    adapt = {"base": "owner/name", "revision": "0" * 40}
    taken = load_config(good(embed={"model": "base"}, adapt=adapt)).embed
    assert (taken.base, taken.revision) == ("owner/name", "0" * 40)
    own = load_config(good(embed={"model": "base", "base": "./other"}, adapt=adapt)).embed
    assert (own.base, own.revision) == ("./other", None)
    assert load_config(good(adapt=adapt)).embed.base is None


def test_a_config_with_a_base_taken_from_adapt_loads_again_as_the_same() -> None:
    config = load_config(good(embed={"model": "base"}, adapt={"base": "owner/name", "revision": "0" * 40}))
    again = load_config(config.model_dump(mode="json"))
    assert again.model_dump() == config.model_dump()
    assert identity(again) == identity(config)
    assert config.unexpanded["embed"] == {"model": "base"}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"embed": {"model": "base"}},
            "embed.model: 'base' needs a base model; give embed.base (and embed.revision, for a hub id), or adapt.base",
        ),
        (
            {"embed": {"model": "base", "revision": "1" * 40}, "adapt": {"base": "owner/name", "revision": "0" * 40}},
            "embed.revision: the base is that of adapt; set adapt.revision, or give embed.base too",
        ),
        (
            {"embed": {"base": "owner/name", "max_tokens": 9}},
            "base: read only where model is 'base'; set model: base, or remove it",
        ),
    ],
)
def test_a_base_that_is_missing_or_of_no_use_is_said_before_any_work(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(good(**sections))
    assert message in str(caught.value)


def test_the_identity_holds_layer_pooling_tokens_and_content(copy: Path) -> None:
    found = encoder_identity(on_base())
    assert found["revision"] == f"last-position_weighted-2048-{folder_revision(BASE)}"
    assert found["revision"] == encoder_from(on_base()).revision
    assert found["dtype"] == "float32"
    assert encoder_identity(on_base(base=str(copy))) == found  # wherever it lies
    assert encoder_identity(on_base(max_tokens=64)) != found
    assert encoder_identity(on_base(dtype="bfloat16")) != found
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert encoder_identity(on_base(base=str(copy))) != found


def test_workers_and_the_folder_are_not_identity_but_batches_and_revisions_are(copy: Path) -> None:
    plain = identity(on_base())
    assert identity(on_base(actors=3, num_cpus=2, base=str(copy))) == plain
    assert identity(on_base(batch_tokens=1024)) != plain
    assert identity(on_base(revision="0" * 40)) != plain


# --- through the engine -------------------------------------------------------------------------


def bytes_of(path: str, stage: str) -> dict[str, bytes]:
    [folder] = Path(path).glob(f"cache/{stage}-*")
    return {file.name: file.read_bytes() for file in folder.glob("*.parquet")}


@pytest.mark.slow
@pytest.mark.release
@pytest.mark.usefixtures("local_ray")
def test_any_number_of_actors_gives_the_same_vectors_and_selection(tmp_path: Path) -> None:
    found = []
    for actors in (1, 3):
        config = demo_config(
            tmp_path / f"out{actors}",
            "embed.model=base",
            "embed.max_tokens=16",
            "embed.batch_tokens=2048",
            f"embed.actors={actors}",
            "sample.strategy=round_robin",
            "cluster.n_clusters=8",
        )
        curate(config)
        found.append({stage: bytes_of(config.output, stage) for stage in ("embed", "select")})
    assert found[0] == found[1]
    assert len(found[0]["embed"]) > 3
