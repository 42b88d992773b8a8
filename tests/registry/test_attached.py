"""Files that are attached to a finished version: written once, read checked; on disk and on S3 alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from registry_helpers import BASE, add, version_name

from compass_ray import storage
from compass_ray.errors import ArtifactCorrupt, RegistryError
from compass_ray.registry.export import export
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion

ONE = version_name(1)
GATE = "gate-1a2b3c4d.json"


@pytest.fixture
def version(registry: Registry) -> AdapterVersion:
    add(registry, 1)
    return registry.open(f"sw@{ONE}")


def below(version: AdapterVersion) -> dict[str, bytes]:
    found = storage.list_files(f"{version.url}/**")
    return {file.url.removeprefix(f"{version.url}/"): storage.read_bytes(file.url) for file in found}


def test_what_is_attached_is_read_again_and_changes_nothing_else(registry: Registry, version: AdapterVersion) -> None:
    before = below(version)
    assert version.attached() == []
    version.attach(GATE, b'{"outcome": "pass"}')
    version.attach("fisher.safetensors", b"numbers")
    assert version.attached() == ["fisher.safetensors", GATE]
    assert version.read_attached(GATE) == b'{"outcome": "pass"}'
    after = below(version)
    assert set(after) - set(before) == {
        f"attached/{name}" for name in (GATE, f"{GATE}.json", "fisher.safetensors", "fisher.safetensors.json")
    }
    assert {name: after[name] for name in before} == before
    assert registry.open(f"sw@{ONE}") == version
    assert (registry.places(), registry.versions(BASE.key, "sw")) == ([(BASE.key, "sw")], [ONE])


def test_the_same_bytes_again_are_no_error_and_others_are(version: AdapterVersion) -> None:
    version.attach(GATE, b"one")
    before = below(version)
    version.attach(GATE, b"one")
    with pytest.raises(RegistryError, match=r"other bytes are attached under this name; .* under another name"):
        version.attach(GATE, b"two")
    assert below(version) == before


def test_an_interrupted_attachment_is_not_there_and_is_finished_by_the_next(version: AdapterVersion) -> None:
    storage.write_bytes(f"{version.url}/attached/{GATE}", b"one")
    assert version.attached() == []
    with pytest.raises(RegistryError, match=f"'{GATE}' is not attached; there is nothing"):
        version.read_attached(GATE)
    with pytest.raises(RegistryError, match=r"interrupted or simultaneous attachment; .* remove this file and attach"):
        version.attach(GATE, b"two")
    version.attach(GATE, b"one")
    assert version.read_attached(GATE) == b"one"


def test_bytes_that_changed_after_they_were_attached_are_not_handed_out(version: AdapterVersion) -> None:
    version.attach(GATE, b"one")
    url = f"{version.url}/attached/{GATE}"
    storage.write_bytes(url, b"another")
    with pytest.raises(ArtifactCorrupt, match=r"expected 3 bytes with hash \w+, found 7 bytes with hash \w+; restore"):
        version.read_attached(GATE)
    storage.delete(url)
    with pytest.raises(ArtifactCorrupt, match=r"has a receipt but is missing; restore it, or remove it and"):
        version.read_attached(GATE)
    storage.write_bytes(f"{url}.json", b"[]")
    with pytest.raises(ArtifactCorrupt, match=r"\.json\.json: not a receipt \(TypeError"):
        version.read_attached(GATE)


@pytest.mark.parametrize(
    "name", ["", "gate", ".json", "../x.json", "a/b.json", "gate-1.json.json", "a.b.c", "gate 1.json", "x" * 101 + ".a"]
)
def test_a_name_that_could_be_a_path_or_a_receipt_is_refused(tmp_path: Path, name: str) -> None:
    registry = Registry(str(tmp_path))
    add(registry, 1)
    version = registry.open(f"sw@{ONE}")
    for action in (lambda: version.attach(name, b""), lambda: version.read_attached(name)):
        with pytest.raises(RegistryError, match="expected a name with one dot"):
            action()


def test_downloads_and_exports_do_not_take_attachments_along(version: AdapterVersion, tmp_path: Path) -> None:
    version.attach(GATE, b"one")
    version.download(tmp_path / "copy")
    export(version, "peft", tmp_path / "out")
    for folder in ("copy", "out"):
        assert not [path for path in (tmp_path / folder).rglob("*") if GATE in path.name]
    assert set(version.lineage.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}


def test_ten_who_attach_the_same_at_once_do_it_once(version: AdapterVersion) -> None:
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: version.attach(GATE, b"one"), range(10)))
    assert (version.attached(), version.read_attached(GATE)) == ([GATE], b"one")
