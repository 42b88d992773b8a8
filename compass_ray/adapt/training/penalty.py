"""The penalty of elastic weight consolidation: what an adapter has learnt is held the harder the more it matters.

L_EWC = 1/2 sum_i F_i (theta_i - theta*_i)^2, where theta* is where an update begins and F the diagonal of the Fisher
information there (Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", PNAS 114(13)). All
are pure functions of whole float32 tensors by the model's parameter names. Cost: a pass over the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from compass_ray.errors import IncompatibleAdapter

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Penalty:
    """A penalty and how much it counts.

    Attributes
    ----------
    strength : float
        Lambda, by which the penalty enters the loss; not negative.
    fisher : mapping of str to Tensor
        F, not negative.
    anchor : mapping of str to Tensor
        theta*.
    """

    strength: float
    fisher: Tensors
    anchor: Tensors

    def check(self, weights: Tensors) -> None:
        """Make sure that the penalty is one of these weights.

        Raises
        ------
        IncompatibleAdapter
            If names or shapes differ.
        """
        check_same(self.anchor, weights, "the weights that a penalty holds on to", "the adapter that is trained")
        check_same(self.fisher, weights, "the Fisher information of a penalty", "the adapter that is trained")


def value(penalty: Penalty, weights: Tensors) -> float:
    """Compute L_EWC in float64, without the strength."""
    return 0.5 * sum(
        float((penalty.fisher[name].double() * (weights[name].double() - anchor.double()).square()).sum())
        for name, anchor in penalty.anchor.items()
    )


def gradient(penalty: Penalty, weights: Tensors) -> dict[str, torch.Tensor]:
    """Compute the gradient of L_EWC, without the strength: F (theta - theta*)."""
    return {name: penalty.fisher[name] * (weights[name] - anchor) for name, anchor in penalty.anchor.items()}


def decayed(old: Tensors, new: Tensors, gamma: float) -> dict[str, torch.Tensor]:
    """Carry the Fisher information over a generation: ``gamma * old + new``.

    Online EWC (Schwarz et al. 2018, "Progress & Compress: A scalable framework for continual learning", ICML): one
    penalty stands for all former updates, and what is older counts less.

    Parameters
    ----------
    old, new : mapping of str to Tensor
    gamma : float
        From 0 (only the newest counts) to 1 (all count the same).

    Raises
    ------
    IncompatibleAdapter
        If names or shapes differ.
    ValueError
        If ``gamma`` is outside of its range.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"expected gamma from 0 to 1, found {gamma}")
    check_same(old, new, "the Fisher information so far", "that of the newest adapter")
    return {name: gamma * old[name] + tensor for name, tensor in new.items()}


def check_same(found: Tensors, expected: Tensors, what: str, where: str) -> None:
    """Make sure that two sets of tensors have the same names and shapes.

    Raises
    ------
    IncompatibleAdapter
    """
    wrong = [
        f"{name}: expected {_shape(expected, name)}, found {_shape(found, name)}"
        for name in sorted(found.keys() | expected.keys())
        if _shape(found, name) != _shape(expected, name)
    ]
    if wrong:
        raise IncompatibleAdapter(
            f"{what}: {len(wrong)} tensors are not those of {where}, as {wrong[0]}; compute it again from an adapter "
            "of the same base, rank and target modules"
        )


def _shape(tensors: Tensors, name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
