"""`main.py check`: the content of a dataset, and problems that would give wrong results."""

from dataclasses import replace
from pathlib import Path

from datasets.base import DatasetError
from patchcore.record import read_record
from utils.errors import UsageError
from utils.options.check import CheckOptions
from utils.options.flags import parse_flags
from utils.pipeline.categories import category_names, open_data

DESCRIPTION = """Check a dataset before it is used: layout, images of each category, sizes, bit
depths, duplicates within and between training and test images, unreadable files, suspicious masks,
skipped files, and the published numbers of images. With --model, list the training images that are
least similar to the others. Exit status: 0 without findings, 1 with findings, 2 if an image cannot
be read or the dataset cannot be used. Held-out images, images that the split leaves out, and a
subset of a published dataset are not findings."""


def main(arguments: list[str], *, epilog: str = "") -> int:
    """Run the command; return its exit status."""
    options = parse_flags(
        arguments, CheckOptions(), command="check", description=DESCRIPTION, epilog=epilog
    )
    if options.model:
        record = read_record(Path(options.model))

        from patchcore.loading import checked, read_trained
        from utils.pipeline.suspects import SUSPECTS_FILE, describe_suspects

        with checked(Path(options.model)):
            trained = read_trained(Path(options.model), record, "cpu")
        print(describe_suspects(trained, options.num_suspects))
        figure = Path(options.model) / SUSPECTS_FILE
        if figure.is_file():
            print(f"figure of the first of these images: {figure}")
        return 0
    given = "PATH" if options.paths else "--path_data"
    if options.paths:
        options = replace(options, path_data=Path(options.paths[0]), paths=())
    try:
        dataset = open_data(options)
    except (DatasetError, UsageError) as error:
        raise DatasetError(str(error).replace("(--path_data)", f"({given})")) from error
    names = category_names(options, dataset)

    from utils.pipeline.checking import check_dataset

    return check_dataset(dataset, names, options)
