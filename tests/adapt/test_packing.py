"""Packing: every document once, in few packs, and a model that reads a pack sees each document alone."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from compass_ray.adapt.examples import Example
from compass_ray.adapt.packing import IGNORED, Packs, batch, best_fit_decreasing, make_packs

CAPACITY = 24
VOCABULARY = 64


def example(tokens: list[int], trained: list[bool], n_bytes: int = 0) -> Example:
    return Example(np.array(tokens, np.int32), np.array(trained, np.bool_), n_bytes, truncated=False)


def random_examples(lengths: list[int], seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    examples = []
    for length in lengths:
        trained = rng.random(length) < 0.7
        trained[0] = False
        examples.append(example(rng.integers(1, VOCABULARY, length).tolist(), trained.tolist(), int(rng.integers(99))))
    return examples


lengths_lists = st.lists(st.integers(1, CAPACITY), max_size=60)


def as_lists(bins: list[np.ndarray]) -> list[list[int]]:
    return [members.tolist() for members in bins]


def bins_by_definition(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best fit decreasing, looking at every bin for every length."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [(room, number) for number, room in enumerate(rooms) if room >= lengths[index]]
        if not fitting:
            bins.append([])
            rooms.append(capacity)
        number = min(fitting)[1] if fitting else len(bins) - 1
        bins[number].append(index)
        rooms[number] -= lengths[index]
    return bins


@given(lengths_lists)
def test_bins_are_those_of_the_definition(lengths: list[int]) -> None:
    assert as_lists(best_fit_decreasing(np.array(lengths), CAPACITY)) == bins_by_definition(lengths, CAPACITY)


@given(lengths_lists)
def test_each_index_is_in_one_bin_and_no_two_bins_would_fit_in_one(lengths: list[int]) -> None:
    bins = as_lists(best_fit_decreasing(np.array(lengths), CAPACITY))
    assert sorted(index for members in bins for index in members) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in members) for members in bins]
    assert all(load <= CAPACITY for load in loads)
    assert all(one + other > CAPACITY for one, other in combinations(loads, 2))
    assert len(bins) <= 2 * sum(lengths) / CAPACITY + 1


@given(st.lists(st.sets(st.integers(1, CAPACITY - 1)), min_size=1, max_size=20))
def test_bins_are_near_the_fewest(cuts: list[set[int]]) -> None:
    """Full bins that are cut into pieces can be put together again: the fewest bins are known."""
    pieces = [stop - start for inside in cuts for start, stop in pairwise([0, *sorted(inside), CAPACITY])]
    assert len(cuts) <= len(best_fit_decreasing(np.array(pieces), CAPACITY)) <= 11 / 9 * len(cuts) + 4


def test_a_length_goes_into_the_fullest_bin_with_room() -> None:
    bins = best_fit_decreasing(np.array([2, 6, 4, 7, 3, 3]), 10)
    assert as_lists(bins) == [[3, 4], [1, 2], [5, 0]]  # 7 + 3, 6 + 4, 3 + 2


def test_nothing_needs_no_bin() -> None:
    assert best_fit_decreasing(np.array([], dtype=np.int64), 8) == []


@pytest.mark.parametrize(("lengths", "found"), [([3, 9], "3 to 9"), ([0, 3], "0 to 3")])
@pytest.mark.parametrize("packing", [True, False])
def test_lengths_that_fit_no_bin_are_refused(lengths: list[int], found: str, packing: bool) -> None:
    with pytest.raises(ValueError, match=f"expected lengths from 1 to 8, found {found}"):
        best_fit_decreasing(np.array(lengths), 8)
    examples = [example([1] * length, [False] * length) for length in lengths]
    with pytest.raises(ValueError, match=f"found {found}"):
        make_packs(examples, 8, packing)


def test_two_documents_in_a_pack() -> None:
    packs = make_packs(
        [example([11, 12, 13], [False, True, True], 5), example([21, 22, 23, 24], [False, False, True, False], 2)], 8
    )
    assert packs.starts.tolist() == [0, 7]
    assert packs.documents.tolist() == [1, 0]
    assert packs.tokens.tolist() == [21, 22, 23, 24, 11, 12, 13]
    assert packs.targets.tolist() == [-100, 23, -100, -100, 12, 13, -100]
    assert packs.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert (packs.trained.tolist(), packs.n_bytes.tolist()) == ([3], [7])


def test_a_first_token_is_no_target_of_the_document_before() -> None:
    packs = make_packs([example([1, 2], [True, True]), example([3], [True])], 8)
    assert packs.targets.tolist() == [2, -100, -100]
    assert packs.trained.tolist() == [1]


@given(lengths=lengths_lists, packing=st.booleans())
def test_packs_hold_every_document_whole_and_targets_stay_inside(lengths: list[int], packing: bool) -> None:
    examples = random_examples(lengths)
    packs = make_packs(examples, CAPACITY, packing)
    assert sorted(packs.documents.tolist()) == list(range(len(examples)))
    assert packs.trained.sum() == sum(int(one.trained.sum()) for one in examples)
    assert packs.n_bytes.sum() == sum(one.n_bytes for one in examples)
    assert len(packs) == len(packs.starts) - 1 == len(packs.document_starts) - 1
    at = 0
    for number in range(len(packs)):
        members = packs.documents_of(number)
        assert packs.starts[number] == at
        for one in (examples[i] for i in members):
            inside = slice(at, at + len(one.tokens))
            np.testing.assert_array_equal(packs.tokens[inside], one.tokens)
            np.testing.assert_array_equal(packs.positions[inside], np.arange(len(one.tokens)))
            expected = [*np.where(one.trained, one.tokens, IGNORED)[1:], IGNORED]
            np.testing.assert_array_equal(packs.targets[inside], expected)
            at = inside.stop
        assert packs.starts[number + 1] == at <= packs.starts[number] + CAPACITY
        assert packs.trained[number] == sum(int(examples[i].trained.sum()) for i in members)
        assert packs.n_bytes[number] == sum(examples[i].n_bytes for i in members)


def test_without_packing_each_pack_is_a_document_in_order() -> None:
    packs = make_packs(random_examples([3, 9, 5]), CAPACITY, packing=False)
    assert packs.documents.tolist() == [0, 1, 2]
    assert packs.starts.tolist() == [0, 3, 12, 17]
    assert packs.lengths.tolist() == [3, 9, 5]


def assert_same(packs: Packs, other: Packs) -> None:
    for name, values in vars(packs).items():
        np.testing.assert_array_equal(vars(other)[name], values)
        assert vars(other)[name].dtype == values.dtype, name


@settings(deadline=None)  # the first conversion loads what pyarrow needs
@given(lengths=lengths_lists, packing=st.booleans())
def test_packs_return_from_a_table(lengths: list[int], packing: bool) -> None:
    packs = make_packs(random_examples(lengths), CAPACITY, packing)
    assert_same(Packs.from_table(packs.to_table()), packs)


def test_packs_return_from_parquet_in_any_cut(tmp_path: Path) -> None:
    packs = make_packs(random_examples([7, 9, 24, 3, 3, 15, 20, 1]), CAPACITY)
    table = packs.to_table()
    assert str(table.schema).replace("element", "item") == (
        "tokens: list<item: int32>\n  child 0, item: int32\n"
        "targets: list<item: int32>\n  child 0, item: int32\n"
        "positions: list<item: int32>\n  child 0, item: int32\n"
        "documents: list<item: int64>\n  child 0, item: int64\n"
        "trained: int64\nbytes: int64"
    )
    pq.write_table(table, tmp_path / "packs.parquet", row_group_size=2)
    assert_same(Packs.from_table(pq.read_table(tmp_path / "packs.parquet")), packs)
    last = Packs.from_table(table.slice(len(packs) - 1))
    np.testing.assert_array_equal(last.tokens, packs.tokens[packs.starts[-2] :])
    assert last.starts.tolist() == [0, packs.starts[-1] - packs.starts[-2]]


def test_a_batch_is_padded_at_its_end() -> None:
    packs = make_packs([example([11, 12, 13], [False, True, True]), example([21, 22], [False, True])], 8, packing=False)
    rows = batch(packs, [1, -1, 0], pad_token=9, multiple=4)
    assert {name: values.tolist() for name, values in rows.items()} == {
        "input_ids": [[21, 22, 9, 9], [9, 9, 9, 9], [11, 12, 13, 9]],
        "targets": [[22, -100, -100, -100], [-100] * 4, [12, 13, -100, -100]],
        "position_ids": [[0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 2, 0]],
    }
    assert {values.dtype for values in rows.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(("longest", "width"), [(7, 8), (8, 8), (9, 16)])
def test_a_batch_is_as_wide_as_a_multiple(longest: int, width: int) -> None:
    packs = make_packs(random_examples([longest]), CAPACITY)
    assert batch(packs, [0, -1], pad_token=0)["input_ids"].shape == (2, width)


def test_a_batch_of_empty_packs_has_columns() -> None:
    packs = make_packs([], CAPACITY)
    assert batch(packs, [-1, -1], pad_token=0)["targets"].tolist() == [[IGNORED] * 8] * 2


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS = {
    "qwen": (Qwen2ForCausalLM, Qwen2Config, {}),
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "phi": (Phi3ForCausalLM, Phi3Config, {}),
    "phi, sliding window": (Phi3ForCausalLM, Phi3Config, {"sliding_window": 4}),
    "phi, long": (
        Phi3ForCausalLM,
        Phi3Config,
        {
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [8.0] * 4,
                "original_max_position_embeddings": 16,
            },
        },
    ),
}


def tiny_model(name: str, attention: str) -> PreTrainedModel:
    model_class, config_class, extra = MODELS[name]
    torch.manual_seed(0)
    config = config_class(**SIZES, **extra, attn_implementation=attention)
    config.initializer_range = 0.3  # sharp attention: what leaks would show
    return model_class(config).eval()


def logits(model: PreTrainedModel, input_ids: np.ndarray, position_ids: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        given = {"input_ids": torch.from_numpy(input_ids), "position_ids": torch.from_numpy(position_ids)}
        return model(**given, use_cache=False).logits


def largest_difference(model: PreTrainedModel, examples: list[Example], packs: Packs, rows: dict) -> float:
    """Between logits of documents in a batch of all packs, and of each document alone."""
    together = logits(model, rows["input_ids"], rows["position_ids"])
    differences = []
    for number in range(len(packs)):
        at = 0
        for i in packs.documents_of(number):
            tokens = examples[i].tokens.astype(np.int64)[None]
            alone = logits(model, tokens, np.arange(tokens.shape[1])[None])[0]
            differences.append((together[number, at : at + len(alone)] - alone).abs().max().item())
            at += len(alone)
    assert len(differences) == len(examples)
    return max(differences)


every_model = pytest.mark.parametrize("name", MODELS)
every_attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])


@every_model
@every_attention
def test_a_model_sees_each_document_of_a_pack_alone(name: str, attention: str) -> None:
    examples = random_examples([12, 9, 3, 1, 1, 7, 14, 5, 2])
    packs = make_packs(examples, CAPACITY)
    rows = batch(packs, range(len(packs)), pad_token=0)
    assert 1 < len(packs) < len(examples)
    model = tiny_model(name, attention)
    assert largest_difference(model, examples, packs, rows) < 1e-4

    rows["position_ids"] = np.broadcast_to(np.arange(rows["position_ids"].shape[1]), rows["position_ids"].shape).copy()
    assert largest_difference(model, examples, packs, rows) > 1e-2, "positions that do not restart mix documents"


@every_model
def test_padding_changes_no_document(name: str) -> None:
    """A short pack beside one of many short documents: most of its row is padding."""
    examples = random_examples([4] * 10 + [3])
    packs = make_packs(examples, 40)
    rows = batch(packs, [*range(len(packs)), -1], pad_token=0)
    assert rows["position_ids"].max() == 3
    assert largest_difference(tiny_model(name, "sdpa"), examples, packs, rows) < 1e-4


def test_positions_counted_on_in_padding_would_change_documents_under_longrope() -> None:
    examples = random_examples([4] * 10 + [3])
    packs = make_packs(examples, 40)
    rows = batch(packs, range(len(packs)), pad_token=0)
    rows["position_ids"][1, 3:] = np.arange(rows["position_ids"].shape[1] - 3)
    assert largest_difference(tiny_model("phi, long", "sdpa"), examples, packs, rows) > 1e-2
    assert largest_difference(tiny_model("phi", "sdpa"), examples, packs, rows) < 1e-4


def test_gradients_of_a_batch_are_finite_with_empty_packs() -> None:
    packs = make_packs(random_examples([12, 9, 3]), CAPACITY)
    rows = batch(packs, [0, -1], pad_token=0)
    model = tiny_model("qwen", "sdpa").train()
    given = {name: torch.from_numpy(rows[name]) for name in ("input_ids", "position_ids")}
    output = model(**given, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), torch.from_numpy(rows["targets"]).flatten())
    loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())
