"""The scripts of ``jobs/``, as a cluster finds them: each alone in a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import clean_environment

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = sorted((ROOT / "jobs").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_that_is_alone_in_its_folder_ends_with_the_code_of_the_error_and_an_empty_stdout(
    script: Path, tmp_path: Path
) -> None:
    shutil.copy(script, tmp_path)
    done = subprocess.run(
        [sys.executable, script.name, "none.yaml", "--set", "name=other"],
        cwd=tmp_path, env=clean_environment(tmp_path, PYTHONPATH=str(ROOT)), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: none.yaml: no such config file\n")
