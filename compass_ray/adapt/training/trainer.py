"""Worker groups on the cluster: how many at once, which languages each takes, and what happens when one is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compass_ray import paths, storage
from compass_ray.adapt.config import WorkersConfig
from compass_ray.adapt.training.worker import FisherJob, Job, Settings, fisher_group, train_group
from compass_ray.artifacts import canonical_json, digest
from compass_ray.errors import AdaptationError, CompassError, ResourcesMissing, WorkerLost
from compass_ray.interrupts import kept_handler
from compass_ray.runtime.cluster import ray_errors, room_for
from compass_ray.runtime.progress import Display
from compass_ray.runtime.tally import watched

_CONTROLLER_FAILURES = 3


def group_count(workers: WorkersConfig, languages: int) -> int:
    """Count the worker groups that train at once.

    Raises
    ------
    ResourcesMissing
        At once, instead of waiting for ever, if the cluster does not hold a single group.
    """
    room = room_for(workers.num_cpus, workers.num_gpus, "adapt.workers")
    if workers.count > room:
        raise ResourcesMissing(
            f"adapt.workers.count: {workers.count} workers with {workers.num_cpus} CPUs and {workers.num_gpus} GPUs "
            f"each do not fit into the cluster, which has room for {room}; lower the count or join a larger cluster"
        )
    return min(languages, room // workers.count, workers.parallel_languages or languages)


def assign_longest_first(jobs: Sequence[Job], sizes: Mapping[str, int], groups: int) -> list[list[Job]]:
    """Deal languages out to worker groups, the largest first. Each goes to the group that has the least to do.

    The longest-processing-time rule (Graham 1969): at most 4/3 of the shortest time possible.
    """
    members: list[list[Job]] = [[] for _ in range(groups)]
    loads = [0] * groups
    for job in sorted(jobs, key=lambda job: (-sizes[job.lang], job.lang)):
        least = loads.index(min(loads))
        members[least].append(job)
        loads[least] += sizes[job.lang]
    return members


def train_all(
    jobs: Sequence[Job], sizes: Mapping[str, int], settings: Settings, output: str, display: Display, steps: int
) -> dict[str, CompassError]:
    """Train and score all jobs, and say which failed and why.

    Parameters
    ----------
    sizes : mapping of str to int
        Work of each language, in any unit.
    output : str
        Where Ray Train keeps its own records.
    steps : int
        Updates of all languages, for the display.

    Raises
    ------
    ResourcesMissing, ConfigError
        What stops every language.
    """
    import ray

    groups = assign_longest_first(jobs, sizes, group_count(settings.config.workers, len(jobs)))
    with watched(display, "train", steps, "updates") as tally, ray_errors():
        fit = ray.remote(num_cpus=0, max_retries=0)(_train_group)
        running = [fit.remote(group, settings, output, tally) for group in groups]
        failed: dict[str, CompassError] = {}
        for failures in ray.get(running):
            failed |= failures
        return failed


def _train_group(jobs: list[Job], settings: Settings, output: str, tally: Any) -> dict[str, CompassError]:
    """Run one worker group after another until all jobs are done or failed. It runs as a task beside them.

    What fails in the middle of a language, after Ray Train has tried again, is that language's failure.
    """
    import ray
    from ray.train import TrainingFailedError

    failed: dict[str, CompassError] = {}
    remaining = list(jobs)
    while remaining:
        lost: Exception | None = None
        try:
            with ray_errors():
                _fit(remaining, settings, output, tally)
        except (WorkerLost, TrainingFailedError) as exc:
            lost = exc
        notes = ray.get(tally.notes.remote())
        failed |= {job.lang: notes[f"failed:{job.lang}"] for job in remaining if f"failed:{job.lang}" in notes}
        if lost is None:
            break
        current = notes.get("current:" + remaining[0].lang)
        if current is None:
            raise lost
        place = [job.lang for job in remaining].index(current)
        remaining, stopped = remaining[place + 1 :], remaining[place]
        if stopped.adapter.exists() and stopped.scores.exists():
            continue  # it was done before the workers were lost
        failed[current] = AdaptationError(f"{current}: its workers failed again and again: {lost}")
    return failed


def _fit(jobs: list[Job], settings: Settings, output: str, tally: Any) -> None:
    trainings = [job.adapter.fingerprint + job.scores.fingerprint for job in jobs]
    name = digest(canonical_json(trainings).encode(), size=8)
    fit_workers(
        train_group,
        {"settings": settings, "jobs": jobs, "tally": tally},
        settings.config.workers,
        output,
        f"{settings.name}-{'-'.join(job.lang for job in jobs)[:60]}-{name}",
    )


def fit_fisher(job: FisherJob, settings: Settings, output: str, display: Display) -> None:
    """Compute the Fisher information of an adapter on a worker group.

    Parameters
    ----------
    output : str
        Where Ray Train keeps its own records.

    Raises
    ------
    AdaptationError
        What the workers found, or that they were lost again and again.
    ResourcesMissing
        If the cluster does not hold a worker group.
    """
    import ray
    from ray.train import TrainingFailedError

    workers = settings.config.workers
    group_count(workers, 1)
    documents = int((job.packs.trained > 0).sum())
    with watched(display, "fisher", documents, "documents") as tally, ray_errors():
        loop = {"settings": settings, "job": job, "tally": tally}
        try:
            fit_workers(fisher_group, loop, workers, output, f"{settings.name}-{job.target.name}")
        except TrainingFailedError as exc:
            raise AdaptationError(f"{job.lang}: the workers failed again and again: {exc}") from exc
        failed: CompassError | None = ray.get(tally.notes.remote()).get("failed")
    if failed is not None:
        raise failed


def fit_workers(
    function: Callable[[Mapping[str, Any]], None], loop: dict[str, Any], workers: WorkersConfig, output: str, name: str
) -> None:
    """Run a train function on a worker group, and again where workers are lost.

    Parameters
    ----------
    output : str
        Ray Train keeps its own records of the run below it; checkpoints are ours.
    name : str
        Names the run by its content.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    filesystem, path = storage.arrow_filesystem(paths.cache_path(output, "ray-train"))
    trainer = TorchTrainer(
        function,
        train_loop_config=loop,
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.num_gpus > 0,
            resources_per_worker={"CPU": workers.num_cpus, **({"GPU": 1} if workers.num_gpus else {})},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(
                max_failures=workers.max_failures, controller_failure_limit=_CONTROLLER_FAILURES
            ),
        ),
    )
    with kept_handler():
        trainer.fit()
