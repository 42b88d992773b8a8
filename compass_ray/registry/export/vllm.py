"""Writing an adapter in the portable profile, and checking what was written against the original."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from compass_ray.errors import ConfigError, IncompatibleAdapter
from compass_ray.models import BaseRef
from compass_ray.registry.export.agreement import Agreement, agreement, probe_logits
from compass_ray.registry.export.approximate import approximate
from compass_ray.registry.export.models import load_base, put_adapter
from compass_ray.registry.export.portable import (
    PORTABLE_RANKS,
    convert,
    is_exact,
    portable_rank,
    read_source,
    updates_output,
    write_portable,
)


def write_vllm(
    adapter: Path, base: Path | None, trained_on: BaseRef, folder: Path, rank: int | None, tolerance: float
) -> tuple[Literal["exact", "svd"], int, Agreement | None]:
    """Write a portable adapter.

    Returns
    -------
    tuple of str, int and Agreement
        How it was made, its rank, and how well it agrees; no agreement without a base.

    Raises
    ------
    ConfigError
        If the adapter has to be approximated, or updates the output layer, and no base is given.
    IncompatibleAdapter
        If its logits do not agree, or it updates an output layer that the base ties to its embedding.
    """
    source = read_source(adapter)
    rank = portable_rank(source, rank)
    exact = is_exact(source, rank)
    if base is None:
        if not exact:
            what = "DoRA" if source.is_dora else f"an adapter of rank {source.rank}"
            raise ConfigError(
                f"--format vllm: {what} has to be approximated with rank {rank}, which needs the base model; give its "
                "folder or hub id with --base"
            )
        if updates_output(source):
            raise ConfigError(
                "--format vllm: this adapter updates the output layer, which cannot be served where the base ties it "
                "to its embedding; give the base's folder or hub id with --base"
            )
        write_portable(folder, source, *convert(source, rank), trained_on)
        return "exact", rank, None
    plain_base = load_base(base)
    if updates_output(source) and plain_base.get_output_embeddings().weight is plain_base.get_input_embeddings().weight:
        raise IncompatibleAdapter(
            "the adapter updates the output layer, which this base ties to its embedding: servers keep one layer for "
            "both, and leave the update out; serve it with --format peft, or train without (adapt.lora.target_modules)"
        )
    model = put_adapter(plain_base, adapter)
    original = probe_logits(model)
    with model.disable_adapter():
        plain = probe_logits(model)
    factors, alpha = convert(source, rank) if exact else approximate(model, source.dtype, rank)
    write_portable(folder, source, factors, alpha, trained_on)
    written = put_adapter(model.unload(), folder)  # the files, as their user will load them
    agreed = agreement(plain, original, probe_logits(written))
    higher = "ask for a higher --rank, or " if rank < PORTABLE_RANKS[-1] else ""
    agreed.require(tolerance, f"{higher}export with --format merged")
    return "exact" if exact else "svd", rank, agreed
