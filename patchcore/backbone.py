"""A network cut after its last needed layer -> {layer: (B, C, h, w)}."""

import hashlib
import logging
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from patchcore.cut import cut, remove_modules
from patchcore.errors import PatchCoreError, first_line
from patchcore.feature_axes import other_size, read_axes
from patchcore.final_norm import find_norm
from patchcore.layer_names import check_layers
from patchcore.layout import LayerLayout, Layout
from patchcore.network_copies import copied, in_float32
from patchcore.network_input import NetworkInput
from patchcore.patch_grid import nearest_sizes
from patchcore.reader import LayerReader, try_out
from patchcore.torch_state import torch_defaults

log = logging.getLogger(__name__)

# Attributes of a backbone that do not depend on the size of the images.
_KEPT_AT_OTHER_SIZES = (
    "shares_weights",
    "dtype",
    "folded",
    "name",
    "weights",
    "weights_digest",
    "licence",
    "input",
)


class Backbone(nn.Module):
    """The middle of a network, up to the last of the wanted layers (section 3.1 of the paper).

    Works with any network: hooks read the layers, and the forward pass stops as soon as all have
    been read. What only serves later layers is removed, so it costs neither time nor memory.
    Several threads may call one backbone at the same time.

    Attributes:
        network: A copy of the network in eval mode, without the parts that are not reached. It
            shares its weights with the network that was given, until `load` or `converted`.
        shares_weights: Whether a network of the caller's has the same weights in memory.
        dtype: Type that the weights have been rounded to; float32 if they have not.
        layers: The names of the layers that are read, from large maps to small ones.
        layouts: How each layer's output becomes a map.
        channels: C of each layer's map.
        grids: (h, w) of each layer's map for images of ``size``.
        size: (H, W) in pixels of the images.
        folded: Names of the convolutions and of the batch norms that were folded into them; see
            `patchcore.fold`.
        name: The name that `load_backbone` built it by; empty for a network of the caller's.
        weights: The weights that `load_backbone` was given; empty for a network of the caller's.
        weights_digest: SHA-256 of the weights as they were loaded; empty if it was not computed.
        licence: Licence of the weights, as their publisher states it; empty if it is unknown.
        input: Preprocessing that the network was trained with.

    Args:
        network: Called with (B, 3, H, W) float32. It is not changed. Weights in other
            floating-point types are converted to float32.
        layers: Module names as in ``network.named_modules()``. They are put in order: large maps
            first, and of equal maps the one that is computed first.
        size: (H, W) in pixels of the images.
        layout: What `layout` returned for the same network, layers and size: then nothing is
            tried out. None to run the network on trial images.
        norm_tokens: Whether to apply the final norm of a vision transformer to the tokens of each
            layer.

    Raises:
        PatchCoreError: the network is no module, cannot be copied or does not take such images;
            a layer does not exist, is not reached, or gives neither a map nor tokens; there is no
            final norm; or the layout does not fit.
    """

    @torch_defaults()
    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        size: tuple[int, int] = (224, 224),
        layout: Layout | None = None,
        *,
        norm_tokens: bool = False,
    ):
        super().__init__()
        check_layers(network, layers)
        self.network = in_float32(network)
        self.size = tuple(size)
        self.folded: tuple[tuple[str, str], ...] = ()
        self.name = ""
        self.weights = ""
        self.weights_digest = ""
        self.licence = ""
        self.input = NetworkInput() if layout is None else layout.input
        self.shares_weights = True
        self.dtype = torch.float32
        self._reader = LayerReader(self.network, layers)
        self._norm = ""
        self.layouts = self._follow(layout or self._lay_out(norm_tokens), norm_tokens)
        self.layers = tuple(layer.name for layer in self.layouts)
        self.channels = tuple(layer.channels for layer in self.layouts)
        self.grids = tuple(layer.grid for layer in self.layouts)
        if self.layers != tuple(layers):
            log.warning(
                "layers are read from large maps to small ones: %s (given: %s)",
                ", ".join(self.layers),
                ", ".join(layers),
            )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the layers' feature maps.

        Args:
            images: (B, 3, H, W) float32, normalised as the network was trained.

        Returns:
            {layer: (B, C, h, w)} in the order of `layers`.
        """
        outputs = self._reader.run(self.network, images)
        if self._norm:
            norm = self.network.get_submodule(self._norm)
            outputs = {name: norm(output) for name, output in outputs.items()}
        return {layer.name: layer.to_map(outputs[layer.name]) for layer in self.layouts}

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the layers' feature maps, as `forward`, in the order of `layers`."""
        return list(self(images).values())

    def for_trials(self) -> "Backbone":
        """Return a copy with the same weights to try something out with.

        Some networks keep what they compute from their weights or for a size of images, such as
        timm's TinyViT its attention biases. It would be wrong once weights, precision or size
        change, so what a trial leaves must not stay here.
        """

        def copy_of(tensor: torch.Tensor) -> torch.Tensor:
            return tensor if isinstance(tensor, nn.Parameter) else tensor.clone()

        return copied(self, self, copy_of)

    @property
    def norm_tokens(self) -> bool:
        """Whether the final norm of the network is applied to the tokens of each layer."""
        return bool(self._norm)

    @property
    def layout(self) -> dict[str, object]:
        """What trial runs found out, as JSON can hold it; for `load_backbone`."""
        layout = Layout(self.size, self.layouts, self._removed, self.folded, self._norm, self.input)
        return layout.to_record()

    def own_weights(self) -> None:
        """Copy the weights that are shared with the network that was given."""
        if self.shares_weights:
            vars(self).update(vars(copied(self, self, torch.clone)))
            self.shares_weights = False

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load weights. Those of removed parts are not needed.

        Args:
            state: Parameters and buffers by name, in any floating-point type.

        Raises:
            PatchCoreError: one that is needed is missing or has another shape.
        """
        own = self.network.state_dict()
        # Inference does not use batch norm's step counter, and older files lack it.
        needed = [name for name in own if not name.endswith("num_batches_tracked")]
        missing = [name for name in needed if name not in state]
        if missing:
            raise PatchCoreError(
                f"expected weights for this network, {_some(missing)} not among the {len(state)} "
                f"found ({_some(list(state))})"
            )
        wrong = [name for name in needed if own[name].shape != state[name].shape]
        if wrong:
            expected, found = ("x".join(map(str, s[wrong[0]].shape)) for s in (own, state))
            raise PatchCoreError(f"expected weights {wrong[0]} of shape {expected}, found {found}")
        self.own_weights()
        self.network.load_state_dict({n: state[n] for n in own if n in state}, strict=False)

    def converted(self, device: torch.device, dtype: torch.dtype) -> "Backbone":
        """Return a copy on a device, in a floating-point type, with weights in channels-last order.

        This backbone stays as it is, so models of several precisions can share it. Weights that
        are already as wanted are shared with it, but not with the network that was given: that
        may be trained or converted later.

        Raises:
            PatchCoreError: the weights have been rounded to another type.
        """
        if self.dtype not in (torch.float32, dtype):
            raise PatchCoreError(
                "expected a backbone with its original weights, found one of a model that has "
                f"rounded them to {str(self.dtype).removeprefix('torch.')}: load it again "
                "(backbone, precision)"
            )

        def convert(tensor: torch.Tensor) -> torch.Tensor:
            order = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            return tensor.to(device, kind, copy=self.shares_weights, memory_format=order)

        result = copied(self, self, convert).eval()
        result.weights_digest = self.digest()
        result.shares_weights, result.dtype = False, dtype
        return result

    def at(self, size: tuple[int, int]) -> "Backbone":
        """Return a backbone for images of a size (H, W): this one, or one that shares its weights.

        Raises:
            PatchCoreError: the network does not take such images.
        """
        if size == self.size:
            return self
        result = Backbone(self.network, self.layers, size, norm_tokens=self.norm_tokens)
        for name in _KEPT_AT_OTHER_SIZES:
            setattr(result, name, getattr(self, name))
        return result

    def digest(self) -> str:
        """Return the digest of the weights; compute it if it was not at loading."""
        return self.weights_digest or digest(self.network)

    def replace_module(self, name: str, module: nn.Module) -> None:
        """Put another module in the place of one of the network's; layers are still read."""
        self.network.set_submodule(name, module)
        if name in self._reader.layers:
            self._reader.attach(module, name)

    def _follow(self, layout: Layout, norm_tokens: bool) -> tuple[LayerLayout, ...]:
        """Change the network as an earlier trial did; return the layers."""
        found = [layer.name for layer in layout.layers]
        if sorted(found) != sorted(self._reader.layers) or layout.size != self.size:
            raise PatchCoreError(
                f"expected a backbone's layout for layers {', '.join(self._reader.layers)} and "
                f"images of {self.size[0]}x{self.size[1]} pixels, found one for {', '.join(found)} "
                f"and {layout.size[0]}x{layout.size[1]}"
            )
        if bool(layout.norm) != norm_tokens:
            raise PatchCoreError(
                f"expected a backbone's layout for norm_tokens={norm_tokens}, found one with the "
                f"norm {layout.norm!r}"
            )
        if layout.norm:
            self._norm = find_norm(self.network, layout.layers)
        remove_modules(self.network, layout.removed)
        self._removed = layout.removed
        self._reader.overwritten = frozenset(n.name for n in layout.layers if n.overwritten)
        return layout.layers

    # Also in the caller's inference mode, where tensors do not count how often they are written.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _lay_out(self, norm_tokens: bool) -> Layout:
        """Run the network on trial images, and return what the layers give and what to remove."""
        second_shapes = self._second_shapes()
        copied = self.for_trials()
        network, reader = copied.network, copied._reader
        images = trial_images(network, self.size)
        try:
            trial = try_out(reader, network, images)
        # A user's network may raise any exception.
        except Exception as error:
            height, width = self.size
            raise PatchCoreError(
                f"the backbone cannot take float32 images of {height}x{width} pixels (size_crop): "
                f"{first_line(error)}{nearest_sizes(network, self.size)}"
            ) from error
        for layer in reader.layers:
            if layer not in trial.outputs:
                raise PatchCoreError(
                    f"layer {layer!r} is not reached when the backbone runs (layers)"
                )
        reader.overwritten = trial.overwritten
        layouts = [  # in the order of their computation
            read_axes(
                network,
                layer,
                output,
                self.size,
                second_shapes.get(layer),
                overwritten=layer in trial.overwritten,
            )
            for layer, output in trial.outputs.items()
        ]
        norm = find_norm(network, layouts) if norm_tokens else ""
        removed = cut(
            network,
            trial.called | ({norm} if norm else set()),
            trial.completed,
            lambda: _gives(network, reader, images, trial.outputs),
        )
        layers = tuple(sorted(layouts, key=lambda layer: -layer.grid[0] * layer.grid[1]))
        return Layout(self.size, layers, removed, norm=norm, input=self.input)

    def _second_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the layers' outputs at another size; none if it is not taken."""
        copied = self.for_trials()
        images = trial_images(copied, other_size(self.size))
        try:
            outputs = copied._reader.run(copied.network, images)
        # A user's network may raise any exception.
        except Exception:
            return {}
        return {n: tuple(o.shape) for n, o in outputs.items() if isinstance(o, torch.Tensor)}


def trial_images(network: nn.Module, size: tuple[int, int]) -> torch.Tensor:
    """Draw one image, (1, 3, H, W) float32, with the range of values of a normalised image."""
    generator = torch.Generator().manual_seed(0)
    weight = next(network.parameters(), torch.empty(0))
    return torch.randn(1, 3, *size, generator=generator).to(weight.device)


def digest(network: nn.Module, originals: Mapping[str, torch.Tensor] | None = None) -> str:
    """Return the SHA-256 of a network's weights: names, shapes, types and values.

    The same values give the same digest, from any file.

    Args:
        network: The network.
        originals: Tensors by name that count in place of the network's own: those from which a
            resampling, which may round differently on another processor, made the network's.
    """
    result = hashlib.sha256()
    for name, tensor in sorted((network.state_dict() | dict(originals or {})).items()):
        result.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        result.update(tensor.detach().cpu().contiguous().numpy())
    return result.hexdigest()


def _gives(
    network: nn.Module,
    reader: LayerReader,
    images: torch.Tensor,
    expected: Mapping[str, torch.Tensor],
) -> bool:
    """Return whether the network runs and its layers give these values, to the bit."""
    try:
        outputs = reader.run(network, images)
    # A user's network may raise any exception.
    except Exception:
        return False
    return all(_are_equal(outputs.get(name), values) for name, values in expected.items())


def _are_equal(found: object, expected: torch.Tensor) -> bool:
    if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
        return False
    # Also where random weights give values that are not numbers.
    return torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True)


def _some(names: Sequence[str]) -> str:
    """Name a few, and say how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
