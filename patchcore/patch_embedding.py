"""Feature maps -> (B, h, w, D) patch embeddings.

The paper (section 3.1, equations 1 to 3) and its reference code gather each position's
neighbourhood from every layer, resize those of deeper layers to the first layer's grid, pool each
to one length, join them, and pool again. These steps are linear and equal at every position. For
each layer they are therefore one small convolution *before* the resizing, and each of its outputs
depends on a few neighbouring channels. The weights follow from the two poolings; tests compare the
result with the steps above.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import nn

from patchcore.errors import PatchCoreError
from patchcore.settings import PER_LAYER, PLAIN, Settings

# If outputs do not use the channels in order, a full convolution is faster than selecting channels
# first, up to this number: 6 times for 24 channels at 28x28, 4 times for 40; half as fast for 96 at
# 14x14.
FULL_CONVOLUTION_CHANNELS = 64


class PatchEmbedding(nn.Module):
    """Locally aware patch embeddings from a few layers' feature maps.

    Args:
        channels: C of each layer's map.
        patch_size: Side of the neighbourhood, in positions of the layer's own grid (p).
        layer_dim: Length to which each layer's neighbourhood vector (C * p * p, channel-major) is
            pooled.
        embed_dim: Length D of the embedding, to which the joined vectors are pooled.
        layer_weights: Factor for each layer's part; None for 1 each.

    Raises:
        PatchCoreError: a number is not positive, or the numbers of layers and weights differ.
    """

    def __init__(
        self,
        channels: Sequence[int],
        patch_size: int = 3,
        layer_dim: int = 1024,
        embed_dim: int = 1024,
        layer_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        weights = _weights_of_layers(channels, layer_weights)
        if not channels or min(*channels, patch_size, layer_dim, embed_dim) < 1:
            raise PatchCoreError(
                f"expected positive numbers, found channels {list(channels)}, patch_size "
                f"{patch_size}, layer_dim {layer_dim} and embed_dim {embed_dim}"
            )
        self.embed_dim = embed_dim
        joined = _pooling_matrix(len(channels) * layer_dim, embed_dim)  # (D, L * layer_dim)
        self.layers = nn.ModuleList(
            _LayerEmbedding(
                joined[:, layer * layer_dim : (layer + 1) * layer_dim]
                @ _pooling_matrix(count * patch_size**2, layer_dim)
                * weight,
                count,
                patch_size,
            )
            for layer, (count, weight) in enumerate(zip(channels, weights, strict=True))
        )

    def forward(self, maps: Mapping[str, torch.Tensor] | Sequence[torch.Tensor]) -> torch.Tensor:
        """Embed each position of the first layer's grid.

        Args:
            maps: The layers' maps in the order of ``channels``, each (B, C_l, h_l, w_l).

        Returns:
            (B, h, w, D), contiguous, in the maps' dtype and on their device.

        Raises:
            PatchCoreError: there is another number of maps, or one has no grid for an even
                patch_size.
        """
        values = list(maps.values()) if isinstance(maps, Mapping) else list(maps)
        if len(values) != len(self.layers):
            raise PatchCoreError(f"expected {len(self.layers)} maps, found {len(values)}")
        parts = [layer(value) for layer, value in zip(self.layers, values, strict=True)]
        grid = parts[0].shape[2:]  # (h, w)
        joined: list[torch.Tensor] = []
        filled = 0  # number of joined outputs
        for layer, part in zip(self.layers, parts, strict=True):
            values = _resize(part, grid).permute(0, 2, 3, 1)  # (B, h, w, outputs of this layer)
            # If a bin of the last pooling spans two layers, the second adds to the first.
            shared = max(filled - layer.first_output, 0)
            if shared:
                last = joined.pop()
                both = last[..., -shared:] + values[..., :shared]
                joined += [last[..., :-shared], both]
            joined.append(values[..., shared:])
            filled = layer.first_output + values.shape[3]
        return torch.cat(joined, dim=3).contiguous()


class PlainEmbedding(nn.Module):
    """The layers' features at each position, without neighbourhoods or pooling.

    As in AnomalyDINO (Damm et al. 2024, section 3.1), which reads one layer. Maps of several layers
    are resized to the first layer's grid and joined.

    Args:
        channels: C of each layer's map.
        layer_weights: Factor for each layer's part; None for 1 each.

    Raises:
        PatchCoreError: the numbers of layers and weights differ.
    """

    def __init__(self, channels: Sequence[int], layer_weights: Sequence[float] | None = None):
        super().__init__()
        self.embed_dim = sum(channels)
        self._weights = _weights_of_layers(channels, layer_weights)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embed each position of the first layer's grid, as `PatchEmbedding.forward`."""
        grid = maps[0].shape[2:]
        parts = [
            _resize(value, grid).permute(0, 2, 3, 1) * weight
            for value, weight in zip(maps, self._weights, strict=True)
        ]
        return torch.cat(parts, dim=3).contiguous()  # (B, h, w, D)


class SeparateEmbedding(nn.Module):
    """An embedding of each layer by itself, for one memory bank per layer.

    Args:
        embeddings: The embedding of each layer alone; each is resized to the first layer's grid.

    Attributes:
        embed_dim: L times the largest length of a layer's embedding; shorter ones end with zeros,
            which change no distance.
    """

    def __init__(self, embeddings: Sequence[nn.Module]):
        super().__init__()
        self.embeddings = nn.ModuleList(embeddings)
        self._length = max(embedding.embed_dim for embedding in embeddings)
        self.embed_dim = len(embeddings) * self._length

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embed each position of the first layer's grid.

        Args:
            maps: The layers' maps in the order of the embeddings, each (B, C_l, h_l, w_l).

        Returns:
            (B, h, w, L * D), the parts of the layers one after another.
        """
        grid, parts = None, []
        for embedding, value in zip(self.embeddings, maps, strict=True):
            part = embedding([value]).permute(0, 3, 1, 2)  # (B, D_l, h_l, w_l)
            grid = grid or part.shape[2:]
            part = _resize(part, grid).permute(0, 2, 3, 1)  # (B, h, w, D_l)
            parts.append(F.pad(part, (0, self._length - part.shape[3])))
        return torch.cat(parts, dim=3)


def make_embedding(channels: Sequence[int], settings: Settings) -> nn.Module:
    """Return the embedding for layers of ``channels``, by the neighbourhood and the banks.

    Args:
        channels: C of each layer's map, at each scale.
        settings: Settings of the method; their weights are those of the layers at one scale.
    """
    num_scales = len(settings.scales)
    of_one_scale = channels[: len(channels) // num_scales]
    weights = _weights_of_layers(of_one_scale, settings.layer_weights) * num_scales
    if settings.banks == PER_LAYER:
        each = zip(channels, weights, strict=True)
        return SeparateEmbedding([_joined(settings, [count], [weight]) for count, weight in each])
    return _joined(settings, channels, weights)


def _joined(
    settings: Settings, channels: Sequence[int], layer_weights: Sequence[float] | None
) -> nn.Module:
    """Return one embedding of all given layers."""
    if settings.neighbourhood == PLAIN:
        return PlainEmbedding(channels, layer_weights)
    return PatchEmbedding(
        channels,
        settings.patch_size,
        embed_dim=settings.embed_dim,
        layer_weights=layer_weights,
    )


class _LayerEmbedding(nn.Module):
    """One layer's share of the embedding: (B, C, h, w) -> (B, outputs, h', w').

    Args:
        matrix: (D, C * p * p), maps a neighbourhood to the embedding. Each row uses a few
            consecutive channels; the rows that are not zero are consecutive.
        channels: C.
        patch_size: p.
    """

    def __init__(self, matrix: sparse.csr_matrix, channels: int, patch_size: int):
        super().__init__()
        matrix = matrix.tocsr()
        rows = np.flatnonzero(np.diff(matrix.indptr))
        area = patch_size**2
        # The first and last channel of each output; columns within a row ascend.
        matrix.sort_indices()
        first = matrix.indices[matrix.indptr[rows]] // area
        last = matrix.indices[matrix.indptr[rows + 1] - 1] // area
        width = int((last - first).max()) + 1
        # `width` consecutive channels for each, moved back where they would pass the last channel.
        start = np.minimum(first, channels - width)
        entries = matrix.tocoo()
        kernel = np.zeros((len(rows), width * area))
        offset = entries.col - start[entries.row - rows[0]] * area
        kernel[entries.row - rows[0], offset] = entries.data
        touched = (start[:, None] + np.arange(width)).reshape(-1)  # (outputs * width,)
        in_order = len(touched) == channels and bool((touched == np.arange(channels)).all())
        kernel = kernel.reshape(-1, 1, patch_size, patch_size)
        if not in_order and channels <= FULL_CONVOLUTION_CHANNELS:
            kernel = matrix[rows].toarray().reshape(-1, channels, patch_size, patch_size)
            width, in_order = 1, True
        self.first_output = int(rows[0])
        self.padding = (patch_size - 1) // 2
        # An even size has no centre, so its grid is one smaller than the map.
        self.least_side = 2 - patch_size % 2
        self.width = width
        self.register_buffer("kernel", torch.from_numpy(kernel).float(), persistent=False)
        self.register_buffer(
            "touched", None if in_order else torch.from_numpy(touched), persistent=False
        )

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Pool neighbourhoods and channels at every position, zeros beyond the border."""
        height, width = feature_map.shape[2:]
        if min(height, width) < self.least_side:
            raise PatchCoreError(
                "expected feature maps of at least 2x2 positions with an even patch_size, found "
                f"{height}x{width} (patch_size, size_crop, layers)"
            )
        if self.touched is not None:
            feature_map = feature_map.index_select(1, self.touched)
        kernel = self.kernel.to(feature_map.dtype)  # (outputs * width, 1 or C, p, p)
        # Each channel by itself, then the sum over the channels of each output: on a CPU ten times
        # as fast as one convolution with a few channels to a group.
        groups = feature_map.shape[1] // kernel.shape[1]
        convolved = F.conv2d(feature_map, kernel, padding=self.padding, groups=groups)
        pooled = convolved[:, :: self.width]
        for channel in range(1, self.width):
            pooled = pooled + convolved[:, channel :: self.width]
        return pooled  # (B, outputs, h', w')


def _weights_of_layers(
    channels: Sequence[int], layer_weights: Sequence[float] | None
) -> list[float]:
    """Return the factor for each layer."""
    weights = [1.0] * len(channels) if layer_weights is None else list(layer_weights)
    if len(weights) != len(channels):
        raise PatchCoreError(
            f"expected one of layer_weights for each of {len(channels)} layers, found {weights}"
        )
    return weights


def _resize(part: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    if part.shape[2:] == grid:
        return part
    return F.interpolate(part, grid, mode="bilinear", align_corners=False)


def _pooling_matrix(length: int, bins: int) -> sparse.csr_matrix:
    """Return adaptive average pooling as a (bins, length) matrix.

    Bin i is the mean of the entries from floor(i * length / bins) to before
    ceil((i + 1) * length / bins); neighbouring bins may share entries.
    """
    index = np.arange(bins)
    start = index * length // bins
    stop = -(-(index + 1) * length // bins)
    counts = stop - start
    columns = np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])
    rows = np.repeat(index, counts)
    return sparse.csr_matrix((np.repeat(1.0 / counts, counts), (rows, columns)), (bins, length))
