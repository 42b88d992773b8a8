"""Encoders from sentence-transformers: a local folder or a pinned hub model, safetensors only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.embed.encoder import Input, Tokenized
from compass_ray.errors import ConfigError
from compass_ray.models import find_model, folder_revision
from compass_ray.vectors import unit_rows

BUNDLED = Path(__file__).parent / "bundled"
"""The model that the package carries: see its README.md, and ``jobs/train_encoder.py`` for how it was made."""

_TOKENIZED_AT_ONCE = 1024


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
        names=("bundled", "base", "hashing"),
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
        self.weights_bytes = sum(weights.nbytes for weights in self._model.parameters())
        self.dim = int(self._model.get_embedding_dimension())
        # A static model has a bare `tokenizers` object, and is a lookup: its tokenizer does nearly all of the work.
        self._is_static = hasattr(self._model.tokenizer, "encode_batch_fast")

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        tokenizer = self._model.tokenizer
        if not self._is_static:  # padding and truncation are the model's matter, and cheap beside it
            ids = tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
            return Tokenized(np.array([len(one) for one in ids], dtype=np.int32), texts)
        bare = self._static_ids(texts)
        counts = np.array([len(ids) for ids in bare], dtype=np.int32)
        return Tokenized(counts, self._static_ids([self._prompt + text for text in texts]) if self._prompt else bare)

    def encode(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        return self._encode(self._model, inputs)

    def encode_exactly(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        if self._exact is None:
            self._exact = _load(self._folder, "float32", self._device)  # anew: what overflowed is lost
        return self._encode(self._exact, inputs)

    def _static_ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, some texts at a time: what the tokenizer returns of one is large."""
        tokenizer = self._model.tokenizer
        return [
            np.array(encoding.ids, dtype=np.int32)
            for start in range(0, len(texts), _TOKENIZED_AT_ONCE)
            for encoding in tokenizer.encode_batch_fast(
                list(texts[start : start + _TOKENIZED_AT_ONCE]), add_special_tokens=False
            )
        ]

    def _encode(self, model: Any, inputs: Sequence[Input]) -> NDArray[np.float32]:
        if not inputs:
            return np.empty((0, self.dim), dtype=np.float32)
        if self._is_static:
            return unit_rows(_static_vectors(model, self._ids_of(inputs)))
        vectors = model.encode(
            [f"{self._prompt}{text}" for text in inputs],
            batch_size=len(inputs),
            convert_to_tensor=True,
            normalize_embeddings=False,
            show_progress_bar=False,
        )
        return unit_rows(vectors.float().cpu().numpy())

    def _ids_of(self, inputs: Sequence[Input]) -> list[NDArray[np.int32]]:
        texts = [one for one in inputs if isinstance(one, str)]
        if texts:
            return self._static_ids([self._prompt + text for text in texts])
        return [one for one in inputs if not isinstance(one, str)]


def _static_vectors(model: Any, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """The model's vectors of token ids: nine tenths of the work on a text were its tokens."""
    import torch

    flat = torch.from_numpy(np.concatenate(ids).astype(np.int64)).to(model.device)
    offsets = torch.from_numpy(np.cumsum([0, *map(len, ids[:-1])])).to(model.device)
    with torch.inference_mode():
        vectors = model.forward({"input_ids": flat, "offsets": offsets})["sentence_embedding"]
    return np.asarray(vectors.float().cpu().numpy())


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
