"""Versions never change, and are found by what people call them; on disk and on S3 alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from registry_helpers import BASE, adapter_files, add, lineage, version_name

from compass_ray import storage
from compass_ray.errors import AliasMoved, ArtifactCorrupt, IncompatibleAdapter, RegistryError
from compass_ray.models import BaseRef
from compass_ray.pipelines.registry import list_adapters
from compass_ray.registry.lineage import Lineage, check_base
from compass_ray.registry.store import Registry

OTHER = BaseRef("acme/other", None, "ff" * 16)
ONE, TWO = version_name(1), version_name(2)


def files_below(url: str) -> dict[str, bytes]:
    return {file.url: storage.read_bytes(file.url) for file in storage.list_files(f"{url}/**")}


# --- adding and reading -------------------------------------------------------------------------


def test_what_is_added_is_read_again(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "replay.parquet").write_bytes(b"rows")
    files = {
        **adapter_files(),
        "reference/replay.parquet": tmp_path / "replay.parquet",
        "reference/ids/held.json": b"[]",
    }
    history = lineage(
        parent="ab" * 8, selection="cd" * 10, config={"rank": 8}, scores={"loss": 0.5}, documents={"current": 3}
    )
    added = registry.add(history, files)
    opened = registry.open(f"sw@{ONE}")
    assert opened == added
    assert replace(opened.lineage, files={}) == history
    assert opened.read("adapter_config.json") == files["adapter_config.json"]
    assert opened.read("reference/replay.parquet") == b"rows"
    opened.download(tmp_path / "copy")
    names = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert names == {*files, "README.md", "lineage.json"}
    assert Lineage.from_json((tmp_path / "copy" / "lineage.json").read_bytes(), "copy") == opened.lineage


def test_the_layout_is_that_of_the_design(registry: Registry) -> None:
    add(registry, 1)
    registry.promote(f"sw@{ONE}")
    place = f"{registry.url}/acme--tiny-01234567/sw"
    assert set(files_below(registry.url)) == {
        f"{place}/aliases.json",
        *(
            f"{place}/{ONE}/{name}"
            for name in ("adapter_config.json", "adapter_model.safetensors", "README.md", "lineage.json")
        ),
    }


def test_adding_the_same_training_twice_changes_nothing(registry: Registry) -> None:
    add(registry, 1)
    before = files_below(registry.url)
    again = registry.add(lineage(created="2027-01-01T00:00:00+00:00"), adapter_files(1))
    assert files_below(registry.url) == before
    assert again == registry.open(f"sw@{ONE}")


def test_a_version_is_never_changed(registry: Registry) -> None:
    add(registry, 1)
    before = files_below(registry.url)
    with pytest.raises(RegistryError, match=r"exists with another adapter_model\.safetensors, reference/x; a ver"):
        registry.add(lineage(1), {**adapter_files(2), "reference/x": b""})
    assert files_below(registry.url) == before


def test_an_interrupted_add_is_finished_by_the_next(registry: Registry) -> None:
    add(registry, 1)
    url = registry.open(f"sw@{ONE}").url
    storage.delete(f"{url}/lineage.json")
    storage.delete(f"{url}/adapter_model.safetensors")
    assert registry.versions(BASE.key, "sw") == []
    add(registry, 1)
    assert registry.versions(BASE.key, "sw") == [ONE]


def test_what_an_interrupted_add_of_another_training_left_is_not_written_over(registry: Registry) -> None:
    add(registry, 1)
    url = registry.open(f"sw@{ONE}").url
    storage.delete(f"{url}/lineage.json")
    left = files_below(registry.url)
    with pytest.raises(RegistryError, match=rf"adapter_model\.safetensors: holds other bytes.* remove {url} and"):
        registry.add(lineage(1), adapter_files(2))
    assert files_below(registry.url) == left


def test_bytes_that_changed_after_they_were_added_are_not_handed_out(registry: Registry, tmp_path: Path) -> None:
    add(registry, 1)
    opened = registry.open(f"sw@{ONE}")
    storage.write_bytes(f"{opened.url}/adapter_model.safetensors", b"torn")
    with pytest.raises(ArtifactCorrupt, match=r"adapter_model\.safetensors: expected \d+ bytes with hash \w+, found 4"):
        opened.download(tmp_path)
    storage.delete(f"{opened.url}/adapter_model.safetensors")
    with pytest.raises(ArtifactCorrupt, match="listed in the lineage but missing; restore it, or remove"):
        opened.read("adapter_model.safetensors")
    with pytest.raises(RegistryError, match=r"has no file '\.\./x'; there is README\.md, adapter_config\.json"):
        opened.read("../x")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 99}, "expected a lineage of schema 1, found 99"),
        ({"lang": "../sw"}, "not a lineage"),
        ({"lang": "hi"}, "is the lineage of .*/hi/"),
        ({"files": {"x": {}}}, "not a lineage"),
        ({"more": 1}, "not a lineage.*more"),
    ],
)
def test_a_lineage_that_is_none_is_corrupt(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    registry = Registry(str(tmp_path))
    add(registry, 1)
    path = Path(registry.open(f"sw@{ONE}").url, "lineage.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(ArtifactCorrupt, match=rf"lineage\.json: .*{complaint}"):
        registry.open(f"sw@{ONE}")


def test_the_card_has_front_matter_and_scores_and_depends_on_the_training_alone(tmp_path: Path) -> None:
    import yaml

    registry = Registry(str(tmp_path))
    history = lineage(lang="no", scores={"heldout": {"loss": 1.25}}, documents={"current": 7}, created="2030-01-01")
    card = registry.add(history, adapter_files()).read("README.md").decode()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["base_model"], front["language"]) == ("peft", "acme/tiny", "no")
    assert "| heldout.loss | 1.25 |" in card
    assert "| current | 7 |" in card
    assert "2030" not in card
    assert str(tmp_path) not in card


# --- what is found ------------------------------------------------------------------------------


def test_versions_are_found_by_name_unique_prefix_and_alias(registry: Registry) -> None:
    add(registry, 1, 2)
    registry.set_candidate(BASE.key, "sw", TWO)
    registry.promote(f"sw@{ONE}")
    for ref, version in ((ONE, ONE), (ONE[:6], ONE), ("candidate", TWO), ("champion", ONE)):
        assert registry.open(f"sw@{ref}").lineage.version == version
        assert registry.open(f"{BASE.key}/sw@{ref}").lineage.version == version
    assert registry.open("sw").aliases == ("champion",)
    assert registry.places() == [(BASE.key, "sw")]


def test_the_history_is_in_the_order_of_creation(registry: Registry) -> None:
    add(registry, 2, created="2026-01-01T00:00:00+00:00")
    add(registry, 1, created="2026-02-01T00:00:00+00:00")
    registry.promote(f"sw@{TWO}")
    history = registry.history(BASE.key, "sw")
    assert [(each.lineage.version, each.aliases) for each in history] == [(TWO, ("champion",)), (ONE, ())]
    assert history[0] == registry.open("sw")


def test_a_prefix_of_two_versions_names_both(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    for version in ("abcdef00", "abcdef0011", "abcdef01"):
        registry.add(replace(lineage(), version=version), adapter_files())
    with pytest.raises(RegistryError, match="@abcdef means several versions: abcdef00, abcdef0011, abcdef01"):
        registry.open("sw@abcdef")
    assert registry.open("sw@abcdef00").lineage.version == "abcdef00"


def test_a_base_may_be_left_out_only_where_there_is_one(registry: Registry) -> None:
    add(registry, 1)
    add(registry, 2, base=OTHER)
    add(registry, 3, lang="hi")
    with pytest.raises(RegistryError, match=f"'sw' for several bases; say which: {OTHER.key}, {BASE.key}"):
        registry.open("sw")
    assert registry.open(f"{OTHER.key}/sw@{TWO}").lineage.base == OTHER
    assert registry.open(f"hi@{version_name(3)}").lineage.lang == "hi"


def test_what_is_absent_is_said_with_what_there_is(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="has no adapter of 'sw'; there is nothing"):
        registry.open("sw")
    add(registry, 1)
    with pytest.raises(RegistryError, match=f"has no champion; there is {ONE}; name a version, or promote one"):
        registry.open("sw")
    with pytest.raises(RegistryError, match=f"has no version {TWO}; there is {ONE}"):
        registry.promote(f"sw@{TWO}")
    with pytest.raises(RegistryError, match=f"has no version {TWO}; there is {ONE}"):
        registry.set_candidate(BASE.key, "sw", TWO)
    with pytest.raises(RegistryError, match=f"has no adapter of 'hi'; there is {BASE.key}/sw"):
        registry.open("hi")


def test_folders_that_are_not_adapters_are_not_listed(registry: Registry) -> None:
    add(registry, 1)
    storage.write_bytes(f"{registry.url}/notes/sw/0123abcd/lineage.json", b"{}")
    assert registry.places() == [(BASE.key, "sw")]


# --- aliases ------------------------------------------------------------------------------------


def test_promotion_and_rollback_move_all_aliases_at_once(registry: Registry) -> None:
    add(registry, 1, 2)
    registry.promote(f"sw@{ONE}")
    registry.set_candidate(BASE.key, "sw", TWO)
    after = registry.promote("sw@candidate")
    assert (after.champion, after.candidate, after.previous, after.generation) == (TWO, None, ONE, 3)
    back = registry.rollback(BASE.key, "sw")
    assert (back.champion, back.previous, back.generation) == (ONE, TWO, 4)
    assert registry.aliases(BASE.key, "sw") == back


def test_a_version_whose_folder_is_gone_is_not_rolled_back_to_and_stays_visible(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    add(registry, 1, 2)
    registry.promote(f"sw@{version_name(1)}")
    now = registry.promote(f"sw@{version_name(2)}")
    shutil.rmtree(Path(registry.url) / BASE.key / "sw" / version_name(1))
    with pytest.raises(RegistryError, match=rf"has no version {version_name(1)}; .*; promote a version by name"):
        registry.rollback(BASE.key, "sw")
    assert registry.aliases(BASE.key, "sw") == now
    assert registry.dangling(BASE.key, "sw") == {version_name(1): ["previous"]}
    with pytest.raises(RegistryError, match=rf"the previous of .* is version {version_name(1)}, whose folder is gone"):
        registry.open("sw@previous")
    (row,) = [row for row in list_adapters(registry.url) if row["created"] is None]
    assert (row["version"], row["aliases"]) == (version_name(1), ["previous"])
    shutil.rmtree(Path(registry.url) / BASE.key / "sw" / version_name(2))
    assert registry.places() == [(BASE.key, "sw")]
    assert {row["version"] for row in list_adapters(registry.url)} == {version_name(1), version_name(2)}


def test_a_rollback_without_a_previous_champion_names_the_adapter(registry: Registry) -> None:
    add(registry, 1)
    with pytest.raises(RegistryError, match=f"{BASE.key}/sw: there is no previous champion to return to; promote"):
        registry.rollback(BASE.key, "sw")


def test_the_champion_is_no_candidate(registry: Registry) -> None:
    add(registry, 1)
    champion = registry.promote(f"sw@{ONE}")
    assert registry.set_candidate(BASE.key, "sw", ONE) == champion


def test_a_decision_on_aliases_that_moved_meanwhile_is_refused(registry: Registry) -> None:
    add(registry, 1, 2)
    seen = registry.aliases(BASE.key, "sw")
    registry.promote(f"sw@{ONE}", seen)
    with pytest.raises(AliasMoved, match=r"decided on generation 0, but the aliases are at generation 1; look at them"):
        registry.promote(f"sw@{TWO}", seen)
    assert registry.open("sw").lineage.version == ONE


# --- bases --------------------------------------------------------------------------------------


def test_another_base_is_refused_with_both_names_and_hashes() -> None:
    check_base(lineage(), replace(BASE, name="a copy elsewhere"))
    with pytest.raises(
        IncompatibleAdapter, match="trained on acme/tiny at revision c0ffee with weights 0123456789abcdef"
    ) as caught:
        check_base(lineage(), OTHER)
    assert f"the base given is acme/other with weights {'ff' * 16}; give the base that" in str(caught.value)
