"""FLOPs of a step, against counting products by hand."""

from __future__ import annotations

import pytest

from compass_ray.adapt.flops import ModelSize, peak_flops, step_flops


def test_a_frozen_weight_costs_four_flops_a_token_and_a_trained_one_six() -> None:
    size = ModelSize(frozen=1000, trained=10, output=0, layers=0, attention_width=0)
    assert step_flops(size, tokens=7, predicted=7, pairs=0) == 7 * (4 * 1000 + 6 * 10)


def test_the_output_layer_costs_where_something_is_predicted() -> None:
    size = ModelSize(frozen=0, trained=0, output=500, layers=0, attention_width=0)
    assert step_flops(size, tokens=70, predicted=3, pairs=0) == 3 * 4 * 500


def test_attention_costs_twelve_flops_a_feature_and_pair() -> None:
    size = ModelSize(frozen=0, trained=0, output=0, layers=2, attention_width=8)
    document = 5 * 6 / 2  # pairs of a document of five tokens
    assert step_flops(size, tokens=5, predicted=5, pairs=document) == 12 * 2 * 8 * 15


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4", 312e12)])
def test_known_gpus_have_a_peak(name: str, peak: float) -> None:
    assert peak_flops(name) == peak


def test_an_unknown_gpu_has_none_rather_than_a_guess() -> None:
    assert peak_flops("Some Accelerator 9000") is None
