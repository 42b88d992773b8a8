"""Train an encoder: parallel corpora -> a small static model with its scores and card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from compass_ray.config import read_config
from compass_ray.configbase import EXECUTION, Config, LocalFolder, identity
from compass_ray.embed import load_encoder
from compass_ray.embed.evaluation import ParallelScores, parallel_scores
from compass_ray.embed.training import card
from compass_ray.embed.training.bags import TokenBags, make_bags
from compass_ray.embed.training.config import EncoderTraining, Forms
from compass_ray.embed.training.erasure import forms_of, without_forms
from compass_ray.embed.training.fingerprint import fingerprint
from compass_ray.embed.training.teachers import languages_of, revision_of, teacher_vectors
from compass_ray.errors import ConfigError, EmptyInput, ResourcesMissing
from compass_ray.ingest.parallel import ParallelCorpus, read_parallel
from compass_ray.languages import canonical_language
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.progress import Display
from compass_ray.runtime.threads import set_threads

_PACKAGES = ("anyascii", "sentencepiece", "google.protobuf", "tensorboardX")
_RESERVED = ("parts", "work-")


class Scored(Config):
    """Labelled parallel sentences: nearest known sentences of the pivot language vote on the topics of the others."""

    known: ParallelCorpus
    scored: ParallelCorpus

    @model_validator(mode="after")
    def _labelled(self) -> Scored:
        if not (self.known.label and self.scored.label):
            raise ValueError("known and scored need a label")
        return self


class EncoderRecipe(Config):
    """Everything that makes an encoder."""

    name: str = Field(default="encoder", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    output: Annotated[LocalFolder, EXECUTION] = Field(
        description="Folder for the model and for checkpoints; on several nodes, on a disk that all of them see"
    )
    license: str = Field(default="other", description="Of the trained model, as model hubs write it")
    license_file: Annotated[str | None, EXECUTION] = Field(default=None, description="Copied beside the model")
    corpora: dict[str, ParallelCorpus] = Field(min_length=1, description="What it is trained on")
    exclude_languages: list[str] = Field(default=[], description="Left out of training however a corpus writes them")
    scores: Scored
    training: EncoderTraining = EncoderTraining()
    forms: Forms | None = Field(default=None, description="What the vectors are not to tell")
    ray: Annotated[RayConfig, EXECUTION] = RayConfig()

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value.startswith(_RESERVED):
            raise ValueError("'parts' and 'work-...' are the folders of checkpoints; choose another name")
        return value

    @field_validator("license_file")
    @classmethod
    def _is_there(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).is_file():
            raise ValueError("no such file")
        return value


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> EncoderRecipe:
    """Read and check a recipe; as :func:`compass_ray.load_config`."""
    return read_config(EncoderRecipe, source, overrides, {})[0]


def train_encoder(recipe: EncoderRecipe, display: Display | None = None) -> tuple[Path, ParallelScores]:
    """Train, prune, quantise and score an encoder.

    The model folder appears whole at ``<output>/<name>``. Checkpoints lie in ``<output>/work-<fingerprint>``, the
    tokenizer and the teacher's vectors in ``<output>/parts``: all are used again, also by recipes that share them.

    Returns
    -------
    folder : Path
        A sentence-transformers model: give it as ``embed.model``.
    scores : ParallelScores
        Of the folder's model, as a run would load it.

    Raises
    ------
    CompassError
        ``ConfigError``, ``EmptyInput`` and ``SchemaError`` before any work is done, ``NonFiniteLoss`` if training
        diverges, ``ResourcesMissing`` if the workers do not fit into the cluster.
    """
    from compass_ray.embed.training.quantize import pruned, write_model
    from compass_ray.embed.training.tokenizer import token_ids

    _check_packages()
    display = display or Display()
    folder = Path(recipe.output) / recipe.name
    _check_replaceable(folder)
    texts, languages = _training_texts(recipe)
    formed = _formed_texts(recipe, texts)
    known, scored = _scored_texts(recipe)
    display.say(f"corpora    {len(texts)} texts in {len(languages)} languages")
    work = Path(recipe.output) / f"work-{_fingerprint(recipe, texts)}"
    work.mkdir(parents=True, exist_ok=True)
    parts = Path(recipe.output) / "parts"
    parts.mkdir(exist_ok=True)
    tokenizer, bags, groups = _tokenized(texts, recipe.training, parts, display)
    vectors = _trained(texts, tokenizer.get_vocab_size(), bags, groups, recipe, parts, work, display)
    tokenizer, vectors = pruned(tokenizer, vectors, bags, recipe.training.min_piece_count)
    if formed is not None:
        vectors = without_forms(vectors, token_ids(tokenizer, formed[0]), formed[1])

    partial = work / "model"
    shutil.rmtree(partial, ignore_errors=True)
    write_model(partial, tokenizer, vectors)
    scores = parallel_scores(load_encoder(str(partial)).encode, known, scored, pivot=recipe.training.pivot)
    (partial / "scores.json").write_text(json.dumps(scores.as_dict(), indent=1) + "\n", encoding="utf-8")
    corpora = texts.group_by("corpus").aggregate([("text", "count"), ("lang", "count_distinct")]).to_pylist()
    tags = sorted({canonical_language(lang) or lang for lang in languages})
    page = card.model_card(recipe.training, recipe.license, _described(recipe, corpora), tags, vectors.shape, scores)
    (partial / "README.md").write_text(page, encoding="utf-8")
    if recipe.license_file:
        shutil.copyfile(recipe.license_file, partial / "LICENSE")
    _replace(folder, partial, work / "replaced")
    return folder, scores


def score_encoder(model: str, recipe: EncoderRecipe) -> ParallelScores:
    """Score any encoder on the recipe's labelled sentences."""
    known, scored = _scored_texts(recipe)
    return parallel_scores(load_encoder(model).encode, known, scored, pivot=recipe.training.pivot)


def _check_packages() -> None:
    missing = []
    for name in _PACKAGES:
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ResourcesMissing(f"training needs {', '.join(missing)}: pip install 'compass_ray[train]'")


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a model that this made."""
    ours = not folder.is_symlink() and all((folder / name).is_file() for name in ("modules.json", "scores.json"))
    if (folder.exists() or folder.is_symlink()) and not ours:
        raise ConfigError(
            f"output: {folder} exists and is not a model that an earlier training wrote (modules.json and "
            "scores.json); choose another name or output, or move it away"
        )


def _replace(folder: Path, made: Path, aside: Path) -> None:
    _check_replaceable(folder)
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    made.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _training_texts(recipe: EncoderRecipe) -> tuple[pa.Table, list[str]]:
    """Read the texts to train on, and their languages."""
    texts = read_parallel(recipe.corpora)
    langs = texts["lang"].to_pylist()
    tags = {lang: canonical_language(lang) for lang in dict.fromkeys(langs)}
    wrong = [lang for lang in recipe.exclude_languages if canonical_language(lang) not in {*tags.values()} - {None}]
    if wrong:
        raise ConfigError(f"exclude_languages: {', '.join(wrong)} not in the corpora; found {sorted(tags)}")
    excluded = {canonical_language(lang) for lang in recipe.exclude_languages}
    languages = sorted(lang for lang, tag in tags.items() if tag not in excluded)
    if unknown := set(recipe.training.favoured) - set(languages):
        raise ConfigError(f"training.favoured: {', '.join(sorted(unknown))} not in the corpora; found {languages}")
    if unknown := set(recipe.training.tokenizer_corpora) - set(recipe.corpora):
        raise ConfigError(
            f"training.tokenizer_corpora: {', '.join(sorted(unknown))} not in corpora; found {sorted(recipe.corpora)}"
        )
    if len(languages) < 2:
        raise ConfigError(f"exclude_languages: leaves {languages} to train on; translations take two languages")
    _check_teachers(recipe.training, languages)
    kept = set(languages)
    texts = texts.filter(pa.array([lang in kept for lang in langs]))
    spoken = texts.group_by("group").aggregate([("lang", "count_distinct")])["lang_count_distinct"]
    if max(spoken.to_pylist()) < 2:
        raise EmptyInput("exclude_languages: leaves no group with two languages; exclude fewer")
    return texts, languages


def _scored_texts(recipe: EncoderRecipe) -> tuple[pa.Table, pa.Table]:
    known = read_parallel({"known": recipe.scores.known})
    scored = read_parallel({"scored": recipe.scores.scored})
    for name, texts in (("scores.known", known), ("scores.scored", scored)):
        _check_pivot(name, texts["lang"].unique().to_pylist(), recipe.training.pivot)
    return known, scored


def _check_teachers(config: EncoderTraining, languages: Sequence[str]) -> None:
    """Fail if a teacher knows no language of the corpora."""
    for teacher in config.teachers:
        if not teacher.languages:
            _check_pivot("corpora", languages, config.pivot)
        elif not languages_of(teacher, config) & {*map(canonical_language, languages)}:
            raise ConfigError(
                f"training.teachers: no text of corpora is in a language of {teacher.name} "
                f"({', '.join(teacher.languages)}); found {', '.join(sorted(languages))}"
            )


def _check_pivot(where: str, languages: Sequence[str], pivot: str) -> None:
    if pivot not in map(canonical_language, languages):
        raise ConfigError(
            f"training.pivot: no text of {where} is in {pivot}; write it as a BCP-47 tag, as in 'en' for "
            f"eng_Latn; found {', '.join(sorted(languages))}"
        )


def _fingerprint(recipe: EncoderRecipe, texts: pa.Table) -> str:
    """Hash all that decides the trained table, and what is done with it after."""
    weights = {name: corpus.weight for name, corpus in recipe.corpora.items()}
    return fingerprint([identity(recipe.training), weights, [*map(revision_of, recipe.training.teachers)]], texts)


def _tokenized(
    texts: pa.Table, config: EncoderTraining, parts: Path, display: Display
) -> tuple[Any, TokenBags, NDArray[np.int64]]:
    """Make the tokenizer, and bags of all texts. Third comes the number of each of their groups in the table."""
    from tokenizers import Tokenizer

    from compass_ray.embed.training.tokenizer import token_ids, train_tokenizer

    favour = np.where(np.isin(texts["lang"].to_pylist(), config.favoured), config.favour, 1)
    fields = ("favoured", "favour", "vocab_size", "max_piece_length", "tokenizer_corpora")
    saved = parts / f"tokenizer-{fingerprint({name: getattr(config, name) for name in fields}, texts)}.json"
    strings = texts["text"].to_pylist()
    if saved.exists():
        tokenizer = Tokenizer.from_file(str(saved))
    else:
        display.say(f"tokenizer  {config.vocab_size} pieces")
        names = texts["corpus"].to_pylist()
        learnt = np.isin(names, config.tokenizer_corpora or names)
        repeated = (text for text, times in zip(strings, favour * learnt, strict=True) for _ in range(times))
        tokenizer = train_tokenizer(repeated, config.vocab_size, config.max_piece_length)
        tokenizer.save(str(saved) + ".partial")
        Path(str(saved) + ".partial").rename(saved)
    corpora = np.unique(texts["corpus"].to_pylist(), return_inverse=True)[1].astype(np.int32)
    bags, groups = make_bags(
        token_ids(tokenizer, strings), texts["group"].to_numpy(), corpora, favour.astype(np.float64)
    )
    return tokenizer, bags, groups


def _trained(
    texts: pa.Table,
    n_pieces: int,
    bags: TokenBags,
    groups: NDArray[np.int64],
    recipe: EncoderRecipe,
    parts: Path,
    work: Path,
    display: Display,
) -> NDArray[np.float32]:
    from compass_ray.embed.training import contrastive, trainer
    from compass_ray.runtime.cluster import connect, ray_errors

    config = recipe.training
    set_threads(config.threads)
    teacher = teacher_vectors(texts, config, parts, display)
    projection = None
    if teacher is not None:
        if config.dim > teacher.shape[1]:
            raise ConfigError(
                f"training.dim: {config.dim} is more than the {teacher.shape[1]} dimensions of "
                f"{' and '.join(one.name for one in config.teachers)}; lower it, or take another teacher"
            )
        teacher = teacher[groups]
        projection = contrastive.principal_projection(teacher, config.dim)
    first = contrastive.first_vectors(
        bags, n_pieces, config.dim, config.start_scale, config.noise, config.seed, teacher, projection
    )
    names = sorted(set(texts["corpus"].to_pylist()))  # as the bags number them
    shares = np.array([recipe.corpora[name].weight for name in names])
    counts = np.maximum(1, np.rint(config.batch_groups * shares / shares.sum())).astype(int)
    connect(recipe.ray)
    with ray_errors():
        return trainer.train_table(
            bags, dict(enumerate(counts.tolist())), first, teacher, projection, config, str(work), display
        )


def _formed_texts(recipe: EncoderRecipe, texts: pa.Table) -> tuple[list[str], NDArray[np.int64]] | None:
    """Find the texts that differ by form, and the form of each."""
    asked = recipe.forms
    if asked is None:
        return None
    if asked.corpus not in recipe.corpora:
        raise ConfigError(f"forms.corpus: {asked.corpus} not in corpora; found {sorted(recipe.corpora)}")
    wanted = canonical_language(asked.lang)
    pairs = zip(texts["corpus"].to_pylist(), texts["lang"].to_pylist(), strict=True)
    mine = pa.array([corpus == asked.corpus and canonical_language(lang) == wanted for corpus, lang in pairs])
    strings = texts.filter(mine)["text"].to_pylist()
    forms = forms_of(strings, asked.pattern, asked.min_texts)
    if forms.max(initial=-1) < 1:
        raise EmptyInput(
            f"forms: {asked.corpus} has {len(strings)} texts in {asked.lang} and fewer than two forms with "
            f"{asked.min_texts} of them; give another corpus, lang or pattern"
        )
    return strings, forms


def _described(recipe: EncoderRecipe, counted: list[dict[str, Any]]) -> list[card.CorpusRow]:
    by_name = {row["corpus"]: row for row in counted}
    return [
        card.CorpusRow(
            name, by_name[name]["text_count"], by_name[name]["lang_count_distinct"], corpus.license, corpus.url
        )
        for name, corpus in recipe.corpora.items()
        if name in by_name
    ]
