"""What contradicts itself in the section ``adapt`` is refused before any work, with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compass_ray.adapt.config import AdaptConfig
from compass_ray.config import load_config
from compass_ray.configbase import identity
from compass_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"training": {"patience": 2}}, "patience counts evaluations: set eval_steps as well"),
        ({"workers": {"offload": "optimizer"}}, "offload moves state out of GPU memory"),
        ({"workers": {"offload": "optimizer+base", "num_gpus": 1}}, "offload of the base needs zero_stage 3"),
        ({"dtype": "nf4"}, "a 4-bit base is for GPUs and is not sharded"),
        ({"dtype": "nf4", "workers": {"num_gpus": 1, "zero_stage": 3}}, "a 4-bit base is for GPUs and is not sharded"),
        ({"tracker": {"kind": "tensorboard"}}, "kind and uri go together"),
        ({"tracker": {"uri": "logs"}}, "kind and uri go together"),
        ({"languages": ["sw", "klingonish"]}, "'klingonish' is no known language"),
        ({"lora": {"rank": 0}}, "greater than or equal to 1"),
        ({"workers": {"zero_stage": 0}}, "Input should be 1, 2 or 3"),
    ],
)
def test_contradictions_are_explained(section: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AdaptConfig(base="b", **section)
    assert complaint in str(caught.value)


def test_languages_are_canonical_sorted_and_once() -> None:
    assert AdaptConfig(base="b", languages=["tam_Taml", "swh_Latn", "sw"]).languages == ["sw", "ta"]


@pytest.mark.parametrize(
    ("gpus", "dtype", "expected"),
    [(0, "auto", "float32"), (1, "auto", "bfloat16"), (0, "bfloat16", "bfloat16"), (1, "nf4", "bfloat16")],
)
def test_the_compute_dtype_follows_the_device_unless_it_is_given(gpus: int, dtype: str, expected: str) -> None:
    assert AdaptConfig(base="b", dtype=dtype, workers={"num_gpus": gpus}).compute_dtype == expected


def test_a_config_must_give_some_command_something_to_do() -> None:
    def complaint(raw: dict[str, Any]) -> str:
        with pytest.raises(ConfigError) as caught:
            load_config({"output": "o", **raw})
        return str(caught.value)

    usage = {"usage": {"role": "usage", "path": "u.csv", "lang": "sw"}}
    assert "nothing to do: curate needs the section sample, adapt the section adapt" in complaint({"sources": usage})
    assert "nothing to train on; adapt needs a source with role current" in complaint(
        {"sources": usage, "adapt": {"base": "b"}}
    )
    assert load_config({"output": "o", "adapt": {"base": "b", "run": "runs/one"}}).sources == {}


def test_how_work_is_spread_is_no_part_of_what_comes_out() -> None:
    plain = AdaptConfig(base="b")
    spread = AdaptConfig(
        base="elsewhere/b",
        workers={"count": 4, "zero_stage": 3, "micro_batch": 2, "gradient_checkpointing": True},
        tracker={"kind": "tensorboard", "uri": "logs"},
        languages=["sw"],
    )
    assert identity(plain) == identity(spread)
    assert identity(plain) != identity(AdaptConfig(base="b", training={"learning_rate": 1e-3}))
