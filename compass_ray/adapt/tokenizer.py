"""The base model's tokenizer, and where the base is; without torch, so that tasks that only tokenise start fast."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compass_ray.adapt.config import AdaptConfig
from compass_ray.errors import ConfigError
from compass_ray.models import find_model

_FILES = ("*token*", "vocab*", "merges.txt", "chat_template*", "*.model")


def base_folder(config: AdaptConfig, *, fetch: bool = True) -> Path:
    """The base model's folder; a hub model is fetched, or looked for in the hub's cache alone.

    Raises
    ------
    ConfigError, ResourcesMissing
    """
    return find_model(
        config.base,
        config.revision,
        field="adapt.base",
        marker="config.json",
        kind="transformers causal language",
        fetch=fetch,
    )


def load_tokenizer(folder: Path, chat_template: str | None = None) -> Any:
    """The base's tokenizer, with the text of another chat template if one is given.

    Raises
    ------
    ConfigError
        If it cannot be loaded without remote code, or reports no character offsets (it is not a fast one).
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, ImportError, KeyError) as exc:
        raise ConfigError(f"adapt.base: {folder} has no tokenizer that loads without remote code ({exc})") from exc
    if not tokenizer.is_fast:
        raise ConfigError(
            f"adapt.base: the tokenizer of {folder} reports no character offsets, which loss masks need; "
            "convert it to a tokenizer.json"
        )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


@dataclass(frozen=True)
class TokenizerSource:
    """How a task gets the base's tokenizer: the config that names the base, and the text of a chat template."""

    config: AdaptConfig
    chat_template: str | None

    def load(self) -> Any:
        """The tokenizer, with the template in place."""
        return load_tokenizer(base_folder(self.config), self.chat_template)

    def fingerprint(self) -> str:
        """Hash of all that decides the tokens of a text."""
        folder = base_folder(self.config)
        total = hashlib.blake2b(json.dumps(self.chat_template).encode(), digest_size=16)
        for path in sorted({path for pattern in _FILES for path in folder.glob(pattern) if path.is_file()}):
            total.update(path.name.encode() + b"\0" + path.read_bytes())
        return total.hexdigest()
