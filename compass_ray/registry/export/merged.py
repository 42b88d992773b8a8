"""The base model with the adapter merged into its weights: for tools that know no adapters."""

from __future__ import annotations

import shutil
from pathlib import Path

from compass_ray.models import MORE_TEMPLATES
from compass_ray.registry.export.agreement import Agreement, agreement, probe_logits
from compass_ray.registry.export.models import load_base, put_adapter

_COPIED = {".json", ".txt", ".model", ".jinja"}


def write_merged(adapter: Path, base: Path, folder: Path, tolerance: float, dtype: str) -> Agreement:
    """Write model and tokenizer.

    The merge in float32 must agree, and so must the written files: rounding to the type of the base model may lose a
    good part of what a small adapter changes.

    Parameters
    ----------
    dtype : str
        Of the written model; ``auto`` is that of the base.

    Raises
    ------
    IncompatibleAdapter
        If the merge does not agree, as for an adapter on tied embeddings, or not in this type.
    """
    import torch
    from transformers import AutoConfig

    model = put_adapter(load_base(base), adapter)
    original = probe_logits(model)
    with model.disable_adapter():
        plain = probe_logits(model)
    merged = model.merge_and_unload(safe_merge=True)
    agreement(plain, original, probe_logits(merged)).require(
        tolerance, "the adapter cannot be merged into this base; serve it as it is"
    )
    of_base = AutoConfig.from_pretrained(base, local_files_only=True).dtype or torch.float32
    kept = of_base if dtype == "auto" else getattr(torch, dtype)
    merged.to(kept).save_pretrained(folder)
    del model, merged
    _copy_tokenizer(base, folder)
    stored = agreement(plain, original, probe_logits(load_base(folder)))
    stored.require(
        tolerance,
        f"{kept} has too few bits for what this adapter changes: write float32 (--dtype float32), or take it as it is "
        "(--tolerance)",
    )
    return stored


def _copy_tokenizer(base: Path, folder: Path) -> None:
    """Copy all small base files that saving the model has not written.

    They are tokenizer, vocabulary and chat templates.
    """
    for path in sorted(base.iterdir()):
        fits = path.suffix in _COPIED and not path.name.endswith(".index.json") and not path.name.startswith(".")
        if fits and path.is_file() and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    if (base / MORE_TEMPLATES).is_dir():
        shutil.copytree(base / MORE_TEMPLATES, folder / MORE_TEMPLATES)
