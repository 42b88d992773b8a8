"""The encoder without weights: unit vectors that are equal for equal texts and near for similar ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.embed.hashing import HashingEncoder
from compass_ray.embed.kinds import load_encoder

ENCODER = HashingEncoder()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=8))
@settings(deadline=None)
def test_every_text_gets_a_unit_vector(texts: list[str]) -> None:
    vectors = ENCODER.encode(texts)
    assert vectors.shape == (len(texts), ENCODER.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@given(st.lists(st.text("abc é漢", max_size=20), min_size=1, max_size=8), st.data())
@settings(deadline=None)
def test_a_vector_does_not_depend_on_the_batch(texts: list[str], data: st.DataObject) -> None:
    alone = np.concatenate([ENCODER.encode([text]) for text in texts])
    assert ENCODER.encode(texts).tobytes() == alone.tobytes()
    assert ENCODER.encode_exactly(texts).tobytes() == alone.tobytes()


def test_a_text_without_signal_gets_the_first_unit_vector() -> None:
    first = np.eye(1, ENCODER.dim, dtype=np.float32)
    np.testing.assert_array_equal(ENCODER.encode(["", "  \n"]), np.repeat(first, 2, axis=0))


def test_similar_texts_are_nearer_than_others_in_any_script() -> None:
    pairs = [
        ("the cat sat on the mat", "the cats sat on a mat", "stock prices fell sharply"),
        ("кошка сидит на ковре", "кошки сидят на ковре", "акции резко подешевели"),
        ("สวัสดีตอนเช้าทุกคน", "สวัสดีตอนเช้าครับ", "ราคาหุ้นลดลงอย่างมาก"),
    ]
    for text, near, far in pairs:
        one, two, three = ENCODER.encode([text, near, far])
        assert one @ two > one @ three + 0.2


def test_the_prompt_is_a_prefix_of_every_text() -> None:
    prompted = HashingEncoder("query: ").encode(["red", "blue"])
    assert prompted.tobytes() == ENCODER.encode(["query: red", "query: blue"]).tobytes()
    assert prompted.tobytes() != ENCODER.encode(["red", "blue"]).tobytes()


def test_four_bytes_are_a_token() -> None:
    counts = ENCODER.tokenize(["", "a", "abcd", "abcde", "漢字"]).counts
    assert counts.tolist() == [0, 1, 1, 2, 2]
    assert counts.dtype == np.int32
    assert ENCODER.tokenize([]).counts.shape == (0,)


def test_it_is_loaded_by_name_with_its_prompt() -> None:
    encoder = load_encoder("hashing", prompt="query: ")
    assert encoder.encode(["red"]).tobytes() == ENCODER.encode(["query: red"]).tobytes()
    assert encoder.revision == HashingEncoder.revision
    assert encoder.dim == 512
