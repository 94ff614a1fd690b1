"""`main.py [evaluate]`: PatchCore on every category, measured, tabled and drawn."""

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from datasets.mvtec import find_categories, read_category
from patchcore import PatchCore
from patchcore.memory_bank import search_method
from patchcore.weights import RANDOM, digest, load_backbone
from utils.commands.category import CategoryResult, Measurement, measure_category
from utils.commands.pictures import draw_category, draw_curves
from utils.errors import UsageError
from utils.machine import describe_cpu, package_versions, source_commit
from utils.options import Options, parse_options
from utils.results import TABLES_FILE, ResultFolder, ResultRow
from utils.tables import DASH, make_tables

DESCRIPTION = """Evaluate PatchCore on the categories of a dataset in MVTec AD's layout: for each,
learn the training images, score the test images, measure, and draw."""

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_options(
        arguments,
        command="[evaluate]",
        description=DESCRIPTION,
        defaults=Options(),
        epilog=epilog,
    )
    evaluate(options)


def evaluate(options: Options, *, note: str = "") -> list[ResultRow]:
    """Evaluate all categories; write results after each one, tables and curves at the end.

    Args:
        options: What to do.
        note: A remark that the tables and ``run.json`` carry.

    Returns:
        A row for each category and percentage.

    Raises:
        DatasetError, PatchCoreError, UsageError: what a user can mend. Results of categories that
        were finished before are kept.
    """
    device = choose_device(options.device)
    names = options.categories or find_categories(options.path_data)
    categories = [read_category(options.path_data, name) for name in names]
    model = make_model(options, device)
    if options.summary:
        print(summarise(model))
    run = Run(options, ResultFolder(options.path_result), _start_record(options, model, note))
    run.folder.write_run(run.record)
    log.info("on %s; neighbours: %s", run.record["device"], search_method(device))
    measurements: list[Measurement] = []
    try:
        with logging_redirect_tqdm():
            for category in categories:
                log.info("%s: %s", category.name, category.describe())
                result = measure_category(model, category, options)
                measurements.extend(result.measurements)
                _finish_category(run, result, measurements)
    except BaseException as error:
        run.finish(f"stopped: {error or type(error).__name__}")
        raise
    for percentage in model.percentages:
        of_percentage = [m for m in measurements if m.row.percentage_coreset == percentage]
        draw_curves(of_percentage, run.folder)
    run.finish("complete")
    print(_tables_text([m.row for m in measurements], run.record))
    log.info("results in %s", options.path_result)
    return [m.row for m in measurements]


@dataclass
class Run:
    """A run under way: what was asked, where it writes, and what it records of itself."""

    options: Options
    folder: ResultFolder
    record: dict[str, object]

    def finish(self, state: str) -> None:
        """Record how the run ended."""
        self.record |= {"state": state, "end": _now()}
        self.folder.write_run(self.record)


def choose_device(name: str) -> torch.device:
    """Return the device of ``--device``.

    Raises:
        UsageError: it is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(
            "expected a CUDA device, torch finds none (--device cuda); --device auto takes the "
            "CPU then"
        )
    # Without this, convolutions would round to 10 bits on newer GPUs and differ from the CPU's.
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def make_model(options: Options, device: torch.device) -> PatchCore:
    """Load the backbone and lay out the method as the options say."""
    backbone = load_backbone(
        options.backbone,
        options.layers,
        options.weights,
        size=options.size("size_crop"),
        seed=options.seed,
    )
    return PatchCore(
        backbone,
        percentage_coreset=options.percentage_coreset,
        k=options.k,
        size_resize=options.size("size_resize"),
        size_crop=options.size("size_crop"),
        patch_size=options.patch_size,
        embed_dim=options.embed_dim,
        sigma=options.sigma,
        seed=options.seed,
        device=device,
        batch_size=options.batch_size,
    )


def summarise(model: PatchCore) -> str:
    """Return torchinfo's account of the cut backbone."""
    import torchinfo

    size = (1, 3, *model.backbone.size)
    return str(torchinfo.summary(model.backbone, size, depth=3, device=model.device, verbose=0))


def _start_record(options: Options, model: PatchCore, note: str) -> dict[str, object]:
    notes = [note] if note else []
    if options.weights == RANDOM:
        notes.append(
            "RANDOM WEIGHTS: these results show that the program runs, and mean nothing else."
        )
    gpu = torch.cuda.get_device_name() if model.device.type == "cuda" else None
    return {
        "state": "running",
        "start": _now(),
        "end": None,
        "command": " ".join(["python", *sys.argv]),
        "options": asdict(options),
        "seed": options.seed,
        "notes": notes,
        "device": gpu or "CPU",
        "cpu": describe_cpu(),
        "threads": torch.get_num_threads(),
        "commit": source_commit(),
        "weights_digest": digest(model.backbone.network),
        "patches_per_image": model.patches_per_image,
        "versions": package_versions(),
    }


def _finish_category(run: Run, result: CategoryResult, measurements: Sequence[Measurement]) -> None:
    """Write what is known by now, say it, then draw: a crash while drawing costs no number."""
    rows = [m.row for m in measurements]
    run.folder.write_rows(rows)
    run.folder.write_text(TABLES_FILE, _tables_text(rows, run.record))
    for measurement in result.measurements:
        log.info(_line(measurement.row))
    draw_category(result, run.folder, run.options)


def _line(row: ResultRow) -> str:
    image, pixel = (
        DASH if math.isnan(value) else f"{100 * value:.2f} %"
        for value in (row.metrics["image_auroc"], row.metrics["pixel_auroc"])
    )
    return (
        f"{row.category}, coreset {100 * row.percentage_coreset:g} %: image AUROC {image}, "
        f"pixel AUROC {pixel}, {row.seconds_total:.1f} s"
    )


def _tables_text(rows: Sequence[ResultRow], record: dict[str, object]) -> str:
    options = record["options"]
    head = [
        "# PatchCore results",
        "",
        *(f"> {note}\n" for note in record["notes"]),
        f"Backbone {options['backbone']}, weights {options['weights']}, layers "
        f"{' '.join(options['layers'])}, k = {options['k']}, seed {options['seed']}, on "
        f"{record['device']} ({record['cpu']}). *Paper*: Roth et al. 2022, arXiv 2106.08265, "
        "WideResNet50.",
        "",
    ]
    return "\n".join(head) + "\n" + "\n".join(table.to_markdown() for table in make_tables(rows))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
