"""A network cut after its last needed layer -> {layer: (B, C, h, w)}."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from patchcore.errors import PatchCoreError


class Backbone(nn.Module):
    """The middle of a network, up to the last of the wanted layers (section 3.1 of the paper).

    Works with any network: hooks read the layers, and the forward pass stops as soon as all have
    been read. What only serves later layers is removed, so it costs neither time nor memory.

    Attributes:
        network: The network, in eval mode, without the parts that are not reached.
        layers: The names of the layers that are read, in the given order.
        channels: C of each layer's map.
        grids: (h, w) of each layer's map for images of ``size``.
        size: (H, W) of the images that the backbone was laid out for.
        name: What `load_backbone` built it by; empty where somebody else built it.
        weights: Where its weights came from, in the words of `load_backbone`; empty likewise.
        weights_digest: SHA-256 of the weights as they were loaded; empty where nobody took it.

    Args:
        network: Called with (B, 3, H, W) float32. It is changed: give a copy to keep the whole.
        layers: Module names as in ``network.named_modules()``; from large maps to small ones.
        size: (H, W) in pixels of the images to come.

    Raises:
        PatchCoreError: a layer does not exist, is not reached, or gives no (B, C, h, w) map.
    """

    def __init__(
        self, network: nn.Module, layers: Sequence[str], size: tuple[int, int] = (224, 224)
    ):
        super().__init__()
        _check_names(network, layers)
        self.network = network.eval()
        self.layers = tuple(layers)
        self.size = size
        self.name = ""
        self.weights = ""
        self.weights_digest = ""
        self._overwritten: frozenset[str] = frozenset()
        maps, reached, completed = self._try_out()
        self.channels = tuple(maps[name].shape[1] for name in self.layers)
        self.grids = tuple((maps[name].shape[2], maps[name].shape[3]) for name in self.layers)
        _remove_unreached(self.network, reached, completed)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the layers' feature maps.

        Args:
            images: (B, 3, H, W) float32, normalised as the network was trained.

        Returns:
            {layer: (B, C, h, w)} in the order of `layers`.
        """
        with self._read_layers() as maps:
            self._run(images)
        return {name: maps[name] for name in self.layers}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the weights that the cut network has; those of removed parts are not needed.

        Args:
            state: Parameters and buffers by name, in any floating-point type.

        Raises:
            PatchCoreError: one that is needed is missing or has another shape.
        """
        own = self.network.state_dict()
        # Batch norm's step counter has no part in inference, and older files lack it.
        needed = [name for name in own if not name.endswith("num_batches_tracked")]
        missing = [name for name in needed if name not in state]
        if missing:
            raise PatchCoreError(
                f"expected weights for this network, {_some(missing)} not among the {len(state)} "
                f"found ({_some(list(state))})"
            )
        wrong = [name for name in needed if own[name].shape != state[name].shape]
        if wrong:
            shapes = f"{tuple(own[wrong[0]].shape)}, found {tuple(state[wrong[0]].shape)}"
            raise PatchCoreError(f"expected weights {wrong[0]} of shape {shapes}")
        self.network.load_state_dict({n: state[n] for n in own if n in state}, strict=False)

    def _run(self, images: torch.Tensor) -> bool:
        """Run the network; return whether it went on to its end."""
        try:
            self.network(images)
        except _AllLayersReadError:
            return False
        return True

    @contextmanager
    def _read_layers(self) -> Iterator[dict[str, torch.Tensor]]:
        """Collect the layers' outputs while the network runs, and stop it after the last one."""
        maps: dict[str, torch.Tensor] = {}

        def read(name: str, output: torch.Tensor) -> None:
            maps[name] = output.clone() if name in self._overwritten else output
            if len(maps) == len(self.layers):
                raise _AllLayersReadError

        handles = [
            self.network.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: read(name, output)
            )
            for name in self.layers
        ]
        try:
            yield maps
        finally:
            for handle in handles:
                handle.remove()

    # Also within somebody's inference mode, whose tensors do not count what is written to them.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _try_out(self) -> tuple[dict[str, torch.Tensor], set[str], set[str]]:
        """Run once on an empty image, to learn what the network does.

        Returns:
            The layers' maps; the names of the modules that were called; the names of those whose
            call came to its end.
        """
        reached: set[str] = set()
        completed: set[str] = set()
        handles = []
        for name, module in self.network.named_modules():
            handles.append(
                module.register_forward_pre_hook(lambda m, inputs, name=name: reached.add(name))
            )
            handles.append(
                module.register_forward_hook(lambda m, i, output, name=name: completed.add(name))
            )
        versions: dict[str, int] = {}
        for layer in self.layers:
            handles.append(
                self.network.get_submodule(layer).register_forward_hook(
                    lambda m, i, output, layer=layer: versions.update({layer: _version(output)})
                )
            )
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        try:
            with self._read_layers() as maps:
                self._run(torch.zeros(1, 3, *self.size, device=device))
        except (RuntimeError, ValueError, AssertionError) as error:
            height, width = self.size
            raise PatchCoreError(
                f"the backbone cannot take images of {height}x{width} pixels (size_crop): {error}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        _check_maps(maps, self.layers)
        # An operation in place after the layer (often a ReLU) would change what was read: copy.
        self._overwritten = frozenset(n for n in self.layers if maps[n]._version != versions[n])
        return maps, reached, completed


class _AllLayersReadError(Exception):
    """Ends a forward pass as soon as nothing further is needed."""


def _version(output: object) -> int:
    """Return how often a tensor has been written to."""
    return output._version if isinstance(output, torch.Tensor) else 0


def _check_names(network: nn.Module, layers: Sequence[str]) -> None:
    names = [name for name, _ in network.named_modules() if name]
    if not layers or len(set(layers)) != len(layers):
        raise PatchCoreError(f"expected one or more different layers, found {list(layers)}")
    for layer in layers:
        if layer not in names:
            close = difflib.get_close_matches(layer, names, n=3)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise PatchCoreError(
                f"the backbone has no layer {layer!r} (layers).{hint} It has: {_outline(names)}"
            )


def _outline(names: Sequence[str], longest: int = 60) -> str:
    """List module names, outer ones first to go in where there are too many for a message."""
    depth = max(name.count(".") for name in names)
    while depth and sum(name.count(".") <= depth for name in names) > longest:
        depth -= 1
    shown = [name for name in names if name.count(".") <= depth]
    inner = len(names) - len(shown)
    return ", ".join(shown) + (f", and {inner} modules inside these" if inner else "")


def _check_maps(maps: Mapping[str, object], layers: Sequence[str]) -> None:
    for layer in layers:
        if layer not in maps:
            raise PatchCoreError(f"layer {layer!r} is not reached when the backbone runs (layers)")
        output = maps[layer]
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            is_tensor = isinstance(output, torch.Tensor)
            found = f"shape {tuple(output.shape)}" if is_tensor else type(output).__name__
            raise PatchCoreError(
                f"expected layer {layer!r} to give a map (B, C, h, w), found {found} (layers)"
            )


def _remove_unreached(network: nn.Module, reached: set[str], completed: set[str]) -> None:
    """Replace by identities the modules that a forward pass never comes to.

    Only inside modules whose call was cut short: one that ran to its end may use the weights of
    a part without calling it (attention does so with its output projection).
    """
    for name, module in list(network.named_modules()):
        if name in completed or (name and name not in reached):
            continue
        for child, _ in list(module.named_children()):
            if (f"{name}.{child}" if name else child) not in reached:
                setattr(module, child, nn.Identity())


def _some(names: Sequence[str], count: int = 3) -> str:
    """Name a few, and say how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
