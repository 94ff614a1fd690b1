"""Sizes of images that fit the patches of a vision transformer."""

from torch import nn


def nearest_sizes(network: nn.Module, size: tuple[int, int]) -> str:
    """Describe the nearest sizes that are multiples of a network's patch size.

    Args:
        network: Its first module with an attribute ``patch_size`` determines the patches.
        size: (H, W) in pixels.

    Returns:
        The end of an error message; empty if the size fits, or if the network has no patches.
    """
    patch = next(filter(None, map(_patch_size, network.modules())), (1, 1))
    if size[0] % patch[0] == size[1] % patch[1] == 0:
        return ""
    smaller = [max(1, length // side) * side for length, side in zip(size, patch, strict=True)]
    # A length that fits stays; one below a whole patch has no smaller neighbour.
    larger = [
        low if low == length else low + side
        for low, length, side in zip(smaller, size, patch, strict=True)
    ]
    choices = " or ".join(" ".join(map(str, pair)) for pair in (smaller, larger))
    return (
        f". Its patches have {patch[0]}x{patch[1]} pixels; the nearest sizes that fit are "
        f"{choices} (height and width)"
    )


def _patch_size(module: nn.Module) -> tuple[int, int] | None:
    """Return the (height, width) of a module's patches in pixels."""
    value = getattr(module, "patch_size", None)
    pair = (value, value) if isinstance(value, int) else value
    is_size = isinstance(pair, tuple | list) and len(pair) == 2
    return tuple(pair) if is_size and all(isinstance(n, int) and n > 0 for n in pair) else None
