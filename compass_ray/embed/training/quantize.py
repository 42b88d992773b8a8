"""From a trained table to a small model folder: pieces pruned, vectors in eight bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from compass_ray.embed.training.bags import TokenBags
from compass_ray.embed.training.tokenizer import SPACE, UNKNOWN, keep_pieces


def pruned(
    tokenizer: Tokenizer, vectors: NDArray[np.float32], bags: TokenBags, min_count: int
) -> tuple[Tokenizer, NDArray[np.float32]]:
    """Drop rare pieces from tokenizer and vectors. Rare ones stand in the training texts less often than ``min_count``.

    Single characters stay, since every longer piece may have to fall back on them; the unknown piece and the
    bare space before a word get the zero vector, so that they carry no signal.
    """
    pieces = [tokenizer.id_to_token(number) or "" for number in range(tokenizer.get_vocab_size())]
    counts = np.bincount(bags.ids, minlength=len(pieces))
    single = np.array([len(piece) == 1 or piece == UNKNOWN for piece in pieces])
    kept = single | (counts >= min_count)
    small = vectors[kept].copy()
    small[np.array([piece in (UNKNOWN, SPACE) for piece in pieces])[kept]] = 0
    return keep_pieces(tokenizer, kept), small


def to_int8(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round rows to eight-bit integers with one scale each.

    Returns
    -------
    codes : ndarray of shape (n, d), int8
        From -127 to 127.
    scales : ndarray of shape (n,), float32
        ``codes * scales[:, None]`` misses the vectors by half a scale at most.
    """
    scales = (np.abs(vectors).max(axis=1) / 127).astype(np.float32)
    divisor = np.where(scales > 0, scales, 1)[:, None]
    return np.rint(vectors / divisor).astype(np.int8), scales


def write_model(folder: Path, tokenizer: Tokenizer, vectors: NDArray[np.float32]) -> None:
    """Write a sentence-transformers model: a static embedding with eight-bit vectors, then normalisation."""
    import torch
    from safetensors.numpy import save_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    codes, scales = to_int8(vectors)
    whole = torch.from_numpy(codes * scales[:, None])
    modules = [StaticEmbedding(tokenizer, embedding_weights=whole), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    [weights] = folder.rglob("model.safetensors")
    save_file({"embeddings": codes, "weights": scales}, weights)  # StaticEmbedding multiplies them when it loads
    weights.chmod(0o644)  # safetensors writes for its owner alone
    [pieces] = folder.rglob("tokenizer.json")
    plain = json.loads(pieces.read_text(encoding="utf-8"))
    pieces.write_text(json.dumps(plain, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
