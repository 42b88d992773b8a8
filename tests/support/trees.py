"""Folders of files, compared by their bytes."""

from __future__ import annotations

from pathlib import Path


def tree_bytes(folder: Path | str) -> dict[str, bytes]:
    """All files below a folder by relative path: what 'the same bytes' means in tests."""
    root = Path(folder)
    files = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    assert files, f"{root} holds no file"
    return files
