"""Adapters for other tools: as they are, merged into their base, or in the portable profile that vLLM loads.

An export is a local folder that appears whole. It carries ``export.json``: from which version it was made, how, and
how well its logits agree with the original's; and the chat template that the adapter was trained with, in place of the
base's own.
"""

from __future__ import annotations

import json
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from compass_ray.errors import ConfigError
from compass_ray.models import MORE_TEMPLATES, BaseRef, weights_hash
from compass_ray.registry.card import model_card
from compass_ray.registry.contents import CONFIG, WEIGHTS
from compass_ray.registry.export.agreement import TOLERANCE, Agreement
from compass_ray.registry.lineage import check_base
from compass_ray.registry.version import CARD, AdapterVersion

Format = Literal["peft", "merged", "vllm"]
Method = Literal["copy", "merge", "exact", "svd"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes
    ----------
    format : {"peft", "merged", "vllm"}
    method : {"copy", "merge", "exact", "svd"}
        How it was made; only ``svd`` loses more than rounding.
    rank : int or None
        The rank of a portable adapter.
    agreement : Agreement or None
        With the original adapter; None where no base model was at hand and none was needed.
    """

    format: Format
    method: Method
    rank: int | None = None
    agreement: Agreement | None = None


def needs_base(version: AdapterVersion, form: Format, rank: int | None = None) -> bool:
    """Tell whether an export cannot be made without the base model."""
    if form != "vllm":
        return form == "merged"
    from compass_ray.registry.export.portable import is_exact, portable_rank, read_source, updates_output

    with _local_copy(version) as adapter:
        source = read_source(adapter)
        return updates_output(source) or not is_exact(source, portable_rank(source, rank))


def export(
    version: AdapterVersion,
    form: Format,
    output: Path,
    base: Path | None = None,
    rank: int | None = None,
    tolerance: float | None = None,
    dtype: Dtype = "auto",
) -> Export:
    """Write an adapter version for other tools.

    Parameters
    ----------
    output : Path
        A folder that does not exist yet, or is empty.
    base : Path or None
        Folder of the base model, see :func:`needs_base`. A portable adapter is compared with the original wherever it
        is given.
    rank : int or None
        Of a portable adapter; by default the smallest that holds the adapter.
    tolerance : float or None
        Largest relative error of the logits; by default ``agreement.TOLERANCE``.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Of a merged model; ``auto`` is that of the base.

    Raises
    ------
    ConfigError
        If the arguments do not fit together.
    IncompatibleAdapter
        If this is not the base of the adapter, or the adapter cannot be written in this form, or not well enough.
    """
    if form not in get_args(Format):
        raise ConfigError(f"--format {form}: expected one of {', '.join(get_args(Format))}")
    if rank is not None and form != "vllm":
        raise ConfigError(f"--rank: only --format vllm has a rank of its own, not {form}")
    if dtype != "auto" and form != "merged":
        raise ConfigError(f"--dtype: only --format merged has a type of its own, not {form}")
    if tolerance is not None and not tolerance > 0:
        raise ConfigError(f"--tolerance {tolerance}: expected more than 0")
    if base is not None:
        check_base(version.lineage, BaseRef(base.name, None, weights_hash(base)))
    with _appearing(output) as folder, _local_copy(version) as adapter:
        made = _write(version, form, adapter, base, folder, rank, TOLERANCE if tolerance is None else tolerance, dtype)
        if form != "merged":
            _name_base(folder / CONFIG, version.lineage.base, base)
        _put_chat_templates(version, folder)
        card = model_card(version.lineage, merged=True).encode() if form == "merged" else version.read(CARD)
        (folder / CARD).write_bytes(card)
        body = {**asdict(made), "adapter": str(version), "base": asdict(version.lineage.base)}
        (folder / "export.json").write_text(json.dumps(body, indent=1), encoding="utf-8")
    return made


def _write(
    version: AdapterVersion,
    form: Format,
    adapter: Path,
    base: Path | None,
    folder: Path,
    rank: int | None,
    tolerance: float,
    dtype: Dtype,
) -> Export:
    """Write the form's own files; torch is loaded only for the forms that need it."""
    if form == "peft":
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        return Export(form, "copy")
    if form == "merged":
        from compass_ray.registry.export.merged import write_merged

        if base is None:
            raise ConfigError("--format merged: needs the base model; give its folder or hub id with --base")
        return Export(form, "merge", agreement=write_merged(adapter, base, folder, tolerance, dtype))
    from compass_ray.registry.export.vllm import write_vllm

    return Export(form, *write_vllm(adapter, base, version.lineage.base, folder, rank, tolerance))


def _name_base(config: Path, trained_on: BaseRef, base: Path | None) -> None:
    """Name the base so that peft finds it: a hub id and its commit, or the folder that was given."""
    if trained_on.revision is not None:
        name = trained_on.name
    elif base is not None:
        name = str(base.resolve())
    else:
        return
    body = {**json.loads(config.read_bytes()), "base_model_name_or_path": name, "revision": trained_on.revision}
    config.write_text(json.dumps(body, indent=1, ensure_ascii=False), encoding="utf-8")


def _put_chat_templates(version: AdapterVersion, folder: Path) -> None:
    """Put the version's chat templates there and no others.

    A base's template for tools is not what the version was trained with.
    """
    if version.chat_templates:
        shutil.rmtree(folder / MORE_TEMPLATES, ignore_errors=True)
        version.download(folder, version.chat_templates)


@contextmanager
def _local_copy(version: AdapterVersion) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="compass-adapter-") as folder:
        version.download(Path(folder), (CONFIG, WEIGHTS))
        yield Path(folder)


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """Open a folder beside the output. It takes the output's place when all is written, and else is gone."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"--output {output}: is there already and not an empty folder; give another one")
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir(parents=True)
    mode = stat.S_IMODE(partial.stat().st_mode)  # what the umask leaves; writers of weights leave less
    try:
        yield partial
        for path in (partial, *partial.rglob("*")):
            path.chmod(mode if path.is_dir() else mode & 0o666)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
