"""Training images with the largest held-out scores: a defect among the normal images is there."""

from dataclasses import dataclass

from patchcore.trained import Trained

NUM_SUSPECTS = 5


@dataclass(frozen=True)
class Suspect:
    """A training image that the other training images do not explain well.

    Attributes:
        name: Its file, as the model records it.
        score: Its anomaly score by a coreset selected without it.
        ratio: score / threshold; None without a threshold above 0.
    """

    name: str
    score: float
    ratio: float | None


def find_suspects(trained: Trained, count: int = NUM_SUSPECTS) -> list[Suspect]:
    """Return the training images with the largest held-out scores, the largest first.

    Args:
        trained: What a model learned or was loaded with.
        count: Largest number of images.

    Returns:
        The images; none if the model has no held-out scores.
    """
    held_out, threshold = trained.held_out, trained.thresholds.image
    if held_out is None:
        return []
    names = trained.coreset.origins.names
    return [
        Suspect(names[image], score, None if threshold is None else threshold.ratio(score))
        for image, score in held_out.largest(count)
    ]


def describe_suspects(trained: Trained, count: int = NUM_SUSPECTS) -> str:
    """Return the list of `find_suspects` as text, one line for each image."""
    suspects = find_suspects(trained, count)
    if not suspects:
        return (
            f"{trained.category}: no held-out scores, so no training image can be checked for "
            "defects (needs several images, and train_quantile as --threshold or "
            "--threshold_pixel)"
        )
    num_scored, num_images = len(trained.held_out.images), len(trained.coreset.origins.names)
    lines = [
        f"  {suspect.score:8.4g}{_ratio_text(suspect.ratio)}  {suspect.name}"
        for suspect in suspects
    ]
    return "\n".join(
        [
            f"{trained.category}: largest held-out scores of {num_scored} scored training images "
            f"(of {num_images}); a defect among the normal images shows here first:",
            *lines,
        ]
    )


def _ratio_text(ratio: float | None) -> str:
    return "" if ratio is None else f"  {ratio:6.3f} x threshold"
