"""What a version of an adapter keeps below ``reference/``: written by adapt and update, read by monitor, update, gate.

It says what usage the adapter was made for, what it was trained on, and which documents it has never seen. All of it is
over the codebook of the run that the adapter was made from. A registry that keeps ids alone
(``registry.store_text: ids``) keeps no text, no vector and no name of a cluster.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, seeding, storage
from compass_ray.adapt import data
from compass_ray.adapt.places import all_places, place, placed, unseen
from compass_ray.artifacts import Artifact, Receipt, artifact, from_parquet, open_artifact, restore, to_parquet
from compass_ray.cluster.codebook import KEY
from compass_ray.errors import IncomparableReference
from compass_ray.pipelines.run import CurationRun
from compass_ray.pipelines.usage_vectors import VECTORS, usage_vectors
from compass_ray.registry.version import AdapterVersion
from compass_ray.runtime.stage import Session, map_keys
from compass_ray.sample.history import FORMER

HELDOUT, REPLAY = "reference/heldout.parquet", "reference/replay.parquet"
CODEBOOK, ENCODER, LABELS = "reference/codebook.json", "reference/encoder.json", "reference/labels.parquet"
HISTOGRAMS, TRAINED, UNSEEN, USAGE = (
    "reference/histograms.parquet",
    "reference/trained.parquet",
    "reference/unseen.parquet",
    "reference/usage.parquet",
)
VERSION = 1
MOST_USAGE = 2_000
"""Held-out usage documents that a version keeps of a measure, at most."""

_TEXT = ("text", "messages", "tools")


@dataclass(frozen=True)
class VersionReference:
    """The reference of one version, as it lies in the registry."""

    version: AdapterVersion

    @property
    def knows_usage(self) -> bool:
        """Tell whether the adapter was made from a selection. Otherwise nobody knows what usage was."""
        return CODEBOOK in self.version.lineage.files

    def codebook(self, output: str) -> Artifact:
        """Bring the codebook into the cache below ``output``, where the tasks of all machines find it.

        Raises
        ------
        IncomparableReference
            If there is none.
        """
        if not self.knows_usage:
            raise IncomparableReference(
                f"monitor.reference: {self.version} was trained without a selection, so it does not know what usage "
                "was; train one on a curated run, or compare with a run"
            )
        manifest = self.version.read(CODEBOOK)
        keys = [file["key"] for file in json.loads(manifest)["files"]]
        return restore(output, manifest, {key: self.version.read(f"reference/{key}.parquet") for key in keys})

    @property
    def n_clusters(self) -> int:
        """Clusters of the codebook."""
        files = json.loads(self.version.read(CODEBOOK))["files"]
        return int(next(file["rows"] for file in files if file["key"] == KEY))

    @property
    def histograms(self) -> pa.Table:
        """Usage, what was trained on, and usage before that, by cluster; schema ``records.HISTOGRAM``."""
        return from_parquet(self.version.read(HISTOGRAMS))

    @property
    def usage_counts(self) -> pa.Table:
        """Usage that the adapter was made for, new and former, without what was held out; schema HISTOGRAM."""
        rows = self.histograms
        mine = pc.and_(
            pc.is_in(rows["role"], pa.array(["usage", FORMER])),
            pc.fill_null(pc.equal(rows["target_lang"], self.version.lineage.lang), False),
        )
        return rows.filter(mine)

    def usage_by_cluster(self) -> NDArray[np.int64]:
        """Count what :attr:`usage_counts` has, shape (n_clusters + 1,), the outlier bin last."""
        rows, counts = self.usage_counts, np.zeros(self.n_clusters + 1, dtype=np.int64)
        np.add.at(counts, rows["cluster"].to_numpy(), rows["documents"].to_numpy())
        return counts

    @property
    def trained(self) -> pa.Table:
        """What the adapter, and those that it continues, were trained on; schema ``records.TRAINED``."""
        return from_parquet(self.version.read(TRAINED))

    @property
    def unseen(self) -> pa.Array:
        """Contents that no update may train on: held out of this adapter's run or of a champion's, or near to usage."""
        return from_parquet(self.version.read(UNSEEN))["content_id"].combine_chunks()

    @property
    def replay(self) -> pa.Table:
        """Rows of what was trained on, kept for updates; schema ``records.BUFFER``. Text is null under ``ids``."""
        return _with_text(from_parquet(self.version.read(REPLAY)), records.BUFFER)

    @property
    def usage(self) -> pa.Table:
        """Usage that was held out of all; schema ``records.PROBE``. Text is null under ``ids``."""
        return _with_text(from_parquet(self.version.read(USAGE)), records.PROBE)

    @property
    def labels(self) -> pa.Table | None:
        """Names of clusters, if they are kept."""
        return from_parquet(self.version.read(LABELS)) if LABELS in self.version.lineage.files else None

    @property
    def vectors(self) -> pa.Table | None:
        """A sample of the vectors of usage, if they are kept."""
        return from_parquet(self.version.read(VECTORS)) if VECTORS in self.version.lineage.files else None


@dataclass(frozen=True)
class Origin:
    """What the references of a run's adapters are made of; see :func:`origin_of`.

    Attributes
    ----------
    tokens : Artifact
    keeps_text : bool
        Whether the registry keeps texts and what tells of them.
    run : CurationRun or None
        The run that they were made from; None for adapters of current data alone.
    usage : Table or None
        Of held-out usage as much as a version keeps, schema ``records.USAGE``.
    places : Table or None
        Where documents lie, schema ``records.PLACE``.
    vectors : Artifact or None
        Of usage.
    """

    tokens: Artifact
    keeps_text: bool
    run: CurationRun | None = None
    usage: pa.Table | None = None
    places: pa.Table | None = None
    vectors: Artifact | None = None

    def files(self, lang: str, champion: VersionReference | None = None, *, continues: bool = True) -> dict[str, bytes]:
        """Make the files of one language's adapter.

        Parameters
        ----------
        lang : str
        champion : VersionReference, optional
            Of the version that the adapter is to follow: what it must not see, and former usage, go on.
        continues : bool
            Whether it goes on from the champion's weights, so that what that was trained on goes on too.
        """
        before = champion if continues else None
        tables = {HELDOUT: self._heldout(lang), REPLAY: self._replay(lang, before)}
        made: dict[str, bytes] = {}
        if self.run is not None:
            tables |= {
                HISTOGRAMS: self.run.histograms,
                TRAINED: self._trained(lang, before),
                UNSEEN: self._unseen(champion),
                USAGE: self._usage(lang, champion),
            }
            made |= self._codebook_files(self.run)
            if self.keeps_text:
                gaps = self.run.gaps
                mine = gaps.filter(pc.equal(gaps["target_lang"], lang))
                tables[LABELS] = mine.select(["target_lang", "cluster", "label"])
            if self.vectors is not None and lang in self.vectors.manifest().keys_with_rows:
                made[VECTORS] = self.vectors.read_bytes(lang)
        return made | {name: to_parquet(table) for name, table in tables.items()}

    @staticmethod
    def _codebook_files(run: CurationRun) -> dict[str, bytes]:
        record = run.record
        codebook = open_artifact(record["codebook"])
        files = {f"reference/{key}.parquet": codebook.read_bytes(key) for key in codebook.manifest().receipts}
        return files | {
            CODEBOOK: storage.read_bytes(storage.join(codebook.url, "manifest.json")),
            ENCODER: json.dumps(record["encoder"], sort_keys=True, indent=1).encode(),
        }

    def _heldout(self, lang: str) -> pa.Table:
        documents = self.tokens.read(data.key_of(lang, data.DOCUMENTS), ["doc_id", "part"])
        return documents.filter(pc.equal(documents["part"], data.HELDOUT)).select(["doc_id"])

    def _replay(self, lang: str, champion: VersionReference | None) -> pa.Table:
        rows = self.tokens.read(data.key_of(lang, data.REPLAY))
        documents = self.tokens.read(data.key_of(lang, data.DOCUMENTS), ["doc_id", "content_id"])
        rows = rows.append_column("content_id", _looked_up(rows, documents, "content_id"))
        clusters = pa.nulls(rows.num_rows, pa.int32())
        if self.places is not None:
            clusters = _looked_up(rows, placed(self.places, lang, "train"), "cluster")
        table = rows.append_column("cluster", clusters).select(records.BUFFER.names)
        if champion is not None:
            table = _each_once(pa.concat_tables([champion.replay, table]), "doc_id")
        return self._kept(table)

    def _trained(self, lang: str, champion: VersionReference | None) -> pa.Table:
        rows = records.PLACE.empty_table() if self.places is None else placed(self.places, lang, "train")
        table = rows.select(records.TRAINED.names)
        if champion is not None:
            table = pa.concat_tables([champion.trained, table])
        return _each_once(table, "content_id")

    def _unseen(self, champion: VersionReference | None) -> pa.Table:
        ids = [] if self.places is None else [unseen(self.places)]
        if champion is not None:
            ids.append(champion.unseen)
        return pa.table({"content_id": records.unique_ids(ids)}, schema=records.UNSEEN)

    def _usage(self, lang: str, champion: VersionReference | None) -> pa.Table:
        """Keep held-out usage of this run, and as former usage what the champion keeps."""
        parts = [_few(self._new_usage(lang))]
        if champion is not None:
            rows = champion.usage
            former = pa.array(["former_usage"] * rows.num_rows, pa.string())
            former = rows.set_column(rows.schema.get_field_index("measures"), "measures", former)
            asked_again = pc.is_in(former["content_id"], value_set=parts[0]["content_id"].combine_chunks())
            parts.append(_few(former.filter(pc.invert(asked_again))))
        return self._kept(pa.concat_tables(parts))

    def _new_usage(self, lang: str) -> pa.Table:
        if self.usage is None or self.places is None:
            return records.PROBE.empty_table()
        rows = self.usage.filter(pc.equal(self.usage["target_lang"], lang))
        rows = rows.take(pc.sort_indices(rows["doc_id"].cast(pa.binary())))
        columns = {name: rows[name] for name in records.USAGE.names}
        columns |= {
            "measures": pa.array(["new_usage"] * rows.num_rows, pa.string()),
            "cluster": _looked_up(rows, placed(self.places, lang, "usage"), "cluster"),
            "block": pa.nulls(rows.num_rows, pa.string()),
        }
        table = pa.table(columns).select(records.PROBE.names).cast(records.PROBE)
        return table.filter(table["cluster"].is_valid())  # one without a finite vector lies nowhere

    def _kept(self, table: pa.Table) -> pa.Table:
        return table if self.keeps_text else table.drop_columns([*_TEXT])


def origin_of(
    tokens: Artifact,
    usage: Artifact | None,
    run: CurationRun | None,
    languages: list[str],
    session: Session,
    *,
    keeps_text: bool,
) -> Origin:
    """Find what references are made of: for a run, where its documents lie in the codebook, and vectors of usage."""
    if run is None:
        return Origin(tokens, keeps_text)
    assignments, near_usage = run.artifacts("assign", "near_usage")
    n_clusters = open_artifact(run.record["codebook"]).manifest().receipts[KEY].rows
    places = place(assignments, n_clusters, tokens, languages, usage, near_usage, session)
    vectors = usage_vectors(run, session) if keeps_text else None  # they tell of texts
    return Origin(tokens, keeps_text, run, _usage_sample(usage, session), all_places(places), vectors)


def _usage_sample(usage: Artifact | None, session: Session) -> pa.Table:
    """Take a sample of each language's held-out usage: tasks take the lowest hashes of a shard, the driver of all."""
    if usage is None:
        return records.USAGE.empty_table()
    target = artifact(session.output, "usage_sample", {"version": VERSION, "usage": usage.fingerprint})
    keys = usage.manifest().keys_with_rows
    session.complete(target, keys, lambda missing: map_keys(_usage_of_shard, missing, usage, target))
    table = pa.concat_tables([records.USAGE.empty_table(), *target.read_all(keys)])
    return _few_of_each(table.take(pc.sort_indices(table["doc_id"].cast(pa.binary()))))


def _usage_of_shard(key: str, usage: Artifact, target: Artifact) -> Receipt:
    return target.write(key, _few_of_each(usage.read(key)))


def _few_of_each(table: pa.Table) -> pa.Table:
    langs = pc.unique(table["target_lang"]).to_pylist()
    return pa.concat_tables(
        [table.slice(0, 0), *(_few(table.filter(pc.equal(table["target_lang"], lang))) for lang in langs)]
    )


def _looked_up(rows: pa.Table, known: pa.Table, name: str) -> pa.Array:
    position = pc.index_in(rows["doc_id"].combine_chunks(), value_set=known["doc_id"].combine_chunks())
    return known[name].combine_chunks().take(position)


def _each_once(table: pa.Table, name: str) -> pa.Table:
    ids = table[name].combine_chunks()
    first = pc.equal(pc.index_in(ids, value_set=ids), pa.array(np.arange(len(ids)), pa.int32()))
    return table.filter(first)


def _few(table: pa.Table) -> pa.Table:
    """Keep the documents with the lowest keyed hashes: those of each generation are a sample of the one before."""
    if table.num_rows <= MOST_USAGE:
        return table
    chance = seeding.uniform(records.ids_to_numpy(table["content_id"]), 0, "reference-usage")
    return table.take(pa.array(np.sort(np.argsort(chance, kind="stable")[:MOST_USAGE])))


def _with_text(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Fill in the columns that a registry without text leaves out."""
    missing = [name for name in schema.names if name not in table.column_names]
    for name in missing:
        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    return table.select(schema.names).cast(schema)
