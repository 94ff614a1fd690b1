"""Progress bars of long steps."""

from tqdm import tqdm


def show_progress(total: int, text: str, unit: str) -> tqdm:
    """Return a progress bar that a terminal shows and a file does not."""
    return tqdm(total=total, desc=text, unit=unit, disable=None, leave=False, dynamic_ncols=True)
