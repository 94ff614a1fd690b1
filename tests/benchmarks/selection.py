"""Greedy selection: a pass over all patches for each selected one, against one for hundreds."""

import numpy as np
import torch

from patchcore.coreset import greedy_coreset, project
from patchcore.distances import BLOCK_ROWS
from patchcore.greedy import GROUP_SIZE, centre
from patchcore.shards import LocalShards
from tests.benchmarks.measure import Row, peak_bytes, seconds, time_in_turns, time_once
from tests.benchmarks.search import make_vectors

PROJECTED = 128


def select_by_recomputing(embeddings: torch.Tensor, num_samples: int) -> list[int]:
    """Select as the reference code's sampler does: norms, concatenation, minimum each step."""
    points, distances = _start(embeddings)
    distances = distances[:, None]
    selected = []
    for _ in range(num_samples):
        farthest = int(torch.argmax(distances))
        selected.append(farthest)
        centre = points[farthest : farthest + 1]
        norms = points.pow(2).sum(1, keepdim=True)
        squares = norms + centre.pow(2).sum() - 2 * points @ centre.T
        both = torch.cat([distances, squares.clamp(min=0).sqrt()], dim=1)
        distances = both.min(dim=1, keepdim=True).values
    return selected


def select_in_place(embeddings: torch.Tensor, num_samples: int) -> list[int]:
    """Select with one matrix-vector product and a minimum in place for each step."""
    points, distances = _start(embeddings)
    distances.square_()
    norms = points.square().sum(1)
    selected = []
    for _ in range(num_samples):
        farthest = int(torch.argmax(distances))
        selected.append(farthest)
        squares = torch.addmv(norms, points, points[farthest], alpha=-2).add_(norms[farthest])
        torch.minimum(distances, squares, out=distances)
    return selected


def measure(quick: bool) -> list[Row]:
    """Measure all three, and what the fast one needs in memory beside its result."""
    count, num_samples = (9_000, 900) if quick else (36_450, 3_645)
    embeddings = make_vectors(count, PROJECTED)
    what = f"selection, {num_samples:,} of {count:,} x {PROJECTED}"
    few = num_samples // 20  # the warm-up of the slow loops
    select_by_recomputing(embeddings, few)
    slowest = time_once(lambda: select_by_recomputing(embeddings, num_samples))
    loop, fast = time_in_turns(
        [
            lambda: select_in_place(embeddings, num_samples),
            lambda: greedy_coreset(embeddings, num_samples),
        ],
        repeats=3,
        warm_ups=[
            lambda: select_in_place(embeddings, few),
            lambda: greedy_coreset(embeddings, few),
        ],
    )
    ours = f"hundreds in a pass: {seconds(fast)}"
    rows = [
        Row(
            what,
            f"norms, cat, min: {seconds(slowest)}",
            ours,
            slowest / fast,
            "" if quick else ">= 40",
        ),
        Row(what, f"one product: {seconds(loop)}", ours, loop / fast, "" if quick else ">= 5"),
    ]
    points = _centred(embeddings)
    peak = peak_bytes(lambda: greedy_coreset(points, num_samples, projection_dim=None))
    if peak is not None:
        allowed = 4 * 2 * count * GROUP_SIZE
        block = 4 * BLOCK_ROWS * GROUP_SIZE
        rows.append(
            Row(
                f"{what}: extra memory",
                f"2 N x {GROUP_SIZE:,} candidates: {allowed / 1e6:.0f} MB",
                f"{peak / 1e6:.0f} MB, of them {block / 1e6:.0f} MB a block for any N",
                peak / allowed,
                "" if quick else "<= 1",
            )
        )
    return rows


def _centred(embeddings: torch.Tensor) -> torch.Tensor:
    points = project(embeddings, 0)
    centre(LocalShards.of(points), 0)
    return points


def _start(embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    points = _centred(embeddings)
    starting = np.random.RandomState(0).choice(len(points), 10, replace=False)
    return points, torch.cdist(points, points[starting]).mean(1)
