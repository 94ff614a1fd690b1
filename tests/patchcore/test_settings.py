"""Settings are checked, take one form, and are read back from JSON; no torch is needed for them."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchcore import PatchCore, PatchCoreError
from patchcore.export.formats import FORMATS
from patchcore.precision import PRECISIONS
from patchcore.protocols import PROTOCOLS
from patchcore.scoring import IMAGE_SCORES
from patchcore.settings import EXPORT_FORMATS, Settings
from patchcore.settings import IMAGE_SCORES as IMAGE_SCORE_NAMES
from patchcore.settings import PRECISIONS as PRECISION_NAMES

ROOT = Path(__file__).resolve().parents[2]


class TestForm:
    @pytest.mark.parametrize(
        ("name", "given", "kept"),
        [
            ("percentage_coreset", 0.25, (0.25,)),
            ("percentage_coreset", 1, (1.0,)),
            ("percentage_coreset", [0.1, 0.01, 0.1], (0.01, 0.1)),
            ("percentage_coreset", np.array([0.5, 0.25]), (0.25, 0.5)),
            ("size_crop", 64, (64, 64)),
            ("size_crop", [64], (64, 64)),
            ("size_crop", (64, 96), (64, 96)),
            ("size_crop", np.int64(64), (64, 64)),
            ("augment", "vertical", ("vertical",)),
            ("augment", ["vertical", "horizontal"], ("vertical", "horizontal")),
            ("layer_weights", None, None),
            ("layer_weights", (), None),
            ("layer_weights", [], None),
            ("layer_weights", [1, 0.5], (1.0, 0.5)),
            ("sigma", 0, 0.0),
            ("k", np.int64(3), 3),
        ],
    )
    def test_values_take_one_form(self, name, given, kept):
        found = getattr(Settings(**{name: given}), name)
        assert found == kept
        assert type(found) is type(kept)
        if isinstance(kept, tuple):
            assert [type(value) for value in found] == [type(value) for value in kept]

    def test_equal_settings_are_equal(self):
        assert Settings(percentage_coreset=[0.2, 0.1], size_crop=32) == Settings(
            percentage_coreset=(0.1, 0.2), size_crop=(32, 32)
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, r"expected k of at least 1, found 0 \(k\)"),
        ({"num_reweight": 1}, r"expected num_reweight of at least 2, found 1 \(num_reweight\)"),
        ({"patch_size": 0}, r"expected patch_size of at least 1, found 0 \(patch_size\)"),
        ({"embed_dim": 0}, r"expected embed_dim of at least 1, found 0 \(embed_dim\)"),
        ({"top_share": 0}, r"expected top_share in \(0, 1\], found 0 \(top_share\)"),
        ({"top_share": 1.5}, r"expected top_share in \(0, 1\], found 1.5 \(top_share\)"),
        ({"search_radius": -2}, r"search_radius of at least -1, found -2 \(search_radius\)"),
        ({"retrieve_images": -1}, r"retrieve_images of at least 0, found -1 \(retrieve_images\)"),
        ({"foreground_threshold": -1}, r"foreground_threshold of at least 0, found -1 \(foregr"),
        ({"scales": (1, 0)}, r"expected scales in \(0, 1\], found 1 0 \(scales\)"),
        ({"context": 1.5}, r"expected context in \[0, 1\], found 1.5 \(context\)"),
        ({"context": -0.5}, r"expected context in \[0, 1\], found -0.5 \(context\)"),
        ({"tile": -1}, r"expected tile of at least 0, found -1 \(tile\)"),
        ({"overlap": -1}, r"expected overlap of at least 0, found -1 \(overlap\)"),
        ({"layer_weights": (1, -1)}, r"expected layer_weights of at least 0, found 1 -1 \(layer_"),
        ({"layer_weights": (1, np.nan)}, r"layer_weights of at least 0, found 1 nan \(layer_wei"),
        ({"size_resize": 0}, r"expected size_resize of at least 1, found 0 0 \(size_resize\)"),
        ({"seed": -1}, r"expected seed in \[0, 4294967295\], found -1 \(seed\)"),
        ({"seed": 2**32}, r"expected seed in \[0, 4294967295\], found 4294967296 \(seed\)"),
        ({"sigma": -0.5}, r"expected sigma in \[0, 10000\], found -0.5 \(sigma\)"),
        ({"sigma": 1e9}, r"expected sigma in \[0, 10000\], found 1e\+09 \(sigma\)"),
        ({"sigma": np.inf}, r"expected finite sigma in \[0, 10000\], found inf \(sigma\)"),
        ({"sigma": np.nan}, r"expected sigma in \[0, 10000\], found nan \(sigma\)"),
        ({"percentage_coreset": ()}, r"in \(0, 1\], .*, found none \(percentage_coreset\)"),
        ({"percentage_coreset": 10}, r"in \(0, 1\], for example 0.1 for 10 %, found 10 \("),
        ({"percentage_coreset": (0.1, 0)}, r"in \(0, 1\], .*, found 0.1 0 \(percentage_coreset\)"),
        ({"size_crop": 0}, r"expected size_crop of at least 1, found 0 0 \(size_crop\)"),
        ({"size_crop": (1, 2, 3)}, r"one number, or height and width, found \(1, 2, 3\)"),
        ({"size_crop": ()}, r"one number, or height and width, found \(\) \(size_crop\)"),
        (
            {"size_crop": (224, 257)},
            r"size_crop at most size_resize, found size_crop 224 257 and size_resize "
            r"256 256, as height and width \(size_crop, size_resize\)",
        ),
        (
            {"image_score": "mean"},
            r"image_score max_patch, max_map, reweighted, top_share, top_share_map, found 'mean'",
        ),
        ({"interpolation": "cubic"}, r"interpolation backbone, bilinear, .*, found 'cubic' \("),
        (
            {"augment": ("vertical", "up")},
            r"augment horizontal, vertical, rotations, brightness, found 'vertical' 'up' \(augment",
        ),
        ({"precision": "int8"}, r"precision float32, tf32, bfloat16, float16, found 'int8' \("),
        ({"k": 1.5}, r"expected k of type int, found 1.5 \(k\)"),
        ({"k": "3"}, r"expected k of type int, found '3' \(k\)"),
        ({"k": True}, r"expected k of type int, found True \(k\)"),
        ({"norm_tokens": 1}, r"expected norm_tokens of type bool, found 1 \(norm_tokens\)"),
        ({"sigma": None}, r"expected sigma of type float, found None \(sigma\)"),
        ({"layer_weights": "ab"}, r"expected layer_weights of type float, found 'ab' \("),
        ({"precision": 32}, r"expected precision of type str, found 32 \(precision\)"),
    ],
)
def test_a_value_that_is_not_allowed(given, message):
    with pytest.raises(PatchCoreError, match=message):
        Settings(**given)


def test_all_numbers_have_bounds():
    """The values that they refuse are listed above."""
    for name, kind in get_type_hints(Settings).items():
        is_number = re.search(r"\b(int|float)\b", str(kind)) is not None
        details = Settings.__dataclass_fields__[name].metadata
        assert (details["bounds"] is not None) == is_number, name


@pytest.mark.parametrize("size", [64, (64, 64), [64]])
def test_a_shorter_edge_has_one_length(size):
    assert Settings(resize="shorter_edge", size_resize=size).size_resize == (64, 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"neighbourhood": "plain", "patch_size": 5},
            r"patch_size 3 with neighbourhood plain, which has no neighbourhoods to .*, found 5 "
            r"\(patch_size, neighbourhood\)",
        ),
        (
            {"neighbourhood": "plain", "embed_dim": 64},
            r"embed_dim 1024 with neighbourhood plain, .*, found 64 \(embed_dim, neighbourhood\)",
        ),
        (
            {"resize": "shorter_edge", "size_resize": (32, 48)},
            r"one number as size_resize with resize shorter_edge, .*\(size_resize, resize\)",
        ),
        (
            {"banks": "per_layer", "image_score": "reweighted"},
            r"image_score other than reweighted with banks per_layer.* \(image_score, banks\)",
        ),
        (
            {"banks": "per_layer", "distance": "cosine", "layer_weights": (1.0, 2.0)},
            r"layer_weights None with distance cosine, and banks per_layer, .*\(layer_weights, ",
        ),
    ],
)
def test_settings_that_exclude_one_another(given, message):
    with pytest.raises(PatchCoreError, match=message):
        Settings(**given)


class TestJson:
    @given(
        st.lists(st.floats(0, 1, exclude_min=True), min_size=1),
        st.integers(0, 2**32 - 1),
        st.floats(0, 100),
        st.none() | st.lists(st.floats(0, 9), min_size=1, max_size=3),
    )
    def test_they_are_read_back_to_the_last_bit(self, percentages, seed, sigma, layer_weights):
        settings = Settings(
            percentage_coreset=percentages,
            seed=seed,
            sigma=sigma,
            layer_weights=layer_weights,
            augment="vertical",
        )
        assert Settings.from_json(json.loads(json.dumps(settings.as_json()))) == settings

    def test_tuples_become_lists(self):
        record = Settings(size_crop=(32, 64), layer_weights=(1, 2)).as_json()
        assert (record["size_crop"], record["layer_weights"]) == ([32, 64], [1.0, 2.0])
        assert (record["percentage_coreset"], record["augment"]) == ([0.1], [])
        assert list(record) == [field.name for field in fields(Settings)]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"sigma": None, "depth": 3}, r"every setting of the method, found unknown: depth"),
            ({"k": ...}, "every setting of the method, found missing: k"),
            ({"k": ..., "l": 1, "sigma": ...}, "found unknown: l; missing: k, sigma"),
            ({"k": "3"}, r"expected k of type int, found '3' \(k\)"),
            ({"size_crop": [1, 2, 3]}, "one number, or height and width"),
        ],
    )
    def test_a_record_that_is_not_complete(self, change, message):
        record = {**Settings().as_json(), **change}
        record = {name: value for name, value in record.items() if value is not ...}
        with pytest.raises(PatchCoreError, match=message):
            Settings.from_json(record)

    @pytest.mark.parametrize("record", [None, [1], "k"])
    def test_a_record_that_is_no_mapping(self, record):
        with pytest.raises(
            PatchCoreError, match=f"settings by name, found {type(record).__name__}"
        ):
            Settings.from_json(record)


def test_the_protocols_are_settings():
    assert Settings(**PROTOCOLS["paper"]) == Settings()
    ours = asdict(Settings(**PROTOCOLS["anomalib_like"]))
    changed = {name for name, value in asdict(Settings()).items() if ours[name] != value}
    # 9 neighbours are the default as well.
    assert changed == set(PROTOCOLS["anomalib_like"]) - {"num_reweight", "size_resize"}


def test_no_crop_is_the_size_of_the_resized_image():
    settings = Settings(size_resize=(320, 288), size_crop=None)
    assert settings.size_crop == (320, 288)
    assert Settings.from_json(settings.as_json()) == settings


def test_they_are_the_parameters_of_the_model():
    parameters = inspect.signature(PatchCore).parameters
    for parameter in Settings.parameters():
        assert parameters[parameter.name] == parameter
    assert parameters["sigma"].default == 4.0
    assert parameters["size_crop"].annotation == tuple[int, int] | None


def test_every_name_has_its_function():
    """The names are listed without torch; what they stand for lies where it is computed."""
    assert tuple(IMAGE_SCORES) == IMAGE_SCORE_NAMES
    assert tuple(PRECISIONS) == PRECISION_NAMES
    assert tuple(FORMATS) == EXPORT_FORMATS


def test_reading_them_needs_no_torch():
    code = (
        "import sys, patchcore, patchcore.settings, patchcore.record\n"
        "assert {'PatchCore', 'Prediction'} <= set(dir(patchcore))\n"
        "assert not {'torch', 'numpy', 'cv2', 'faiss'} & set(sys.modules)\n"
        "from patchcore import PatchCore\n"
        "assert 'torch' in sys.modules and patchcore.PatchCore is PatchCore\n"
        "try: patchcore.Nothing\n"
        "except AttributeError as error: assert 'no attribute' in str(error)\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_similar_choice_is_suggested():
    with pytest.raises(
        PatchCoreError, match=r"found 'max_mapp' \(image_score\)\. Did you mean max_"
    ):
        Settings(image_score="max_mapp")
