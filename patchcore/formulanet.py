"""A small backbone trained on procedural images only; its weights are part of this package.

Its training used no third-party image, so no third-party licence applies, and nothing is
downloaded. ``formulanet.md`` describes its training and its results.
"""

from pathlib import Path

import torch
from torch import nn

FORMULANET = "formulanet"
LAYERS = ("layer1", "layer2", "layer3")
WEIGHTS_FILE = Path(__file__).with_name("formulanet.safetensors")
# Channels of the stem and of each stage; blocks of each stage.
WIDTHS = (32, 64, 128, 128)
DEPTHS = (1, 3, 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: (B, C, h, w) -> (B, D, h/stride, w/stride).

    The shortcut is a 1x1 convolution where the shape of the map changes.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.beside = nn.Sequential()
        if stride > 1 or channels_in != channels_out:
            self.beside = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the map of the block."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.beside(x))


class FormulaNet(nn.Module):
    """Stem and three stages of residual blocks: maps at strides 4, 8 and 16.

    PatchCore reads all three maps. ``layer1`` locates defects more finely than the second and third
    layer of a ResNet.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
        )
        self.layer1, self.layer2, self.layer3 = map(_stage, WIDTHS, WIDTHS[1:], DEPTHS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the last map; hooks read the others.

        Args:
            images: (B, 3, H, W) float32, normalised with the ImageNet mean and standard deviation.

        Returns:
            (B, 128, H/16, W/16), at least 0.
        """
        return self.layer3(self.layer2(self.layer1(self.stem(images))))


def _stage(channels_in: int, channels_out: int, depth: int) -> nn.Sequential:
    """Return ``depth`` residual blocks; the first one halves the map."""
    first = ResidualBlock(channels_in, channels_out, stride=2)
    more = (ResidualBlock(channels_out, channels_out, stride=1) for _ in range(depth - 1))
    return nn.Sequential(first, *more)
