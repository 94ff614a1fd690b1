import numpy as np

from patchcore.embedded_origins import OriginsOfBatches


def test_batches_in_several_flips_keep_the_order_in_which_they_came():
    collected = OriginsOfBatches()
    for first, count in ((0, 3), (3, 2)):
        for flip in (0, 1, 2):
            collected.add(first, count, flip)
    origins = collected.finish()
    assert len(origins) == 15
    assert origins.images.tolist() == [0, 1, 2] * 3 + [3, 4] * 3
    assert origins.flips.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 2 + [1] * 2 + [2] * 2
    assert origins.images.dtype == origins.flips.dtype == np.int64
