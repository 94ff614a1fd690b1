"""The package's version: `pyproject.toml` reads it here, exported files name it."""

VERSION = "0.1.0"
# Raised by every change of the code that can change a score or a metric: a run continues from
# results of an earlier run only if this number is the same.
RESULTS_VERSION = 3
