import numpy as np

from patchcore.origins import EmbeddingOrder, Origins

ORDER = EmbeddingOrder.of(num_images=5, num_versions=3, batch_size=3)


def test_batches_are_embedded_in_all_versions_one_after_another():
    assert len(ORDER) == 15
    assert ORDER.images.tolist() == [0, 1, 2] * 3 + [3, 4] * 3
    assert ORDER.versions.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 2 + [1] * 2 + [2] * 2
    assert ORDER.images.dtype == ORDER.versions.dtype == np.int64


def test_patches_are_located_in_their_image_and_grid():
    # Grid of 2 rows and 3 columns: 6 patches an image. Patch 76 is the 5th of embedded image 12.
    indices = np.array([0, 22, 76, 89])
    versions = ("", "horizontal flip", "vertical flip")
    origins = Origins.locate(indices, (2, 3), ORDER, tuple("abcde"), versions)
    assert origins.names == ("a", "b", "c", "d", "e")
    assert origins.versions == versions
    assert origins.image.tolist() == [0, 0, 4, 4]
    assert origins.version.tolist() == [0, 1, 1, 2]
    assert origins.row.tolist() == [0, 1, 1, 1]
    assert origins.column.tolist() == [0, 1, 1, 2]


def test_images_without_names_are_numbered():
    origins = Origins.locate(np.array([76]), (2, 3), ORDER, (), ("horizontal", "vertical"))
    assert origins.names == ("image 0", "image 1", "image 2", "image 3", "image 4")


def test_the_origins_of_a_smaller_coreset_are_the_first_ones():
    origins = Origins.locate(np.array([76, 22, 0]), (2, 3), ORDER, (), ("horizontal", "vertical"))
    first = origins.first(2)
    assert (first.names, first.versions) == (origins.names, origins.versions)
    assert first.image.tolist() == [4, 0]
    assert first.version.tolist() == [1, 1]
    assert first.row.tolist() == [1, 1]
    assert first.column.tolist() == [1, 1]


class TestCopies:
    def groups(self, *versions: str, num_versions: int = 1, batch_size: int = 99) -> list[int]:
        """Return the groups of images; a letter stands for the content of an embedded image."""
        order = EmbeddingOrder.of(len(versions), num_versions, batch_size)
        pairs = zip(order.images, order.versions, strict=True)
        digests = [(ord(versions[image][number]), 7) for image, number in pairs]
        return order.groups_of_copies(np.array(digests, np.uint64)).tolist()

    def test_different_images_are_groups_of_one(self):
        assert self.groups(*"abcd") == [0, 1, 2, 3]

    def test_copies_are_numbered_by_their_first_images(self):
        assert self.groups(*"zaazbc") == [0, 1, 1, 0, 2, 3]

    def test_mirrored_copies(self):
        """By a mirrored version or through a third image that shares a version with both."""
        assert self.groups("ab", "cd", "ba", num_versions=2, batch_size=2) == [0, 1, 0]
        assert self.groups("dc", "cb", "ba", "xy", num_versions=2) == [0, 0, 0, 1]
        assert self.groups("ba", "dc", "xy", "cb", num_versions=2) == [0, 0, 1, 0]
