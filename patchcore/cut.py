"""Removal of the modules of a network that a forward pass up to the last layer does not use."""

import logging
from collections.abc import Callable, Sequence, Set

from torch import nn

from patchcore.errors import PatchCoreError

log = logging.getLogger(__name__)


def cut(
    network: nn.Module, called: Set[str], completed: Set[str], is_unchanged: Callable[[], bool]
) -> tuple[str, ...]:
    """Replace modules that are never called by identities, where that changes nothing.

    A module can be used without being called: iterated, indexed, or through another method. So
    the network runs again after the removal. If it fails or gives other maps, less is removed.

    Args:
        network: The network. It is changed.
        called: Names of the modules that a forward pass calls.
        completed: Names of those that ran to their end.
        is_unchanged: Runs the network and returns whether it still gives the same maps.

    Returns:
        The names of the modules that were removed.
    """
    # A list of blocks is not called itself, but its blocks are.
    holders = {holder for name in called for holder in _holders(name)}
    names = _not_called(network, called | holders, completed)
    removed = _remove_most(network, names, is_unchanged)
    kept = [name for name in names if name not in removed]
    unused = sum(_num_parameters(network.get_submodule(name)) for name in kept)
    if unused:
        total = _num_parameters(network)
        log.warning(
            "the backbone keeps %s, which the layers may not need: without them it fails or gives "
            "other maps. They hold %d of its %d parameters (%.0f %%).",
            ", ".join(kept),
            unused,
            total,
            100 * unused / total,
        )
    return tuple(removed)


def remove_modules(network: nn.Module, names: Sequence[str]) -> None:
    """Replace modules by identities.

    Args:
        network: The network. It is changed.
        names: The names of the modules, as `cut` returns them.

    Raises:
        PatchCoreError: the network has no module of such a name.
    """
    for name in names:
        try:
            network.get_submodule(name)
            network.set_submodule(name, nn.Identity())
        except (AttributeError, ValueError) as error:
            raise PatchCoreError(
                f"expected a network with the module {name!r}, found none ({error})"
            ) from error


def _not_called(network: nn.Module, called: Set[str], completed: Set[str]) -> tuple[str, ...]:
    """Find modules that are not called, inside modules that did not run to their end.

    One that ran to its end may use the weights of a part without calling it (attention does so
    with its output projection).
    """
    names = []
    for name, module in network.named_modules():
        is_cut_short = not name or name in called
        if is_cut_short and completed.isdisjoint([name, *_holders(name)]):
            children = [
                f"{name}.{child}" if name else child for child, _ in module.named_children()
            ]
            names += [child for child in children if child not in called]
    return tuple(names)


def _holders(name: str) -> list[str]:
    """Return the names of the modules that a module is in, the network itself left out."""
    return [name[:end] for end, character in enumerate(name) if character == "."]


def _remove(network: nn.Module, names: Sequence[str], is_unchanged: Callable[[], bool]) -> bool:
    """Remove modules; put them back, and return False, where something changes."""
    removed = {name: network.get_submodule(name) for name in names}
    remove_modules(network, names)
    if not names or is_unchanged():
        return True
    for name in names:
        network.set_submodule(name, removed[name])
    return False


def _remove_most(
    network: nn.Module, names: Sequence[str], is_unchanged: Callable[[], bool]
) -> list[str]:
    """Remove as many of the modules as possible, by halves; return the names of those."""
    if _remove(network, names, is_unchanged):
        return list(names)
    if len(names) == 1:
        return []
    middle = len(names) // 2
    return [
        name
        for half in (names[:middle], names[middle:])
        for name in _remove_most(network, half, is_unchanged)
    ]


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
