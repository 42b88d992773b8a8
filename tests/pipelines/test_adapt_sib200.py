"""The whole path on real data: curate and adapt a base that has never seen Swahili or Tamil."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("COMPASS_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.release,  # eleven minutes
    pytest.mark.skipif(not (DATA / "sib200").is_dir(), reason=f"no shared data at {DATA}; set COMPASS_DATA"),
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.timeout(1500),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of the libraries that load models
]


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("adapt_sib200", ROOT / "benchmarks" / "adapt_sib200.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_adapters_lower_the_bits_per_byte_of_text_nobody_has_seen(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("DATA", "BASE", "OUTPUT"):
        monkeypatch.setenv(name, "")  # put back after the benchmark has set them
    figures = _benchmark().measure(DATA, str(tmp_path))
    assert figures["parameters"] >= 3_000_000
    assert figures["base_unchanged"]
    for row in figures["languages"].values():
        assert row["change"] <= -0.10
