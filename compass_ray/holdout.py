"""What the certificate measures on, and nothing is chosen by.

The draw goes by content: a text that several languages ask for is held out of all of them or of none. Otherwise what
one holds out would be among what another's usage says of usage in general.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, seeding


@dataclass(frozen=True)
class Holdout:
    """Which usage is held out of a run.

    Attributes
    ----------
    seed : int
        Of the run.
    fraction : float
        Share of the usage documents, in [0, 1).
    """

    seed: int
    fraction: float


def heldout_mask(rows: pa.Table, seed: int, fraction: float) -> NDArray[np.bool_]:
    """Tell which usage rows are held out, shape (n,). Equal content falls on the same side, whoever asks for it.

    Parameters
    ----------
    rows : Table
        Columns content_id and role.
    seed : int
        Of the run.
    fraction : float
        Share of the usage documents that is held out, in [0, 1).
    """
    is_usage: NDArray[np.bool_] = np.asarray(pc.equal(rows["role"], "usage"))
    return is_usage & (seeding.uniform(records.ids_to_numpy(rows["content_id"]), seed, "holdout") < fraction)
