"""Encoders from sentence-transformers: a local folder or a pinned hub model, safetensors only."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.encoder import Encoder, Input, Tokenized, ids_of, mostly_unknown
from compass_ray.embed.kinds import Kind
from compass_ray.embed.traits import ENCODERS
from compass_ray.errors import ConfigError
from compass_ray.models import find_model, folder_revision
from compass_ray.vectors import unit_rows

BUNDLED = Path(__file__).parent / "bundled"
"""The model that the package carries: see its README.md, and ``jobs/train_encoder.py`` for how it was made."""

_SETTINGS = "config_sentence_transformers.json"
_TOKENIZED_AT_ONCE = 1024
_SPACE = "\u2581"
"""The piece of a space that stands alone, where sentencepiece cut the training texts."""


def model_folder(model: str, revision: str | None, *, fetch: bool = True) -> Path:
    """Find the local folder of a model.

    It is the bundled one, a folder, or what is fetched from the hub or is in its cache.


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
        names=tuple(ENCODERS),
        fetch=fetch,
    )


def model_prompt(folder: Path, prompt: str | None, name: str | None) -> str:
    """Find the prefix of every text: the one given, else a model's prompt of that name, else its default prompt.

    Raises
    ------
    ConfigError
        If the model has no prompt of that name.
    """
    if prompt is not None:
        return prompt
    path = folder / _SETTINGS
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    prompts, name = settings.get("prompts") or {}, name or settings.get("default_prompt_name")
    if name is None:
        return ""
    if name not in prompts:
        known = ", ".join(f"'{one}'" for one in prompts) or "none"
        raise ConfigError(f"embed.prompt_name: {folder} has no prompt '{name}'; its prompts: {known}")
    return str(prompts[name])


def model_revision(folder: Path, max_tokens: int | None, truncate_dim: int | None) -> str:
    """Name all that the vectors are a function of: a hash of the model's files, and what the config changes in it."""
    changed = [f"{value}-{what}" for value, what in ((max_tokens, "tokens"), (truncate_dim, "dim")) if value]
    return "-".join([*changed, folder_revision(folder)])


class SentenceTransformerEncoder:
    """Any sentence-transformers model, run without remote code and with deterministic batches.

    Parameters
    ----------
    folder : Path
        A model folder, see :func:`model_folder`.
    prompt : str
        Prefix of every text, in place of the model's own; pooled or not as the model says (``include_prompt``).
    max_tokens : int, optional
        Tokens read of a text with its prompt, from its beginning, in place of the model's ``max_seq_length``.
    truncate_dim : int, optional
        Numbers kept of a vector, the first ones.
    dtype : {"float32", "float16", "bfloat16"}
    device : {"cpu", "cuda"}

    Raises
    ------
    ConfigError
        If the model cannot be loaded, or has not so many positions or dimensions.
    """

    def __init__(
        self,
        folder: Path,
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        truncate_dim: int | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.revision = model_revision(folder, max_tokens, truncate_dim)
        self.prompt = prompt
        self._folder, self._asked, self._device = folder, max_tokens, device
        self._model = _load(folder, max_tokens, dtype, device)
        self._exact: Any = self._model if dtype == "float32" else None
        self.weights_bytes = sum(weights.nbytes for weights in self._model.parameters())
        self.dim = _dimensions(self._model, folder, truncate_dim)
        # A static model has a bare `tokenizers` object, and is a lookup: its tokenizer does nearly all of the work.
        self._is_static = hasattr(self._model.tokenizer, "encode_batch_fast")
        self._max_tokens = max_tokens if self._is_static else _max_tokens(self._model)
        self._unknown, self._silent = _special_tokens(self._model.tokenizer)

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        bare = self._ids(texts)
        counts = np.array([len(ids) for ids in bare], dtype=np.int32)
        ids = self._ids([self.prompt + text for text in texts]) if self.prompt else bare
        cut = 0 if self._max_tokens is None else sum(len(one) > self._max_tokens for one in ids)
        inputs = [one[: self._max_tokens] for one in ids] if self._is_static else texts
        return Tokenized(counts, inputs, cut, mostly_unknown(bare, self._unknown, self._silent))

    def encode(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        return self._encode(self._model, inputs)

    def encode_exactly(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        if self._exact is None:
            self._exact = _load(self._folder, self._asked, "float32", self._device)  # anew: what overflowed is lost
        return self._encode(self._exact, inputs)

    def _ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """List the token ids of each text, before truncation."""
        if self._is_static:
            return self._static_ids(texts)
        # Padding and truncation are the model's matter: to tokenise twice is cheap beside it.
        ids = self._model.tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
        return [np.array(one, dtype=np.int32) for one in ids]

    def _static_ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """List the token ids of each text, some texts at a time. What the tokenizer returns of one is large."""
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
            return unit_rows(_static_vectors(model, ids_of(inputs, self._read_ids))[:, : self.dim])
        vectors = model.encode(
            list(inputs),
            prompt=self.prompt,  # even if it is empty: else the model's default comes before the text
            batch_size=len(inputs),
            convert_to_tensor=True,
            normalize_embeddings=False,
            show_progress_bar=False,
        )
        return unit_rows(vectors.float().cpu().numpy()[:, : self.dim])

    def _read_ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """List the token ids of each text with its prompt, as far as read."""
        return [ids[: self._max_tokens] for ids in self._static_ids([self.prompt + text for text in texts])]


def _static_vectors(model: Any, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Compute the model's vectors of token ids. Nine tenths of the work on a text were its tokens."""
    import torch

    flat = torch.from_numpy(np.concatenate(ids).astype(np.int64)).to(model.device)
    offsets = torch.from_numpy(np.cumsum([0, *map(len, ids[:-1])])).to(model.device)
    with torch.inference_mode():
        vectors = model.forward({"input_ids": flat, "offsets": offsets})["sentence_embedding"]
    return np.asarray(vectors.float().cpu().numpy())


def _special_tokens(tokenizer: Any) -> tuple[int | None, frozenset[int]]:
    """Find the token of what a tokenizer does not know. Also those that say nothing."""
    if not hasattr(tokenizer, "encode_batch_fast"):
        silent = {*tokenizer.all_special_ids, tokenizer.get_vocab().get(_SPACE)} - {tokenizer.unk_token_id, None}
        return tokenizer.unk_token_id, frozenset(silent)
    kind = json.loads(tokenizer.to_str())["model"]
    unknown = kind["unk_id"] if "unk_id" in kind else tokenizer.token_to_id(kind.get("unk_token") or "")
    space = tokenizer.token_to_id(_SPACE)
    return unknown, frozenset() if space is None else frozenset({space})


def _dimensions(model: Any, folder: Path, asked: int | None) -> int:
    there = int(model.get_embedding_dimension())
    if asked is not None and asked > there:
        raise ConfigError(f"embed.truncate_dim: {asked}, but vectors of {folder} have {there} dimensions; lower it")
    return asked or there


def _max_tokens(model: Any) -> int | None:
    limit = model.max_seq_length
    return None if limit is None or not math.isfinite(limit) else int(limit)


def _limit_tokens(model: Any, folder: Path, asked: int) -> None:
    """Have a model read fewer tokens of a text than it would, or as many as it has positions for."""
    if hasattr(model.tokenizer, "encode_batch_fast"):
        return  # a static model has no positions, and is given its tokens
    there = _positions(model[0].auto_model)
    if there is not None and asked > there:
        raise ConfigError(f"embed.max_tokens: {asked}, but {folder} has positions for {there} tokens; lower it")
    model.max_seq_length = asked


def _positions(transformer: Any) -> int | None:
    """Count the tokens that a model has positions for. Models after RoBERTa begin to count behind the padding token."""
    positions = getattr(transformer.config, "max_position_embeddings", None)
    table = getattr(getattr(transformer, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return positions if positions is None or padding is None else int(positions - padding - 1)


def _load(folder: Path, max_tokens: int | None, dtype: str, device: str) -> Any:
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
    if max_tokens is not None:
        _limit_tokens(model, folder, max_tokens)
    return model.to(getattr(torch, dtype)).eval()


class SentenceTransformer(Kind):
    """Any sentence-transformers model; ``bundled`` is one."""

    def folder(self, config: EmbedConfig, *, fetch: bool = True) -> Path:
        return model_folder(config.model, config.revision, fetch=fetch)

    def revision(self, config: EmbedConfig) -> str:
        return model_revision(self.folder(config), config.max_tokens, config.truncate_dim)

    def prompt(self, config: EmbedConfig) -> str:
        return model_prompt(self.folder(config), config.prompt, config.prompt_name)

    def load(self, config: EmbedConfig) -> Encoder:
        return SentenceTransformerEncoder(
            self.folder(config),
            prompt=self.prompt(config),
            max_tokens=config.max_tokens,
            truncate_dim=config.truncate_dim,
            dtype=config.dtype,
            device=config.device,
        )
