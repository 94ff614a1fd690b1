"""Few-shot training: a seeded choice of a few training images."""

from dataclasses import replace

import numpy as np

from datasets.base import Category


def shuffled_training(category: Category, seed: int) -> list[int]:
    """Return the indices of the training images in the order in which shots are taken."""
    return np.random.RandomState(seed).permutation(len(category.train)).tolist()


def choose_shots(category: Category, shots: int, seed: int) -> Category:
    """Return a category with ``shots`` of its training images, and the same test images.

    The images are the first ones of an order that depends only on the seed and on the number of
    training images. With the same seed, the images of 1 shot are therefore among those of 2 shots.
    They keep the order of the dataset: all images give the result of a run without this choice.

    Args:
        category: Samples of the category.
        shots: Number of training images, at least 1; all are kept if there are fewer.
        seed: Seed of the choice.
    """
    chosen = sorted(shuffled_training(category, seed)[:shots])
    return replace(category, train=tuple(category.train[index] for index in chosen))
