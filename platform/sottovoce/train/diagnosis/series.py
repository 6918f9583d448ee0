"""One figure of a run over its steps, taken from the points of its curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.train.figures.curves import CurvePoint


@dataclass(frozen=True, eq=False)
class Series:
    """P points of one figure, in the order of their steps; all values are finite."""

    steps: NDArray[np.int64]
    """(P,)"""
    values: NDArray[np.float64]
    """(P,)"""

    def __len__(self) -> int:
        return len(self.steps)

    def after(self, step: float) -> "Series":
        """Give the points of later steps."""
        return self._where(self.steps > step)

    def until(self, step: float) -> "Series":
        """Give the points up to a step and its own."""
        return self._where(self.steps <= step)

    def parts(self, number: int) -> list["Series"]:
        """Cut the points into so many parts of about as many points each."""
        places = np.array_split(np.arange(len(self)), number)
        return [Series(self.steps[part], self.values[part]) for part in places]

    def _where(self, wanted: NDArray[np.bool_]) -> "Series":
        return Series(self.steps[wanted], self.values[wanted])


def series_of(curves: Sequence[CurvePoint], name: str) -> Series:
    """Take one figure; of several values at a step the last counts, and values that are not finite are left out."""
    values = {point.step: point.values[name] for point in curves if name in point.values}
    finite = sorted((step, value) for step, value in values.items() if np.isfinite(value))
    return Series(
        np.array([step for step, _ in finite], dtype=np.int64),
        np.array([value for _, value in finite], dtype=np.float64),
    )
