"""PatchCore: industrial anomaly detection from normal images only (Roth et al. 2022).

Tensors in, tensors out: this package knows no file layout, no plot, no flag.
"""

from patchcore.errors import PatchCoreError
from patchcore.model import PatchCore, Prediction

__all__ = ["PatchCore", "PatchCoreError", "Prediction"]
