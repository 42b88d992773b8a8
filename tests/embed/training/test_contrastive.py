"""The loss and the first vectors, against formulas written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from compass_ray.embed.training.bags import Batch, TokenBags, make_bags
from compass_ray.embed.training.contrastive import (
    StaticTable,
    batch_loss,
    first_vectors,
    info_nce,
    principal_projection,
)
from compass_ray.vectors import unit_rows

RNG = np.random.default_rng(5)
PIECES = RNG.normal(size=(12, 4)).astype(np.float32)
PROJECTION = RNG.normal(size=(6, 4)).astype(np.float32)
TEACHER = RNG.normal(size=(3, 6)).astype(np.float32)
BATCH = Batch(
    groups=np.array([2, 0, 1]),
    ids=(np.array([0, 1, 2, 3, 3]), np.array([4, 5, 6, 7])),
    offsets=(np.array([0, 2, 3]), np.array([0, 1, 3])),
)
TEXTS = ([[0, 1], [2], [3, 3]], [[4], [5, 6], [7]])


def info_nce_by_hand(x: NDArray[np.float32], y: NDArray[np.float32], scale: float) -> float:
    terms = []
    for one, other in ((x, y), (y, x)):
        for row in range(len(one)):
            similarity = [scale * float(one[row] @ other[column]) for column in range(len(other))]
            terms.append(np.log(np.sum(np.exp(similarity))) - similarity[row])
    return float(np.mean(terms))


def means_by_hand(texts: list[list[int]]) -> NDArray[np.float32]:
    return unit_rows(np.stack([PIECES[text].mean(axis=0) for text in texts]))


def bags_by_hand() -> TokenBags:
    tokens = [[0, 1, 1], [2], [0, 3], [3, 4], [1], [5]]
    ids = [np.array(row, dtype=np.int32) for row in tokens]
    return make_bags(ids, np.array([0, 0, 1, 1, 2, 2]), np.zeros(6, dtype=np.int32), np.ones(6))[0]


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_info_nce_is_the_mean_cross_entropy_of_both_directions(scale: float) -> None:
    x, y = unit_rows(RNG.normal(size=(2, 7, 5)).astype(np.float32).reshape(14, 5)).reshape(2, 7, 5)
    found = info_nce(torch.from_numpy(x), torch.from_numpy(y), scale).item()
    assert found == pytest.approx(info_nce_by_hand(x, y, scale), rel=1e-5)


def test_rows_that_find_each_other_cost_little_and_equal_rows_cost_the_logarithm_of_their_number() -> None:
    eye = torch.eye(4)
    assert info_nce(eye, eye, 20.0).item() < 1e-6
    assert info_nce(torch.ones(4, 1), torch.ones(4, 1), 20.0).item() == pytest.approx(np.log(4))


def test_without_a_teacher_the_loss_is_that_of_mean_vectors() -> None:
    loss = batch_loss(StaticTable(PIECES.copy(), None), BATCH, None, 10.0, 0.0).item()
    assert loss == pytest.approx(info_nce_by_hand(*map(means_by_hand, TEXTS), 10.0), rel=1e-5)


def test_the_teacher_adds_its_weight_times_the_mean_of_both_sides() -> None:
    model = StaticTable(PIECES.copy(), PROJECTION.copy())
    loss = batch_loss(model, BATCH, torch.from_numpy(TEACHER), 10.0, 3.0).item()
    x, y = map(means_by_hand, TEXTS)
    target = unit_rows(TEACHER[[2, 0, 1]] @ PROJECTION)
    sides = [info_nce_by_hand(side, target, 10.0) for side in (x, y)]
    assert loss == pytest.approx(info_nce_by_hand(x, y, 10.0) + 3.0 * np.mean(sides), rel=1e-5)


def test_groups_that_the_teacher_does_not_know_are_left_out_of_its_terms() -> None:
    teacher = TEACHER.copy()
    teacher[0] = 0  # the second row of the batch
    loss = batch_loss(StaticTable(PIECES.copy(), PROJECTION.copy()), BATCH, torch.from_numpy(teacher), 10.0, 3.0).item()
    x, y = map(means_by_hand, TEXTS)
    target = unit_rows(TEACHER[[2, 1]] @ PROJECTION)
    sides = [info_nce_by_hand(side[[0, 2]], target, 10.0) for side in (x, y)]
    assert loss == pytest.approx(info_nce_by_hand(x, y, 10.0) + 3.0 * np.mean(sides), rel=1e-5)


def test_a_batch_of_which_the_teacher_knows_nothing_has_the_loss_without_it_and_a_gradient_of_zero() -> None:
    model = StaticTable(PIECES.copy(), PROJECTION.copy())
    loss = batch_loss(model, BATCH, torch.zeros(3, 6), 10.0, 3.0)
    assert loss.item() == pytest.approx(info_nce_by_hand(*map(means_by_hand, TEXTS), 10.0), rel=1e-5)
    loss.backward()
    assert model.projection is not None
    assert model.projection.grad.abs().max() == 0


def test_gradients_reach_the_pieces_of_the_batch_and_the_projection() -> None:
    model = StaticTable(PIECES.copy(), PROJECTION.copy())
    batch_loss(model, BATCH, torch.from_numpy(TEACHER), 10.0, 1.0).backward()
    touched = model.pieces.weight.grad.abs().amax(dim=1) > 0
    assert touched.tolist() == [True] * 8 + [False] * 4
    assert model.projection is not None
    assert (model.projection.grad.abs() > 0).all()


def test_steps_along_the_gradient_lower_the_loss() -> None:
    model = StaticTable(PIECES.copy(), PROJECTION.copy())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(50):
        loss = batch_loss(model, BATCH, torch.from_numpy(TEACHER), 10.0, 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 < 1 < losses[0]


def test_the_projection_is_onto_the_principal_axes_of_what_the_teacher_knows() -> None:
    spread = RNG.normal(size=(200, 6)) * [9, 1, 5, 3, 7, 0.5]
    known = (spread @ np.linalg.qr(RNG.normal(size=(6, 6)))[0]).astype(np.float32)
    known -= known.mean(axis=0)
    teacher = np.concatenate([known[:120], np.zeros((30, 6), np.float32), known[120:]])
    projection = principal_projection(teacher, 3)
    assert (projection.shape, projection.dtype) == ((6, 3), np.float32)
    axes = PCA(3).fit(known).components_
    np.testing.assert_allclose(np.abs(np.diag(axes @ projection)), 1, atol=1e-3)
    np.testing.assert_allclose(projection.T @ projection, np.eye(3), atol=1e-5)


def test_a_piece_starts_at_the_mean_meaning_of_the_texts_that_hold_it() -> None:
    bags = bags_by_hand()
    teacher = TEACHER.copy()
    teacher[1] = 0  # the teacher knows nothing of the second group
    found = first_vectors(bags, 7, 4, 2.5, 0.1, 3, teacher, PROJECTION)
    noise = first_vectors(bags, 7, 4, 2.5, 0.1, 3, None, None)
    meaning = unit_rows(teacher[[0, 2]] @ PROJECTION)
    sums, counts = np.zeros((7, 4)), np.zeros(7)
    for tokens, group in (([0, 1, 1], 0), ([2], 0), ([1], 1), ([5], 1)):
        for token in tokens:
            sums[token] += meaning[group]
            counts[token] += 1
    expected = 2.5 * sums / (counts + 2)[:, None]
    np.testing.assert_allclose(found - noise, expected, atol=1e-5)
    assert (np.abs(expected).max(axis=1) > 0).tolist() == [True, True, True, False, False, True, False]


def test_noise_has_the_configured_width_and_depends_on_the_seed_alone() -> None:
    bags = bags_by_hand()
    noise = first_vectors(bags, 2000, 8, 4.0, 0.02, 1, None, None)
    assert 0.019 < noise.std() < 0.021
    assert noise.tobytes() == first_vectors(bags, 2000, 8, 4.0, 0.02, 1, None, None).tobytes()
    assert not np.allclose(noise, first_vectors(bags, 2000, 8, 4.0, 0.02, 2, None, None))
