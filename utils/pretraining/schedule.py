"""How long to train, and how fast to learn at each step.

The learning rate rises, stays, and falls in the last part of the budget. So a finished
training can go on: from where its rate began to fall, as if the larger budget had been given at
once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.errors import UsageError

WARM_UP = 200  # steps
# Of the budget. A batch holds few products, and so the steps at the highest rate lead nowhere soon:
# the loss stood still within 20,000 pictures and fell again as soon as the rate did.
SHARE_OF_FALL = 0.5
# Of trained weights' budget: they have been where the highest rate leads.
SHARE_OF_FALL_GOING_ON = 0.95
LEAST_FACTOR = 0.02  # of the highest rate, at the end
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """How much to train: one of the first two is given.

    Attributes:
        pictures: How many; 0 where time decides.
        seconds: How long; 0 where the number decides.
        fall: The share of it, between 0 and 1, in which the learning rate falls.
    """

    pictures: int = 0
    seconds: float = 0.0
    fall: float = SHARE_OF_FALL

    @classmethod
    def parse(cls, text: str, *, fall: float = SHARE_OF_FALL) -> Budget:
        """Read ``300000`` (pictures), ``90s``, ``20m`` or ``8h``.

        Args:
            text: What to read.
            fall: As the budget has it.

        Raises:
            UsageError: it is none of these, or not positive.
        """
        number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "")
        try:
            value = float(number) if unit else int(number)
        except ValueError:
            value = 0
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(
                "expected --budget as a number of pictures (300000) or a time (90s, 20m, 8h), "
                f"found {text!r}"
            )
        if unit:
            return cls(seconds=value * UNITS[unit], fall=fall)
        return cls(pictures=int(value), fall=fall)

    def __str__(self) -> str:
        return f"{self.seconds:g}s" if self.seconds else f"{self.pictures} pictures"

    def must_fall(self, step: int, batch_size: int, seconds: float) -> bool:
        """Tell whether the learning rate must begin to fall after so much training."""
        if self.seconds:
            return seconds >= (1 - self.fall) * self.seconds
        return step >= round((1 - self.fall) * self._steps(batch_size))

    def end(self, step: int, batch_size: int, slowdown: float = 1.0) -> int:
        """Return the step at which training ends, if the rate begins to fall at this one.

        Args:
            step: This one.
            batch_size: Pictures in a batch.
            slowdown: How many times as long a step takes from now on.
        """
        if self.seconds:
            before = self.fall / (1 - self.fall) * step  # in as much time, so far
            return step + max(round(before / slowdown), 1)
        return max(self._steps(batch_size), step + 1)

    def _steps(self, batch_size: int) -> int:
        return math.ceil(self.pictures / batch_size)


@dataclass(frozen=True)
class Schedule:
    """Where the learning rate is, by steps: a stop in between changes nothing.

    Attributes:
        fall_start: The step at which the rate began to fall; -1 before.
        end: The step at which training ends; -1 before it is known.
    """

    fall_start: int = -1
    end: int = -1

    def advance(
        self, budget: Budget, step: int, batch_size: int, seconds: float, slowdown: float = 1.0
    ) -> Schedule:
        """Begin the fall where it is time for it; arguments as `Budget` has them."""
        if self.fall_start >= 0 or not budget.must_fall(step, batch_size, seconds):
            return self
        return Schedule(step, budget.end(step, batch_size, slowdown))

    def factor(self, step: int, warm_up: int = WARM_UP) -> float:
        """Return what the learning rate is multiplied by at a step.

        Args:
            step: Which.
            warm_up: Steps in which it rises.
        """
        rise = min(1.0, (step + 1) / warm_up)
        if self.fall_start < 0:
            return rise
        left = (self.end - step) / (self.end - self.fall_start)
        return rise * max(left, LEAST_FACTOR)

    def is_over(self, step: int) -> bool:
        """Tell whether training has come to its end."""
        return 0 <= self.end <= step
