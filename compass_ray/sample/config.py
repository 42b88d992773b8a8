"""What is selected, and against what: ``sample`` in the config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from compass_ray.configbase import Config, OneOf
from compass_ray.errors import ConfigError
from compass_ray.languages import canonical_language, language_refusal
from compass_ray.sample.traits import TRAITS, WITH_CLUSTER_QUOTAS, Traits

StrategyName = Annotated[str, OneOf(TRAITS)]
Shortfall = Literal["refuse", "stop", "nearest", "own_language", "accept"]
Fractions = float | dict[str, float] | None

_ONLY_WITH_CLUSTER_QUOTAS = (
    "language_prior",
    "max_language_fraction",
    "min_language_fraction",
    "max_cluster_language_fraction",
    "similarity_temperature",
    "transport_reach",
    "own_language_epochs",
)

_TEMPERATURE = 0.35
"""Chosen on other topics and target languages than published figures are of: lower ones draw fewer distinct texts."""


def _lower(sentence: str | None) -> str:
    return f"{sentence[:1].lower()}{sentence[1:]}" if sentence else ""


def _yaml_off(value: Any) -> Any:
    """Turn false into ``off``, as YAML reads a bare ``off`` as false."""
    return "off" if value is False else value


def _number_or_off(value: Any) -> Any:
    """Read a number or ``off``, with one message for each mistake. A union would give one for each of its members."""
    if _yaml_off(value) == "off":
        return "off"
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < float("inf"):
        raise PydanticCustomError("number_or_off", "Input should be a number above 0, or 'off'")
    return number


def _count_or_off(value: Any) -> Any:
    """Read a count or ``off``, with one message for each mistake, as :func:`_number_or_off`."""
    if _yaml_off(value) == "off":
        return "off"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PydanticCustomError("count_or_off", "Input should be a whole number of 1 or more, or 'off'")
    return value


def _fractions(value: Fractions) -> dict[str, float]:
    """Map languages to shares; the key of a number for all is empty."""
    return value if isinstance(value, dict) else {} if value is None else {"": value}


class SampleConfig(Config):
    """The selection problem."""

    strategy: StrategyName = Field(default="kl", description="How the budget is spent")
    budget: int | None = Field(default=None, ge=1, description="Documents to select for each target language")
    budget_tokens: int | None = Field(
        default=None, ge=1, description="Tokens to select for each target language, instead of documents"
    )
    shortfall: Shortfall | None = Field(
        default=None,
        description="What happens where the pool lacks what usage asks for, even in near clusters: refuse is an error "
        "unless the budget is filled anyhow; stop draws no more; nearest goes on to clusters farther away; "
        "own_language draws the target language's own rows wherever they lie, nearest to usage first, and before other "
        "languages unless language_prior is none; accept fills the budget from whatever clusters have documents. "
        "Unless given: own_language with cluster quotas, else refuse",
    )
    with_current: bool = Field(
        default=True,
        description="Whether current data are trained on beside the selection; if not, they count in no quota and no "
        "certificate, and adapt trains on the selection alone",
    )
    own_language_epochs: int = Field(
        default=4,
        ge=1,
        description="Where own-language rows come before other languages, these are drawn only for what own-language "
        "rows, trained on so many times, do not fill of the budget; 1 fills the budget with other languages",
    )
    transport_reach: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Clusters count as near if they are among this share of all pairs of clusters, nearest pairs first",
    )
    language_prior: Literal["own", "near", "none"] = Field(
        default="own",
        description="Which rows go first: the target language's own, then the rest; own, then languages "
        "near to it, then the rest; or all languages alike, by the square root of their capacity",
    )
    max_language_fraction: Fractions = Field(
        default=None, description="At most this share of the budget from one pool language, or from the named"
    )
    min_language_fraction: Fractions = Field(
        default=None,
        description="At least this share of the budget from the target language, or from the named, as far as the "
        "clusters asked for hold it",
    )
    max_cluster_language_fraction: float | None = Field(
        default=None, gt=0, le=1, description="At most this share of a cluster's quota from one language, rounded up"
    )
    similarity_temperature: Annotated[float | Literal["off"], BeforeValidator(_number_or_off)] = Field(
        default=_TEMPERATURE,
        description="With cluster quotas, draw documents of a cell by their odds to be of the target language's usage, "
        "judged by their vectors, to the power of 1 / this; off draws all alike",
    )
    near_duplicates: Annotated[Literal["off", "within_language"], BeforeValidator(_yaml_off)] = Field(
        default="within_language",
        description="Whether near-duplicates of a selected document are passed over, and rows near to usage refused; "
        "off still refuses rows with the words of usage",
    )
    near_duplicate_similarity: float = Field(
        default=0.95,
        gt=0,
        lt=1,
        description="Documents of a language with a higher cosine are near-duplicates, and pool rows of any language "
        "with this or a higher one to usage are refused for it",
    )
    max_copies: Annotated[int | Literal["off"], BeforeValidator(_count_or_off)] = Field(
        default=2, description="How many languages one meaning may be drawn in; off looks for no translations"
    )
    copy_similarity: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Documents of different languages with a higher cosine say the same; fitted to the encoder on "
        "parallel text unless given",
    )
    neighbours: Literal["exact", "faiss"] = Field(
        default="exact", description="How nearest and round_robin search: all products, or an approximate index"
    )
    language_features: str | None = Field(
        default=None, description="A folder with URIEL's features.npz, for langsim and language_prior: near"
    )

    @field_validator("max_language_fraction", "min_language_fraction")
    @classmethod
    def _languages_by_tag(cls, value: Fractions) -> Fractions:
        if not isinstance(value, dict):
            return value
        known: dict[str, float] = {}
        for code, fraction in value.items():
            tag = canonical_language(code)
            if tag is None:
                raise ValueError(language_refusal(str(code)))
            if tag in known:
                raise ValueError(f"{code!r} is '{tag}', which is there twice")
            known[tag] = fraction
        return known

    @model_validator(mode="after")
    def _one_budget_unless_all(self) -> SampleConfig:
        given = (self.budget is not None) + (self.budget_tokens is not None)
        if given != self.traits.takes_budget:
            raise ValueError("one of budget and budget_tokens is needed by every strategy but 'all', which takes none")
        return self

    @model_validator(mode="after")
    def _fields_that_the_strategy_reads(self) -> SampleConfig:
        problems = []
        if not self.has_cluster_quotas:
            problems += [
                f"{name} needs a strategy with cluster quotas ({', '.join(WITH_CLUSTER_QUOTAS)})"
                for name in _ONLY_WITH_CLUSTER_QUOTAS
                if getattr(self, name) not in ("off", type(self).model_fields[name].default)
            ]
            if self.shortfall not in (None, "refuse", "accept"):
                problems.append(f"shortfall is refuse or accept under '{self.strategy}', which has no cluster quotas")
        problems += [
            f"{name} is needed by '{self.strategy}': {_lower(type(self).model_fields[name].description)}"
            for name in self.traits.needs
            if getattr(self, name) is None
        ]
        problems += self._language_fractions()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _language_fractions(self) -> list[str]:
        """List what is wrong with the bounds on languages."""
        problems = []
        for name in ("max_language_fraction", "min_language_fraction"):
            if not all(0 < fraction <= 1 for fraction in _fractions(getattr(self, name)).values()):
                problems.append(f"{name} lies above 0 and at most at 1")
        floors, caps = _fractions(self.min_language_fraction), _fractions(self.max_language_fraction)
        problems += [
            f"min_language_fraction asks for {floor:g} of '{lang or 'the target language'}', and max_language_fraction "
            f"allows {caps.get(lang, caps.get('', 1.0)):g}"
            for lang, floor in floors.items()
            if floor > caps.get(lang, caps.get("", 1.0))
        ]
        if sum(floors.values()) > 1:
            problems.append(
                f"min_language_fraction: the shares of all languages sum to {sum(floors.values()):g}, above 1"
            )
        return problems

    @property
    def traits(self) -> Traits:
        """What can be said of the strategy."""
        return TRAITS[self.strategy]

    @property
    def has_cluster_quotas(self) -> bool:
        """Whether the strategy gives each cluster a quota."""
        return self.traits.decides == "cluster"

    @property
    def on_shortfall(self) -> Shortfall:
        """What happens where the pool lacks what is asked for, with the strategy's default filled in."""
        return self.shortfall or ("own_language" if self.has_cluster_quotas else "refuse")

    @property
    def transports(self) -> bool:
        """Whether what a cluster lacks is taken from near clusters alone."""
        return self.on_shortfall not in ("refuse", "accept")

    @property
    def own_before_others(self) -> bool:
        """Whether own-language rows of all clusters come before other languages, and not inside each cluster alone.

        Where one language may take no more than a part of a cluster, the others are asked for.
        """
        wherever = self.on_shortfall == "own_language" and self.language_prior != "none"
        return wherever and self.max_cluster_language_fraction is None

    @property
    def fits_copies(self) -> bool:
        """Whether translations are looked for, and from which cosine on has to be fitted."""
        return self.traits.takes_budget and self.max_copies != "off" and self.copy_similarity is None

    @property
    def named_languages(self) -> list[str]:
        """The languages that have bounds of their own."""
        return sorted({*_fractions(self.max_language_fraction), *_fractions(self.min_language_fraction)} - {""})

    def check_floor(self, target_lang: str) -> None:
        """Refuse a floor above the cap of a language that only a selection of this target language brings together.

        Raises
        ------
        ConfigError
        """
        floor, cap = self.floor_of(target_lang, target_lang), self.cap_of(target_lang)
        if floor > cap:
            raise ConfigError(
                f"sample: min_language_fraction asks for {floor:g} of '{target_lang}' in its own selection, and "
                f"max_language_fraction allows {cap:g}; lower the first or raise the second"
            )

    def cap_of(self, lang: str) -> float:
        """Find the largest share of the budget a pool language may take."""
        caps = _fractions(self.max_language_fraction)
        return caps.get(lang, caps.get("", 1.0))

    def floor_of(self, lang: str, target_lang: str) -> float:
        """Find the share of the budget a pool language should have at least.

        It holds in a selection for ``target_lang``.
        """
        floors = _fractions(self.min_language_fraction)
        return floors.get(lang, floors.get("", 0.0) if lang == target_lang else 0.0)

    @property
    def temperature(self) -> float | None:
        """That of draws towards usage, which cost passes over all vectors; None where documents are drawn all alike."""
        if not self.has_cluster_quotas or self.similarity_temperature == "off":
            return None
        return self.similarity_temperature

    @property
    def unit(self) -> Literal["documents", "tokens"]:
        """What budgets, quotas and capacities count."""
        return "documents" if self.budget_tokens is None else "tokens"

    @property
    def amount(self) -> int | None:
        """The budget in ``unit``; None under ``all``."""
        return self.budget if self.budget_tokens is None else self.budget_tokens
