"""Text on NumPy pictures, with the one typeface that comes with matplotlib on every system."""

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
    """Size in pixels, weight and RGB colour of a text."""

    size: int
    bold: bool = False
    colour: tuple[int, int, int] = INK

    def width(self, text: str) -> float:
        """Return how many pixels wide `text`, a single line, is drawn."""
        return _font(self.size, self.bold).getlength(text)


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text and the pixel (x, y) of its anchor (two letters, as Pillow names anchors)."""

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
        # Pillow gets only the pixels around the text: the whole picture takes it much longer.
        x, y = max(label.x + int(left) - 2, 0), max(label.y + int(top) - 2, 0)
        end_x, end_y = label.x + int(right) + 3, label.y + int(bottom) + 3
        if x >= min(end_x, width) or y >= min(end_y, height):
            continue
        part = Image.fromarray(canvas[y:end_y, x:end_x])
        place = label.x - x, label.y - y
        ImageDraw.Draw(part).text(place, label.text, label.style.colour, font, label.anchor)
        canvas[y:end_y, x:end_x] = np.asarray(part)


def printable(text: str) -> str:
    """Return `text` as one line of letters that the typeface has, others become U+FFFD.

    Names of files and folders may hold line breaks, undecodable bytes or any script.
    """
    known = _known_letters()
    return "".join(
        letter if letter.isprintable() and ord(letter) in known else REPLACEMENT for letter in text
    )


def elide(text: str, limit: float, measure: Callable[[str], float] = len) -> str:
    """Cut letters out of the middle of `text` until `measure(text)` is at most `limit`.

    The ends stay, because names of one folder differ there: a common start, then number and suffix.
    A text that fits is returned as it is; with no room for any letter the ellipsis alone remains.
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
    """Keep `kept` letters of `text`, half at either end (the odd one at the end)."""
    head = kept // 2
    tail = kept - head
    return text[:head] + ELLIPSIS + text[len(text) - tail :]


@lru_cache(maxsize=16)
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    # The basic layout is in every Pillow; the other depends on a system library, so that the same
    # picture would come out different on another machine.
    return ImageFont.truetype(_font_path(bold), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1)
def _known_letters() -> frozenset[int]:
    """Return the code points that both weights can draw."""
    return frozenset.intersection(
        *(frozenset(FT2Font(_font_path(bold)).get_charmap()) for bold in (False, True))
    )


def _font_path(bold: bool) -> str:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)
