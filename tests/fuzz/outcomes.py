"""Counts of how cases have ended."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcomes:
    """How cases have ended.

    Attributes:
        counts: Number of cases by their end: a result, or the type of the user's error.
        faults: An example of each fault, by its type and place.
        slowest: Seconds of the slowest case.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    def line(self) -> str:
        """Return the counts in words."""
        ends = ", ".join(f"{name} {count}" for name, count in self.counts.most_common())
        return f"{self.counts.total()} cases: {ends}; the slowest {self.slowest:.2f} s"
