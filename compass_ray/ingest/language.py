"""The language of rows: from a column, the path or a constant. ``detection`` tells it from the text itself."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.ingest.config import SourceConfig
from compass_ray.languages import canonical_language, language_refusal


def language_from_path(source: SourceConfig, uri: str) -> str:
    """Read from the path what ``lang_pattern`` finds. Empty if that is nothing."""
    match = re.search(source.lang_pattern or "", uri)
    return (match["lang"] or "") if match and source.lang_pattern else ""


def languages_of(codes: pa.StringArray, mapped: Mapping[str, str], where: str) -> tuple[pa.StringArray, dict[int, str]]:
    """Find the tag of every code.

    For rows without one, what is wrong is told. Cost: one look-up for each *distinct* code.
    """
    encoded = codes.dictionary_encode()
    found = [mapped.get(code) or canonical_language(code) for code in encoded.dictionary.to_pylist()]
    tags = pa.array(found, pa.string()).take(encoded.indices)
    unknown = {}
    for row in pc.indices_nonzero(tags.is_null()).to_pylist():
        code = codes[row].as_py()
        unknown[row] = language_refusal(code) if code else f"expected a language, found none by {where}"
    return tags, unknown
