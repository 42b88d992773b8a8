"""From a trained table to a folder that any sentence-transformers program loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from tokenizers import Tokenizer

from compass_ray.embed import load_encoder
from compass_ray.embed.encoder import Encoder
from compass_ray.embed.training.bags import TokenBags, make_bags
from compass_ray.embed.training.quantize import pruned, to_int8, write_model
from compass_ray.embed.training.tokenizer import SPACE, UNKNOWN, token_ids, train_tokenizer
from compass_ray.vectors import unit_rows

TEXTS = ["the cats and dogs walked", "the cat and the dog walk", "dogs walking to cats", "a cat walks to a dog"] * 3
RARE = ["zebra zebras"]
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}


def bags_of(tokenizer: Tokenizer, texts: list[str]) -> TokenBags:
    groups = np.repeat(np.arange(len(texts) // 2), 2)
    ids = token_ids(tokenizer, texts)
    return make_bags(ids, groups, np.zeros(len(texts), dtype=np.int32), np.ones(len(texts)))[0]


@pytest.fixture(scope="module")
def trained() -> tuple[Tokenizer, NDArray[np.float32], TokenBags]:
    tokenizer = train_tokenizer(TEXTS + RARE, 100, 8)
    vectors = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 8)).astype(np.float32)
    return tokenizer, vectors, bags_of(tokenizer, TEXTS)


@pytest.fixture(scope="module")
def small(trained: tuple[Tokenizer, NDArray[np.float32], TokenBags]) -> tuple[Tokenizer, NDArray[np.float32]]:
    return pruned(*trained, min_count=2)


@pytest.fixture(scope="module")
def folder(small: tuple[Tokenizer, NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("written") / "model"
    write_model(target, *small)
    return target


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return load_encoder(str(folder))


def pieces_of(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.id_to_token(number) or "" for number in range(tokenizer.get_vocab_size())]


@given(arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.floats(-1e6, 1e6, width=32)))
def test_eight_bits_miss_a_value_by_half_a_scale_at_most(vectors: NDArray[np.float32]) -> None:
    vectors[np.abs(vectors) < 1e-30] = 0  # a 127th of less has no float32 of full precision
    codes, scales = to_int8(vectors)
    assert (codes.dtype, scales.dtype) == (np.int8, np.float32)
    missed = np.abs(codes.astype(np.float64) * scales[:, None] - vectors)
    assert (missed <= 0.5001 * scales[:, None]).all()
    assert codes.min() >= -127


def test_the_largest_value_of_a_row_is_127_and_a_row_of_zeros_stays_one() -> None:
    codes, scales = to_int8(np.array([[0, 0], [0.5, -1], [254, 2]], dtype=np.float32))
    assert codes.tolist() == [[0, 0], [64, -127], [127, 1]]
    np.testing.assert_allclose(scales, [0, 1 / 127, 2], rtol=1e-6)


def test_rare_pieces_go_and_single_characters_stay(
    trained: tuple[Tokenizer, NDArray[np.float32], TokenBags], small: tuple[Tokenizer, NDArray[np.float32]]
) -> None:
    before, after = pieces_of(trained[0]), pieces_of(small[0])
    gone = set(before) - set(after)
    assert "▁zebra" in gone
    assert all(len(piece) > 1 for piece in gone)
    assert {"z", "b", "▁", UNKNOWN} <= set(after)
    counts = np.bincount(trained[2].ids, minlength=len(before))
    assert gone == {
        piece for piece, count in zip(before, counts, strict=True) if len(piece) > 1 and piece != UNKNOWN and count < 2
    }


def test_each_piece_keeps_its_vector_but_the_unknown_one_and_the_bare_space_get_zero(
    trained: tuple[Tokenizer, NDArray[np.float32], TokenBags], small: tuple[Tokenizer, NDArray[np.float32]]
) -> None:
    before = dict(zip(pieces_of(trained[0]), trained[1], strict=True))
    after = dict(zip(pieces_of(small[0]), small[1], strict=True))
    assert after.pop(UNKNOWN).tolist() == after.pop(SPACE).tolist() == [0] * 8
    assert np.abs(trained[1][0]).max() > 0  # the table that was given is left alone
    assert after.keys() < before.keys()
    for piece, vector in after.items():
        assert vector.tolist() == before[piece].tolist()


def test_without_a_minimum_nothing_is_pruned(trained: tuple[Tokenizer, NDArray[np.float32], TokenBags]) -> None:
    assert pieces_of(pruned(*trained, min_count=0)[0]) == pieces_of(trained[0])


def test_the_folder_gives_vectors_near_the_float_ones(
    small: tuple[Tokenizer, NDArray[np.float32]], encoder: Encoder
) -> None:
    tokenizer, vectors = small
    texts = [*TEXTS[:4], "zebras", "Cats walked"]
    expected = unit_rows(np.stack([vectors[ids].mean(axis=0) for ids in token_ids(tokenizer, texts)]))
    found = encoder.encode(texts)
    assert encoder.dim == 8
    assert np.abs(found - expected).max() < 0.02
    assert encoder.tokenize(texts).counts.tolist() == [len(ids) for ids in token_ids(tokenizer, texts)]


def test_unknown_characters_do_not_turn_a_text(encoder: Encoder) -> None:
    with_unknown, without = encoder.encode(["cats😀", "cats"])
    np.testing.assert_allclose(with_unknown, without, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", " ", "a", "z", "猫", "😀", "🙂🙃👩‍👩‍👧", "\u0301", "x" * 100_000, "cat 😀 " * 20_000, "\0"]
)
def test_any_text_gets_a_finite_vector_of_length_one(encoder: Encoder, text: str) -> None:
    [vector] = encoder.encode([text])
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_text_without_a_known_piece_gets_the_first_unit_vector(encoder: Encoder) -> None:
    assert encoder.encode([""]).tolist() == [[1] + [0] * 7]


def test_the_folder_holds_eight_bit_safetensors_and_no_pickle(
    folder: Path, small: tuple[Tokenizer, NDArray[np.float32]]
) -> None:
    from safetensors.numpy import load_file

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"modules.json", "model.safetensors", "tokenizer.json"} <= files
    assert not {name for name in files if Path(name).suffix in PICKLES}
    arrays_ = load_file(folder / "model.safetensors")
    assert {name: (array.dtype, array.shape) for name, array in arrays_.items()} == {
        "embeddings": (np.int8, small[1].shape),
        "weights": (np.float32, (len(small[1]),)),
    }
    plain = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert [piece for piece, _ in plain["model"]["vocab"]] == pieces_of(small[0])


def test_the_same_table_gives_the_same_bytes(
    folder: Path, small: tuple[Tokenizer, NDArray[np.float32]], tmp_path: Path
) -> None:
    write_model(tmp_path / "again", *small)
    for name in ("model.safetensors", "tokenizer.json", "modules.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
