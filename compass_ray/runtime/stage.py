"""Running a stage: reuse it, resume it, or compute what is missing, and time it.

The one protocol of all stages: given the keys that have no receipt yet, yield a receipt for each.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from compass_ray import paths, storage
from compass_ray.artifacts import Artifact, Manifest, Receipt
from compass_ray.errors import CompassError, Interrupted, ResourcesMissing, WorkerLost
from compass_ray.runtime import metrics
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.log import LOG, log_as_asked
from compass_ray.runtime.memory import PeakMemory
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage_record import StageRecord
from compass_ray.runtime.status import StatusFile
from compass_ray.runtime.waiting import JOINED_MINUTES, LOCAL_MINUTES, Head, Waiting

_LOOK_S = 1.0
_BEAT_S = 5.0

_REPEATS = 2
"""How often a stage goes on after the loss of a worker that Ray does not replace."""


@dataclass
class Session:
    """One run in progress: where it may execute, what it shows, what it has done.

    Ray is joined at the first stage that has work to do, so a run that finds all its artifacts
    starts no cluster. Made by :func:`session`.
    """

    output: str
    ray: RayConfig
    display: Display
    name: str
    status: StatusFile | None = None
    stages: list[StageRecord] = field(default_factory=list)
    memory: PeakMemory = field(default_factory=PeakMemory)
    waiting: Waiting | None = None
    _connected: bool = field(default=False, init=False, repr=False)
    _gave_up: str | None = field(default=None, init=False, repr=False)

    def connect(self) -> None:
        """Find out whether the output may be written, and join Ray; what is done once is not done again.

        Raises
        ------
        ResourcesMissing
        """
        if not self._connected:
            from compass_ray.runtime.cluster import connect

            storage.check_writable(self.output)
            joined, local = connect(self.ray)
            if joined:
                self.display.say(f"joined {joined}")
            minutes = self.ray.wait_minutes or (LOCAL_MINUTES if local else JOINED_MINUTES)
            wakes = _waking_signal()
            give_up = partial(self._give_up, wakes or signal.SIGINT)
            self.waiting = Waiting(self.display.say, Head(), minutes if wakes else None, give_up)
            self._connected = True

    def _give_up(self, wakes: signal.Signals, message: str) -> None:
        """End the wait of the main thread, which is inside Ray and looks at signals alone."""
        self._gave_up = message
        _thread.interrupt_main(wakes)

    def refuse_waiting(self) -> None:
        """Say what was waited for in vain, if that is why the main thread was interrupted.

        Raises
        ------
        ResourcesMissing
        """
        if self._gave_up is not None:
            raise ResourcesMissing(self._gave_up) from None

    def complete(
        self, artifact: Artifact, keys: Sequence[str], compute: Callable[[list[str]], Iterable[Receipt]]
    ) -> Manifest:
        """Make an artifact whole.

        Parameters
        ----------
        artifact : Artifact
        keys : sequence of str
            All keys of the finished artifact.
        compute : callable
            Given the keys that are missing, yields their receipts in any order. Called again for what is then
            missing if a worker dies that Ray does not replace, as one that holds what others have sent it.

        Raises
        ------
        WorkerLost
            If that happens more than twice.
        """
        started = time.monotonic()
        if artifact.exists():
            manifest = artifact.manifest()
            self.record(artifact, manifest, started, reused=True)
            return manifest
        finished = _finished(artifact, keys)
        resumed = len(finished)
        for repeat in range(_REPEATS + 1):
            try:
                self._compute(artifact, keys, finished, compute)
                break
            except WorkerLost as exc:
                if repeat == _REPEATS:
                    raise
                died = type(exc.__cause__).__name__
                self.display.say(f"{artifact.stage:<10} lost a worker ({died}); goes on with what is missing")
                finished = _finished(artifact, keys)
        manifest = artifact.commit(finished.values())
        self.record(artifact, manifest, started, reused=False, resumed=resumed)
        if self._connected:
            metrics.stage_done(self.name, self.stages[-1])
        return manifest

    def _compute(
        self,
        artifact: Artifact,
        keys: Sequence[str],
        finished: dict[str, Receipt],
        compute: Callable[[list[str]], Iterable[Receipt]],
    ) -> None:
        missing = [key for key in keys if key not in finished]
        if not missing:
            return
        from compass_ray.runtime.cluster import ray_errors

        self.connect()
        if self.status:
            self.status.begin(artifact.stage, artifact.name, len(finished), len(keys))
        with self.display.stage(artifact.stage, total=len(keys), done=len(finished)) as bar, ray_errors():
            for receipt in compute(missing):
                finished[receipt.key] = receipt
                bar.advance()
                self._shard_done(artifact, receipt)

    def record(
        self,
        artifact: Artifact,
        manifest: Manifest,
        started: float,
        *,
        reused: bool,
        resumed: int = 0,
        unit: str = "rows",
    ) -> None:
        """Keep and show what a stage did since ``started`` (of ``time.monotonic``)."""
        seconds = time.monotonic() - started
        record = StageRecord(
            artifact.stage,
            artifact.name,
            manifest.rows,
            manifest.bytes,
            round(seconds, 3),
            reused,
            resumed,
            *self.memory.take(),
        )
        self.stages.append(record)
        if self.status:
            self.status.finish_stage(self.stages)
        LOG.info("stage done", extra={"run": self.name, **asdict(record)})
        how = "reused" if reused else f"{seconds:.1f} s" + (f", {resumed} shards resumed" if resumed else "")
        self.display.say(f"{artifact.stage:<10} {manifest.rows:>9,} {unit}  {how}")

    def _shard_done(self, artifact: Artifact, receipt: Receipt) -> None:
        if self.status:
            self.status.advance()
        metrics.shard_done(self.name, artifact.stage, receipt.rows)
        told = {"run": self.name, "stage": artifact.stage, "shard": receipt.key, "rows": receipt.rows}
        LOG.info("shard done", extra={**told, "bytes": receipt.bytes})


@contextmanager
def session(
    output: str, ray: RayConfig, display: Display | None, name: str, command: str | None = None, folder: str = ""
) -> Iterator[Session]:
    """Open a :class:`Session` that measures memory.

    If it has a ``command``, it keeps a ``status.json`` up to date.

    Parameters
    ----------
    output : str
        Folder for runs and cache.
    name : str
        Of the run: it is in metrics and logs, and its folder holds the status.
    command : str, optional
        Which command the status belongs to.
    folder : str
        In the run's, of a command that has a status of its own.
    """
    log_as_asked()
    status = StatusFile(paths.runs_path(output, *filter(None, (name, folder))), command) if command else None
    opened = Session(output, ray, display or Display(), name, status)
    try:
        with _watched(opened):
            try:
                yield opened
            except (KeyboardInterrupt, SystemExit):  # what the handlers of signals raise; Ray's the second
                opened.refuse_waiting()
                raise
    except BaseException as exc:
        LOG.error("run ended", extra={"run": name, "error": f"{type(exc).__name__}: {exc}"})
        if status:
            interrupted = isinstance(exc, KeyboardInterrupt | Interrupted)
            try:
                status.end("interrupted" if interrupted else "failed", f"{type(exc).__name__}: {exc}")
            except (OSError, CompassError) as refused:  # as on a full disk; what ended the run is to be said
                LOG.warning("status not written", extra={"run": name, "error": str(refused)})
        raise
    if status:
        status.end("finished")


def _waking_signal() -> signal.Signals | None:
    """Find a signal that wakes the main thread: one with a Python handler. None in any other thread.

    A shell without job control starts what it puts into the background with SIGINT ignored; SIGTERM has the handler of
    :func:`~compass_ray.interrupts.resumable`, or that of Ray.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    handled = (number for number in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(number)))
    return next(handled, None)


@contextmanager
def _watched(opened: Session) -> Iterator[None]:
    """Look at memory, and show that the driver is alive, until the block is left."""
    left = threading.Event()

    def watch() -> None:
        written = time.monotonic()
        while not left.wait(_LOOK_S):
            opened.memory.look()
            if opened.waiting:
                opened.waiting.look()
            if opened.status and time.monotonic() - written >= _BEAT_S:
                written = time.monotonic()
                try:
                    opened.status.write()
                except (OSError, CompassError) as exc:  # the run itself will meet it, if it matters
                    LOG.warning("status not written", extra={"run": opened.name, "error": str(exc)})

    watcher = threading.Thread(target=watch, name="watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def _finished(artifact: Artifact, keys: Sequence[str]) -> dict[str, Receipt]:
    wanted = set(keys)
    return {key: receipt for key, receipt in artifact.finished().items() if key in wanted}


def map_keys(
    function: Callable[..., Any], keys: Iterable[str], *shared: Any, num_cpus: float = 1, num_gpus: float = 0
) -> Iterator[Any]:
    """Run ``function(key, *shared)`` as Ray tasks and yield results as they finish.

    ``shared`` travels once. At most four tasks per CPU are in flight, so the driver holds no queue
    of size n_shards. Tasks whose worker dies are retried by Ray; they must be safe to repeat.
    """
    import ray

    from compass_ray.runtime.cluster import cluster_cpus

    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=5)(function)
    references = [ray.put(value) for value in shared]
    waiting = list(keys)[::-1]
    running: list[Any] = []
    limit = 4 * cluster_cpus()
    while waiting or running:
        while waiting and len(running) < limit:
            running.append(task.remote(waiting.pop(), *references))
        ready, running = ray.wait(running)
        yield ray.get(ready[0])


def shuffle(
    split: Callable[..., list[Any]], keys: Iterable[Any], combine: Callable[..., Any], parts: int, *shared: Any
) -> Iterator[Any]:
    """Bring together what lies spread over shards, without a detour by the driver.

    ``split(key, parts, *shared)`` cuts a shard into ``parts`` pieces; ``combine(part, parts, pieces, *shared)`` gets
    all shards' pieces of one part. Yields what ``combine`` returns, in any order. Pieces stay in Ray's object store,
    but for those below 100 kB, which Ray keeps with the driver.
    """
    import ray

    splitter = ray.remote(num_returns=parts, max_retries=5)(_split)
    combiner = ray.remote(max_retries=5)(_combined)
    references = [ray.put(value) for value in shared]
    pieces = [splitter.remote(split, key, parts, *references) for key in keys]
    if parts == 1:  # then Ray gives the piece, not a list of one
        pieces = [[piece] for piece in pieces]
    running = [
        combiner.remote(combine, part, parts, len(shared), *references, *(piece[part] for piece in pieces))
        for part in range(parts)
    ]
    while running:
        ready, running = ray.wait(running)
        yield ray.get(ready[0])


def _split(split: Callable[..., list[Any]], key: Any, parts: int, *shared: Any) -> Any:
    pieces = split(key, parts, *shared)
    return pieces if parts > 1 else pieces[0]


def _combined(combine: Callable[..., Any], part: int, parts: int, n_shared: int, *rest: Any) -> Any:
    shared, pieces = rest[:n_shared], rest[n_shared:]
    return combine(part, parts, list(pieces), *shared)
