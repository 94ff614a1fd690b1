"""Fixtures that several files of tests use."""

from tests.utils.fake_ray import ray  # noqa: F401 (a fixture)
