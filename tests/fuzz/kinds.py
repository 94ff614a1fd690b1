"""The kinds of input that are fuzzed: valid examples, how they are damaged, and who reads them.

Each function of `KINDS` gets a folder of its own and returns a strategy of cases and a function
that reads a case. A case must be read, or be refused with one of the user's errors.
"""

import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

import main
from datasets.base import Category, MaskFiles, Sample
from datasets.depth import Decoding
from datasets.images import read_image, read_sample
from datasets.layouts import open_dataset
from patchcore import PatchCore
from patchcore.backbone import Backbone
from patchcore.record import record_digest
from patchcore.weights import read_state
from tests.datasets.miniatures import MINIATURES
from tests.fuzz.guard import USER_ERRORS
from tests.fuzz.mutations import TOKENS, changed_bytes, changed_json, json_texts
from tests.fuzz.names import NAMES
from utils.commands import demo, rerun, tables
from utils.errors import UsageError
from utils.metrics import measure
from utils.options.check import CheckOptions
from utils.options.download import DownloadOptions
from utils.options.evaluate import EvaluateOptions
from utils.options.export import ExportOptions
from utils.options.flags import Flags
from utils.options.infer import InferOptions
from utils.options.record import read_options
from utils.options.train import TrainOptions
from utils.output_names import FINISHED_FOLDER
from utils.pipeline import finished as finished_module
from utils.pipeline.category_result import Measurement
from utils.pipeline.finished import FinishedCategory, FinishedWork, in_order
from utils.result_folder import ResultFolder
from utils.results import ResultRow, defects_csv, read_rows, results_csv
from utils.run_record import read_run
from utils.tables import all_tables, tables_text

SIDE = 12  # pixels
LIMITS = Decoding(max_megapixels=0.25)


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        cases: The cases.
        read: Reads a case; called in a folder of its own.
    """

    cases: st.SearchStrategy
    read: Callable[[object], None]


def images(folder: Path) -> Kind:
    """Images in each format that is read."""
    seeds = _encoded_images()

    def read(case: tuple[str, bytes]) -> None:
        suffix, data = case
        path = folder / f"image{suffix}"
        path.write_bytes(data)
        array = read_image(path, LIMITS)
        assert array.dtype == np.uint8
        assert array.shape[2] == 3

    return Kind(_of_suffix(seeds), read)


def masks(folder: Path) -> Kind:
    """Masks of a sound image."""
    image = folder / "image.png"
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(image)
    seeds = _encoded_images()

    def read(case: tuple[str, bytes]) -> None:
        suffix, data = case
        path = folder / f"mask{suffix}"
        path.write_bytes(data)
        _, mask = read_sample(Sample(image, "c", "hole", MaskFiles((path,))), LIMITS)
        assert mask.dtype == bool
        assert mask.shape == (SIDE, SIDE)

    return Kind(_of_suffix(seeds), read)


def datasets(folder: Path) -> Kind:
    """Lists and annotations of each layout: CSV, JSON and text."""
    places: dict[tuple[str, str], bytes] = {}
    paths = {}
    for name, miniature in MINIATURES.items():
        paths[name] = miniature.write(folder / name)
        for file in sorted((folder / name).rglob("*")):
            if file.suffix in (".csv", ".tsv", ".json", ".txt", ".xml"):
                places[name, str(file.relative_to(folder / name))] = file.read_bytes()

    def cases(place: tuple[str, str]) -> st.SearchStrategy:
        data = places[place]
        strategies = [changed_bytes([data])]
        if place[1].endswith(".json"):
            strategies = [json_texts([json.loads(data)])]
        return st.tuples(st.just(place), st.one_of(strategies))

    def read(case: tuple[tuple[str, str], bytes]) -> None:
        (name, file), data = case
        path = folder / name / file
        path.write_bytes(data)
        try:
            dataset = open_dataset(paths[name])
            for category in dataset.find_categories()[:2]:
                _read_samples(dataset.read_category(category))
        finally:
            path.write_bytes(places[name, file])

    return Kind(st.sampled_from(sorted(places)).flatmap(cases), read)


def model_records(folder: Path) -> Kind:
    """``model.json`` with the digest that belongs to it, so that its values are looked at."""
    trained = _Trained(folder, context=0.5)

    def read(record: object) -> None:
        if isinstance(record, dict):
            record = record | {"digest": record_digest(record)}
        trained.load({"model.json": json.dumps(record).encode()})

    return Kind(changed_json([trained.record]), read)


def model_tensors(folder: Path) -> Kind:
    """``model.safetensors`` with the digest that belongs to it."""
    trained = _Trained(folder, context=0.5)

    def read(data: bytes) -> None:
        digests = trained.record["digests"] | {
            "model.safetensors": hashlib.sha256(data).hexdigest()
        }
        record = trained.record | {"digests": digests}
        text = json.dumps(record | {"digest": record_digest(record)}).encode()
        trained.load({"model.safetensors": data, "model.json": text})

    return Kind(_safetensors(trained.files["model.safetensors"]), read)


def model_bytes(folder: Path) -> Kind:
    """Any byte of a trained model: it is refused, or gives the same scores."""
    trained = _Trained(folder)
    expected = trained.load({})

    def read(case: tuple[str, bytes]) -> None:
        name, data = case
        found = trained.load({name: data})
        np.testing.assert_array_equal(found, expected)

    names = st.sampled_from(sorted(trained.files))
    return Kind(
        names.flatmap(lambda n: st.tuples(st.just(n), changed_bytes([trained.files[n]]))), read
    )


def run_records(folder: Path) -> Kind:
    """``run.json``, as ``rerun`` and ``tables`` read it."""
    record = {
        "format": 1,
        "state": "complete",
        "start": "now",
        "command": "python main.py",
        "notes": ["a note"],
        "device": "CPU",
        "cpu": "a processor",
        "weights_digest": {"resnet18": "abc"},
        "versions": {"torch": "2"},
        "options": json.loads(
            json.dumps(asdict(EvaluateOptions(layers=(("layer2",),), seed=(0, 1))), default=str)
        ),
    }
    path = folder / "run.json"
    rows = [_row()]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(*USER_ERRORS):
            tables.gather_rows([rows], [tables._read_run(folder)], [folder])
        found = read_run(path)
        recorded = read_options(EvaluateOptions(), found.get("options"), path)
        options = rerun._parse(["--path_result", "new"], recorded, "")
        rerun._check(["--path_result", "new"], recorded, options, path)
        rerun._report_changes(recorded, options, found)
        rerun._compare(found, rows, is_part=False)
        options.check_files()

    return Kind(json_texts([record]), read)


def finished_records(folder: Path) -> Kind:
    """Records of finished categories, with the digest that belongs to them and without."""
    results = ResultFolder(folder)
    work = FinishedWork(results)
    scores = measure(np.array([0.1, 0.4, 0.3]), np.array([False, True, False]))
    measurement = Measurement(_row(), scores, scores)
    work.write(
        FinishedCategory(
            "widget",
            {"k": "1"},
            "abc",
            {"a.png": (1, 2, "d")},
            (_row(),),
            (measurement,),
            record={"memory": {"widget": "x"}},
        )
    )
    (path,) = (folder / FINISHED_FOLDER).iterdir()
    whole = path.read_bytes()
    content = json.loads(json.loads(whole)["content"])

    def read(case: bytes | object) -> None:
        data = case
        if not isinstance(case, bytes):
            text = json.dumps(case)
            data = json.dumps(
                {
                    "format": finished_module.FORMAT,
                    "digest": finished_module._digest(text),
                    "content": text,
                }
            ).encode()
        path.write_bytes(data)
        for one in work.read().values():
            finished_module.first_difference(
                one, {"k": "1"}, Category("widget", (), (), has_masks=False)
            )
            rows = in_order(one.rows, [], [row.model for row in one.rows])
            tables_text(rows, results_csv(rows))

    return Kind(st.one_of(changed_json([content]), changed_bytes([whole])), read)


def result_tables(folder: Path) -> Kind:
    """``results.csv`` and ``results_defects.csv``."""
    rows = [_row(), _row("=cmd()", 0.5), _row("a|b", 0.1)]
    texts = {"results.csv": results_csv(rows), "results_defects.csv": defects_csv(rows)}
    contents = {name: text.encode() for name, text in texts.items()}

    def read(case: tuple[str, bytes]) -> None:
        name, data = case
        for other, whole in contents.items():
            (folder / other).write_bytes(data if other == name else whole)
        found = read_rows(folder)
        all_tables(found)
        tables_text(found, "")
        results_csv(found)

    names = st.sampled_from(sorted(contents))
    return Kind(names.flatmap(lambda n: st.tuples(st.just(n), changed_bytes([contents[n]]))), read)


def weights(folder: Path) -> Kind:
    """Files of weights, ``.pth`` and ``.safetensors``."""
    state = _network().network.state_dict()
    stream = io.BytesIO()
    torch.save(state, stream)
    legacy = io.BytesIO()
    torch.save({"state_dict": state}, legacy, _use_new_zipfile_serialization=False)
    pth = changed_bytes([stream.getvalue(), legacy.getvalue()])

    def read(case: tuple[str, bytes]) -> None:
        suffix, data = case
        path = folder / f"weights{suffix}"
        path.write_bytes(data)
        _network().load(read_state(path))

    return Kind(
        st.one_of(
            st.tuples(st.just(".pth"), pth),
            st.tuples(st.just(".safetensors"), _safetensors(save(state))),
        ),
        read,
    )


def flags(folder: Path) -> Kind:
    """Flags of all commands, where there is no data."""
    commands = ["", *(name for name in main.COMMANDS if name != "demo")]
    kinds: Sequence[type[Flags]] = (
        *(EvaluateOptions, InferOptions, TrainOptions, CheckOptions, ExportOptions),
        DownloadOptions,
    )
    names = sorted({f"--{entry.name}" for kind in kinds for entry in fields(kind)})
    known = ["0", "1", "-1", "0.5", "1e999", "nan", "x", "", ".", "nowhere", "--", "-", "=", "all"]
    texts = [token.decode(errors="surrogateescape") for token in TOKENS if len(token) < 500]
    words = st.one_of(
        st.sampled_from(names),
        st.sampled_from(known),
        st.sampled_from(texts).map(lambda text: text.replace("\0", "")),
        st.text(max_size=4).map(lambda text: text.replace("\0", "")),
        st.builds("{}={}".format, st.sampled_from(names), st.sampled_from(known)),
    )

    def read(case: tuple[str, list[str]]) -> None:
        command, arguments = case
        demo.parse_options([], demo.DEFAULTS, command="demo", description="")
        shown = io.StringIO()
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(shown),
            mock.patch.object(sys, "stdin", io.StringIO("nowhere.png\n")),
            contextlib.chdir(folder),
        ):
            status = main.main([command, *arguments] if command else arguments)
        assert status in (0, main.WRONG_USAGE), shown.getvalue()
        if status:
            lines = [line for line in shown.getvalue().split("\n") if line.startswith("error: ")]
            assert len(lines) == 1, shown.getvalue()
            raise UsageError(lines[0])

    return Kind(st.tuples(st.sampled_from(commands), st.lists(words, max_size=6)), read)


KINDS: dict[str, Callable[[Path], Kind]] = {name: globals()[name] for name in NAMES}


class _Trained:
    """A small trained model, of which a file may be replaced."""

    def __init__(self, folder: Path, context: float = 0.0):
        rng = np.random.default_rng(0)
        shown = [rng.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(4)]
        sizes = {"size_resize": (16, 16), "size_crop": (16, 16), "context": context}
        model = PatchCore(_network(), percentage_coreset=0.5, embed_dim=8, k=1, **sizes)
        model.fit(shown, [f"{number}.png" for number in range(4)])
        self._folder, self._images = folder / "model", shown[:1]
        model.save(self._folder, faiss_index=not context)
        self.files = {path.name: path.read_bytes() for path in self._folder.iterdir()}
        self.record = json.loads(self.files["model.json"])

    def load(self, changed: dict[str, bytes]) -> np.ndarray:
        """Load the model with some files replaced; return the map and the score of an image."""
        for name, data in (self.files | changed).items():
            (self._folder / name).write_bytes(data)
        model = PatchCore.load(self._folder, backbone=_network())
        prediction = model.predict(self._images)
        return np.append(prediction.anomaly_map, prediction.score)


def _network() -> Backbone:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Conv2d(4, 4, 1)
    return Backbone(torch.nn.Sequential(*layers), ["0", "1"], (16, 16))


def _row(category: str = "widget", percentage: float = 0.1) -> ResultRow:
    metrics = {"image_auroc": 0.75, "pixel_auroc": float("nan"), "aupro_limit": 0.3}
    seconds = {"read": 1.0, "embed": 0.5}
    return ResultRow(
        category, percentage, 1, 0, 6, 6, metrics, seconds, "resnet18", {"hole": metrics}
    )


def _encoded_images() -> dict[str, list[bytes]]:
    """Return images of each format, by the suffix of its name."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    deep = rng.integers(0, 2**16, (SIDE, SIDE), dtype=np.uint16)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[3:6] = 255
    found: dict[str, list[bytes]] = {}
    for suffix in (".png", ".jpg", ".tiff", ".bmp", ".webp", ".gif", ".jp2"):
        arrays = [colours, mask, *([deep] if suffix in (".png", ".tiff") else [])]
        for array in arrays:
            stream = io.BytesIO()
            Image.fromarray(array).save(stream, Image.registered_extensions()[suffix])
            found.setdefault(suffix, []).append(stream.getvalue())
    for suffix in (".tiff", ".pfm", ".hdr", ".pam"):  # only OpenCV writes floats in these
        written, data = cv2.imencode(suffix, rng.random((SIDE, SIDE, 3), dtype=np.float32))
        assert written
        found.setdefault(suffix, []).append(data.tobytes())
    return found


def _of_suffix(seeds: dict[str, list[bytes]]) -> st.SearchStrategy[tuple[str, bytes]]:
    return st.sampled_from(sorted(seeds)).flatmap(
        lambda suffix: st.tuples(st.just(suffix), changed_bytes(seeds[suffix]))
    )


def _safetensors(data: bytes) -> st.SearchStrategy[bytes]:
    """Return damaged files, and files with a changed header of the right length."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]

    def with_header(changed: object) -> bytes:
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + rest

    return st.one_of(changed_bytes([data]), changed_json([header]).map(with_header))


def _read_samples(category: Category) -> None:
    """Read some samples: the first ones with masks, which annotations draw."""
    defective = [sample for sample in category.test if sample.mask is not None]
    for sample in (*category.train[:1], *defective[:3]):
        read_sample(sample, LIMITS)
