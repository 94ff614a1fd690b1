"""What PatchCore keeps of a category's training images."""

from dataclasses import dataclass, field

import numpy as np

from patchcore.embedded_origins import Origins
from patchcore.held_out import HeldOutScores
from patchcore.memory_bank import Coreset
from patchcore.thresholds import BestThresholds, Thresholds


@dataclass(frozen=True)
class Trained:
    """The coreset, where it comes from, and what normal images score.

    Attributes:
        coreset: The selected patches, of one or several percentages.
        origins: Of the embedded images that the coreset's indices count through.
        names: What each training image is called, e.g. its file; empty where nobody said.
        held_out: How normal images score that the bank has not seen, by the largest percentage;
            None where there were too few.
        thresholds: From which scores on something is anomalous, by the largest percentage.
        best: The thresholds that labelled test images asked for; nothing without such.
        patches: (M, ph, pw, 3) uint8, what each coreset patch looks like; None where not kept.
        category: What was learned; empty where nobody said.
    """

    coreset: Coreset
    origins: Origins
    held_out: HeldOutScores | None
    thresholds: Thresholds
    names: tuple[str, ...] = ()
    best: BestThresholds = field(default_factory=BestThresholds)
    patches: np.ndarray | None = None
    category: str = ""
