"""The language of rows: from a column, the path, a constant, or the text itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.errors import ResourcesMissing
from compass_ray.ingest.config import SourceConfig
from compass_ray.languages import canonical_language, language_refusal

_LOOKED_AT = 2000
"""Characters of a text that detection reads: its cost is linear in them, and its mind is made up long before."""


def language_from_path(source: SourceConfig, uri: str) -> str:
    """What ``lang_pattern`` finds in the path; empty if nothing."""
    match = re.search(source.lang_pattern or "", uri)
    return (match["lang"] or "") if match and source.lang_pattern else ""


def detected_languages(texts: Sequence[str], floor: float) -> tuple[pa.StringArray, dict[int, str]]:
    """The tag of every text, and for rows below the floor what was found. Cost: about 0.1 ms a text and kilobyte.

    Raises
    ------
    ResourcesMissing
        If py3langid is not installed.
    """
    classify = _identifier().classify
    tags: list[str | None] = []
    unsure = {}
    for row, text in enumerate(texts):
        code, confidence = classify(text[:_LOOKED_AT])
        tag = canonical_language(code) if confidence >= floor else None
        if tag is None:
            unsure[row] = f"detected {code} with confidence {confidence:.2f}, below min_confidence = {floor:g}"
        tags.append(tag)
    return pa.array(tags, pa.string()), unsure


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as exc:
        raise ResourcesMissing("lang: detect needs py3langid: run pip install py3langid on every node") from exc
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def languages_of(codes: pa.StringArray, mapped: Mapping[str, str], where: str) -> tuple[pa.StringArray, dict[int, str]]:
    """The tag of every code, and for rows without one what is wrong. Cost: one look-up for each *distinct* code."""
    encoded = codes.dictionary_encode()
    found = [mapped.get(code) or canonical_language(code) for code in encoded.dictionary.to_pylist()]
    tags = pa.array(found, pa.string()).take(encoded.indices)
    unknown = {}
    for row in pc.indices_nonzero(tags.is_null()).to_pylist():
        code = codes[row].as_py()
        unknown[row] = language_refusal(code) if code else f"expected a language, found none by {where}"
    return tags, unknown
