"""Encoders from sentence-transformers: a local folder or a pinned hub model, safetensors only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.errors import ConfigError
from compass_ray.models import find_model, folder_revision
from compass_ray.vectors import unit_rows

BUNDLED = Path(__file__).parent / "bundled"
"""The model that the package carries: see its README.md, and ``jobs/train_encoder.py`` for how it was made."""


def model_folder(model: str, revision: str | None, *, fetch: bool = True) -> Path:
    """The local folder of a model: the bundled one, a folder, or what is fetched from the hub or is in its cache.

    Raises
    ------
    ConfigError
        If the folder is not a sentence-transformers model, holds pickled weights, or the hub id is not pinned.
    ResourcesMissing
        If the hub cannot be reached.
    """
    if model == "bundled":
        return BUNDLED
    return find_model(
        model,
        revision,
        field="embed.model",
        marker="modules.json",
        kind="sentence-transformers",
        names=("bundled", "hashing"),
        fetch=fetch,
    )


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
