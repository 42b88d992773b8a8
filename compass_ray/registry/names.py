"""What adapters are called: base folders, languages, versions and the references that people type.

Every name is checked here before it becomes a part of a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from compass_ray.errors import RegistryError
from compass_ray.languages import canonical_language
from compass_ray.models import CHAT_TEMPLATE, MORE_TEMPLATES, is_chat_template

ALIASES = ("champion", "candidate", "previous")

_BASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}-[0-9a-f]{8}")
_LANG = re.compile(r"[a-z]{2,8}(-[A-Z][a-z]{3})?")
_VERSION = re.compile(r"[0-9a-f]{8,40}")
_PREFIX = re.compile(r"[0-9a-f]{6,40}")
_REFERENCE = re.compile(r"reference(/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}){1,4}")
_ATTACHED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}\.[A-Za-z0-9]{1,20}")
_FORM = "[BASE/]LANG[@REF], as sw, sw@candidate or Qwen--Qwen2.5-7B-1a2b3c4d/sw@5e6f70"


def check_base_key(base: str) -> str:
    """Check the folder name of a base model, ``BaseRef.key``. RegistryError if it is none."""
    if not _BASE.fullmatch(base):
        raise RegistryError(f"base '{base}': expected the key of a base model, as Qwen--Qwen2.5-7B-1a2b3c4d")
    return base


def check_lang(lang: str) -> str:
    """Check a canonical language tag. RegistryError if it is none, naming the canonical form where there is one."""
    canonical = canonical_language(lang)
    if canonical != lang or not _LANG.fullmatch(lang):
        hint = f"; its canonical tag is '{canonical}'" if canonical and _LANG.fullmatch(canonical) else ""
        raise RegistryError(f"language '{lang}': expected a canonical BCP-47 tag, as sw or zh-Hant{hint}")
    return lang


def check_version(version: str) -> str:
    """Check the name of a version; RegistryError if it is none."""
    if not _VERSION.fullmatch(version):
        raise RegistryError(f"version '{version}': expected 8 to 40 lowercase hex digits, the training's fingerprint")
    return version


def check_file(name: str) -> str:
    """Check the relative name of a chat template or a ``reference/`` file. RegistryError if it is neither."""
    if not (is_chat_template(name) or _REFERENCE.fullmatch(name)):
        raise RegistryError(
            f"file '{name}': expected {CHAT_TEMPLATE}, {MORE_TEMPLATES}/<name>.jinja, or reference/<name> of letters, "
            "digits, '.', '_' and '-', at most four names deep"
        )
    return name


def is_attached(name: str) -> bool:
    """Tell whether a file could be one that is attached to a version.

    Such a name has exactly one dot, so none is that of another one's receipt, ``<name>.json``.
    """
    return _ATTACHED.fullmatch(name) is not None


def check_attached(name: str) -> str:
    """Check the name of a file that is attached to a version. RegistryError if it can be none."""
    if not is_attached(name):
        raise RegistryError(
            f"attached file '{name}': expected a name with one dot, as gate-1a2b3c4d.json, of letters, digits, '_' "
            "and '-'"
        )
    return name


def is_place(base: str, lang: str) -> bool:
    """Tell whether two folder names could be those of a base and language."""
    return bool(_BASE.fullmatch(base) and _LANG.fullmatch(lang))


def is_version_path(base: str, lang: str, version: str) -> bool:
    """Tell whether three folder names could be those of an adapter version."""
    return is_place(base, lang) and _VERSION.fullmatch(version) is not None


@dataclass(frozen=True)
class AdapterRef:
    """One adapter as people name it: ``[BASE/]LANG[@REF]``.

    Attributes
    ----------
    base : str or None
        The key of the base model; None where the registry's only one for this language is meant.
    lang : str
        A canonical language tag.
    ref : str
        An alias, a version, or a prefix of one of at least six digits.
    """

    base: str | None
    lang: str
    ref: str = "champion"

    def __post_init__(self) -> None:
        if self.base is not None:
            check_base_key(self.base)
        check_lang(self.lang)
        if self.ref not in ALIASES and not _PREFIX.fullmatch(self.ref):
            raise RegistryError(
                f"'@{self.ref}': expected {', '.join(ALIASES)}, a version, or at least six of its hex digits"
            )

    @classmethod
    def parse(cls, text: str) -> AdapterRef:
        """Read ``[BASE/]LANG[@REF]``.

        Raises
        ------
        RegistryError
            If a part is not a valid name.

        >>> AdapterRef.parse("sw@candidate")
        AdapterRef(base=None, lang='sw', ref='candidate')
        """
        place, at, ref = text.partition("@")
        base, slash, lang = place.rpartition("/")
        try:
            return cls(base if slash else None, lang, ref if at else "champion")
        except RegistryError as exc:
            raise RegistryError(f"adapter '{text}': {exc}; the form is {_FORM}") from None

    def __str__(self) -> str:
        place = self.lang if self.base is None else f"{self.base}/{self.lang}"
        return f"{place}@{self.ref}"
