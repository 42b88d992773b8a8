"""Content-addressed stage outputs: identity, manifest, atomic commit, reuse, resume.

An artifact lives in ``<output>/cache/<stage>-<fingerprint>/`` and holds one Parquet file per key (a key with a
suffix, as ``adapter_model.safetensors``, is a file of that name) and ``manifest.json``. The manifest is
written last; without it the artifact does not exist.
While a stage runs, each finished file leaves a receipt in ``_progress/``: a restarted run does only
the keys that have none. Files are written whole (see ``storage``) and their bytes are a function of
the identity, so two runs that write the same artifact at once do no harm.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from compass_ray import paths, records, storage
from compass_ray.errors import ArtifactCorrupt, ArtifactMissing

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Receipt:
    """One finished file of an artifact; ``summary`` is a small JSON object of its counts."""

    key: str
    rows: int
    bytes: int
    hash: str
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What an artifact holds, and from what it was made."""

    stage: str
    fingerprint: str
    identity: dict[str, Any]
    receipts: dict[str, Receipt]

    @property
    def rows(self) -> int:
        return sum(receipt.rows for receipt in self.receipts.values())

    @property
    def keys_with_rows(self) -> list[str]:
        """Keys of the shards that hold something."""
        return [key for key, receipt in self.receipts.items() if receipt.rows]

    @property
    def bytes(self) -> int:
        return sum(receipt.bytes for receipt in self.receipts.values())


@dataclass(frozen=True)
class Artifact:
    """A handle on one stage output: a location and the identity it is made from. Cheap to pickle."""

    url: str
    stage: str
    identity: Mapping[str, Any] = field(hash=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Hash of the identity: the same wherever the artifact has been copied to."""
        return _fingerprint(self.identity)

    @property
    def name(self) -> str:
        """Its folder in the cache: ``<stage>-<fingerprint>``."""
        return self.url.rsplit("/", 1)[-1]

    def write(self, key: str, table: pa.Table, summary: Mapping[str, Any] | None = None) -> Receipt:
        """Write one file and its receipt; safe to repeat, and to do twice at once."""
        return self.write_bytes(key, to_parquet(table), rows=table.num_rows, summary=summary)

    def write_bytes(self, key: str, data: bytes, *, rows: int = 0, summary: Mapping[str, Any] | None = None) -> Receipt:
        """Write one file that is not a table, and its receipt."""
        storage.write_bytes(self._file(key), data)
        receipt = Receipt(key, rows, len(data), digest(data), dict(summary or {}))
        storage.write_bytes(self._receipt(key), json.dumps(asdict(receipt)).encode())
        return receipt

    def finished(self) -> dict[str, Receipt]:
        """Read the receipts of the files that an interrupted run has left."""
        found = storage.list_files(storage.join(storage.literal(self.url), "_progress", "*.json"))
        contents = storage.in_parallel(_read_if_there, (file.url for file in found))
        receipts = (Receipt(**json.loads(content)) for content in contents if content is not None)
        return {receipt.key: receipt for receipt in receipts}

    def commit(self, receipts: Iterable[Receipt]) -> Manifest:
        """Write the manifest: from here on the artifact exists."""
        ordered = sorted(receipts, key=lambda receipt: receipt.key)
        body = {
            "schema_version": records.SCHEMA_VERSION,
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "identity": dict(self.identity),
            "files": [asdict(receipt) for receipt in ordered],
        }
        storage.write_bytes(storage.join(self.url, "manifest.json"), canonical_json(body).encode())
        storage.delete_all([self._receipt(receipt.key) for receipt in ordered])
        _read_manifest.cache_clear()  # an artifact may have been deleted and made again
        return self.manifest()

    def exists(self) -> bool:
        """Tell whether the artifact is complete."""
        return storage.exists(storage.join(self.url, "manifest.json"))

    def manifest(self) -> Manifest:
        """Read the manifest.

        Raises
        ------
        ArtifactMissing
            If the stage has not finished.
        """
        return _read_manifest(self.url)

    def read(self, key: str, columns: list[str] | None = None) -> pa.Table:
        """Read one table, its bytes checked against the manifest.

        Raises
        ------
        ArtifactMissing, ArtifactCorrupt
        """
        return from_parquet(self.read_bytes(key), columns)

    def read_all(self, keys: Iterable[str]) -> Iterator[pa.Table]:
        """Read several tables in order, some ahead; raises as :meth:`read`."""
        self.manifest()  # once, not once for each of the threads
        return storage.in_parallel(self.read, keys)

    def read_columns(self, key: str, columns: list[str]) -> pa.Table:
        """Read some columns of one table and no other bytes, so unchecked.

        It serves to find what :meth:`read` then reads.

        Raises
        ------
        ArtifactMissing, ArtifactCorrupt
        """
        self._receipt_of(key)
        try:
            with self._listed(key), storage.open_input(self._file(key)) as stream:
                return pq.ParquetFile(stream).read(columns, use_threads=False)
        except pa.ArrowException as exc:
            raise ArtifactCorrupt(f"{self._file(key)}: {exc}; delete {self.url} and run again") from exc

    def read_bytes(self, key: str) -> bytes:
        """Read one file, its bytes checked against the manifest; raises as :meth:`read`."""
        receipt = self._receipt_of(key)
        with self._listed(key):
            data = storage.read_bytes(self._file(key))
        if digest(data) != receipt.hash:
            raise ArtifactCorrupt(
                f"{self._file(key)}: expected {receipt.bytes} bytes with hash {receipt.hash}, found "
                f"{len(data)} bytes with hash {digest(data)}; delete {self.url} and run again"
            )
        return data

    def _receipt_of(self, key: str) -> Receipt:
        receipt = self.manifest().receipts.get(key)
        if receipt is None:
            raise ArtifactMissing(f"{self.url}: the manifest lists no file '{key}'")
        return receipt

    @contextmanager
    def _listed(self, key: str) -> Iterator[None]:
        """Map the absence of a file that the manifest lists."""
        try:
            yield
        except FileNotFoundError as exc:
            raise ArtifactCorrupt(f"{self._file(key)}: listed in the manifest but missing; delete {self.url}") from exc

    def _file(self, key: str) -> str:
        return storage.join(self.url, key if "." in key else f"{key}.parquet")

    def _receipt(self, key: str) -> str:
        return storage.join(self.url, "_progress", f"{key}.json")


def _read_if_there(url: str) -> bytes | None:
    """Read a receipt. None if another run of the same config has just committed, and removed it."""
    try:
        return storage.read_bytes(url)
    except FileNotFoundError:
        return None


def artifact(output: str, stage: str, identity: Mapping[str, Any]) -> Artifact:
    """Locate the artifact of a stage below an output folder. It is named by the hash of its identity.

    ``identity`` holds all that may change the bytes: the stage's version, config fields that are
    not marked as execution, fingerprints of its inputs. It must be plain JSON.
    """
    body = {"schema_version": records.SCHEMA_VERSION, "stage": stage, **identity}
    return Artifact(paths.cache_path(output, f"{stage}-{_fingerprint(body)}"), stage, body)


def _fingerprint(identity: Mapping[str, Any]) -> str:
    return digest(canonical_json(dict(identity)).encode(), size=10)


def open_artifact(url: str) -> Artifact:
    """Open the finished artifact at a URL."""
    manifest = _read_manifest(url)
    return Artifact(url, manifest.stage, manifest.identity)


def restore(output: str, manifest: bytes, files: Mapping[str, bytes]) -> Artifact:
    """Bring an artifact that was kept elsewhere back into the cache of an output folder, under its own name.

    Parameters
    ----------
    output : str
    manifest : bytes
        Its ``manifest.json``.
    files : mapping of key to bytes
        All its files.

    Raises
    ------
    ArtifactCorrupt
        If the manifest is none, or a file is missing or not the one that it lists.
    """
    try:
        body = json.loads(manifest)
        stage, fingerprint, identity = (body[name] for name in ("stage", "fingerprint", "identity"))
        hashes = {entry["key"]: entry["hash"] for entry in body["files"]}
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactCorrupt(f"a kept artifact has no manifest that can be read ({exc}); make it again") from exc
    wrong = [key for key, known in hashes.items() if key not in files or digest(files[key]) != known]
    wrong += [name for name in (stage, *hashes) if not _PLAIN_NAME.fullmatch(name)]  # they become paths
    found = Artifact(paths.cache_path(output, f"{stage}-{fingerprint}"), stage, identity)
    if wrong or found.fingerprint != fingerprint:
        raise ArtifactCorrupt(
            f"{stage}-{fingerprint}: what was kept of it is not what its manifest lists "
            f"({', '.join(wrong) or 'its identity'}); make it again"
        )
    if not found.exists():
        for key in hashes:
            storage.write_bytes(found._file(key), files[key])
        storage.write_bytes(storage.join(found.url, "manifest.json"), manifest)
        _read_manifest.cache_clear()
    return found


@lru_cache(maxsize=64)
def _read_manifest(url: str) -> Manifest:
    try:
        body = json.loads(storage.read_bytes(storage.join(url, "manifest.json")))
        receipts = {entry["key"]: Receipt(**entry) for entry in body["files"]}
        return Manifest(body["stage"], body["fingerprint"], body["identity"], receipts)
    except FileNotFoundError as exc:
        raise ArtifactMissing(f"{url}: no manifest.json, so this stage has not finished; run it again") from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactCorrupt(f"{url}/manifest.json: not a manifest ({exc}); delete the folder and run again") from exc


def to_parquet(table: pa.Table) -> bytes:
    """Write Parquet bytes that depend on the rows and the schema alone. How the table was chunked does not matter."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=1 << 16)
    return sink.getvalue()


def from_parquet(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Read the table in Parquet bytes, decoded by the calling thread alone.

    Arrow's own threads may let go of a Python buffer only after the read has returned; when the interpreter ends at
    that moment, the process aborts or hangs (apache/arrow#33975, #50482). A stage has one CPU, so they gain nothing.
    """
    return pq.ParquetFile(pa.BufferReader(data)).read(columns, use_threads=False)


def digest(data: bytes, size: int = 16) -> str:
    """Compute BLAKE2b in hex."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def canonical_json(value: Any) -> str:
    """Write JSON with sorted keys: equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False)
