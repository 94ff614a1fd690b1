"""A small backbone of our own, trained on pictures by formula; its weights are in this package.

No photograph had a part in it, so nobody's terms bind who uses it, and nothing is downloaded.
What it was trained and measured on stands beside it in ``formulanet.md``.
"""

from pathlib import Path

import torch
from torch import nn

FORMULANET = "formulanet"
LAYERS = ("layer1", "layer2", "layer3")
WEIGHTS_FILE = Path(__file__).with_name("formulanet.safetensors")
WIDTHS = (32, 64, 128, 128)
DEPTHS = (1, 3, 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a way past them: (B, C, h, w) -> (B, D, h/stride, w/stride).

    The way past is a 1x1 convolution where the map changes its shape.
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
        """Compute the block."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.beside(x))


class FormulaNet(nn.Module):
    """Three stages of residual blocks after a stem: maps at strides 4, 8 and 16.

    PatchCore reads all three. Beside a ResNet's second and third layer, ``layer1`` is fine enough
    to say where exactly something lies, of which so small a network's other maps know little.

    Args:
        widths: Channels of the stem and of each stage.
        depths: Blocks of each stage; the first halves the map.

    Attributes:
        channels: Of the three maps.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = WIDTHS,
        depths: tuple[int, int, int] = DEPTHS,
    ):
        super().__init__()
        self.channels = widths[1:]
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.layer1, self.layer2, self.layer3 = (
            _stage(widths[number], widths[number + 1], depth) for number, depth in enumerate(depths)
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the maps of the three stages.

        Args:
            images: (B, 3, H, W) float32, with ImageNet's mean and deviation taken out.

        Returns:
            (B, C2, H/4, W/4), (B, C3, H/8, W/8) and (B, C4, H/16, W/16), not negative.
        """
        fine = self.layer1(self.stem(images))
        middle = self.layer2(fine)
        return fine, middle, self.layer3(middle)


def _stage(channels_in: int, channels_out: int, depth: int) -> nn.Sequential:
    """Blocks one after another, the first of which halves the map."""
    first = ResidualBlock(channels_in, channels_out, stride=2)
    more = (ResidualBlock(channels_out, channels_out, stride=1) for _ in range(depth - 1))
    return nn.Sequential(first, *more)
