"""Number types with bounds. A dataclass field annotated with one becomes a flag that checks them.

dropout_rate: Seed = Annotated[int, Bounds(0, 2**32 - 1)]
Probability = 0.0      # `--model.dropout_rate=1.5` is refused, and told the bounds
"""

import dataclasses
import math
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Bounds:
    """A closed interval, open where `exclusive_*` says so."""

    minimum: float = -math.inf
    maximum: float = math.inf
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.minimum if self.exclusive_minimum else value >= self.minimum
        below = value < self.maximum if self.exclusive_maximum else value <= self.maximum
        return above and below

    def __str__(self) -> str:
        parts = []
        if self.minimum > -math.inf:
            parts.append(f"{'greater than' if self.exclusive_minimum else 'at least'} {self.minimum:g}")
        if self.maximum < math.inf:
            parts.append(f"{'less than' if self.exclusive_maximum else 'at most'} {self.maximum:g}")
        return " and ".join(parts)


PositiveInt = Annotated[int, Bounds(1)]
NonNegativeInt = Annotated[int, Bounds(0)]
PositiveFloat = Annotated[float, Bounds(0, exclusive_minimum=True)]
NonNegativeFloat = Annotated[float, Bounds(0)]
Seed = Annotated[int, Bounds(0, 2**32 - 1)]
Probability = Annotated[float, Bounds(0, 1)]
Rate = Annotated[float, Bounds(0, 1, exclusive_maximum=True)]
"""A fraction that may be zero but not one: dropout rates, momenta, decay rates."""
