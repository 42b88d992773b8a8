"""Model folders: where a model's files are, what identifies them, and which are refused.

A model is a local folder, or a hub id pinned to a commit. Weights are safetensors: pickled ones can run code when
they are loaded, so a folder that holds any is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from compass_ray.errors import ConfigError, ResourcesMissing

CHAT_TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
"""As transformers names them beside a tokenizer; the folder holds those that have names of their own."""

_CHAT_TEMPLATE = re.compile(rf"{re.escape(CHAT_TEMPLATE)}|{MORE_TEMPLATES}/[A-Za-z0-9_-]{{1,64}}\.jinja")

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FETCHED = [".json", ".safetensors", ".txt", ".model", ".jinja"]
"""Files of a model that are read, by suffix; a hub's cache may hold others, which another program has fetched."""
_NOT_READ = {"LICENSE", "scores.json"}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def is_chat_template(file: str) -> bool:
    """Tell whether a file's relative name is that of a chat template. It may be the default or another one."""
    return _CHAT_TEMPLATE.fullmatch(file) is not None


@dataclass(frozen=True)
class BaseRef:
    """Which base model an adapter belongs to.

    Attributes
    ----------
    name : str
        A hub id, or the name of a local folder.
    revision : str or None
        The commit of a hub model.
    weights_hash : str
        Hash of the weights alone, see :func:`weights_hash`: what decides whether an adapter fits.
    """

    name: str
    revision: str | None
    weights_hash: str

    @property
    def key(self) -> str:
        """A folder name that tells apart two bases, and two revisions of one: ``Qwen--Qwen2.5-7B-1a2b3c4d``."""
        safe = _UNSAFE.sub("-", self.name.replace("/", "--")).strip("-.") or "base"
        return f"{safe[:80]}-{self.weights_hash[:8]}"

    def to_json(self) -> dict[str, str | None]:
        """Convert all of it to plain JSON, with the key that follows from it."""
        return {**asdict(self), "key": self.key}


def find_model(
    model: str,
    revision: str | None,
    *,
    field: str,
    marker: str,
    kind: str,
    names: Sequence[str] = (),
    fetch: bool = True,
) -> Path:
    """Find the folder of a model; a hub model is fetched first.

    Parameters
    ----------
    model : str
        A local folder, or a hub id ``owner/name``.
    revision : str or None
        Commit of a hub model.
    field : str
        The config field that named it, for messages.
    marker : str
        The file that such a model has, as ``config.json``.
    kind : str
        What such a model is called, for messages.
    names : sequence of str
        Names that the caller understands beside folders and hub ids, for messages.
    fetch : bool
        Whether a hub model may be downloaded; else it has to be in the hub's cache.

    Raises
    ------
    ConfigError
        If the folder is not a model, holds pickled weights, or the hub id is not pinned.
    ResourcesMissing
        If the hub cannot be reached, or the model is not in its cache and may not be fetched.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")) or model.count("/") != 1:
            known = " nor ".join(f"'{name}'" for name in names) + ", nor " if names else ""
            raise ConfigError(
                f"{field}: '{model}' is neither {known}a folder that exists, nor a hub id 'owner/name'; correct it"
            )
        folder = _fetch(model, revision, field, fetch)
    if not (folder / marker).is_file():
        raise ConfigError(f"{field}: {folder} has no {marker}, so it is not a {kind} model")
    pickled = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in _PICKLES)
    if pickled:
        raise ConfigError(
            f"{field}: {folder} holds pickled weights ({', '.join(pickled)}), which can run code when loaded; "
            "save the model again with safe_serialization=True and remove them"
        )
    return folder


def _fetch(model: str, revision: str | None, field: str, fetch: bool) -> Path:
    if revision is None or not _COMMIT.fullmatch(revision):
        found = "" if revision is None else f"; '{revision}' is none, and what a branch or tag names can change"
        raise ConfigError(
            f"{field.rpartition('.')[0]}.revision: the hub model {model} needs a commit, so that the run can be "
            f"repeated{found}; copy its 40 hex digits from the model's page"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                allow_patterns=[f"*{suffix}" for suffix in _FETCHED],
                local_files_only=not fetch,
            )
        )
    except OSError as exc:  # the hub's own errors and those of the network
        if not fetch:
            raise ResourcesMissing(
                f"{field}: {model} at {revision} is not in the hub's cache of this machine; "
                "it is fetched on first use, on every node that has to reach the hub"
            ) from exc
        raise ResourcesMissing(
            f"{field}: {model} at {revision} cannot be fetched ({exc}); check the name, the network and HF_TOKEN, "
            "or give the path of a local copy"
        ) from exc


def folder_revision(folder: Path) -> str:
    """Hash a model's files that may be read, by relative name and content. It does about 1 GB a second."""
    return files_hash(
        folder, (path for path in folder.rglob("*") if path.suffix in _FETCHED and path.name not in _NOT_READ)
    )


def files_hash(folder: Path, files: Iterable[Path]) -> str:
    """Hash files in a folder, by relative name and content. It does about 1 GB a second."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in files if path.is_file()):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        total.update(f"{relative.as_posix()}\0".encode())
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()


def weights_hash(folder: Path) -> str:
    """Hash a model's safetensors files, by relative name and content. It does about 1 GB a second.

    Raises
    ------
    ConfigError
        If there is none.
    """
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder}: holds no .safetensors file; save the model with safe_serialization=True")
    return files_hash(folder, files)
