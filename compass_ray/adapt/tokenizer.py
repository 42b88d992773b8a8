"""The base model's tokenizer with its chat template, and where the base is.

Without torch, so that tasks that only tokenise start fast. A template that asks for today's date is told
``adapt.template_date``: a training has the same tokens on every day.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from compass_ray.adapt.config import AdaptConfig
from compass_ray.errors import ConfigError
from compass_ray.models import CHAT_TEMPLATE, MORE_TEMPLATES, find_model, is_chat_template

_FILES = ("*token*", "vocab*", "merges.txt", "chat_template*", "additional_chat_templates/*", "*.model")
_CLOCK = "strftime_now"
_ASKS_FOR_THE_DATE = re.compile(_CLOCK + r"""\(\s*(?P<quote>['"])(?P<form>[^'"]*)(?P=quote)\s*\)""")
_EXISTENCE = re.compile(_CLOCK + r"\s+is\s+(not\s+)?defined")


def base_folder(config: AdaptConfig, *, fetch: bool = True) -> Path:
    """Find the base model's folder. A hub model is fetched, or looked for in the hub's cache alone.

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
    """Load the base's tokenizer. It gets the text of another chat template if one is given.

    Raises
    ------
    ConfigError
        If it cannot be loaded without remote code, reports no character offsets (it is not a fast one), or has named
        chat templates of which none is the default.
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
    named = tokenizer.chat_template
    if isinstance(named, Mapping) and "default" not in named:
        raise ConfigError(
            f"adapt.base: the tokenizer of {folder} has chat templates named {', '.join(sorted(named))}, and none is "
            "the default; give one of them as adapt.chat_template"
        )
    return tokenizer


def at_date(template: str, day: date) -> str:
    """Put a day in place of every call of the clock. The chat template is then as it is on that day.

    transformers gives templates ``strftime_now``, which reads the clock of the machine, and lets no caller put another
    in its place.

    Raises
    ------
    ConfigError
        If the template calls it otherwise than with a literal format.
    """
    dated = _ASKS_FOR_THE_DATE.sub(lambda call: json.dumps(day.strftime(call["form"])), template)
    if _CLOCK in _EXISTENCE.sub("", dated):
        raise ConfigError(
            f"adapt.chat_template: the template uses the clock ({_CLOCK}) otherwise than with a literal format, so its "
            "tokens would change from day to day; give a template that writes a date"
        )
    return dated


def asks_for_date(templates: Mapping[str, str]) -> bool:
    """Tell whether one of the chat templates is told a date; see :func:`at_date`."""
    return any(_ASKS_FOR_THE_DATE.search(text) for text in templates.values())


def template_files(templates: Mapping[str, str]) -> dict[str, bytes]:
    """Make the files of chat templates, named as transformers does beside a tokenizer.

    Raises
    ------
    ConfigError
        If one is named otherwise than a file may be.
    """
    files = {
        CHAT_TEMPLATE if name == "default" else f"{MORE_TEMPLATES}/{name}.jinja": text.encode()
        for name, text in sorted(templates.items())
    }
    if odd := [file for file in files if not is_chat_template(file)]:
        raise ConfigError(
            f"adapt.base: a chat template would be {odd[0]!r}; its name may have letters, digits, _ and -"
        )
    return files


@dataclass(frozen=True)
class TokenizerSource:
    """How a task gets the base's tokenizer: the config that names the base, and the text of a chat template."""

    config: AdaptConfig
    chat_template: str | None

    def load(self) -> Any:
        """Load the tokenizer, with the template in place, as it is on ``template_date``."""
        return self.open()[0]

    def open(self) -> tuple[Any, dict[str, str]]:
        """Load the tokenizer as :meth:`load` does, and its chat templates by name.

        These are as they are with their clock; none if it has none.
        """
        tokenizer = load_tokenizer(base_folder(self.config), self.chat_template)
        found = tokenizer.chat_template
        named = {} if found is None else dict(found) if isinstance(found, Mapping) else {"default": found}
        dated = {name: at_date(text, self.config.template_date) for name, text in named.items()}
        if dated:
            tokenizer.chat_template = dated if isinstance(found, Mapping) else dated["default"]
        return tokenizer, named

    def fingerprint(self) -> str:
        """Hash all that decides the tokens of a text."""
        folder = base_folder(self.config)
        given = json.dumps([self.chat_template, self.config.template_date.isoformat()])
        total = hashlib.blake2b(given.encode(), digest_size=16)
        for path in sorted({path for pattern in _FILES for path in folder.glob(pattern) if path.is_file()}):
            total.update(path.name.encode() + b"\0" + path.read_bytes())
        return total.hexdigest()
