"""Progress bars of long steps."""

from tqdm import tqdm

from utils.logs import is_quiet

# Bars that stand still are not redrawn by a thread, which would outlive them.
tqdm.monitor_interval = 0


def show_progress(total: int, text: str, unit: str) -> tqdm:
    """Return a progress bar, which a terminal shows unless ``--quiet`` is given."""
    hidden = is_quiet() or None  # None: unless there is a terminal
    return tqdm(total=total, desc=text, unit=unit, disable=hidden, leave=False, dynamic_ncols=True)
