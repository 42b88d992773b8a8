"""A registry that keeps ids alone: texts are looked up where they still are, and nothing that was written holds one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loop import QUESTION, Loop, write_log

from compass_ray import gate_candidates, update_adapters
from compass_ray.pipelines.reference import VersionReference
from compass_ray.registry.version import AdapterVersion

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.slow, pytest.mark.release, pytest.mark.timeout(900)]

IDS = "registry.store_text=ids"


@pytest.fixture(scope="module")
def kept(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """A champion of which the registry knows ids alone."""
    return Loop.in_folder(tmp_path_factory.mktemp("ids")).with_champion(IDS)


def texts_of(loop: Loop) -> list[str]:
    """Beginnings of all that was read, in letters that no file writes in another way."""
    shards = loop.output.glob("cache/ingest-*/**/*.parquet")
    texts = {text for path in shards for text in pq.read_table(path, columns=["text"])["text"].to_pylist()}
    return sorted({text[:25] for text in texts if text and text.isascii() and text[:25].replace(" ", "").isalpha()})


def holds_text(data: bytes, name: str, texts: list[str]) -> list[str]:
    """Find texts in the bytes of a file; of a table, in its columns, which are compressed as they lie."""
    if name.endswith(".parquet"):
        table: pa.Table = pq.read_table(io.BytesIO(data))
        data = json.dumps(table.to_pylist(), default=str, ensure_ascii=False).encode()
    return [text for text in texts if text.encode() in data]


def check_without_text(version: AdapterVersion, texts: list[str]) -> None:
    root = Path(version.url)
    names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    assert {"reference/replay.parquet", "reference/usage.parquet"} <= set(names)
    assert {name: found for name in names if (found := holds_text((root / name).read_bytes(), name, texts))} == {}


def test_replay_and_gate_look_texts_up_and_nothing_is_kept_of_them(
    kept: Loop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loop = kept.copied(tmp_path)
    champion = loop.registry.open("sw@champion")
    rows = VersionReference(champion).replay
    assert rows.num_rows > 0
    assert rows["text"].null_count == rows.num_rows

    update_adapters(loop.config("moved", IDS))
    told = capfd.readouterr().err
    candidate = loop.registry.open("sw@candidate")
    assert candidate.lineage.parent == champion.lineage.version
    assert f"of {rows.num_rows:,} replay rows of {champion} are known by id alone" in told, "current data are not there"
    texts = texts_of(loop)
    assert QUESTION[:25] in texts
    check_without_text(champion, texts)
    check_without_text(candidate, texts)

    gated = gate_candidates(loop.config("moved", "gate.margin=100"), promote=False)
    assert "held-out usage documents" not in capfd.readouterr().err, "all of them are in the sources"
    measures = set(gated.losses("sw")["measures"].to_pylist())
    assert measures == {"new_usage", "former_usage"}
    outputs = [path for path in Path(gated.path).rglob("*") if path.is_file()]
    outputs.append(Path(loop.output / "runs/demo/update/update.json"))
    assert {path.name: found for path in outputs if (found := holds_text(path.read_bytes(), path.name, texts))} == {}
    check_without_text(loop.registry.open("sw@candidate"), texts)

    few = write_log(tmp_path / "few.jsonl", [QUESTION.format(number) for number in range(10)])
    gate_candidates(loop.config(few, IDS), promote=False)
    assert "held-out usage documents of" in (told := capfd.readouterr().err)
    assert "in no source of this config; they are left out" in told
