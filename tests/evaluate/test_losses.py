"""Losses of documents one by one: what plain transformers and PEFT say of each, whatever the batch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from probing import KINDS, alone, mixed_probes, table, write_adapter
from transformers import AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.examples import Example
from compass_ray.adapt.packing import Packs, make_packs
from compass_ray.adapt.training.model import load_base
from compass_ray.adapt.usage import scored_example
from compass_ray.errors import IncompatibleAdapter
from compass_ray.evaluate.losses import SwitchedModel, document_losses, length_batches
from compass_ray.evaluate.probes import predicted

pytestmark = pytest.mark.usefixtures("one_thread")

PROBES = mixed_probes(24)


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("adapters")
    return {kind: write_adapter(place / kind, tiny_base, kind, seed) for seed, kind in enumerate(KINDS)}


def base_of(folder: Path) -> Any:
    return load_base(folder, AdaptConfig(base=str(folder)))


@pytest.fixture(scope="module")
def switched(tiny_base: Path, folders: dict[str, Path]) -> SwitchedModel:
    return SwitchedModel(base_of(tiny_base), {"base": None, **folders})


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(str(tiny_base))


@pytest.fixture(scope="module")
def examples(tokenizer: Any) -> list[Example]:
    made = [scored_example(tokenizer, row, 64, chats=True) for row in PROBES]
    found = [example for example, _ in made if example]
    assert len(found) == len(PROBES)
    return found


@pytest.fixture(scope="module")
def packs(tokenizer: Any, examples: list[Example]) -> Packs:
    rows, packs, _ = predicted(tokenizer, table(PROBES), 64, chats=True)
    assert rows.tolist() == list(range(len(examples)))
    return packs


def plain(base: Path, adapter: Path | None) -> Any:
    model = AutoModelForCausalLM.from_pretrained(str(base))
    return (model if adapter is None else PeftModel.from_pretrained(model, adapter)).eval()


@pytest.mark.parametrize("name", ["base", *KINDS])
def test_losses_are_those_of_plain_transformers_one_document_at_a_time(
    tiny_base: Path, folders: dict[str, Path], switched: SwitchedModel, examples: list[Example], packs: Packs, name: str
) -> None:
    model = plain(tiny_base, folders.get(name))
    expected = [alone(model, example.tokens, example.trained) for example in examples]
    with switched.switched_to(name) as at_work:
        found = document_losses(at_work, packs, batch_tokens=256)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert packs.trained.tolist() == [int(example.trained.sum()) for example in examples]
    assert packs.n_bytes.tolist() == [example.n_bytes for example in examples]


def test_adapters_differ_and_switching_leaves_nothing_behind(switched: SwitchedModel, packs: Packs) -> None:
    def losses(name: str) -> Any:
        with switched.switched_to(name) as model:
            return document_losses(model, packs, 256)

    first = {name: losses(name) for name in ("base", *KINDS)}
    for name in ("large", "base", "small", "base", "dora", "large"):
        np.testing.assert_array_equal(losses(name), first[name])
    names = list(first)
    for one, other in pairwise(names):
        assert np.abs(first[one] - first[other]).min() > 1e-4


def test_neither_the_batch_nor_the_order_of_documents_matters(switched: SwitchedModel, examples: list[Example]) -> None:
    with switched.switched_to("large") as model:
        one_by_one = document_losses(model, make_packs(examples, 64, packing=False), batch_tokens=1)
        together = document_losses(model, make_packs(examples, 64, packing=False), batch_tokens=10_000)
        backwards = document_losses(model, make_packs(examples[::-1], 64, packing=False), batch_tokens=200)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5)
    np.testing.assert_allclose(backwards[::-1], one_by_one, rtol=1e-5)


def test_without_documents_there_is_no_loss(switched: SwitchedModel) -> None:
    with switched.switched_to("small") as model:
        assert document_losses(model, make_packs([], 64, packing=False), 256).shape == (0,)


def test_a_base_without_any_adapter_is_itself(tiny_base: Path, packs: Packs, switched: SwitchedModel) -> None:
    with SwitchedModel(base_of(tiny_base), {"base": None}).switched_to("base") as model:
        bare = document_losses(model, packs, 256)
    with switched.switched_to("base") as model:
        np.testing.assert_array_equal(document_losses(model, packs, 256), bare)


def test_an_adapter_whose_layers_the_base_does_not_have_is_named(
    tiny_base: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    other = write_adapter(tmp_path / "other", tiny_base, "small", 0)
    config = other / "adapter_config.json"
    config.write_text(config.read_text().replace('"q_proj"', '"q_proj", "o_proj"'))
    with pytest.raises(IncompatibleAdapter, match=r"^unfit: 4 adapter tensors that the base model has a place for"):
        SwitchedModel(base_of(tiny_base), {"small": folders["small"], "unfit": other})


def test_a_long_document_does_not_change_the_frequencies_of_a_short_one() -> None:
    """Phi's LongRoPE picks them by the longest row of a batch."""
    rope = {
        "rope_type": "longrope", "rope_theta": 10_000.0, "factor": 4.0,
        "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
    }  # fmt: skip
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    size |= {"max_position_embeddings": 64, "original_max_position_embeddings": 16, "vocab_size": 100}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    torch.manual_seed(0)
    model = Phi3ForCausalLM(Phi3Config(rope_parameters=rope, initializer_range=0.3, **size, **ids)).eval()
    chosen = np.random.default_rng(0)
    made = [
        Example(chosen.integers(2, 100, n, dtype=np.int32), np.arange(n) > 0, n, False) for n in (12, 30, 16, 17, 40, 9)
    ]
    packs = make_packs(made, 64, packing=False)
    one_by_one = document_losses(model, packs, batch_tokens=1)
    np.testing.assert_allclose(document_losses(model, packs, batch_tokens=10_000), one_by_one, rtol=1e-6)
    np.testing.assert_allclose(one_by_one, [alone(model, one.tokens, one.trained) for one in made], rtol=1e-6)


@given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 300), st.none() | st.integers(1, 90))
def test_batches_hold_each_document_once_within_their_bound(lengths: list[int], bound: int, border: int | None) -> None:
    found = [numbers.tolist() for numbers in length_batches(np.array(lengths, dtype=np.int64), bound, border)]
    assert sorted(number for numbers in found for number in numbers) == list(range(len(lengths)))
    for numbers in found:
        longest = -(-max(lengths[number] for number in numbers) // 8) * 8
        assert len(numbers) == 1 or len(numbers) * longest <= bound
        assert border is None or len({lengths[number] > border for number in numbers}) == 1
    laid = [lengths[number] for numbers in found for number in numbers]
    assert laid == sorted(laid, reverse=True)
