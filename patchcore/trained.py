"""The result of training that a model keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from patchcore.context import TrainedContext
from patchcore.held_out import HeldOutScores
from patchcore.ignored import IgnoreMask
from patchcore.memory_bank import Coreset
from patchcore.thresholds import BestThresholds, Thresholds


@dataclass(frozen=True)
class Extension:
    """New normal images that were added to a trained model.

    Attributes:
        num_images: Number of images.
        num_added: Number of their patches that were added to the coreset.
        scores: Their scores by the model before they were added.
        thresholds: Thresholds by these scores alone.
    """

    num_images: int
    num_added: int
    scores: HeldOutScores
    thresholds: Thresholds


@dataclass(frozen=True)
class Trained:
    """The coreset with its origins, and the scores of normal images.

    Attributes:
        coreset: The selected patches, of one or several percentages.
        held_out: Scores of normal images that the bank has not seen, by the largest percentage;
            None if there were too few images.
        thresholds: The thresholds of the largest percentage.
        best: The thresholds with the largest F1 on labelled test images, if measured.
        category: Name of the category; may be empty.
        value_range: Record of how the program that read the training images mapped values above 8
            bits; None for images of 8 bits. Images for `PatchCore` have 8 bits always.
        mask: Pixels that are ignored: at training, or by a mask given at loading; None for none.
        extension: The images that were added last; None if none were. ``held_out`` and
            ``thresholds`` are those of the first training.
        context: What was learned of smaller copies of the images; None for none.
    """

    coreset: Coreset
    held_out: HeldOutScores | None
    thresholds: Thresholds
    best: BestThresholds = field(default_factory=BestThresholds)
    category: str = ""
    value_range: Mapping[str, object] | None = None
    mask: IgnoreMask | None = None
    extension: Extension | None = None
    context: TrainedContext | None = None
