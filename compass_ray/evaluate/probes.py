"""Documents that adapters are compared on: how they are shared out, and what of their text is predicted."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.adapt.examples import not_in_template
from compass_ray.adapt.packing import Packs, make_packs
from compass_ray.adapt.usage import scored_example
from compass_ray.artifacts import Artifact, artifact, digest
from compass_ray.runtime.stage import Session
from compass_ray.shards import shard_key

VERSION = 1
SHARD_DOCUMENTS = 512

_ORDER = ("measures", "target_lang", "doc_id")


def probe_artifact(tables: Iterable[pa.Table], session: Session) -> Artifact:
    """Lay documents down in shards of at most :data:`SHARD_DOCUMENTS`, in the order of measures, language and id.

    The driver does it, and holds all of them. The identity is their content, so neither the tables that they come in
    nor their order matters.

    Parameters
    ----------
    tables : iterable of Table
        Schema ``records.PROBE``, no document twice for one measure and language.
    session : Session
    """
    started = time.monotonic()
    table = pa.concat_tables([records.PROBE.empty_table(), *(part.cast(records.PROBE) for part in tables)])
    sortable = pa.table({name: table[name] for name in _ORDER[:-1]} | {"doc_id": table["doc_id"].cast(pa.binary())})
    table = table.take(pc.sort_indices(sortable, sort_keys=[(name, "ascending") for name in _ORDER]))
    target = artifact(session.output, "probes", {"version": VERSION, "content": _content(table)})
    reused = target.exists()
    if not reused:
        starts = range(0, table.num_rows, SHARD_DOCUMENTS)
        target.commit(
            [target.write(shard_key(n), table.slice(start, SHARD_DOCUMENTS)) for n, start in enumerate(starts)]
        )
    session.record(target, target.manifest(), started, reused=reused)
    return target


def _content(table: pa.Table) -> str:
    """Hash all columns of all rows."""
    lines = (json.dumps(row, sort_keys=True, ensure_ascii=False, default=bytes.hex) for row in table.to_pylist())
    return digest("\n".join(lines).encode())


def predicted(
    tokenizer: Any, probes: pa.Table, max_length: int, chats: bool
) -> tuple[NDArray[np.int64], Packs, dict[str, Any]]:
    """Tokenise documents one a pack, with the targets that training and the scores of adapters would have.

    Parameters
    ----------
    probes : Table
        Schema ``records.PROBE``.
    chats : bool
        What ``adapt.usage.takes_chats`` says of the tokenizer.

    Returns
    -------
    rows : ndarray of shape (n,), int64
        Which documents have a token to predict, ascending.
    packs : Packs
        Of these.
    counts : dict
        ``documents``; how many are ``scored``; how many of these are ``truncated``, and what of them is
        ``not_in_template``; ``dropped_reasons`` of the others.
    """
    made = [scored_example(tokenizer, row, max_length, chats) for row in probes.to_pylist()]
    rows = np.array([number for number, (example, _) in enumerate(made) if example], dtype=np.int64)
    examples = [example for example, _ in made if example]
    counts = {
        "documents": len(made),
        "scored": len(examples),
        "truncated": sum(example.truncated for example in examples),
        "not_in_template": not_in_template(examples),
        "dropped_reasons": dict(sorted(Counter(reason for _, reason in made if reason).items())),
    }
    return rows, make_packs(examples, max_length, packing=False), counts
