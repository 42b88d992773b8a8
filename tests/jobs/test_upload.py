"""What a checkout uploads as the working dir of a job."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).parent.parent.parent


def test_a_checkout_uploads_its_jobs_and_configs_and_not_the_package(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    checkout = tmp_path / "checkout"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # not what is deleted and uncommitted
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    (checkout / "mine.yaml").write_text("output: s3://bucket/out")

    create_package(str(checkout), tmp_path / "package.zip", include_gitignore=True)

    names = zipfile.ZipFile(tmp_path / "package.zip").namelist()
    assert {"mine.yaml", "jobs/curate.py", "jobs/adapt.py", "docs/examples/sib200.yaml"} <= set(names)
    assert not [name for name in names if name.startswith(("compass_ray/", "tests/", "benchmarks/"))]
    assert (tmp_path / "package.zip").stat().st_size < 1_000_000
