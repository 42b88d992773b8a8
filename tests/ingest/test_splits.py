"""Which files are for training, by the names of files and folders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.ingest.splits import Unclear, are_mixed, asked_for, counted, for_training, split_of


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.jsonl", "train"),
        ("TRAIN.CSV", "train"),
        ("validation.json", "validation"),
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/test-00000-of-00001-1a2b3c.parquet", "test"),
        ("train_sft-00000-of-00003.parquet", "train_sft"),
        ("data/random-00001-of-00003.csv", "random"),
        ("en/c4-train.00000-of-01024.json.gz", "train"),
        ("queries.afriqa.swa.en.dev.jsonl.gz", "dev"),
        ("xquad_test.jsonl", "test"),
        ("test1.jsonl", "test"),
        ("eng_Latn.devtest", "devtest"),
        ("dev/a.csv", "dev"),
        ("sw/training/part-0.parquet", "training"),
        ("train/test-cases.jsonl", "train"),
        ("split=validation/part-0.parquet", "validation"),
        ("lang=dev/part-0.parquet", None),
        ("lang=sw/part-0.parquet", None),
        ("trainer.jsonl", None),
        ("contest.jsonl", None),
        ("retrain.csv", None),
        ("part-00000-5f3e-c000.snappy.parquet", None),
        ("a.jsonl", None),
        ("/x.jsonl", None),
    ],
)
def test_the_split_is_told_by_whole_words_of_folders_and_names(path: str, split: str | None) -> None:
    assert split_of(path) == split


@pytest.mark.parametrize(
    ("splits", "read"),
    [
        (["train", "test", "validation"], "train"),
        (["training", "dev"], "training"),
        (["train", "random"], "train"),
        (["train_sft", "test_sft"], "train_sft"),
        (["train", "train_extra", "test"], "train"),
    ],
)
def test_of_a_folder_with_splits_the_one_for_training_is_read(splits: list[str], read: str) -> None:
    assert for_training(splits, splits, [1] * len(splits)) == [split == read for split in splits]


@pytest.mark.parametrize(
    "splits", [[None, None], ["train", None], ["test", "test"], ["wiki", "news"], [None, "test"], []]
)
def test_a_folder_whose_names_do_not_plainly_say_splits_is_read_whole(splits: list[str | None]) -> None:
    assert all(for_training([str(split) for split in splits], splits, [9] * len(splits)))


@pytest.mark.parametrize("splits", [["dev", "test"], ["en", "test"], ["train_sft", "train_gen", "test_sft"]])
def test_where_no_split_or_several_are_for_training_it_is_asked(splits: list[str]) -> None:
    with pytest.raises(Unclear):
        for_training(splits, splits, [1] * len(splits))


@pytest.mark.parametrize(
    "paths", [["train.csv", "test.csv", "more.csv"], ["sw/train/a", "sw/test/a", "sw/b"], ["d/train", "test", "d/b"]]
)
def test_what_lies_beside_files_for_training_is_left_out_unless_it_is_the_larger_part(paths: list[str]) -> None:
    assert for_training(paths, ["train", "test", None], [10, 1, 10]) == [True, False, False]
    with pytest.raises(Unclear):
        for_training(paths, ["train", "test", None], [10, 1, 11])


@pytest.mark.parametrize(
    "paths", [["sib/train", "sib/test", "wiki/a"], ["x/train/a", "x/test/b", "y/c"], ["d/train", "d/test", "b"]]
)
def test_what_has_a_folder_of_its_own_is_read_beside_the_splits_of_others(paths: list[str]) -> None:
    assert for_training(paths, ["train", "test", None], [10, 1, 100]) == [True, False, True]


@pytest.mark.parametrize(
    ("wanted", "read", "absent"),
    [
        (["test"], ["test"], []),
        (["TEST", "train"], ["train", "test"], []),
        (["dev"], ["validation"], []),
        (["validation", "extra"], ["validation"], ["extra"]),
        (["devtest"], ["test"], []),
    ],
)
def test_a_split_is_found_by_its_name_or_another_word_for_it(
    wanted: list[str], read: list[str], absent: list[str]
) -> None:
    splits = ["train", "validation", "test", None]
    flags, missing = asked_for(splits, wanted)
    assert [split for split, flag in zip(splits, flags, strict=True) if flag] == read
    assert missing == absent


def test_a_split_of_that_name_comes_before_another_word_for_it() -> None:
    assert asked_for(["dev", "validation"], ["dev"]) == ([True, False], [])


def test_splits_are_counted_in_words() -> None:
    assert counted(["test", None, "test"], [1_000_000, 100_000, 1_000_000]) == (
        "test (2 files, 2.0 MB), no split (1 file, 0.1 MB)"
    )


@given(st.lists(st.sampled_from(["train", "test", "dev", "wiki", None]), max_size=8))
def test_no_other_split_is_ever_read_with_the_one_for_training(splits: list[str | None]) -> None:
    try:
        flags = for_training([str(split) for split in splits], splits, [1] * len(splits))
    except Unclear:
        return
    read = {split for split, flag in zip(splits, flags, strict=True) if flag}
    assert not ("train" in read and read & {"test", "dev", "wiki"})
    assert not are_mixed([split for split, flag in zip(splits, flags, strict=True) if flag]) or None in read
