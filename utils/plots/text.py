"""Text on NumPy images, in the typeface that comes with Matplotlib on every system."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

ELLIPSIS = "…"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
INK = (26, 26, 26)
FAINT_INK = (96, 96, 96)


@dataclass(frozen=True, slots=True)
class TextStyle:
    """The style of a text.

    Attributes:
        size: In pixels.
        bold: Whether the text is bold.
        colour: RGB.
    """

    size: int
    bold: bool = False
    colour: tuple[int, int, int] = INK

    def width(self, text: str) -> float:
        """Return the width in pixels of `text`, a single line."""
        return _font(self.size, self.bold).getlength(text)


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text at a position.

    Attributes:
        text: A single line.
        x: The column of the anchor in pixels.
        y: The row of the anchor in pixels.
        style: The style of the text.
        anchor: The part of the text at (x, y): two letters, as in Pillow.
    """

    text: str
    x: int
    y: int
    style: TextStyle
    anchor: str = "ls"


def draw_labels(canvas: np.ndarray, labels: Iterable[Label]) -> None:
    """Draw all `labels` on `canvas`, (H, W, 3) uint8 RGB, in place."""
    height, width = canvas.shape[:2]
    for label in labels:
        font = _font(label.style.size, label.style.bold)
        left, top, right, bottom = font.getbbox(label.text, anchor=label.anchor)
        # Pillow gets only the pixels around the text: the entire image would take much longer.
        x, y = max(label.x + int(left) - 2, 0), max(label.y + int(top) - 2, 0)
        end_x, end_y = label.x + int(right) + 3, label.y + int(bottom) + 3
        if x >= min(end_x, width) or y >= min(end_y, height):
            continue
        part = Image.fromarray(canvas[y:end_y, x:end_x])
        position = label.x - x, label.y - y
        ImageDraw.Draw(part).text(position, label.text, label.style.colour, font, label.anchor)
        canvas[y:end_y, x:end_x] = np.asarray(part)


def printable(text: str) -> str:
    """Return `text` as one line in which letters that the typeface lacks become U+FFFD.

    Names of files and folders may contain line breaks, undecodable bytes or any script.
    """
    known = _known_letters()
    return "".join(
        letter if letter.isprintable() and ord(letter) in known else REPLACEMENT for letter in text
    )


def fit_text(text: str, style: TextStyle, width: float) -> str:
    """Return `text` as one printable line of at most ``width`` pixels."""
    return elide(printable(text), width, style.width)


def elide(text: str, limit: float, measure: Callable[[str], float]) -> str:
    """Replace the middle of `text` by an ellipsis until `measure(text)` is at most `limit`.

    The ends are kept, because the names of a folder differ there. A text that fits is returned
    unchanged; if no letter fits, the ellipsis alone remains.
    """
    if measure(text) <= limit:
        return text
    fitting, too_many = 0, len(text)
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if measure(_ends(text, middle)) <= limit:
            fitting = middle
        else:
            too_many = middle
    return _ends(text, fitting)


def _ends(text: str, kept: int) -> str:
    """Keep `kept` letters of `text`, half at each end (an odd one at the end)."""
    head = kept // 2
    tail = kept - head
    return text[:head] + ELLIPSIS + text[len(text) - tail :]


@lru_cache(maxsize=16)
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    # Every Pillow has the basic layout. The other one depends on a system library, so that figures
    # would differ between machines.
    return ImageFont.truetype(_font_path(bold), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1)
def _known_letters() -> frozenset[int]:
    """Return the code points that both weights contain."""
    return frozenset.intersection(
        *(frozenset(FT2Font(_font_path(bold)).get_charmap()) for bold in (False, True))
    )


def _font_path(bold: bool) -> str:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)
