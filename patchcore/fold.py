"""Folding of batch norms into the convolutions before them.

At inference, a batch norm scales and shifts each channel by constants. The convolution before it
can apply them as well, which saves one pass over every map.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from patchcore.backbone import Backbone, trial_images
from patchcore.errors import PatchCoreError
from patchcore.reader import has_other_hooks
from patchcore.torch_state import float32_products

# Largest difference of a map, relative to its largest value, that counts as rounding.
TOLERANCE = 1e-4

_Pair = tuple[str, str]  # names of a convolution and of the batch norm after it

# Names of the types that can be folded: those of torch, and those of timm that add padding to the
# convolution, or an activation after the norm. timm is not imported for that.
_CONVOLUTIONS = ("Conv2d", "Conv2dSame")
_NORMS = ("BatchNorm2d", "BatchNormAct2d")

log = logging.getLogger(__name__)


@torch.no_grad()
@float32_products()
def fold_batch_norms(backbone: Backbone) -> int:
    """Fold each batch norm into the convolution before it, if nothing else reads their outputs.

    Call it after loading the weights and computing their digest, since the folded network has
    other weights. A second call does nothing.

    A network that cannot be traced by `torch.fx`, such as one with steps that depend on input
    values, is left unchanged. So is a network with maps that would change for a trial image.

    Args:
        backbone: Network with its weights, in float32. It is changed.

    Returns:
        The number of batch norms that were folded.
    """
    pairs = list(_foldable_pairs(backbone.for_trials().network, backbone.layers))
    count = _fold_verified(backbone, pairs)
    remaining = sum(isinstance(m, nn.BatchNorm2d) for m in backbone.network.modules())
    if remaining:
        log.debug(
            "%d batch norms of the backbone are folded into convolutions, %d are not",
            count,
            remaining,
        )
    return count


def _fold_verified(backbone: Backbone, pairs: list[_Pair]) -> int:
    """Fold batch norms, or none if a map changes; return how many are folded."""
    if not pairs:
        return 0
    network = backbone.network
    images = trial_images(network, backbone.size)
    expected = {name: values.clone() for name, values in backbone.for_trials()(images).items()}
    originals = {name: network.get_submodule(name) for pair in pairs for name in pair}
    former = backbone.folded
    fold_pairs(backbone, pairs)
    if not _gives(backbone, images, expected):
        for name, module in originals.items():
            backbone.replace_module(name, module)
        backbone.folded = former
        return 0
    return len(pairs)


@torch.no_grad()
def fold_pairs(backbone: Backbone, pairs: Iterable[_Pair]) -> None:
    """Fold batch norms that are known to be foldable, without a trial.

    Args:
        backbone: Network with its weights, in float32. It is changed.
        pairs: Names of each convolution and of its batch norm, as `Backbone.folded` lists them.

    Raises:
        PatchCoreError: the names are not those of a convolution and a batch norm.
    """
    for pair in pairs:
        try:
            convolution, norm = (backbone.network.get_submodule(name) for name in pair)
        except AttributeError as error:
            raise PatchCoreError(f"expected a network with {pair}, found none ({error})") from error
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            raise PatchCoreError(
                f"expected a convolution and a batch norm at {pair}, found "
                f"{type(convolution).__name__} and {type(norm).__name__}"
            )
        backbone.replace_module(pair[0], fuse_conv_bn_eval(convolution, norm))
        backbone.replace_module(pair[1], _rest(norm))
        backbone.folded += (pair,)


class _LeafTracer(fx.Tracer):
    """Traces a network without entering convolutions and batch norms of any type."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one step of the graph."""
        is_leaf = isinstance(m, nn.Conv2d | nn.BatchNorm2d)
        return is_leaf or super().is_leaf_module(m, module_qualified_name)


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what remains of a batch norm once it is folded: an activation, or nothing."""
    if type(norm).__name__ == "BatchNorm2d":
        return nn.Identity()
    return nn.Sequential(norm.drop, norm.act)


def _foldable_pairs(network: nn.Module, layers: tuple[str, ...]) -> Iterator[_Pair]:
    """Find convolutions with a batch norm as the only reader of their output."""
    try:
        graph = _LeafTracer().trace(network)
    # A user's network may raise any error on fx's proxies of tensors.
    except Exception:
        return
    modules = dict(network.named_modules())
    names = Counter(module for _, module in network.named_modules(remove_duplicate=False))
    calls = Counter(modules[node.target] for node in graph.nodes if node.op == "call_module")
    # Modules of which the network reads weights without calling them.
    read = {node.target.rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}

    def can_change(node: object, kinds: Sequence[str]) -> bool:
        if not isinstance(node, fx.Node) or node.op != "call_module" or node.target in read:
            return False
        module = modules[node.target]
        # Another subclass may compute something else; a second call or name is another use.
        is_known = type(module).__name__ in kinds
        is_plain = is_known and not module.training and not has_other_hooks(module)
        return is_plain and calls[module] == 1 and names[module] == 1

    for node in graph.nodes:
        if not can_change(node, _NORMS) or modules[node.target].running_mean is None:
            continue
        before = node.args[0] if node.args else None
        if not can_change(before, _CONVOLUTIONS) or len(before.users) != 1:
            continue
        if not any(_ends_between(layer, before.target, node.target) for layer in layers):
            yield before.target, node.target


def _ends_between(layer: str, convolution: str, norm: str) -> bool:
    """Return whether a layer's output may be the output of the convolution, before the norm."""

    def holds(name: str) -> bool:
        return f"{name}.".startswith(f"{layer}.")

    return holds(convolution) and not holds(norm)


def _gives(backbone: Backbone, images: torch.Tensor, expected: dict[str, torch.Tensor]) -> bool:
    """Return whether the backbone runs and returns these maps, up to rounding."""
    try:
        maps = backbone.for_trials()(images)
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return False
    return all(
        bool((maps[name] - values).abs().max() <= TOLERANCE * values.abs().max())
        for name, values in expected.items()
    )
