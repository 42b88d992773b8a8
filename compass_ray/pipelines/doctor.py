"""``doctor``: whether a run would find what it needs, before it starts.

Nothing is downloaded, and nothing changed but for a small probe in the output, which is deleted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from compass_ray import storage
from compass_ray.adapt.tokenizer import base_folder
from compass_ray.cluster.device import device_for
from compass_ray.config import RunConfig, load_config
from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.kinds import kind_of
from compass_ray.embed.traits import traits_of
from compass_ray.errors import CompassError, ResourcesMissing
from compass_ray.ingest.config import EVALUATIONS, FilesConfig
from compass_ray.ingest.files import InputFile
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.splits import amount
from compass_ray.runtime import doctor as checks_of
from compass_ray.runtime.cluster import cluster_gpus, room_for
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.doctor import Check, attempt, failure

__all__ = ["Check", "doctor"]


def doctor(
    source: str | Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = (), address: str | None = None
) -> list[Check]:
    """Check this machine and its cluster, and what a config asks of them. A check that fails stops no other.

    Parameters
    ----------
    source, overrides
        The config, as for :func:`~compass_ray.config.load_config`; without one what every run needs is checked.
    address : str, optional
        Ray cluster to join; else the config's, else as :func:`~compass_ray.runtime.cluster.connect` finds one.
    """
    config, found = _config(source, overrides)
    ray_config = config.ray if config else RayConfig()
    if address is not None:
        ray_config = ray_config.model_copy(update={"address": address})
    found += attempt("packages", checks_of.packages_here)
    found += (authenticated := attempt("token auth", checks_of.token_auth))
    if any(check.state == "failed" for check in authenticated):
        joined = [Check("ray", "failed", "not tried", "put token auth in order first")]
    else:
        joined = attempt("ray", partial(checks_of.cluster, ray_config))
    connected = joined[0].state == "good"
    found += joined
    found += attempt("faiss", partial(_faiss, config, partial(cluster_gpus, ray_config) if connected else None))
    found += attempt("encoder", partial(_encoder, config.embed if config else EmbedConfig()))
    if config is not None:
        if config.adapt is not None:
            found += attempt("base model", partial(_model, "base model", partial(base_folder, config.adapt)))
        if connected:
            found += attempt("actors", partial(_actors, config))
        found += attempt("output", partial(_output, storage.absolute(config.output), connected))
        found += _sources(config, connected)
    return found


def _config(
    source: str | Path | Mapping[str, Any] | None, overrides: Sequence[str]
) -> tuple[RunConfig | None, list[Check]]:
    if source is None:
        return None, []
    try:
        config = load_config(source, overrides)
    except CompassError as exc:
        return None, [failure("config", exc)]
    return config, [Check("config", "good", f"run '{config.name}', {len(config.sources)} sources")]


def _faiss(config: RunConfig | None, gpus: Callable[[], float] | None) -> Iterator[Check]:
    """Check the build of faiss and the device that compares centroids.
    ``gpus`` counts those of the cluster, if it could be joined.
    """
    build = checks_of.version_reader()()["faiss"]
    if " and " in build:
        advice = "they overwrite each other: `pip uninstall` both, then install compass_ray[cpu] or compass_ray[gpu]"
        yield Check("faiss", "failed", build, advice)
        return
    if build == "absent" and config is not None and config.sample is not None and config.sample.neighbours == "faiss":
        yield Check("faiss", "failed", "absent, and sample.neighbours is faiss", "pip install 'compass_ray[cpu]'")
    device = device_for(config.cluster.device if config else "auto", gpus or (lambda: 1.0))
    yield Check("faiss", "good", f"{build}: centroids are compared on {device.upper()}s")


def _encoder(config: EmbedConfig) -> Iterator[Check]:
    return _model("encoder", partial(kind_of(config.model).folder, config), traits_of(config.model).weights)


def _model(name: str, find: Callable[..., Path | None], weights: str = "*.safetensors") -> Iterator[Check]:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        folder = find(fetch=False)
    except ResourcesMissing as exc:
        missing = failure(name, exc)
        yield missing if HF_HUB_OFFLINE else Check(name, "warning", missing.found, missing.advice)
        return
    if folder is None:
        yield Check(name, "good", "needs no model")
    elif any(folder.rglob(weights)):
        yield Check(name, "good", str(folder))
    else:
        absent = f"{folder} holds no {weights.removeprefix('*')} file"
        yield Check(name, "failed", absent, "install or copy the model again")


def _actors(config: RunConfig) -> Iterator[Check]:
    rooms = [("embed", room_for(config.embed.num_cpus, config.embed.num_gpus, "embed"))]
    if config.adapt is not None:
        workers = config.adapt.workers
        rooms.append(("adapt.workers", room_for(workers.num_cpus, workers.num_gpus, "adapt.workers")))
    yield Check("actors", "good", ", ".join(f"room for {room} of {section}" for section, room in rooms))


def _output(url: str, connected: bool) -> Iterator[Check]:
    """Write a file, read it back and delete it. So a store that only lists, or a full disk, is found out."""
    with storage.probe(url) as written:
        if connected:
            yield from _unseen("output", [written])
    yield Check("output", "good", f"{url}: written, read back and deleted")


def _sources(config: RunConfig, connected: bool) -> list[Check]:
    """Check sources, new usage and evaluations."""
    read: list[tuple[str, str, FilesConfig, str]] = [
        (f"source {name}", name, source, "sources") for name, source in config.sources.items()
    ]
    if config.monitor is not None:
        read += [(f"usage {name}", name, usage, "monitor.usage") for name, usage in config.monitor.usage.items()]
    if decontaminate := config.ingest.decontaminate:
        read += [(f"evaluation {name}", name, given, EVALUATIONS) for name, given in decontaminate.evaluations.items()]
    found: list[Check] = []
    first: list[str] = []
    for label, name, given, section in read:
        files: list[InputFile] = []
        found += attempt(label, partial(_files, label, name, given, section, files))
        first += [file.url for file in files[:1]]
    if connected:
        found += attempt("sources", partial(_unseen, "sources", first))
    return found


def _files(label: str, name: str, given: FilesConfig, section: str, files: list[InputFile]) -> Iterator[Check]:
    listing = list_source(name, given, section)
    files += listing.files
    found = amount(len(files), sum(file.size for file in files))
    yield Check(label, "good", "; ".join([found, *listing.said]))


def _unseen(name: str, urls: list[str]) -> Iterator[Check]:
    """Yield a failed check for each node that does not find the files.
    The nodes do not share the disk of these paths, or have no credentials.
    """

    def absent() -> list[str]:
        from compass_ray import storage

        return [storage.public(url) for url in urls if not storage.exists(url)]

    for node, missing in checks_of.on_each_node(absent).items():
        if missing:
            what = checks_of.brief(missing) if isinstance(missing, Exception) else f"does not find {', '.join(missing)}"
            advice = "use s3://, or a path on a disk that all nodes share; give all nodes the credentials"
            yield Check(f"{name} on nodes", "failed", f"{node}: {what}", advice)
