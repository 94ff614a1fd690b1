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


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one, halving the map: (B, C, h, w) -> (B, D, h/2, w/2)."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv_beside = nn.Conv2d(channels_in, channels_out, 1, 2, bias=False)
        self.bn_beside = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the block."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.bn_beside(self.conv_beside(x)))


class FormulaNet(nn.Module):
    """Three residual blocks after a stem: maps at a fourth, an eighth and a sixteenth of the size.

    PatchCore reads all three. Beside a ResNet's second and third layer, ``layer1`` is fine enough
    to say where exactly something lies, of which so small a network's other maps know little.

    Args:
        widths: Channels of the stem and of each block.

    Attributes:
        channels: Of the three maps.
    """

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS):
        super().__init__()
        self.channels = widths[1:]
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.layer1 = ResidualBlock(widths[0], widths[1])
        self.layer2 = ResidualBlock(widths[1], widths[2])
        self.layer3 = ResidualBlock(widths[2], widths[3])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the maps of the three blocks.

        Args:
            images: (B, 3, H, W) float32, with ImageNet's mean and deviation taken out.

        Returns:
            (B, C2, H/4, W/4), (B, C3, H/8, W/8) and (B, C4, H/16, W/16), not negative.
        """
        fine = self.layer1(self.stem(images))
        middle = self.layer2(fine)
        return fine, middle, self.layer3(middle)
