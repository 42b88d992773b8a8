"""``base``: hidden states of a causal language model, averaged with more weight on later tokens.

The vector of a text is ``sum(i * h[i]) / sum(i)``, scaled to length one: ``h[i]`` is the last layer's state of token i,
counted from 1, after the final norm. A causal model's later states have seen more of the text (SGPT, Muennighoff 2022,
arXiv 2202.08904). Strategy ``round_robin`` over these vectors is RDS+ (Ivison et al. 2025, arXiv 2503.01807).
Cost: about 2·parameters operations a token; a batch holds ``batch_tokens`` states of the widest layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.embed.config import NO_BASE, EmbedConfig
from compass_ray.embed.encoder import Encoder, Input, Tokenized, ids_of
from compass_ray.embed.kinds import Kind
from compass_ray.errors import ConfigError
from compass_ray.models import find_model, folder_revision
from compass_ray.vectors import unit_rows

MAX_TOKENS = 2048
"""Tokens read of a text where the config says nothing: what RDS+ reads."""

_POOLING = "last-position_weighted"
_TOKENIZED_AT_ONCE = 1024


def base_folder(base: str | None, revision: str | None, *, fetch: bool = True) -> Path:
    """Find the local folder of a causal language model; a hub model is fetched, or looked for in the cache alone.

    Raises
    ------
    ConfigError
        If none is named, it is no model, it holds pickled weights, or a hub id is not pinned.
    ResourcesMissing
        If the hub cannot be reached.
    """
    if base is None:
        raise ConfigError(f"embed.model: {NO_BASE}")
    return find_model(
        base,
        revision,
        field="embed.base",
        marker="config.json",
        kind="transformers causal language",
        fetch=fetch,
    )


def base_revision(folder: Path, max_tokens: int | None) -> str:
    """Name all that the vectors are a function of: layer, pooling, tokens read, and a hash of the model's files."""
    return f"{_POOLING}-{max_tokens or MAX_TOKENS}-{folder_revision(folder)}"


class BaseEncoder:
    """A causal language model as an encoder; loaded from safetensors, without remote code.

    Parameters
    ----------
    folder : Path
        A model folder, see :func:`base_folder`.
    max_tokens : int, optional
        Tokens read of a text, from its beginning; 2048, but never more than the model has positions for.
    prompt : str
        Prefix of every text.
    dtype : {"float32", "float16", "bfloat16"}
        Of weights and states; states are averaged in float32.
    device : {"cpu", "cuda"}
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_tokens: int | None = None,
        prompt: str = "",
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.revision = base_revision(folder, max_tokens)
        self.prompt = prompt
        self._folder, self._device = folder, device
        self._tokenizer = _load_tokenizer(folder)
        self._model = _load(folder, dtype, device)
        self._exact: Any = self._model if dtype == "float32" else None
        self.weights_bytes = sum(weights.nbytes for weights in self._model.parameters())
        self.dim = int(self._model.get_input_embeddings().weight.shape[1])
        asked = max_tokens or MAX_TOKENS
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._max_tokens = min(asked, positions or asked)  # relative positions have no end

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        bare = self._ids(texts)
        counts = np.array([len(ids) for ids in bare], dtype=np.int32)
        ids = self._ids([self.prompt + text for text in texts]) if self.prompt else bare
        cut = sum(len(one) > self._max_tokens for one in ids)
        return Tokenized(counts, [one[: self._max_tokens] for one in ids], cut)

    def encode(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        return self._encode(self._model, inputs)

    def encode_exactly(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        if self._exact is None:
            self._exact = _load(self._folder, "float32", self._device)  # anew: what overflowed is lost
        return self._encode(self._exact, inputs)

    def _read_ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """List the token ids of each text with its prompt, as far as read."""
        return [one[: self._max_tokens] for one in self._ids([self.prompt + text for text in texts])]

    def _ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """List each text's ids with the tokenizer's special tokens, some texts at a time."""
        return [
            np.array(ids, dtype=np.int32)
            for start in range(0, len(texts), _TOKENIZED_AT_ONCE)
            for ids in self._tokenizer(
                list(texts[start : start + _TOKENIZED_AT_ONCE]), return_attention_mask=False, verbose=False
            )["input_ids"]
        ]

    def _encode(self, model: Any, inputs: Sequence[Input]) -> NDArray[np.float32]:
        ids = ids_of(inputs, self._read_ids)
        vectors = np.zeros((len(inputs), self.dim), dtype=np.float32)
        some = [row for row, one in enumerate(ids) if len(one)]  # a text without tokens has no state
        if some:
            vectors[some] = _pooled(model, [ids[row] for row in some])
        return unit_rows(vectors)


def _pooled(model: Any, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Compute position-weighted means of the last hidden states. The shape is (n, dim), in float32."""
    import torch

    lengths = torch.tensor([len(one) for one in ids])
    steps = torch.arange(1, int(lengths.max()) + 1)
    mask = steps <= lengths[:, None]
    padded = torch.zeros(mask.shape, dtype=torch.long)  # any token: padding is on the right, and is masked
    padded[mask] = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    mask = mask.to(model.device)
    with torch.inference_mode():
        states = model(
            input_ids=padded.to(model.device), attention_mask=mask.long(), use_cache=False, return_dict=True
        ).last_hidden_state.float()
        states.masked_fill_(~mask[:, :, None], 0)  # what padding overflows to is not to meet a weight of zero
        weights = steps.to(model.device) * mask
        weights = weights / weights.sum(dim=1, keepdim=True)
        return np.asarray(torch.einsum("ntd,nt->nd", states, weights).cpu().numpy())


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, ImportError, KeyError) as exc:
        raise ConfigError(f"embed.base: {folder} has no tokenizer that loads without remote code ({exc})") from exc
    if len(tokenizer.get_vocab()) <= len(tokenizer.get_added_vocab()):  # some kinds load without their files
        raise ConfigError(f"embed.base: the tokenizer of {folder} has no vocabulary; copy tokenizer.json as well")
    return tokenizer


def _load(folder: Path, dtype: str, device: str) -> Any:
    """Load the model without its head. The head's logits would take more memory than all else."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
        )
    except (ValueError, OSError, ImportError, KeyError) as exc:
        raise ConfigError(
            f"embed.base: {folder} cannot be loaded as a causal language model with safetensors weights and without "
            f"remote code ({exc})"
        ) from exc
    return model.base_model.to(device).eval()


class Base(Kind):
    """Hidden states of a causal language model."""

    def folder(self, config: EmbedConfig, *, fetch: bool = True) -> Path:
        return base_folder(config.base, config.revision, fetch=fetch)

    def revision(self, config: EmbedConfig) -> str:
        return base_revision(self.folder(config), config.max_tokens)

    def load(self, config: EmbedConfig) -> Encoder:
        return BaseEncoder(
            self.folder(config),
            max_tokens=config.max_tokens,
            prompt=self.prompt(config),
            dtype=config.dtype,
            device=config.device,
        )
