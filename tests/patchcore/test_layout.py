import json
from dataclasses import replace

import pytest
import torch

from patchcore import PatchCoreError
from patchcore.layout import CHANNELS_FIRST, CHANNELS_LAST, TOKENS, LayerLayout, Layout
from patchcore.network_input import NetworkInput

FIRST = LayerLayout("stage1", CHANNELS_FIRST, 0, 4, (2, 3), overwritten=True)
LAST = replace(FIRST, axes=CHANNELS_LAST)
WITH_CLASS_TOKEN = replace(FIRST, axes=TOKENS, prefix=1)
INPUT = NetworkInput((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic")
LAYOUT = Layout(
    (64, 96), (FIRST, LAST), ("head", "stage3"), (("conv", "norm"),), "encoder.norm", INPUT
)


def test_reads_the_record_that_it_wrote():
    assert Layout.from_record(json.loads(json.dumps(LAYOUT.to_record()))) == LAYOUT


def test_maps_have_their_channels_first():
    """Channel c at row y and column x holds 100 c + 10 y + x."""
    channel, row, column = torch.meshgrid(
        torch.arange(4), torch.arange(2), torch.arange(3), indexing="ij"
    )
    wanted = (100 * channel + 10 * row + column)[None]
    tokens = wanted.flatten(2).mT  # (1, 6, 4)
    class_token = torch.full((1, 1, 4), -1)
    outputs = {
        FIRST: wanted,
        LAST: wanted.permute(0, 2, 3, 1).contiguous(),
        replace(WITH_CLASS_TOKEN, prefix=0): tokens,
        WITH_CLASS_TOKEN: torch.cat([class_token, tokens], dim=1),
    }
    for layout, output in outputs.items():
        assert torch.equal(layout.to_map(output), wanted)


LAYER, STORED_INPUT = LAYOUT.to_record()["layers"][0], LAYOUT.to_record()["input"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": None}, r"expected size \(list\).*found None"),
        ({"size": [64]}, r"expected size \(height, width\).*found \[64\]"),
        ({"size": [64, 0]}, r"expected size \(height, width\)"),
        ({"size": [64, True]}, "expected size to list int"),
        ({"size": "64"}, r"expected size \(list\)"),
        ({"layers": []}, "0 layers"),
        ({"layers": {"name": "stage1"}}, r"expected layers \(list\)"),
        ({"layers": ["stage1"]}, "expected layers to list dict"),
        ({"layers": [LAYER | {"name": 3}]}, r"expected name \(str\).*found 3"),
        ({"layers": [LAYER | {"axes": "rows"}]}, "expected axes channels_first, .*rows"),
        ({"layers": [LAYER | {"prefix": -1}]}, "a prefix of 0 or more"),
        ({"layers": [LAYER | {"prefix": True}]}, r"expected prefix \(int\).*found True"),
        ({"layers": [LAYER | {"prefix": 1.0}]}, r"expected prefix \(int\)"),
        ({"layers": [LAYER | {"channels": 0}]}, "channels of 1 or more"),
        ({"layers": [LAYER | {"grid": [7, "7"]}]}, "expected grid to list int"),
        ({"layers": [LAYER | {"overwritten": 1}]}, r"expected overwritten \(bool\)"),
        ({"removed": [["head"]]}, "expected removed to list str"),
        ({"folded": [["conv"]]}, r"pairs of names in folded.*\('conv',\)"),
        ({"folded": [["conv", 1]]}, "pairs of names in folded"),
        ({"folded": "conv"}, r"expected folded \(list\)"),
        ({"norm": None}, r"expected norm \(str\)"),
        ({"input": None}, r"expected input \(dict\)"),
        ({"input": STORED_INPUT | {"mean": [0.5, 0.5]}}, "mean and std of 3 channels"),
        ({"input": STORED_INPUT | {"mean": [0, 0.5, 0.5]}}, "expected mean to list float"),
        ({"input": STORED_INPUT | {"std": [0.5, 0.0, 0.5]}}, "mean and std of 3 channels"),
        ({"input": STORED_INPUT | {"interpolation": "area"}}, "interpolation bilinear, bicubic"),
    ],
)
def test_refuses_a_damaged_record(change, message):
    with pytest.raises(PatchCoreError, match=message):
        Layout.from_record(LAYOUT.to_record() | change)


def test_refuses_what_is_no_record():
    with pytest.raises(PatchCoreError, match=r"expected layers .*found \[1\]"):
        Layout.from_record([1])
