"""What users read: the messages of whole sessions, as they were when somebody last read them.

`python -m tests.transcripts.sessions` runs the sessions anew: read the differences before
committing them.
"""

import io
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from tests.support import (
    call,
    make_category,
    make_data,
    quick,
    truncate,
    without_plots,
)

FOLDER = Path(__file__).parent
# The flags of a network that computes in a moment, shown as dots.
SMALL = quick()[: -len(("--pictures", "none"))]
RUN = ["--path_data", "data", "--path_result", "result", *SMALL, "--pictures", "none"]
MODEL = "trained/widget/squeezenet1_1_p0100_k01"


def evaluate() -> Iterator[list[str]]:
    """Results are computed, taken over, extended, moved away, tabulated and repeated."""
    make_data(Path("data"))
    percentages = ["--percentage_coreset", "0.1", "0.25"]
    yield ["evaluate", *RUN, *percentages, "--save_maps", "--profile"]
    yield ["evaluate", *RUN, *percentages, "--save_maps"]
    yield ["evaluate", *RUN, "--seed", "0", "1", "--categories", "widget"]
    yield ["evaluate", *RUN, "--k", "3", "--categories", "gadget", "--ignore_mask", "none.png"]
    yield ["evaluate", *RUN, "--k", "3", "--categories", "gadget", "--path_trained", "kept"]
    yield ["tables", "result", "--path_result", "tables"]
    yield ["rerun", "result/run.json", "--path_result", "again", "--path_data", "data"]


def skipping() -> Iterator[list[str]]:
    """Files cannot be read, and are skipped where the flag allows it."""
    make_data(Path("data"))
    truncate(Path("data/widget/train/good/002.png"))
    truncate(Path("data/gadget/test/hole/001.png"))
    yield ["evaluate", *RUN]
    yield ["evaluate", *RUN, "--on_error", "skip"]
    yield ["check", "--path_data", "data"]


def train_and_infer() -> Iterator[list[str]]:
    """A model is trained, extended and checked, and judges images."""
    make_data(Path("data"))
    base = ["--path_trained", "trained", *SMALL]
    yield ["train", "--path_data", "data", *base, "--summary"]
    judged = ["data/widget/test", "--path_trained", MODEL, "--path_result", "judged"]
    yield ["infer", *judged]
    yield ["infer", *judged]
    yield ["infer", *judged, "--json", "--pictures", "all", "--explain_top", "1", "--fresh"]
    yield ["infer", *judged, "--threshold", "99", "--save_maps", "--quiet"]
    yield ["check", "--model", MODEL]
    shutil.copytree("data/gadget/train/good", "new")
    truncate(Path("new/003.png"))
    yield ["train", "new", "--extend", MODEL, "--on_error", "skip"]
    yield ["infer", "new", "data/none.png", "--path_trained", MODEL, "--path_result", "third"]


def own_folder() -> Iterator[list[str]]:
    """A plain folder of images with files that do not belong to it."""
    source = make_category(Path("source"))
    shutil.copytree(source / "train/good", "data/nuts/good")
    shutil.copytree(source / "test/hole", "data/nuts/hole")
    shutil.copytree(source / "ground_truth/hole", "data/nuts/masks/hole")
    shutil.copy("data/nuts/good/000.png", "data/nuts/good/again.png")
    shutil.copytree("data/nuts", "split/nuts/train")
    shutil.copytree("data/nuts", "split/nuts/test", ignore=shutil.ignore_patterns("masks"))
    Path("data/nuts/notes.txt").write_text("bent ones came later")
    Path("data/nuts/hole/notes.txt").write_text("these too")
    Path("data/nuts/masks/hole/007_mask.png").write_bytes(b"")
    yield ["check", "--path_data", "data"]
    yield ["evaluate", *RUN]
    yield ["evaluate", *RUN, "--categories", "nutz"]
    yield ["evaluate", *RUN, "--dataset", "visa"]
    split = ["--path_data", "split", "--path_result", "of_split", *SMALL]
    yield ["evaluate", *split, "--pictures", "none"]
    yield ["evaluate", *RUN, "--percentage_coreset", "10", "--sead", "3"]


def published() -> Iterator[list[str]]:
    """Published datasets are listed; one that its publisher alone may give out is refused."""
    yield ["datasets"]
    yield ["download", "mpdd", "--to", "mpdd"]


SESSIONS = {f.__name__: f for f in (evaluate, skipping, train_and_infer, own_folder, published)}


def transcript(name: str) -> str:
    """Run a session in an empty folder, and return its commands with all that they write."""
    text = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack, without_plots():
        stack.callback(os.chdir, Path.cwd())
        os.chdir(folder)
        for arguments in SESSIONS[name]():
            text.write(f"$ python main.py {' '.join(arguments)}\n")
            with (
                mock.patch("sys.argv", ["main.py", *arguments]),
                mock.patch.object(logging.getLogger(), "handlers", []),  # those of pytest
                redirect_stdout(text),
                redirect_stderr(text),
            ):
                status = call(*arguments)
            text.write(f"[exit status {status}]\n\n")
        return _masked(text.getvalue(), folder)


def _masked(text: str, folder: str) -> str:
    """Replace what differs between machines and runs: times, and the digits of measured values."""
    text = text.replace(" ".join(SMALL), "...").replace(folder, "")
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:-]+(\+\d+)?(_\d+)?", "TIME", text)
    text = re.sub(r"on CPU \(.*?\)", "on CPU (NAME)", text)
    # Patches with nearly the same score may change places on another processor.
    text = re.sub(r"^{.*}$", lambda line: re.sub(r"\d+", "#", line[0]), text, flags=re.MULTILINE)
    text = re.sub(r"-?\b\d+\.\d+(e-?\d+)?", "#", text)
    return re.sub(r" +(?=#)| +$", lambda found: " " * bool(found[0]), text, flags=re.MULTILINE)


if __name__ == "__main__":
    for session in SESSIONS:
        path = FOLDER / f"{session}.txt"
        path.write_text(transcript(session), encoding="utf-8")
        print(path)
