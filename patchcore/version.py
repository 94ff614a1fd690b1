"""The package's version: `pyproject.toml` reads it here, exported files name it."""

VERSION = "0.1.0"
