"""Log records of runs: JSON lines on stderr when ``COMPASS_LOG`` names a level, as ``COMPASS_LOG=info``.

Each has ``run``, and ``stage`` and ``shard`` where they apply. The driver writes them, since every receipt passes
through it; what happens inside workers is in Ray's own logs. Programs that use the package as a library configure the
logger ``compass_ray`` as they like: the same fields are attributes of its records.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from compass_ray.errors import ConfigError

LOG = logging.getLogger("compass_ray")
LOG.addHandler(logging.NullHandler())  # silent unless asked for

_VARIABLE = "COMPASS_LOG"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, message, and what was given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        body: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        body |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(body, ensure_ascii=False, default=str)


def log_as_asked() -> None:
    """Send records to stderr if the environment asks for it; again and again does no harm.

    Raises
    ------
    ConfigError
        If ``COMPASS_LOG`` is not the name of a level.
    """
    asked = os.environ.get(_VARIABLE)
    if not asked or any(isinstance(handler.formatter, JsonLines) for handler in LOG.handlers):
        return
    level = logging.getLevelNamesMapping().get(asked.upper())
    if level is None:
        raise ConfigError(f"{_VARIABLE}: expected debug, info, warning or error, found {asked!r}")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    LOG.addHandler(handler)
    LOG.setLevel(level)
