"""Encoders from sentence-transformers: a local folder or a pinned hub model, safetensors only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.vectors import unit_rows

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
_FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model"]
_NOT_READ = {"LICENSE", "scores.json"}
BUNDLED = Path(__file__).parent / "bundled"
"""The model that the package carries: see its README.md, and ``jobs/train_encoder.py`` for how it was made."""


def model_folder(model: str, revision: str | None) -> Path:
    """The local folder of a model: the bundled one, a folder, or what is fetched from the hub.

    Raises
    ------
    ConfigError
        If the folder is not a model, holds pickled weights, or the hub id is not pinned.
    ResourcesMissing
        If the hub cannot be reached.
    """
    folder = BUNDLED if model == "bundled" else Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")) or model.count("/") != 1:
            raise ConfigError(
                f"embed.model: '{model}' is neither 'bundled' nor 'hashing', nor a folder that exists, "
                "nor a hub id 'owner/name'"
            )
        folder = _fetch(model, revision)
    if not (folder / "modules.json").is_file():
        raise ConfigError(f"embed.model: {folder} has no modules.json, so it is not a sentence-transformers model")
    pickled = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in _PICKLES)
    if pickled:
        raise ConfigError(
            f"embed.model: {folder} holds pickled weights ({', '.join(pickled)}), which can run code when loaded; "
            "save the model again with safe_serialization=True and remove them"
        )
    return folder


def _fetch(model: str, revision: str | None) -> Path:
    if revision is None:
        raise ConfigError(
            f"embed.revision: the hub model {model} needs a commit, so that the run can be repeated; "
            "copy it from the model's page"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_FETCHED))
    except OSError as exc:  # the hub's own errors and those of the network
        raise ResourcesMissing(
            f"embed.model: {model} at {revision} cannot be fetched ({exc}); check the name, the network and HF_TOKEN, "
            "or give the path of a local copy"
        ) from exc


class SentenceTransformerEncoder:
    """Any sentence-transformers model, run without remote code and with deterministic batches.

    Parameters
    ----------
    folder : Path
        A model folder, see :func:`model_folder`.
    prompt : str
        Prefix of every text.
    dtype : {"float32", "float16", "bfloat16"}
    device : {"cpu", "cuda"}
    """

    def __init__(self, folder: Path, *, prompt: str = "", dtype: str = "float32", device: str = "cpu") -> None:
        self.revision = folder_revision(folder)
        self._folder, self._prompt, self._device = folder, prompt, device
        self._model = _load(folder, dtype, device)
        self._exact: Any = self._model if dtype == "float32" else None
        self.dim = int(self._model.get_embedding_dimension())

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int32]:
        tokenizer = self._model.tokenizer
        if hasattr(tokenizer, "encode_batch_fast"):  # a bare `tokenizers` object, as static models have
            lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts))]
        else:
            lengths = [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]] if texts else []
        return np.array(lengths, dtype=np.int32)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode(self._model, texts)

    def encode_exactly(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._exact is None:
            self._exact = _load(self._folder, "float32", self._device)  # anew: what overflowed is lost
        return self._encode(self._exact, texts)

    def _encode(self, model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        prompted = [self._prompt + text for text in texts]
        vectors = model.encode(
            prompted,
            batch_size=len(prompted),
            convert_to_tensor=True,
            normalize_embeddings=False,
            show_progress_bar=False,
        )
        return unit_rows(vectors.float().cpu().numpy())


def _load(folder: Path, dtype: str, device: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    except (ValueError, OSError, ImportError, KeyError) as exc:
        raise ConfigError(
            f"embed.model: {folder} cannot be loaded as a sentence-transformers model with safetensors weights and "
            f"without remote code ({exc}); save it again with save_pretrained"
        ) from exc
    return model.to(getattr(torch, dtype)).eval()


def folder_revision(folder: Path) -> str:
    """Hash of a model's files but for its card and licence, by relative name and content; about 1 GB a second."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or path.name in _NOT_READ or path.suffix == ".md":
            continue
        total.update(f"{relative.as_posix()}\0".encode())
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()
