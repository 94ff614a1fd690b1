"""Remake the images of the README: `make assets`, or `python -m assets.make [flags of demo]`.

The images show procedural categories. By default the weights of the network are random, and the
images show their layout only; ``--weights FILE`` gives weights. Screenshots of the report page need
Chromium.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

import main

HERE = Path(__file__).resolve().parent
FLAGS = (
    *("--backbone", "mobilenet_v2", "--layers", "features.6", "features.13"),
    *("--weights", "random", "--percentage_coreset", "0.1"),
    *("--categories", "bottle_mouth", "mosaic", "hex_nut"),
)
# Image of the README -> pattern of a result file; the first match is used.
FIGURES = {
    "localization.png": "localization_bottle_mouth_crack_002_*.png",
    "explanation.png": "explanation_bottle_mouth_crack_002_*.png",
    "distribution.png": "pred-dist_hex_nut_*.png",
}
BROWSERS = ("chromium", "google-chrome")
# Screenshot -> value of Chromium's setting preferredColorScheme.
SCREENSHOTS = {"report_light.png": "1", "report_dark.png": "0"}
WIDTH, HEIGHT = 1280, 1000
PNG_LEVEL = 9  # smallest files, since every clone downloads them

log = logging.getLogger(__name__)


def make(flags: list[str]) -> int:
    """Run the demo and copy some of its figures to this folder; return its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        data, result = Path(folder) / "synthetic_anomaly_detection", Path(folder) / "result"
        paths = ["--path_data", str(data), "--path_result", str(result)]
        status = main.main(["demo", *paths, *FLAGS, *flags])
        if status:
            return status
        for name, pattern in FIGURES.items():
            _keep(sorted(result.glob(pattern))[0], name)
        _capture(result / "index.html")
    return 0


def _capture(page: Path) -> None:
    """Take screenshots of the gallery of the report page in both colour schemes."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        log.warning("found no Chromium: the screenshots of the report page are not remade")
        return
    # A screenshot shows only what is visible without scrolling: hide the sections above.
    text = page.read_text(encoding="utf-8")
    for section in ("summary", "curves"):
        text = text.replace(f'<section id="{section}"', f'<section hidden id="{section}"')
    gallery = page.with_name("gallery.html")
    gallery.write_text(text, encoding="utf-8")
    for name, scheme in SCREENSHOTS.items():
        target = page.with_name(name)
        command = [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-background-networking", "--no-first-run", "--virtual-time-budget=8000"),
            *(f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={target}"),
            *("--force-prefers-reduced-motion", f"--blink-settings=preferredColorScheme={scheme}"),
            gallery.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        _keep(target, name)


def _keep(source: Path, name: str) -> None:
    """Write an image file to this folder with the best compression."""
    image = cv2.imread(str(source))
    cv2.imwrite(str(HERE / name), image, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
    log.info("%s", HERE / name)


if __name__ == "__main__":
    sys.exit(make(sys.argv[1:]))
