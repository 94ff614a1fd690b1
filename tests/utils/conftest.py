"""Fixtures that several files of tests use."""

from tests.utils.ray_tasks import ray  # noqa: F401 (a fixture)
