"""The base model of a config, opened: what training, updates and comparisons of adapters begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compass_ray import storage
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.tokenizer import TokenizerSource, base_folder, template_files
from compass_ray.config import RunConfig
from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.models import BaseRef, weights_hash
from compass_ray.runtime.stage import Session

if TYPE_CHECKING:
    from compass_ray.adapt.training.worker import Settings

_PACKAGES = ("transformers", "peft", "deepspeed")


@dataclass(frozen=True)
class BaseModel:
    """A base model that is there, with its tokenizer.

    Attributes
    ----------
    section : AdaptConfig
        With absolute paths: workers run in folders of their own.
    folder : Path
    ref : BaseRef
        Name, revision and the hash of its weights.
    source : TokenizerSource
    pad_token, n_tokens : int
    templates : mapping of str to bytes
        Files of the chat template, by name.
    """

    section: AdaptConfig
    folder: Path
    ref: BaseRef
    source: TokenizerSource
    pad_token: int
    n_tokens: int
    templates: Mapping[str, bytes]

    def settings(self, config: RunConfig) -> Settings:
        """Collect what all trainings on it share."""
        from compass_ray.adapt.training.worker import Settings

        return Settings(self.section, self.ref, config.seed, self.pad_token, config.name)

    def check(self, session: Session) -> None:
        """Find out before anything is read whether it can be trained on, and the cluster holds a worker group.

        Raises
        ------
        ConfigError, ResourcesMissing
        """
        from compass_ray.adapt.layers import config_of
        from compass_ray.adapt.shapes import check_base
        from compass_ray.adapt.training.trainer import group_count

        base_config = config_of(str(self.folder))
        session.display.say(f"adapt: {check_base(base_config, self.section, self.n_tokens)}")
        session.connect()
        group_count(self.section.workers, 1)


def open_base(config: RunConfig) -> BaseModel:
    """Open the base that ``adapt`` names.

    Raises
    ------
    ConfigError, ResourcesMissing
        If there is no such base, or the packages or the tracker that training needs are not there.
    """
    from compass_ray.adapt.training.track import check_tracker

    section = adapt_section(config)
    check_packages()
    check_tracker(section.tracker)
    folder = base_folder(section)
    ref = BaseRef(section.base if section.revision else folder.name, section.revision, weights_hash(folder))
    source = TokenizerSource(section, _chat_template(section))
    tokenizer, named = source.open()
    n_tokens = max(tokenizer.get_vocab().values()) + 1
    return BaseModel(section, folder, ref, source, _pad_token(tokenizer), n_tokens, template_files(named))


def adapt_section(config: RunConfig) -> AdaptConfig:
    """Read the section ``adapt``, its paths made absolute. ConfigError if there is none."""
    section = config.adapt
    if section is None:
        raise ConfigError("adapt: this command needs the section; give at least adapt.base")
    tracker = section.tracker
    if tracker.uri is not None and "://" not in tracker.uri:
        tracker = tracker.model_copy(update={"uri": storage.absolute(tracker.uri)})
    local = Path(section.base).expanduser()
    base = str(local.absolute()) if local.is_dir() else section.base
    return section.model_copy(update={"base": base, "tracker": tracker})


def check_packages() -> None:
    """Raise ResourcesMissing if what training needs is not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ResourcesMissing(f"training needs {', '.join(missing)}: pip install 'compass_ray[train]'")


def _chat_template(section: AdaptConfig) -> str | None:
    if section.chat_template is None:
        return None
    try:
        return storage.read_bytes(section.chat_template).decode()
    except (FileNotFoundError, UnicodeDecodeError) as exc:
        raise ConfigError(f"adapt.chat_template: {section.chat_template} cannot be read as UTF-8 text ({exc})") from exc


def _pad_token(tokenizer: Any) -> int:
    """Choose the token for padding.

    Padding is never predicted and never seen, so any token does where there is none for it.
    """
    found = [token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None]
    return int(found[0]) if found else 0
