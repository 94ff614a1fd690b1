"""Runs cases of a kind."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tests.fuzz.guard import USER_ERRORS, Violation, guarded
from tests.fuzz.kinds import KINDS
from tests.fuzz.outcomes import Outcomes

RESULT = "result"


def make_test(
    name: str, folder: Path, num_cases: int, outcomes: Outcomes, *, is_strict: bool
) -> Callable[[], None]:
    """Return a hypothesis test of one kind.

    Args:
        name: The kind.
        folder: An empty folder that cases may write to.
        num_cases: Number of cases.
        outcomes: Counts the ends.
        is_strict: Whether a fault is raised, and so made small, or noted.
    """
    kind = KINDS[name](folder)

    @settings(
        max_examples=num_cases,
        database=None,
        derandomize=is_strict,  # the suite has the same cases every time
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.cases)
    def test(case: object) -> None:
        start = time.perf_counter()
        try:
            with guarded(folder):
                kind.read(case)
            outcomes.counts[RESULT] += 1
        except USER_ERRORS as error:
            outcomes.counts[type(error).__name__] += 1
        except SystemExit:  # of --help
            outcomes.counts["help"] += 1
        except (Exception, Violation) as error:
            if is_strict:
                raise
            outcomes.counts["FAULT"] += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            outcomes.faults.setdefault(where, f"{case!r:.300}\n{traceback.format_exc()}")
        finally:
            outcomes.slowest = max(outcomes.slowest, time.perf_counter() - start)

    return test
