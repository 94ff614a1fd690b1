"""Comparison of repeated results with recorded ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.results import ResultRow, measured, numbered


@dataclass(frozen=True)
class Comparison:
    """What repeated results have in common with the recorded ones.

    Attributes:
        num_equal: Number of rows that are equal in all digits of ``results.csv``, times apart.
        num_different: Number of rows that differ.
        num_missing: Number of repeated rows that are not recorded.
        largest: The largest difference of a metric; 0 if there is none.
        place: The metric and the row of this difference; empty if there is none.
    """

    num_equal: int
    num_different: int
    num_missing: int
    largest: float
    place: str

    @property
    def is_equal(self) -> bool:
        """Whether all repeated rows are recorded and equal."""
        return not (self.num_different or self.num_missing)

    def __str__(self) -> str:
        if self.is_equal:
            return f"{numbered(self.num_equal, 'row')}, all equal to the recorded ones"
        parts = [f"{numbered(self.num_equal, 'row')} equal to the recorded ones"]
        if self.num_different:
            parts.append(
                f"{self.num_different} different, by {self.largest:.3g} at most ({self.place})"
            )
        if self.num_missing:
            parts.append(f"{self.num_missing} not recorded")
        return ", ".join(parts)


def compare_rows(recorded: Sequence[ResultRow], repeated: Sequence[ResultRow]) -> Comparison:
    """Compare repeated rows with recorded ones by model, category, percentage, k, seed and shots.

    Recorded rows that are not repeated do not matter: others may be in the same folder.
    """
    by_key = {row.key: row for row in recorded}
    pairs = [(by_key[row.key], row) for row in repeated if row.key in by_key]
    different = [(one, two) for one, two in pairs if measured(one) != measured(two)]
    largest, place = max(
        (_largest_difference(one, two) for one, two in different), default=(0.0, "")
    )
    return Comparison(
        num_equal=len(pairs) - len(different),
        num_different=len(different),
        num_missing=len(repeated) - len(pairs),
        largest=largest,
        place=place,
    )


def _largest_difference(one: ResultRow, two: ResultRow) -> tuple[float, str]:
    """Return the largest difference of a metric, and where it is; infinite if one is missing."""
    differences = [(abs(one.num_train - two.num_train), "num_train")]
    differences += [(abs(one.num_test - two.num_test), "num_test")]
    for name in dict.fromkeys((*one.metrics, *two.metrics)):
        values = one.value(name), two.value(name)
        missing = sum(map(math.isnan, values))
        if missing < 2:
            differences.append((math.inf if missing else abs(values[0] - values[1]), name))
    size, name = max(differences)
    return float(size), f"{name} of {two.category}, {two.model}, {two.setting}, seed {two.seed}"
