"""Check of a dataset: every file is read once, as an evaluation would read it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.base import Category, DatasetError, Sample
from datasets.depth import Decoding
from datasets.header import HeaderError, read_header
from datasets.images import find_value_range
from datasets.layouts import Dataset
from datasets.notes import Notes
from datasets.published import differing_counts, published_counts
from utils.machine import usable_cores
from utils.options.check import CheckOptions
from utils.pipeline.copies import image_digest
from utils.pipeline.reading import Reading
from utils.progress import show_progress
from utils.results import numbered

NO_FINDINGS, FINDINGS, UNUSABLE = 0, 1, 2
# Images that are read together; it limits neither memory nor speed.
BATCH_SIZE = 8
# Sizes and pairs that are listed.
NUM_LISTED = 3


@dataclass
class CategoryCheck:
    """What was found in one category.

    Attributes:
        category: Samples of the category.
        facts: Sizes, depths and formats, for the reader.
        findings: Problems of the data, one sentence each.
        faults: Errors of files that cannot be read.
    """

    category: Category
    facts: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the report."""
        yield f"{self.category.name}: {self.category.describe()}"
        for text in self.facts:
            yield f"    {text}"
        for text in self.findings:
            yield f"  ! {text}"
        for text in self.faults:
            yield f"  error: {text}"


@dataclass(frozen=True)
class _File:
    """What was read of one sample.

    Attributes:
        sample: The sample.
        kind: Format, size and depth; None if it cannot be read.
        digest: Digest of the pixels.
        error: Why it cannot be read; empty if it can.
    """

    sample: Sample
    kind: tuple[str, str, str] | None = None
    digest: bytes = b""
    error: str = ""


def check_dataset(dataset: Dataset, names: Sequence[str], options: CheckOptions) -> int:
    """Check the categories of a dataset, and print a report; return the exit status.

    Args:
        dataset: The dataset.
        names: Categories to check.
        options: Options of the check.
    """
    print(f"{dataset.path}: layout {dataset.layout}, {numbered(len(names), 'category')}")
    worst = NO_FINDINGS
    for name in names:
        try:
            found = check_category(dataset.read_category(name), options)
        except DatasetError as error:
            print(f"{name}:\n  error: {error}", flush=True)
            worst = UNUSABLE
            continue
        print("\n".join(found.lines()), flush=True)
        worst = max(worst, UNUSABLE if found.faults else FINDINGS if found.findings else 0)
    if worst == NO_FINDINGS:
        print("no findings")
    return worst


def check_category(category: Category, options: CheckOptions) -> CategoryCheck:
    """Read all images and masks of a category.

    Args:
        category: Samples of the category.
        options: Options of the check.
    """
    check, notes = CategoryCheck(category), Notes()
    decoding = _find_decoding(category, options, check)
    files = _read(category, Reading(decoding, BATCH_SIZE, usable_cores(), notes))
    kinds = [file.kind for file in files if file.kind is not None]
    for title, position in (("size", 1), ("depth", 2), ("format", 0)):
        check.facts.append(_describe(title, Counter(kind[position] for kind in kinds)))
    check.facts.append(_describe_masks(category))
    check.findings += category.findings()
    check.facts += [text for text in category.remarks() if text not in check.findings]
    check.findings += [str(note) for note in notes.all()]
    check.findings += _describe_copies(files, len(category.train))
    check.findings += _compare_with_published(category, check)
    check.faults += [file.error for file in files if file.error]
    return check


def _find_decoding(category: Category, options: CheckOptions, check: CategoryCheck) -> Decoding:
    """Return how the images are decoded, and note the range of deep values."""
    limits = Decoding(options.max_megapixels)
    try:
        found = find_value_range([sample.path for sample in category.train], limits)
    except DatasetError as error:  # 16-bit images and floats are mixed
        check.faults.append(str(error))
        return limits
    if found is not None:
        check.facts.append(
            f"values of {found}, by the training images (--bit_depth of evaluate and train)"
        )
    return Decoding(options.max_megapixels, found)


def _read(category: Category, reading: Reading) -> list[_File]:
    samples = (*category.train, *category.test)
    batches = reading.batches(
        lambda sample: _read_file(sample, reading), samples, lambda sample: sample.path
    )
    files = []
    with show_progress(len(samples), f"{category.name}: check", "image") as bar:
        for batch in batches:
            files += batch
            bar.update(len(batch))
    return files


def _read_file(sample: Sample, reading: Reading) -> _File:
    try:
        image, _ = reading.sample(sample)
        with sample.path.open("rb") as file:
            header = read_header(file)
    except (DatasetError, HeaderError, OSError) as error:
        return _File(sample, error=str(error))
    height, width = image.shape[:2]
    depth = "more than 8 bits" if header.is_deep else "8 bits"
    return _File(sample, (header.format, f"{width}x{height}", depth), image_digest(image))


def _describe(title: str, counts: Counter[str]) -> str:
    """Return values with their counts, the most frequent first."""
    if len(counts) == 1:
        return f"{title}: {next(iter(counts))}"
    listed = [f"{value} ({count})" for value, count in counts.most_common(NUM_LISTED)]
    more = len(counts) - NUM_LISTED
    others = f" and {numbered(more, 'other')}" if more > 0 else ""
    return f"{title}s: {', '.join(listed)}{others}"


def _describe_masks(category: Category) -> str:
    defective = [sample for sample in category.test if sample.is_defective]
    if not defective:
        return "masks: none, since no test image is defective"
    masked = sum(sample.mask is not None for sample in defective)
    return f"masks: {masked} of {numbered(len(defective), 'defective image')}"


def _describe_copies(files: Sequence[_File], num_train: int) -> list[str]:
    """Return sentences about images of the same pixels."""
    train, test = files[:num_train], files[num_train:]
    first = {file.digest: file.sample.path for file in reversed(train) if file.digest}
    groups = {
        ("training image", "others"): _copies(train),
        ("test image", "others"): _copies(test),
        ("test image", "training images"): [
            (file.sample.path, first[file.digest]) for file in test if file.digest in first
        ],
        ("defective test image", "good images"): _with_other_label(test),
    }
    return [
        f"duplicates of {others}: {numbered(len(pairs), noun)} ({_list_pairs(pairs)})"
        for (noun, others), pairs in groups.items()
        if pairs
    ]


def _copies(files: Sequence[_File]) -> list[tuple[Path, Path]]:
    first: dict[bytes, Path] = {}
    pairs = []
    for file in files:
        if not file.digest:
            continue
        original = first.setdefault(file.digest, file.sample.path)
        if original is not file.sample.path:
            pairs.append((file.sample.path, original))
    return pairs


def _with_other_label(files: Sequence[_File]) -> list[tuple[Path, Path]]:
    good = {f.digest: f.sample.path for f in files if f.digest and not f.sample.is_defective}
    return [
        (f.sample.path, good[f.digest]) for f in files if f.sample.is_defective and f.digest in good
    ]


def _list_pairs(pairs: Sequence[tuple[Path, Path]]) -> str:
    listed = ", ".join(f"{copy} of {original}" for copy, original in pairs[:NUM_LISTED])
    return listed + (", ..." if len(pairs) > NUM_LISTED else "")


def _compare_with_published(category: Category, check: CategoryCheck) -> list[str]:
    """Compare the numbers of images with the published ones."""
    if not category.benchmark:
        return []
    if published_counts(category) is None:
        check.facts.append(f"{category.benchmark}: its published numbers of images are unknown")
        return []
    if difference := differing_counts(category):
        return [difference]
    check.facts.append(f"{category.benchmark}: as published")
    return []
