"""The Ray connection and the border where Ray's errors become ours."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.exceptions

from compass_ray import errors
from compass_ray.errors import CompassError, ResourcesMissing, WorkerLost
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.head import watch_head, why_silent

_STARTING = "raised in its creation task"
_OURS = re.compile(rf"^{errors.__name__}\.(?P<name>\w+): ", re.MULTILINE)

_PLACE = re.compile(r"\(pid=\d+, ip=([^,)\s]+)")
"""Where a task ran, in what Ray says of its error; the error that comes to the driver has it nowhere else."""

_ADVICE_OF_RAY = re.compile(r"\nFailed to .* after \d+/\d+ attempts")
"""Where Ray Data's own advice begins, which it appends to the message of any error: on settings that are not ours."""


class Connection(NamedTuple):
    """How this process got to its Ray.

    ``joined`` says in words which cluster it has joined, None if it joined none just now; ``local`` whether it has
    started a Ray of its own.
    """

    joined: str | None
    local: bool


_NO_CLUSTER = (
    "ray.address: no cluster answers at {address} ({reason}); start one with `ray start --head`, or leave the address "
    "out to run locally"
)


def connect(config: RayConfig) -> Connection:
    """Join a cluster, or start a local Ray that ends with this process.

    The order is: ``config.address``, ``RAY_ADDRESS`` (set inside `ray job submit`), a cluster that
    `ray start` has left running on this machine, a new local Ray. That one listens on all interfaces, behind a token
    that Ray makes unless ``RAY_AUTH_MODE`` is ``disabled``.

    Raises
    ------
    ResourcesMissing
        If an address was named and no cluster answers there, or takes no calls of ours, or no local Ray can be started.
    """
    if ray.is_initialized():
        return Connection(None, local=False)
    _quiet()
    named = config.address or os.environ.get("RAY_ADDRESS")
    running = None if named else _started_here()
    if address := named or running:
        _join(address)
    else:
        _start(config.num_cpus)
        _keep_token_private()
    _quiet_data()
    return Connection(_described() if address else None, local=not address)


def _keep_token_private() -> None:
    """Make Ray's token private.

    Ray writes the token that it makes with the permissions of any file, and who reads it can run code here.
    """
    token = Path.home() / ".ray" / "auth_token"
    if token.exists():
        token.chmod(0o600)


def _start(num_cpus: int | None) -> None:
    """Start a local Ray. What hinders it is on this machine."""
    try:
        _init(address="local", num_cpus=num_cpus, include_dashboard=False)
    except (OSError, RuntimeError, ValueError) as exc:
        raise ResourcesMissing(
            f"no local Ray can be started here: {type(exc).__name__}: {_first_line(exc)}; Ray keeps sockets and logs "
            "below RAY_TMPDIR (/tmp if it is not set), whose path has to be short and which has to be yours, and a "
            "token below HOME: set both to folders that you can write to"
        ) from exc


def _join(address: str) -> None:
    if address.startswith(("http://", "https://")):
        raise ResourcesMissing(
            f"ray.address: {address} is that of a dashboard, to which jobs are submitted (`submit --address`); "
            "a cluster is joined at the address of its head, as 10.0.0.1:6379"
        )
    if (silence := why_silent(address)) is not None:  # Ray itself would wait for minutes
        raise ResourcesMissing(_NO_CLUSTER.format(address=address, reason=silence))
    try:
        _init(address=address)
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as exc:
        if (refusal := _refusal(address)) is not None:
            raise ResourcesMissing(
                f"ray.address: the cluster at {address} does not take our token ({refusal}); give its token as "
                "RAY_AUTH_TOKEN, or the path of a file with it as RAY_AUTH_TOKEN_PATH, with RAY_AUTH_MODE=token"
            ) from exc
        raise ResourcesMissing(_NO_CLUSTER.format(address=address, reason=_first_line(exc))) from exc
    if not address.startswith("ray://"):  # Ray Client has a watch of its own
        watch_head()


def _refusal(address: str) -> str | None:
    """Ask a head what it says of our token.

    None if that is not why it cannot be joined: joining tells only that it failed.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # no public name asks a head alone

    if address.startswith("ray://"):
        return None
    try:
        GcsClient(address=address)
    except ray.exceptions.AuthenticationError as exc:
        return str(exc.message).split(". ")[0]
    except ray.exceptions.RayError:
        return None
    return None


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [""])[0]


def _described() -> str:
    """Describe the cluster that was joined: where, which session, whose, and how large.

    ``auto`` finds any that is there.
    """
    context = ray.get_runtime_context()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    size = f"nodes: {len(nodes):,}, CPUs: {ray.cluster_resources().get('CPU', 0):g}"
    if ray.util.client.ray.is_connected():
        return f"a Ray cluster through Ray Client ({size})"
    node = ray._private.worker.global_worker.node  # no public name tells the session
    folder = Path(node.get_session_dir_path())
    owner = f" of user {folder.owner()}" if folder.is_dir() else ""
    return f"the Ray cluster at {context.gcs_address}, {folder.name}{owner} ({size})"


def _init(**options: Any) -> None:
    """Call ``ray.init``, which replaces the handler of SIGTERM. One that the program has set stays."""
    before = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _started_here() -> str | None:
    """Find the cluster that `ray start` has left running on this machine. Its note outlives a killed cluster."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # noqa: S108 where Ray puts it
    try:
        address = note.read_text(encoding="utf-8").strip()
    except OSError:  # none, or somebody else's
        return None
    return address if address and why_silent(address) is None else None


def cluster_cpus() -> int:
    """Count the CPUs of the cluster, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def cluster_gpus(config: RayConfig) -> float:
    """Count the GPUs of the cluster. It is joined or started if it has not been."""
    connect(config)
    return float(ray.cluster_resources().get("GPU", 0))


def room_for(num_cpus: float, num_gpus: float, section: str) -> int:
    """Count how many actors of this size the cluster holds.

    Raises
    ------
    ResourcesMissing
        At once, instead of waiting for ever, if no node holds a single one.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU"))
    if num_gpus > gpus or num_cpus > cpus:
        raise ResourcesMissing(
            f"{section}: one actor asks for num_cpus {num_cpus:g} and num_gpus {num_gpus:g}, but the largest node has "
            f"{cpus:g} CPUs and {gpus:g} GPUs; lower them (num_gpus 0 runs on CPUs) or join a larger cluster"
        )
    total = ray.cluster_resources()
    by_gpu = total.get("GPU", 0) // num_gpus if num_gpus else float("inf")
    return max(1, int(min(total.get("CPU", 0) // num_cpus, by_gpu)))


def worthwhile(shards: int, rows: int, rows_each: int, room: int, asked: int | None) -> int:
    """Choose how many actors to start. As asked for, else so many that each has work for longer than its own start.

    Parameters
    ----------
    shards, rows : int
        What there is to do; no actor is left without a shard.
    rows_each : int
        Rows that make another actor worth its start.
    room : int
        How many the cluster holds.
    asked : int, optional
        The config's number.
    """
    return min(shards, room, asked or max(1, -(-rows // rows_each)))


@contextmanager
def ray_errors() -> Iterator[None]:
    """Raise our own error where Ray wraps one, and :class:`WorkerLost` where Ray gave up on a worker."""
    try:
        yield
    except Exception as exc:
        if not _is_rays(exc):
            raise
        if (cause := _our_cause(exc)) is not None:
            text = _ADVICE_OF_RAY.split(str(cause), maxsplit=1)[0]
            if isinstance(cause, ResourcesMissing):
                text += _on_node(str(exc))
            cause.args = (text, *cause.args[1:])
            raise cause from exc
        failures = getattr(exc, "worker_failures", {0: exc}).values()
        if not any(_is_rays(failure) and not isinstance(failure, ray.exceptions.RayTaskError) for failure in failures):
            raise
        raise WorkerLost(
            f"Ray gave up on a worker ({_briefly(exc)}); if memory ran out, lower "
            "ingest.shard_bytes or the number of workers; run the same command again to go on where it stopped"
        ) from exc


def _on_node(told: str) -> str:
    """Say where a task failed, as Ray tells it.

    Only if there is more than one node: what is missing there may be elsewhere.
    """
    places = _PLACE.findall(told)
    nodes = {node["NodeManagerAddress"]: node["NodeName"] for node in ray.nodes()} if ray.is_initialized() else {}
    if not places or len(nodes) < 2:
        return ""
    name = nodes.get(places[-1], places[-1])
    return f" (on node {name}{'' if name == places[-1] else f', {places[-1]}'})"


def _briefly(exc: Exception) -> str:
    """Say briefly what Ray says of a lost worker.

    Of one that did not start it is the error alone and not the way to it.
    """
    text = str(exc).strip()
    if _STARTING not in text:
        return f"{type(exc).__name__}: {text}"
    return f"an actor could not start: {text.splitlines()[-1].strip()}"


def _is_rays(exc: BaseException) -> bool:
    """Tell whether Ray raised it. Ray Train has a tree of its own, in an extra that is slow to import."""
    return isinstance(exc, ray.exceptions.RayError) or f"{type(exc).__module__}.".startswith("ray.train.")


def _our_cause(exc: BaseException) -> CompassError | None:
    for failure in getattr(exc, "worker_failures", {}).values():  # of Ray Train, by rank
        if (found := _our_cause(failure)) is not None:
            return found
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, CompassError):
            cause = getattr(current, "cause", current)  # Ray raises a mixture of its class and ours
            return cause if isinstance(cause, CompassError) else current
        if (told := _told_by(current)) is not None:
            return told
        current = getattr(current, "cause", None) or current.__cause__ or current.__context__
    return None


def _told_by(exc: BaseException) -> CompassError | None:
    """Find the error of ours with which an actor failed to start. Ray keeps nothing of it but the text, at the end."""
    text = str(exc)
    if not isinstance(exc, ray.exceptions.RayActorError) or _STARTING not in text:
        return None
    for found in reversed(list(_OURS.finditer(text))):
        kind = getattr(errors, found["name"], None)
        if isinstance(kind, type) and issubclass(kind, CompassError):
            return kind(text[found.end() :].strip())
    return None


def _quiet() -> None:
    """Leave stderr to our own progress; warnings about actor restarts are Ray Data's, and not actionable."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("ray").setLevel(logging.ERROR)


def _quiet_data() -> None:
    from ray.data import DataContext

    logger = logging.getLogger("ray.data")
    logger.setLevel(logging.ERROR)  # importing ray.data sets it to INFO
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)  # what ends a run is raised to us, too; ray-data.log keeps the traceback
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.raise_original_map_exception = True  # Ray's wrapper loses its cause, which may be an error of our tree
    # A job may wait for hours until a cluster has scaled up; Ray's default of 30 minutes kills it.
    context.execution_no_progress_timeout_s = 24 * 3600
