"""`PatchCore` as a whole against a slow twin: DESIGN section 3, step by step, in float64."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from patchcore import PatchCore
from patchcore.backbone import Backbone
from tests.support import one_thread

NUM_FOLDS = 4
# Held-out images are scored, fold by fold, until there are this many.
ENOUGH_IMAGES = 100
MARGIN = 4  # pixels that the crop removes on each side
RATE, PIXEL_RATE = 0.01, 0.001


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


def two_layers() -> torch.nn.Sequential:
    """Return a network with maps (8, 8, 8) and (16, 4, 4) of an image of 32x32 pixels."""
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.Conv2d(8, 16, 3, 2, 1))


def one_layer(stride: int) -> torch.nn.Sequential:
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 12, stride, stride))


def make_images(count: int, side: int, seed: int = 0) -> list[np.ndarray]:
    """Return images of noise; the crop is ``side`` pixels high and wide."""
    generator = np.random.default_rng(seed)
    size = side + 2 * MARGIN
    return [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count)]


class SlowTwin:
    """The method by plain loops, with the arguments and defaults of `PatchCore`.

    Attributes:
        order: (image, version) of each embedded image, in the order of embedding.
        embedded: (n, h, w, D) float64, the embeddings of these images.
    """

    def __init__(
        self,
        network: torch.nn.Sequential,
        images: list[np.ndarray],
        *,
        percentage_coreset: float | tuple[float, ...] = 0.1,
        k: int = 1,
        image_score: str = "max_patch",
        num_reweight: int = 9,
        augment: tuple[str, ...] = (),
        embed_dim: int = 160,
        sigma: float = 4.0,
        seed: int = 0,
        batch_size: int = 8,
    ):
        self.network = network
        self.percentage = np.max(percentage_coreset)
        self.k, self.image_score, self.num_reweight = k, image_score, num_reweight
        self.embed_dim, self.sigma, self.seed = embed_dim, sigma, seed
        turns = {"": lambda i: i, "vertical": lambda i: i[::-1], "horizontal": lambda i: i[:, ::-1]}
        self.order, self.crops = [], []
        for first in range(0, len(images), batch_size):
            for name in ("", *augment):
                for number in range(first, min(first + batch_size, len(images))):
                    self.order.append((number, name))
                    self.crops.append(turns[name](images[number][MARGIN:-MARGIN, MARGIN:-MARGIN]))
        self.embedded = torch.stack([self.embed(crop) for crop in self.crops])
        self.grid = self.embedded.shape[1:3]

    def embed(self, crop: np.ndarray) -> torch.Tensor:
        """Embed a crop: (h, w, D) float64."""
        scaled = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None] / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        layer_map = (scaled - mean[:, None, None]) / std[:, None, None]
        vectors, grid = [], None
        for layer in self.network:
            with torch.no_grad():
                layer_map = layer(layer_map)
            patches = F.unfold(layer_map.double(), 3, padding=1)  # (1, C * 9, h * w)
            patches = patches.view(1, -1, *layer_map.shape[2:])
            if grid is not None:
                patches = F.interpolate(patches, grid, mode="bilinear", align_corners=False)
            grid = patches.shape[2:]
            flat = patches[0].flatten(1).T[:, None]  # (h * w, 1, C * 9)
            vectors.append(F.adaptive_avg_pool1d(flat, 1024))
        joined = torch.cat(vectors, dim=2)
        return F.adaptive_avg_pool1d(joined, self.embed_dim).view(*grid, self.embed_dim)

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        """Project (N, D) to (N, 128); D = 128 stays as it is."""
        if self.embed_dim == 128:
            return patches
        torch.manual_seed(self.seed)
        return patches @ torch.nn.Linear(self.embed_dim, 128, bias=False).weight.detach().T.double()

    def first_distances(self, points: torch.Tensor) -> torch.Tensor:
        generator = np.random.RandomState(self.seed)
        starting = generator.choice(len(points), min(10, len(points)), replace=False)
        return torch.cdist(points, points[starting]).mean(1)

    def select(self, patches: torch.Tensor, size: int) -> list[int]:
        """Select one patch after another: always the farthest from all selected ones."""
        points = self.project(patches)
        distances, selected = self.first_distances(points), []
        for _ in range(size):
            selected.append(int(distances.argmax()))
            to_selected = (points - points[selected[-1]]).norm(dim=1)
            distances = torch.minimum(distances, to_selected)
            distances[selected[-1]] = -1
        return selected

    def check_selection(self, indices: np.ndarray) -> None:
        """Check that each patch was the farthest when it was selected, but for rounding."""
        points = self.project(self.embedded.flatten(0, 2))
        assert len(indices) == int(len(points) * self.percentage)
        assert len(set(indices.tolist())) == len(indices)
        distances = self.first_distances(points)
        for index in indices.tolist():
            assert distances[index] >= distances.max() * (1 - 1e-5)
            distances = torch.minimum(distances, (points - points[index]).norm(dim=1))

    def judge(self, embedding: torch.Tensor, bank: torch.Tensor) -> tuple[float, np.ndarray]:
        """Return the anomaly score and the anomaly map of one embedded image (h, w, D)."""
        distances = torch.cdist(embedding.flatten(0, 1), bank)  # (h * w, M)
        scores = distances.sort(dim=1).values[:, : self.k].mean(1)  # (h * w,)
        side = self.crops[0].shape[0]
        grid_scores = scores.view(1, 1, *self.grid)
        resized = F.interpolate(grid_scores, (side, side), mode="bilinear", align_corners=False)
        anomaly_map = gaussian_filter(resized[0, 0].numpy(), self.sigma)
        if self.image_score == "max_map":
            return anomaly_map.max(), anomaly_map
        if self.image_score == "max_patch":
            return float(scores.max()), anomaly_map
        m_test = int(scores.argmax())  # equation 7 of the paper
        m_star = int(distances[m_test].argmin())
        near = (bank - bank[m_star]).norm(dim=1).argsort()[: self.num_reweight]
        weight = 1 - distances[m_test, m_star].exp() / distances[m_test, near].exp().sum()
        return float(weight * scores.max()), anomaly_map

    def held_out(self, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Score training images by coresets of the other folds.

        Returns:
            The anomaly scores (n,); every ``stride``-th pixel, along both axes, of the maps.
        """
        num_images = 1 + max(number for number, _ in self.order)
        shuffled = np.random.RandomState(self.seed).permutation(num_images).tolist()
        scores, pixels = [], []
        for fold in range(min(NUM_FOLDS, num_images)):
            if len(scores) >= ENOUGH_IMAGES:
                break
            out = sorted(shuffled[fold::NUM_FOLDS])
            rest = [row for row, (number, _) in enumerate(self.order) if number not in out]
            patches = self.embedded[rest].flatten(0, 2)
            bank = patches[self.select(patches, int(len(patches) * self.percentage))]
            for number in out[:ENOUGH_IMAGES]:
                score, anomaly_map = self.judge(self.embedded[self.order.index((number, ""))], bank)
                scores.append(score)
                pixels.append(anomaly_map[::stride, ::stride].reshape(-1))
        return np.array(scores), np.concatenate(pixels)


def make_model(network, side, *, percentage_coreset=0.1, embed_dim=160, **options) -> PatchCore:
    layers = [name for name, _ in network.named_children()]
    sizes = {"size_resize": (side + 2 * MARGIN,) * 2, "size_crop": (side, side)}
    return PatchCore(
        Backbone(copy.deepcopy(network), layers, (side, side)),
        percentage_coreset=percentage_coreset,
        embed_dim=embed_dim,
        **sizes,
        **options,
    )


def check_thresholds(model: PatchCore, twin: SlowTwin, stride: int = 1) -> None:
    """Check both thresholds, and the rates that they keep, against the twin's held-out scores."""
    scores, pixels = (np.sort(values) for values in twin.held_out(stride))
    rank = max(int(RATE * (len(scores) + 1)), 1)
    image, pixel = model.thresholds.image, model.thresholds.pixel
    assert image.rate == rank / (len(scores) + 1)
    assert image.value == pytest.approx(scores[-rank], rel=1e-5)
    assert pixel.rate == PIXEL_RATE
    place = int(np.ceil((1 - PIXEL_RATE) * (len(pixels) - 1)))
    assert pixel.value == pytest.approx(pixels[place], rel=1e-5)


CASES = [
    pytest.param({"batch_size": 2}, id="defaults"),
    pytest.param(
        {
            "seed": 11,
            "k": 2,
            "image_score": "reweighted",
            "num_reweight": 4,
            "percentage_coreset": (0.2, 0.05),
            "augment": ("vertical",),
            "batch_size": 2,
        },
        id="reweighted",
    ),
    pytest.param(
        {
            "image_score": "max_map",
            "sigma": 1.5,
            "augment": ("horizontal", "vertical"),
            "embed_dim": 128,
            "percentage_coreset": 0.05,
            "batch_size": 3,
        },
        id="max_map",
    ),
]


@pytest.mark.parametrize("options", CASES)
def test_fit_and_predict(options):
    options = {"seed": 3} | options
    train, test = make_images(7, 32), make_images(5, 32, seed=1)
    model = make_model(two_layers(), 32, **options).fit(train)
    twin = SlowTwin(two_layers(), train, **options)

    assert model.grid == twin.grid == (8, 8)
    twin.check_selection(model.coreset.indices)
    bank = twin.embedded.flatten(0, 2)[model.coreset.indices]
    np.testing.assert_allclose(model.coreset.bank.embeddings, bank, rtol=1e-4, atol=1e-5)
    check_thresholds(model, twin)

    found = model.predict(test)
    for number, image in enumerate(test):
        embedding = twin.embed(image[MARGIN:-MARGIN, MARGIN:-MARGIN])
        score, anomaly_map = twin.judge(embedding, bank)
        assert found.score[number] == pytest.approx(score, rel=1e-5)
        np.testing.assert_allclose(found.anomaly_map[number], anomaly_map, rtol=1e-5)
        distance, nearest = torch.cdist(embedding.flatten(0, 1), bank).sort(dim=1)
        shape = 8, 8, twin.k
        np.testing.assert_array_equal(found.nearest[number], nearest[:, : twin.k].view(shape))
        np.testing.assert_allclose(found.distance[number], distance[:, : twin.k].view(shape), 1e-5)


@pytest.mark.parametrize(
    ("num_images", "num_scored"),
    [
        pytest.param(2, 2, id="fewer images than folds"),
        pytest.param(70, 70, id="folds of more than one batch"),
        pytest.param(136, 102, id="the last fold is not needed"),
        pytest.param(404, 100, id="a fold of more than enough"),
    ],
)
def test_how_many_held_out_images_set_the_thresholds(num_images, num_scored):
    images = make_images(num_images, 16)
    network, options = one_layer(8), {"seed": 3, "embed_dim": 48, "percentage_coreset": 0.25}
    model = make_model(network, 16, **options).fit(images)
    twin = SlowTwin(network, images, **options)
    assert len(twin.held_out()[0]) == num_scored
    check_thresholds(model, twin)


def test_large_maps_are_sampled_at_every_second_pixel():
    images = make_images(5, 320)
    network, options = one_layer(32), {"seed": 3, "embed_dim": 48}
    model = make_model(network, 320, **options).fit(images)
    check_thresholds(model, SlowTwin(network, images, **options), stride=2)


@pytest.mark.parametrize(
    ("num_images", "k"),
    [
        pytest.param(1, 1, id="one image"),
        pytest.param(2, 2, id="fewer than k patches without a fold"),
    ],
)
def test_too_few_images_set_no_threshold(num_images, k):
    model = make_model(one_layer(8), 32, percentage_coreset=0.1, k=k)
    model.fit(make_images(num_images, 32))
    assert (model.thresholds.image, model.thresholds.pixel) == (None, None)


class TestSeveralPercentages:
    def fit(self, percentage_coreset):
        options = {"image_score": "reweighted", "num_reweight": 5, "seed": 3}
        model = make_model(two_layers(), 32, percentage_coreset=percentage_coreset, **options)
        return model.fit(make_images(6, 32))

    def test_each_is_kept_once_and_in_ascending_order(self):
        assert self.fit([0.2, 0.05, 0.2, 0.05]).coreset.sizes == (19, 76)

    def test_the_largest_decides_scores_and_thresholds(self):
        several, alone = self.fit([0.2, 0.05]), self.fit(0.2)
        assert several.thresholds == alone.thresholds
        np.testing.assert_array_equal(several.coreset.indices, alone.coreset.indices)
        images = make_images(4, 32, seed=1)
        found, expected = several.predict(images), alone.predict(images)
        np.testing.assert_array_equal(found.score, expected.score)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)


def striped_images(count: int) -> list[np.ndarray]:
    """Return images that show their number (red), row (green) and column (blue) in each pixel."""
    rows, columns = np.indices((32 + 2 * MARGIN,) * 2)
    return [
        np.stack([np.full_like(rows, 40 * number), 6 * rows, 6 * columns], axis=2).astype(np.uint8)
        for number in range(count)
    ]


@pytest.mark.parametrize("augment", [(), ("horizontal",), ("vertical", "horizontal")])
def test_crops_of_coreset_patches_over_several_batches(augment):
    """Each crop is cut from the image, and the version, of its patch: five images, two a batch."""
    images = striped_images(5)
    model = make_model(two_layers(), 32, percentage_coreset=0.3, augment=augment, batch_size=2)
    model.fit(images)
    twin = SlowTwin(two_layers(), images, augment=augment, batch_size=2)
    crops, origins = model.coreset.patches, model.coreset.origins
    assert len(crops) == len(model.coreset.indices)
    seen = set()
    for place, index in enumerate(model.coreset.indices.tolist()):
        embedded, patch = divmod(index, 64)
        row, column = divmod(patch, 8)
        mirrored = np.pad(twin.crops[embedded], ((4, 4), (4, 4), (0, 0)), mode="symmetric")
        top, left = 4 * row + 2, 4 * column + 2  # of 8x8 pixels around a field of 4x4
        np.testing.assert_array_equal(crops[place], mirrored[top : top + 8, left : left + 8])
        number, name = twin.order[embedded]
        version = origins.versions[origins.version[place]]
        assert (origins.image[place], version) == (number, f"{name} flip" if name else "")
        assert (origins.row[place], origins.column[place]) == (row, column)
        seen.add((number, name))
    assert seen == set(twin.order)
