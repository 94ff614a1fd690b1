"""Addresses of published archives, where they are public and stable, with published digests.

Digests are those that several independent projects publish (among them anomalib's source code);
the datasets' authors publish none. To add an archive, add a line to `DOWNLOADS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from datasets.base import DatasetError, did_you_mean
from datasets.published import PUBLISHED, Published
from datasets.transport import RemoteFile


@dataclass(frozen=True)
class Download:
    """The archive of a dataset.

    Attributes:
        file_name: Name of the archive.
        remote: Its address, size and digest; the address is empty if the archive is given out
            otherwise, for example after a form.
        top: Folder in the archive with all content; empty if there is none.
    """

    file_name: str
    remote: RemoteFile
    top: str = ""


# By the keys of `datasets.published.PUBLISHED`.
DOWNLOADS: Mapping[str, Download] = MappingProxyType(
    {
        "mvtec_ad": Download(
            "mvtec_anomaly_detection.tar.xz",
            RemoteFile(
                "",
                5_264_982_680,
                "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
            ),
        ),
        "visa": Download(
            "VisA_20220922.tar",
            RemoteFile(
                "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
                1_929_840_640,
                "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
            ),
        ),
        "btad": Download(
            "btad.zip",
            RemoteFile(
                "https://avires.dimi.uniud.it/papers/btad/btad.zip",
                sha256="461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
            ),
            top="BTech_Dataset_transformed",
        ),
        "kolektor_sdd": Download(
            "KolektorSDD.zip",
            RemoteFile(
                "https://go.vicos.si/kolektorsdd",
                101_831_129,
                "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
            ),
            top="KolektorSDD",
        ),
        "kolektor_sdd2": Download(
            "KolektorSDD2.zip",
            RemoteFile(
                "https://go.vicos.si/kolektorsdd2",
                853_126_555,
                "edcdb486809b24f1d17b785e30c52fafc5999554dd5fe18ddf77b61ceb6f36a8",
            ),
            top="KolektorSDD2",
        ),
        # GitHub creates this archive again for each download: it has no fixed size or digest.
        "magnetic_tile": Download(
            "magnetic_tile.zip",
            RemoteFile(
                "https://github.com/abin24/Magnetic-tile-defect-datasets./archive/refs/heads/"
                "master.zip"
            ),
            top="Magnetic-tile-defect-datasets.-master",
        ),
    }
)
# Datasets that their authors give out after a form with name and purpose.
NEEDS_FORM = frozenset({"mvtec_ad", "mvtec_ad_2", "mvtec_loco", "mvtec_3d"})


def find_published(name: str) -> Published:
    """Return the dataset of a key or a name, in any spelling: ``mvtec_ad``, ``MVTec AD``.

    The family's name alone is its first dataset: ``mvtec`` is MVTec AD.

    Raises:
        DatasetError: There is none.
    """
    wanted = _letters(name)
    for dataset in PUBLISHED:
        if wanted in (_letters(dataset.key), _letters(dataset.name)):
            return dataset
    if wanted == "mvtec":
        return find_published("mvtec_ad")
    keys = [dataset.key for dataset in listed()]
    raise DatasetError(
        f"expected a dataset name ({', '.join(keys)}), found {name!r}{did_you_mean(name, keys)}"
    )


def listed() -> list[Published]:
    """Return the published datasets, those in several layouts once."""
    return list({dataset.name: dataset for dataset in reversed(PUBLISHED)}.values())[::-1]


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
