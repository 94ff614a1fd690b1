"""Object and background of an image, by the first principal component of its own patches."""

import torch
import torch.nn.functional as F

# Share of each side that is left out of the middle of an image, where the object is expected.
BORDER = 0.2
# Smallest share of the middle that the object covers.
MIDDLE_SHARE = 0.35


def foreground_of(
    embeddings: torch.Tensor, threshold: float, judged: torch.Tensor | None = None
) -> torch.Tensor:
    """Tell the patches of the object from those of the background.

    The rule of AnomalyDINO (Damm et al. 2024, section 3.3, and its code): patches with a first
    principal component above a threshold; those below its negative instead, where the first ones
    cover too little of the image's middle; dilated and closed by 3x3 patches. An image without
    any such patch has no background here, so that it is scored.

    Args:
        embeddings: (B, h, w, D) float32, before any normalisation. The component has their unit.
        threshold: Smallest absolute value of the component.
        judged: (h, w) bool, the patches that are not ignored; None for all. The others take no
            part in the component nor in the shares.

    Returns:
        (B, h, w) bool, true for the object.
    """
    component = first_component(embeddings, judged)
    if judged is None:
        judged = torch.ones(component.shape[1:], dtype=torch.bool, device=component.device)
    mask = (component > threshold) & judged
    height, width = component.shape[1:]
    rows = slice(int(height * BORDER), int(height * (1 - BORDER)))
    columns = slice(int(width * BORDER), int(width * (1 - BORDER)))
    middle = mask[:, rows, columns].flatten(1)
    too_little = middle.sum(1) <= judged[rows, columns].sum() * MIDDLE_SHARE  # (B,)
    mask = torch.where(too_little[:, None, None], (-component > threshold) & judged, mask)
    mask = _dilated(_dilated(mask))
    mask = ~_dilated(~mask)
    return mask | ~mask.flatten(1).any(1)[:, None, None]


def first_component(embeddings: torch.Tensor, judged: torch.Tensor | None = None) -> torch.Tensor:
    """Return (B, h, w) float64, the first principal component of each image's judged patches.

    Its sign is that of scikit-learn: the largest loading in absolute value is positive.

    Args:
        embeddings: (B, h, w, D).
        judged: (h, w) bool, the patches that are not ignored; None for all.
    """
    patches = embeddings.flatten(1, 2).double()  # (B, h * w, D)
    used = patches if judged is None else patches[:, judged.flatten()]  # (B, n, D)
    mean = used.mean(1, keepdim=True)
    centred = used - mean
    if centred.shape[2] <= centred.shape[1]:
        covariance = centred.mT @ centred  # (B, D, D)
        loading = torch.linalg.eigh(covariance).eigenvectors[:, :, -1]  # (B, D)
    else:  # the same direction by the smaller matrix
        score = torch.linalg.eigh(centred @ centred.mT).eigenvectors[:, :, -1:]  # (B, n, 1)
        loading = F.normalize((centred.mT @ score)[:, :, 0], dim=1)
    largest = loading.gather(1, loading.abs().argmax(1, keepdim=True))  # (B, 1)
    component = (patches - mean) @ (loading * largest.sign())[:, :, None]
    return component.view(embeddings.shape[:3])


def _dilated(mask: torch.Tensor) -> torch.Tensor:
    """Return (B, h, w) bool: whether one of the 3x3 patches around each is true."""
    return F.max_pool2d(mask.float(), 3, stride=1, padding=1) > 0
