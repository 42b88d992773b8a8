"""What texts differ in by form alone is gone from their vectors, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from compass_ray.embed.training.erasure import forms_of, without_forms


def test_forms_are_numbered_by_what_is_found_first() -> None:
    texts = ["Who is it?", "tell me WHO and when", "when?", "How many?", "how?", "nothing", "why", "whoever"]
    forms = forms_of(texts, r"\b(how many|how|who|when|why)\b", min_texts=1)
    assert forms.tolist() == [3, 3, 2, 1, 0, -1, 4, -1]
    assert forms_of(texts, r"\b(how many|how|who|when|why)\b", min_texts=2).tolist() == [0, 0, -1, -1, -1, -1, -1, -1]


def _texts(
    rng: np.random.Generator, n_forms: int
) -> tuple[NDArray[np.float32], list[NDArray[np.int32]], NDArray[np.int64]]:
    """A word of one of some forms, and three words of content, which have more dimensions than there are forms."""
    pieces = rng.normal(size=(n_forms + 40, 32)).astype(np.float32)
    forms = rng.integers(0, n_forms, 2000)
    content = rng.integers(n_forms, n_forms + 40, (2000, 3))
    return pieces, [np.array([form, *words], dtype=np.int32) for form, words in zip(forms, content, strict=True)], forms


@pytest.mark.parametrize("n_forms", [2, 6])
def test_texts_of_all_forms_have_the_same_mean_afterwards(n_forms: int) -> None:
    pieces, ids, forms = _texts(np.random.default_rng(0), n_forms)
    left = without_forms(pieces, ids, forms)
    before, after = (np.stack([table[row].mean(axis=0) for row in ids]) for table in (pieces, left))
    overall = [vectors.mean(axis=0) for vectors in (before, after)]
    apart_before, apart_after = (
        max(np.linalg.norm(vectors[forms == form].mean(axis=0) - mean) for form in range(n_forms))
        for vectors, mean in zip((before, after), overall, strict=True)
    )
    assert apart_after < 0.1 * apart_before
    assert np.linalg.matrix_rank(pieces - left, tol=1e-3) == n_forms - 1


def test_what_does_not_lie_along_forms_stays() -> None:
    pieces = np.eye(6, dtype=np.float32)
    ids = [np.array([form, word], dtype=np.int32) for form in (0, 1) for word in (2, 3, 4)]
    left = without_forms(pieces, ids, np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_allclose(left[2:], pieces[2:], atol=1e-6)
    np.testing.assert_allclose(left[0], left[1], atol=1e-6)


def test_texts_without_a_form_are_not_looked_at() -> None:
    pieces, ids, forms = _texts(np.random.default_rng(1), 3)
    whole = without_forms(pieces, ids, forms)
    odd = [np.array([0], dtype=np.int32)] * 500
    np.testing.assert_array_equal(without_forms(pieces, [*ids, *odd], np.append(forms, [-1] * 500)), whole)
