"""PatchCore: industrial anomaly detection from normal images only (Roth et al. 2022).

Tensors in, tensors out: this package does not depend on file layouts, plots or flags. `PatchCore`
and `Prediction` are imported when they are first used, so that `patchcore.settings` can be read
without torch.
"""

import importlib

from patchcore.errors import PatchCoreError

__all__ = ["PatchCore", "PatchCoreError", "Prediction"]

_LAZY = ("PatchCore", "Prediction")


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("patchcore.model"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
