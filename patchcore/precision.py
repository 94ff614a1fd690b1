"""In which precision a GPU computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """How the backbone computes.

    Attributes:
        dtype: Of its weights and maps.
        tensor_float: Whether a GPU's float32 convolutions and products may round their factors to
            10 bits (TF32), which is several times as fast.
    """

    dtype: torch.dtype
    tensor_float: bool = False


PRECISIONS = {
    "float32": Precision(torch.float32),
    "tf32": Precision(torch.float32, tensor_float=True),
    "bfloat16": Precision(torch.bfloat16),
    "float16": Precision(torch.float16),
}


@contextmanager
def float32_products(tensor_float: bool = False) -> Iterator[None]:
    """Compute float32 products and convolutions on a GPU in full, or as TF32, within a block.

    torch's default rounds those of convolutions; whoever set something else for the whole process
    finds it again afterwards. On a CPU this changes nothing.
    """
    holders = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    name, wanted = "fp32_precision", "tf32" if tensor_float else "ieee"
    if not hasattr(holders[0], name):  # before torch 2.9
        holders = (torch.backends.cuda.matmul, torch.backends.cudnn)
        name, wanted = "allow_tf32", tensor_float
    before = [getattr(holder, name) for holder in holders]
    for holder in holders:
        setattr(holder, name, wanted)
    try:
        yield
    finally:
        for holder, value in zip(holders, before, strict=True):
            setattr(holder, name, value)
