"""What the scripts of ``jobs/`` share. It is installed with the package: a job's folder may hold a script alone.

They take fewer options than the commands do, and their errors are plain text, for logs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from compass_ray.errors import CompassError
from compass_ray.interrupts import resumable

Settings = TypeVar("Settings")
Result = TypeVar("Result")


class Argument(NamedTuple):
    """The file that a script is given."""

    name: str
    help: str


CONFIG = Argument("config", "YAML config: a file of the working dir, or s3://")


def run_job(
    description: str, load: Callable[[str, list[str]], Settings], work: Callable[[Settings], Result], given: Argument
) -> Result:
    """Read the command line of a script, and do its work.

    Parameters
    ----------
    description : str
        What ``--help`` says.
    load : callable
        From the file that is given and the values of ``--set`` to settings.
    work : callable
        From settings to what the script prints. The same command can go on with it after an interruption.
    given : Argument

    Returns
    -------
    Result
        Of ``work``.

    Raises
    ------
    SystemExit
        With the code of the error tree, once the error has been written to stderr.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("source", metavar=given.name, help=given.help)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides")
    arguments = parser.parse_args()
    try:
        with resumable():
            return work(load(arguments.source, arguments.overrides))
    except CompassError as exc:
        sys.stderr.write(f"error: {exc}\n")
        sys.exit(exc.exit_code)
