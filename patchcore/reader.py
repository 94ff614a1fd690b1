"""Reading of a network's layers while it runs, and a trial run that notes what happens."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from patchcore.torch_state import device_of_network


class LayerReader:
    """Reads what layers return, and ends the forward pass when all have been read.

    The hooks are set once. What they read goes to the thread that runs the network, so any number
    of threads can run it at the same time.

    Attributes:
        layers: The names of the layers.
        overwritten: Layers with an output that is copied when read, since the network writes over
            it in place afterwards.

    Args:
        network: The network; hooks are added to its layers.
        layers: Names of modules of the network.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]):
        self.layers = tuple(layers)
        self.overwritten = frozenset(layers)
        self._thread = threading.local()
        for layer in layers:
            self.attach(network.get_submodule(layer), layer)

    def attach(self, module: nn.Module, layer: str) -> None:
        """Read a module as a layer."""
        module.register_forward_hook(_Hook(self, layer))

    def run(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the network up to its last layer.

        Returns:
            What the layers returned, in the order in which they did; layers that were not reached
            are missing.
        """
        outer = getattr(self._thread, "outputs", None)
        self._thread.outputs = outputs = {}
        try:
            with device_of_network(images.device):
                network(images)
        except _AllLayersReadError:
            pass
        finally:
            self._thread.outputs = outer
        return outputs

    def read(self, layer: str, output: torch.Tensor) -> None:
        """Keep what a layer returned, if this thread is in `run`."""
        outputs = getattr(self._thread, "outputs", None)
        if outputs is None:
            return
        is_copied = layer in self.overwritten and isinstance(output, torch.Tensor)
        outputs[layer] = output.clone() if is_copied else output
        if len(outputs) == len(self.layers):
            raise _AllLayersReadError

    def __getstate__(self) -> dict[str, object]:
        # What belongs to a thread can be neither copied nor pickled.
        return {name: value for name, value in vars(self).items() if name != "_thread"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._thread = threading.local()


@dataclass(frozen=True)
class _Hook:
    """Passes the output of a module to a reader. An object, since copies of it must be possible."""

    reader: LayerReader
    layer: str

    def __call__(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        self.reader.read(self.layer, output)


class _AllLayersReadError(Exception):
    """Ends a forward pass as soon as nothing further is needed."""


def has_other_hooks(module: nn.Module) -> bool:
    """Return whether a module has hooks that are not a reader's."""
    others = [hook for hook in module._forward_hooks.values() if not isinstance(hook, _Hook)]
    return bool(others or module._forward_pre_hooks)


@dataclass(frozen=True)
class Trial:
    """What a run up to the last layer showed.

    Attributes:
        outputs: What the layers returned, in the order in which they did.
        overwritten: Layers with an output that the network wrote over in place afterwards.
        called: Names of the modules that were called.
        completed: Names of the modules that ran to their end.
    """

    outputs: dict[str, torch.Tensor]
    overwritten: frozenset[str]
    called: frozenset[str]
    completed: frozenset[str]


def try_out(reader: LayerReader, network: nn.Module, images: torch.Tensor) -> Trial:
    """Run a network up to its last layer, and note what happens."""
    called: set[str] = set()
    completed: set[str] = set()
    versions: dict[str, tuple[torch.Tensor, int]] = {}

    def note_version(layer: str, output: object) -> None:
        if isinstance(output, torch.Tensor):
            versions[layer] = output, output._version

    handles = []
    for name, module in network.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda m, i, name=name: called.add(name)),
            # Before the reader's hook, which may end the forward pass.
            module.register_forward_hook(
                lambda m, i, output, name=name: completed.add(name), prepend=True
            ),
        ]
    for layer in reader.layers:
        # After the reader's hook, so not for the last layer, after which nothing is written.
        handles.append(
            network.get_submodule(layer).register_forward_hook(
                lambda m, i, output, layer=layer: note_version(layer, output)
            )
        )
    try:
        outputs = reader.run(network, images)
    finally:
        for handle in handles:
            handle.remove()
    overwritten = {name for name, (output, count) in versions.items() if output._version != count}
    return Trial(outputs, frozenset(overwritten), frozenset(called), frozenset(completed))
