"""A folder is read as its owner wrote it, and what of it is not read is said."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from compass_ray.errors import ConfigError, DataError, EmptyInput, ResourcesMissing
from compass_ray.ingest.config import FilesConfig, SourceConfig
from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.listing import Listing, list_source
from compass_ray.ingest.readers import read


def tree(folder: Path, *names: str, **contents: str) -> Path:
    """Files of a few bytes below a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"text": "{name}"}}\n')
    return folder


def listed(path: Path | str | list[str], **given: Any) -> Listing:
    given_path = path if isinstance(path, list) else str(path)
    return list_source("s", SourceConfig(role="pool", path=given_path, lang="en", **given))


def uris(listing: Listing) -> list[str]:
    return [file.uri for file in listing.files]


def left(listing: Listing) -> dict[str, int]:
    return {one.reason: one.files for one in listing.left_out}


# --- datasets on disk ---------------------------------------------------------------------------


def saved(folder: Path, rows: int, shards: int = 1) -> Path:
    import datasets

    found = datasets.Dataset.from_list([{"text": f"row {number}"} for number in range(rows)])
    found.save_to_disk(str(folder), num_shards=shards)
    return folder


def texts(listing: Listing) -> list[str]:
    units = [ReadUnit("s", file) for file in listing.files]
    return [text for unit in units for batch in read(unit, ["text"]) for text in batch.values("text")]


def test_of_a_saved_dataset_only_the_files_of_its_state_are_read(tmp_path: Path) -> None:
    saved(tmp_path / "d", 6, shards=3)
    saved(tmp_path / "d", 2)
    found = listed(tmp_path / "d")
    assert texts(found) == ["row 0", "row 1"]
    assert left(found) == {"not in state.json": 3, "about the data": 2}
    assert re.match(
        r"not read: not in state\.json \(3 files, [\d,]+ bytes: data-00000-of-00003\.arrow, ", found.said[0]
    )


def test_rows_that_were_picked_by_indices_are_saved_as_rows(tmp_path: Path) -> None:
    import datasets

    picked = datasets.Dataset.from_list([{"text": f"row {number}"} for number in range(9)]).select([7, 3])
    picked.save_to_disk(str(tmp_path / "d"))
    assert texts(listed(tmp_path / "d")) == ["row 7", "row 3"]


def test_of_a_saved_dict_of_datasets_train_is_read_and_others_if_asked_for(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"text": f"row {number}"} for number in range(10)])
    rows.train_test_split(0.2, shuffle=False).save_to_disk(str(tmp_path / "d"))
    assert texts(listed(tmp_path / "d")) == [f"row {number}" for number in range(8)]
    assert texts(listed(tmp_path / "d", split="test")) == ["row 8", "row 9"]
    assert len(texts(listed(tmp_path / "d", split="all"))) == 10
    assert left(listed(tmp_path / "d")) == {"split test": 1, "about the data": 5}


def test_a_saved_split_that_is_named_itself_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"text": "a"}], split="test")
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "d"))
    assert texts(listed(tmp_path / "d/test")) == ["a"]


def test_splits_that_are_languages_are_read_as_one(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict({"sw": rows, "yo": rows}).save_to_disk(str(tmp_path / "d"))
    assert uris(listed(tmp_path / "d")) == ["sw/data-00000-of-00001.arrow", "yo/data-00000-of-00001.arrow"]
    assert uris(listed(tmp_path / "d", split="sw")) == ["sw/data-00000-of-00001.arrow"]


def test_a_folder_of_a_split_that_the_dict_no_longer_names_is_stale(tmp_path: Path) -> None:
    for split in ("train", "old"):
        saved(tmp_path / "d" / split, 1)
    (tmp_path / "d/dataset_dict.json").write_text('{"splits": ["train"]}')
    found = listed(tmp_path / "d", split="all")
    assert uris(found) == ["train/data-00000-of-00001.arrow"]
    assert left(found)["not in dataset_dict.json"] == 1


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("state.json", "{", "not JSON, so which files hold cannot be told"),
        ("state.json", "[]", "expected an object, found list; save the dataset again"),
        ("state.json", "{}", "expected _data_files, a list of files by name, each once; save the dataset again"),
        ("state.json", '{"_data_files": ["a.arrow"]}', "expected _data_files, a list of files by name"),
        ("state.json", '{"_data_files": [{"filename": "a.arrow"}, {"filename": "a.arrow"}]}', "each once"),
        (
            "state.json",
            '{"_data_files": [{"filename": "a.arrow"}, {"filename": "b.arrow"}]}',
            r"1 of 2 data files that it names are not there, such as 'b\.arrow'; copy the folder again, whole",
        ),
        ("state.json", '{"_data_files": [{"filename": "../secret.arrow"}]}', r"such as '\.\./secret\.arrow'"),
        ("state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}', "such as '/etc/passwd'"),
        ("state.json", '{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}', "save it again"),
        ("dataset_dict.json", '{"splits": "train"}', "expected splits, a list of names"),
        (
            "dataset_dict.json",
            '{"splits": ["../../etc"]}',
            r"names the split '\.\./\.\./etc', whose folder is not there",
        ),
    ],
)
def test_a_state_that_cannot_be_followed_is_an_error_that_names_it(
    tmp_path: Path, name: str, state: str, message: str
) -> None:
    tree(tmp_path, "secret.arrow", "d/a.arrow")
    (tmp_path / "d" / name).write_text(state)
    with pytest.raises(DataError, match=rf"^{tmp_path}/d/{name}: .*{message}"):
        listed(tmp_path / "d")


# --- checkouts of the hub -----------------------------------------------------------------------


def card(*lines: str) -> str:
    return "\n".join(["---", "license: mit", *lines, "dataset_info: {features: []}", "---", "# A dataset", ""])


def test_a_checkout_with_splits_is_read_for_training_and_the_rest_is_said(tmp_path: Path) -> None:
    names = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"]
    root = tree(tmp_path / "hub", "README.md", "dataset_infos.json", ".gitattributes", ".git/x", "LICENSE")
    tree(root / "data", *names)
    found = listed(root)
    assert uris(found) == [f"data/{name}" for name in sorted(names)[1:]]
    assert left(found) == {"split test": 1, "about the data": 3, "hidden": 2}
    assert "split test (1 file, 40 bytes: data/test-00000-of-00001.parquet)" in found.said[0]
    assert uris(listed(root, split=["test", "train"])) == [f"data/{name}" for name in sorted(names)]


def test_splits_in_several_formats_are_told_apart(tmp_path: Path) -> None:
    root = tree(tmp_path / "hub", "train.jsonl", "test.jsonl", "validation.json", "labels.json", "tokenizer.json")
    assert uris(listed(root)) == ["train.jsonl"]
    assert uris(listed(root, split="dev")) == ["validation.json"]
    assert uris(listed(root, split="all")) == ["test.jsonl", "train.jsonl", "validation.json"]
    assert left(listed(root)) == {"split test": 1, "split validation": 1, "JSON of no split": 1, "about the data": 1}


def test_a_json_file_of_no_split_is_data_where_others_are_of_none(tmp_path: Path) -> None:
    assert uris(listed(tree(tmp_path / "in", "a.jsonl", "b.json"))) == ["a.jsonl", "b.json"]


def test_the_card_says_which_files_are_which_split(tmp_path: Path) -> None:
    root = tree(tmp_path / "hub", "one.jsonl", "two.jsonl", "old.jsonl", "test/three.jsonl")
    (root / "README.md").write_text(
        card("configs:", "- config_name: default", "  data_files:", "  - split: train", "    path: one.jsonl",
             "  - split: test", "    path: ['two.jsonl', 'test/*']")
    )  # fmt: skip
    assert uris(listed(root)) == ["one.jsonl"]
    assert uris(listed(root, split="test")) == ["test/three.jsonl", "two.jsonl"]
    assert left(listed(root)) == {"split test": 2, "not in README.md": 1, "about the data": 1}


def test_the_default_config_of_a_card_is_read_else_all(tmp_path: Path) -> None:
    root = tree(tmp_path / "hub", "sample/a.jsonl", "all/a.jsonl", "all/b.jsonl")
    configs = ["configs:", "- {config_name: sample, data_files: sample/*}", "- {config_name: full, data_dir: all}"]
    (root / "README.md").write_text(card(*configs))
    found = listed(root)
    assert uris(found) == ["all/a.jsonl", "all/b.jsonl", "sample/a.jsonl"]
    assert found.notes == (f"{root}: README.md has 2 configs (sample, full), all read",)
    (root / "README.md").write_text(card(*configs).replace("data_dir: all", "data_dir: all, default: true"))
    found = listed(root)
    assert uris(found) == ["all/a.jsonl", "all/b.jsonl"]
    assert left(found) == {"config sample": 1, "about the data": 1}


def test_a_card_that_names_files_elsewhere_says_so_and_reads_none_of_them(tmp_path: Path) -> None:
    root = tree(tmp_path / "hub", "a.jsonl")
    tree(tmp_path, "secret.jsonl")
    files = "data_files: [a.jsonl, ../secret.jsonl, 'hf://datasets/x/*']"
    (root / "README.md").write_text(card("configs:", f"- {{config_name: x, {files}}}"))
    found = listed(root)
    assert uris(found) == ["a.jsonl"]
    assert found.notes == (
        f"{root}: README.md names 2 patterns of files that are not here (../secret.jsonl, hf://datasets/x/*)",
    )
    (root / "README.md").write_text(card("configs:", "- {config_name: x, data_files: 'data/*'}"))
    with pytest.raises(DataError, match=r"README\.md names the data files data/\*, none of which is here; copy them"):
        listed(root)


@pytest.mark.parametrize(
    "lines",
    [
        ["configs: [", "  - x"],
        ["configs: 3"],
        ["configs: [{data_files: {train: 3}}]"],
        ["configs: [{data_files: [{path: a.jsonl}]}]"],
        ["configs:", "- &a {config_name: x}", "- *a"],
    ],
)
def test_a_card_that_is_not_understood_is_said_and_names_tell(tmp_path: Path, lines: list[str]) -> None:
    root = tree(tmp_path / "hub", "train.jsonl", "test.jsonl")
    (root / "README.md").write_text(card(*lines))
    found = listed(root)
    assert uris(found) == ["train.jsonl"]
    assert "README.md was not understood (" in found.notes[0]
    assert "so files are told by their names" in found.notes[0]


def test_a_clone_without_large_files_is_an_error_that_says_how_to_get_them(tmp_path: Path) -> None:
    root = tree(tmp_path / "hub", "a.jsonl")
    (root / "b.parquet").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9999\n")
    with pytest.raises(DataError, match=r"hub/b\.parquet: a pointer to a file in Git LFS, .*; run git lfs pull"):
        listed(root)


@pytest.mark.parametrize(
    ("pattern", "read"),
    [
        ("*", ["a.jsonl", "b.md"]),
        ("**", ["a.jsonl", "b.md"]),
        ("*.md", ["README.md", "b.md"]),
        ("*.json", []),
        ("config.json", ["config.json"]),
        ("README.md", ["README.md"]),
    ],
)
def test_a_glob_takes_nothing_for_data_that_stands_beside_it(tmp_path: Path, pattern: str, read: list[str]) -> None:
    root = tree(tmp_path / "hub", "a.jsonl", "b.md", "README.md", "LICENSE", "config.json", "dataset_infos.json")
    if read:
        assert uris(listed(f"{root}/{pattern}")) == read
    else:
        with pytest.raises(
            EmptyInput, match=r"^sources\.s: no file is left to read; not read: about the data \(2 files"
        ):
            listed(f"{root}/{pattern}")


def test_a_glob_over_a_saved_dataset_and_its_state_follows_the_state(tmp_path: Path) -> None:
    saved(tmp_path / "d", 6, shards=3)
    saved(tmp_path / "d", 2)
    assert uris(listed(f"{tmp_path}/**")) == ["d/data-00000-of-00001.arrow"]
    assert len(listed(f"{tmp_path}/d/*.arrow").files) == 4


# --- splits -------------------------------------------------------------------------------------


def test_a_folder_without_splits_is_read_whole_and_nothing_is_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "sw.jsonl", "lang=yo/part-0.jsonl", "wiki-00000-of-00001.jsonl", "b.parquet")
    found = listed(root)
    assert len(found.files) == 4
    assert found.said == []


def test_what_to_read_is_asked_where_it_is_not_plain(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "dev.jsonl", "test.jsonl")
    with pytest.raises(ConfigError) as caught:
        listed(root)
    assert str(caught.value) == (
        f"sources.s.split: what of {root} to read is not plain: it has dev (1 file, 22 bytes), test (1 file, 23 "
        "bytes); name a split or several, or 'all'"
    )
    assert uris(listed(root, split="all")) == ["dev.jsonl", "test.jsonl"]


def test_a_split_that_is_not_there_is_an_error_that_says_what_is(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "train.jsonl", "test.jsonl")
    with pytest.raises(
        ConfigError, match=r"^sources\.s\.split: no file is of split 'extra'; found test \(1 file, .*train"
    ):
        listed(root, split=["train", "extra"])


def test_the_splits_of_a_glob_are_read_as_one_said_and_chosen_among(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "train.jsonl", "test.jsonl")
    found = listed(f"{root}/*.jsonl")
    assert uris(found) == ["test.jsonl", "train.jsonl"]
    assert found.said == [
        "read as one: test (1 file, 23 bytes), train (1 file, 24 bytes); sources.s.split chooses",
    ]
    assert uris(listed(f"{root}/*.jsonl", split="train")) == ["train.jsonl"]
    assert listed([f"{root}/train.jsonl", f"{root}/test.jsonl"]).said == []


def test_a_file_that_is_named_itself_is_read_beside_the_training_split_of_its_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "train.jsonl", "test.jsonl", "dev.jsonl")
    for paths in ([str(root), f"{root}/dev.jsonl"], [f"{root}/dev.jsonl", str(root)]):
        found = listed(paths)
        assert uris(found) == ["dev.jsonl", "train.jsonl"]
        assert left(found) == {"split test": 1}


def test_of_evaluations_all_splits_are_read_and_it_is_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "train.jsonl", "test.jsonl")
    found = list_source("quiz", FilesConfig(path=str(root)), "ingest.decontaminate.evaluations")
    assert uris(found) == ["test.jsonl", "train.jsonl"]
    assert found.notes[0].endswith("; ingest.decontaminate.evaluations.quiz.split chooses")


def test_excluded_files_are_no_splits(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "train.jsonl", "a.jsonl", "test.jsonl")
    assert uris(listed(root, exclude=["test*"])) == ["a.jsonl", "train.jsonl"]


# --- what is not data ---------------------------------------------------------------------------


def test_files_that_are_passed_over_are_counted_by_their_suffix(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a.jsonl", "b.tar", "c.tar", "d.tar.gz", "e.zip", "f.avro", "g.orc", "h.txt", "i")
    tree(root, "j.jsonl.br", "k.parquet.gz")
    found = listed(root)
    assert uris(found) == ["a.jsonl"]
    assert left(found) == {
        ".tar": 2, ".tar.gz": 1, ".zip": 1, ".avro": 1, ".orc": 1, ".txt": 1, "no suffix": 1, ".br": 1,
        ".parquet.gz": 1,
    }  # fmt: skip
    assert [one.names for one in found.left_out if one.reason == ".tar"] == [("b.tar", "c.tar")]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (
            ["a.txt", "b.txt"],
            ConfigError,
            r"found \.txt \(2 files, 36 bytes: a\.txt, b\.txt\); set sources\.s\.format to 'lines' \(a document a line "
            r"of a \.txt file\) or 'text' \(a document a file\)$",
        ),
        (
            ["00000.tar", "00001.tar"],
            EmptyInput,
            r"\.tar \(2 files, .*\); unpack archives \(such as the shards of a web",
        ),
        (["a.zip"], EmptyInput, "unpack archives"),
        (["a.md"], ConfigError, r"; set sources\.s\.format to 'markdown' to read \.md files$"),
        (["a.avro", "b.orc"], EmptyInput, "write Avro and ORC as Parquet$"),
        (["part-00000", "part-00001"], ConfigError, "set sources.s.format to what the files without a suffix are$"),
        (["README.md", "LICENSE"], EmptyInput, r"found about the data \(2 files, 42 bytes: LICENSE, README\.md\)$"),
    ],
)
def test_a_folder_without_data_is_an_error_that_says_what_it_holds_and_what_to_do(
    tmp_path: Path, names: list[str], error: type[Exception], message: str
) -> None:
    root = tree(tmp_path / "in", *names)
    with pytest.raises(
        error, match=rf"^sources\.s\.path: no data below {root}: expected names that end in .*{message}"
    ):
        listed(root)


def test_a_folder_without_files_of_the_declared_format_says_how_to_read_the_others(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a.json")
    with pytest.raises(ConfigError) as caught:
        listed(root, format="jsonl")
    assert str(caught.value) == (
        f"sources.s.path: no data below {root}: expected files whose names tell the format jsonl, found .json (1 file, "
        "19 bytes: a.json); name the files by a glob (**/*.json) or correct sources.s.format"
    )
    assert uris(listed(f"{root}/**/*.json", format="jsonl")) == ["a.json"]


def test_the_output_of_spark_is_read_without_its_marks(tmp_path: Path) -> None:
    part = "part-00000-0a1b-c000.snappy.parquet"
    root = tree(tmp_path / "out", f"lang=sw/{part}", f"lang=yo/{part}", f"_lang=ha/{part}", "_SUCCESS", "._SUCCESS.crc")
    tree(root, f"_temporary/0/{part}", "_spark_metadata/0", f"lang=sw/.{part}.crc", f"lang=sw/_x/{part}")
    found = listed(root)
    assert uris(found) == [f"_lang=ha/{part}", f"lang=sw/{part}", f"lang=yo/{part}"]
    assert left(found) == {"hidden": 6}
    assert uris(listed(f"{root}/**/*.parquet")) == [f"_lang=ha/{part}", f"lang=sw/{part}", f"lang=yo/{part}"]
    assert left(listed(f"{root}/**/*.parquet")) == {"hidden": 2}


def test_parts_without_a_suffix_are_of_the_declared_format(tmp_path: Path) -> None:
    root = tree(tmp_path / "out", "part-00000", "part-r-00001", "000001_0", "part-00002.gz", "LICENSE", "_SUCCESS")
    found = listed(root, format="jsonl")
    assert uris(found) == ["000001_0", "part-00000", "part-00002.gz", "part-r-00001"]
    assert left(found) == {"about the data": 1, "hidden": 1}


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path: Path) -> None:
    root = tree(tmp_path, ".cache/_x/a.jsonl", ".cache/_x/_y/b.jsonl", ".cache/_x/c.jsonl")
    assert uris(listed(root / ".cache/_x")) == ["a.jsonl", "c.jsonl"]
    assert uris(listed(f"{root}/.cache/_x/*.jsonl")) == ["a.jsonl", "c.jsonl"]
    assert uris(listed(f"{root}/.cache/_x/_*/*.jsonl")) == ["_y/b.jsonl"]
    with pytest.raises(EmptyInput, match=r"no file matches \S+, only 3 hidden; check the path"):
        listed(root / ".cache", exclude=[])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "Delta"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
    ],
)
def test_a_table_whose_log_says_which_files_hold_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    root = tree(tmp_path / "in", name, "a.parquet")
    with pytest.raises(ConfigError, match=rf"^sources\.s\.path: holds a table of {kind} \({name}\), whose log says"):
        listed(root)
    assert uris(listed(f"{root}/*.parquet")) == ["a.parquet"]


# --- names and links ----------------------------------------------------------------------------


def test_a_path_that_is_there_is_taken_as_it_is_spelled(tmp_path: Path) -> None:
    root = tree(tmp_path, "usage[1].jsonl", "usage1.jsonl", "d[1]/a.jsonl", "d1/b.jsonl", "w?/*.jsonl", "w?/c.jsonl")
    assert uris(listed(root / "usage[1].jsonl")) == ["usage[1].jsonl"]
    assert uris(listed(root / "d[1]")) == ["a.jsonl"]
    assert uris(listed(f"{root}/d[1]/*.jsonl")) == ["a.jsonl"]
    assert uris(listed(f"{root}/w?/*.jsonl")) == ["*.jsonl"]
    assert uris(listed(f"{root}/usage[12].jsonl")) == ["usage1.jsonl"]
    assert uris(listed([f"{root}/d[1]/*.jsonl", f"{root}/usage[1].jsonl"])) == ["d[1]/a.jsonl", "usage[1].jsonl"]


def test_a_file_of_two_names_is_read_once_and_it_is_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a.jsonl", "x/b.jsonl")
    (root / "link.jsonl").symlink_to("a.jsonl")
    (root / "y").symlink_to("x")
    found = listed(root)
    assert uris(found) == ["a.jsonl", "x/b.jsonl"]
    assert left(found) == {"another name of a file that is read": 2}
    assert uris(listed([f"{root}/a.jsonl", f"{root}/x/../a.jsonl", f"{root}/*.jsonl"])) == ["a.jsonl"]


def test_links_to_one_file_elsewhere_are_files_of_their_own(tmp_path: Path) -> None:
    blob = tree(tmp_path, "blobs/1f3870be") / "blobs/1f3870be"
    for name in ("sw", "yo"):
        (tmp_path / "snapshot" / name).mkdir(parents=True)
        (tmp_path / "snapshot" / name / "empty.jsonl").symlink_to(blob)
    assert uris(listed(tmp_path / "snapshot")) == ["sw/empty.jsonl", "yo/empty.jsonl"]


def test_links_that_turn_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a/x.jsonl", "b/y.jsonl")
    (root / "a/up").symlink_to(root)
    (root / "b/self").symlink_to("self")
    found = listed(root)
    assert uris(found) == ["a/x.jsonl", "b/y.jsonl"]
    assert left(found)["a link to nothing"] == 1


def test_a_link_to_nothing_is_counted_and_never_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a.jsonl")
    (root / "b.jsonl").symlink_to("gone.jsonl")
    assert left(listed(root)) == left(listed(f"{root}/*.jsonl")) == {"a link to nothing": 1}
    with pytest.raises(
        EmptyInput, match=r"no file matches \S+/b\.jsonl, only a link to nothing \(\S+/b\.jsonl\); check"
    ):
        listed(root / "b.jsonl")


def test_a_folder_that_may_not_be_listed_is_an_error_unless_it_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "in", "a.jsonl", "closed/b.jsonl", ".trash/c.jsonl")
    closed = {f"{root}/.trash"}
    scandir = os.scandir

    def as_another_user(folder: str) -> Any:
        if folder in closed:
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", as_another_user)
    assert uris(listed(root)) == ["a.jsonl", "closed/b.jsonl"]
    closed.add(f"{root}/closed")
    with pytest.raises(
        ResourcesMissing, match=r"^list \S+/closed: Permission denied; give permission, or name its files"
    ):
        listed(root)


def test_a_listing_as_json_names_what_was_left_out(tmp_path: Path) -> None:
    from dataclasses import asdict

    found = listed(tree(tmp_path / "in", "a.jsonl", "b.tar"))
    assert json.loads(json.dumps([asdict(one) for one in found.left_out])) == [
        {"reason": ".tar", "files": 1, "bytes": 18, "names": ["b.tar"]}
    ]
