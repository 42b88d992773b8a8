"""The error tree: one glance tells what can go wrong and with which exit code.

::

    CompassError                        1
    ├ ConfigError (ValueError)          2   the config or a command line is wrong
    ├ DataError (ValueError)            3   the data are beyond what a run can use
    │   ├ SchemaError                       a file lacks a column or cannot be read at all
    │   ├ TooManyBadRows                    more broken rows than `ingest.max_bad_fraction`
    │   ├ NonFiniteEmbedding                more NaN or infinite vectors than allowed
    │   └ EmptyInput                        no file, no row, or a role without documents
    ├ ArtifactError                     1   a stage output on disk is not what it claims to be
    │   ├ ArtifactMissing                   no manifest: the stage has not finished
    │   ├ ArtifactCorrupt                   bytes and manifest disagree
    │   └ FingerprintMismatch           2   made from another encoder, config or input
    ├ ClusteringError                   3   rows cannot be clustered as asked
    │   └ TooFewSamples                     fewer rows than clusters
    ├ SamplingError                     3   no selection can be made as asked
    │   └ InfeasibleBudget                  the eligible pool cannot fill the budget
    ├ AdaptationError                   5   training failed, or trained nothing
    │   ├ NonFiniteLoss                     the loss became NaN or infinite
    │   ├ NothingTrained                    no row had a token to train on, or no weight moved
    │   └ IncompatibleAdapter               an adapter and a base model that do not belong together
    ├ RegistryError                     1   an adapter version cannot be found, read or moved
    │   └ AliasMoved                        somebody else moved the alias first
    ├ MonitoringError                   1   new usage cannot be judged
    │   └ IncomparableReference         2   what it is to be compared with does not say what usage was
    ├ GateRefused                       6   a candidate may not replace the champion by what was measured
    ├ ClusterError                      4   the Ray cluster or an outside service fails us
    │   ├ ResourcesMissing                  CPUs, GPUs, disk space, packages, permissions or a service
    │   └ WorkerLost                        a worker died more often than we retry
    └ Interrupted                     130   Ctrl-C or SIGTERM; the same command goes on where it stopped

Messages say what happened, where, what was expected, what was found and what to do next.
Every class takes one message, so every class survives pickling across Ray workers.
"""

from __future__ import annotations

from typing import ClassVar

DRIFT_EXIT_CODE = 10
"""Not an error: how monitoring tells a scheduler that usage has drifted."""

UNKNOWN_EXIT_CODE = 11
"""Nor this: that there is usage in a language of which no reference usage is known, and that no other has drifted."""


class CompassError(Exception):
    """Base of every error that compass_ray raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(CompassError, ValueError):
    """The configuration cannot be used; raised before any work is done."""

    exit_code = 2


class DataError(CompassError, ValueError):
    """The data cannot be used as configured."""

    exit_code = 3


class SchemaError(DataError):
    """A file lacks a column that the config names, or cannot be read as what it claims to be."""


class TooManyBadRows(DataError):
    """Structural faults exceed ``ingest.max_bad_fraction``."""


class NonFiniteEmbedding(DataError):
    """Non-finite vectors exceed ``embed.max_non_finite_fraction``."""


class EmptyInput(DataError):
    """No file matched, or a role that the run needs has no documents."""


class ArtifactError(CompassError):
    """A content-addressed stage output cannot be used."""


class ArtifactMissing(ArtifactError):
    """The artifact has no manifest, so it does not exist."""


class ArtifactCorrupt(ArtifactError):
    """The bytes of an artifact disagree with its manifest."""


class FingerprintMismatch(ArtifactError):
    """Two artifacts that must share an origin do not."""

    exit_code = 2


class ClusteringError(CompassError):
    """Clustering cannot be done on these data."""

    exit_code = 3


class TooFewSamples(ClusteringError):
    """Fewer usable rows than clusters were asked for."""


class SamplingError(CompassError):
    """The selection problem has no answer."""

    exit_code = 3


class InfeasibleBudget(SamplingError):
    """The budget is larger than the eligible pool."""


class AdaptationError(CompassError):
    """Training failed, or trained nothing."""

    exit_code = 5


class NonFiniteLoss(AdaptationError):
    """The training loss became NaN or infinite."""


class NothingTrained(AdaptationError):
    """No row had a token to train on, or no weight moved: never a silent success."""


class IncompatibleAdapter(AdaptationError):
    """An adapter does not belong to this base model, or cannot be written in the form that was asked for."""


class RegistryError(CompassError):
    """An adapter version or alias cannot be found, read or written."""


class AliasMoved(RegistryError):
    """An alias was moved by somebody else between reading and writing it."""


class MonitoringError(CompassError):
    """New usage cannot be judged."""


class IncomparableReference(MonitoringError):
    """What usage is to be compared with does not say what usage was."""

    exit_code = 2


class GateRefused(CompassError):
    """What was measured does not let a candidate replace the champion."""

    exit_code = 6


class ClusterError(CompassError):
    """The Ray cluster, or a service it depends on, failed."""

    exit_code = 4


class ResourcesMissing(ClusterError):
    """CPUs, GPUs, disk space, packages, permissions or addresses are missing, or a service does not answer."""


class WorkerLost(ClusterError):
    """A worker process died and could not be replaced."""


class Interrupted(CompassError):
    """Somebody asked the program to stop."""

    exit_code = 130
