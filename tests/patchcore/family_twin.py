"""A slow twin of the settings of the method, by plain loops in float64.

It is written from the formulas of the papers that the settings name, without the project's code.
The selected patches are given to it; `check_selection` checks them.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class FamilyTwin:
    """Memory banks of frozen features.

    Attributes:
        embedded: For each embedded training image, the features of each bank, (h, w, D) float64.

    Args:
        network: Its children are the layers.
        crops: The training images with their versions, (H, W, 3) uint8, in the order of embedding.
    """

    def __init__(
        self,
        network: torch.nn.Sequential,
        crops: list[np.ndarray],
        *,
        distance: str = "euclidean",
        neighbourhood: str = "pooled",
        banks: str = "joined",
        k: int = 1,
        image_score: str = "max_patch",
        top_share: float = 0.01,
        num_reweight: int = 9,
        search_radius: int | None = None,
        retrieve_images: int | None = None,
        foreground: str = "none",
        foreground_threshold: float = 10.0,
        embed_dim: int = 160,
        sigma: float = 4.0,
        layer_weights: tuple[float, ...] = (1.0, 1.0),
        scales: tuple[float, ...] = (1.0,),
        seed: int = 0,
    ):
        self.scales = scales
        self.network = network
        self.layer_weights = layer_weights
        self.cosine, self.plain = distance == "cosine", neighbourhood == "plain"
        self.joined = banks == "joined"
        self.k, self.image_score, self.top_share = k, image_score, top_share
        self.num_reweight = num_reweight
        self.radius, self.retrieved = search_radius, retrieve_images
        self.masks, self.threshold = foreground == "pca", foreground_threshold
        self.embed_dim, self.sigma, self.seed = embed_dim, sigma, seed
        self.embedded = [self.embed(crop) for crop in crops]
        self.num_banks = len(self.embedded[0])
        self.grid = self.embedded[0][0].shape[:2]

    def embed(self, crop: np.ndarray) -> list[torch.Tensor]:
        """Return the features of each bank."""
        scaled = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None] / 255
        image = (scaled - MEAN[:, None, None]) / STD[:, None, None]
        maps, grid = [], None
        for scale in self.scales:
            size = [round(length * scale) for length in image.shape[2:]]
            value = F.interpolate(image, size, mode="bilinear", antialias=True)
            for layer, weight in zip(self.network, self.layer_weights, strict=True):
                with torch.no_grad():
                    value = layer(value)
                patches = value.double()
                if not self.plain:
                    patches = F.unfold(patches, 3, padding=1).view(1, -1, *value.shape[2:])
                if grid is None:
                    grid = patches.shape[2:]
                else:
                    patches = F.interpolate(patches, grid, mode="bilinear", align_corners=False)
                if not self.plain:
                    patches = self.pool(patches, 1024)
                maps.append(patches * weight)
        parts = [torch.cat(maps, dim=1)] if self.joined else maps
        if not self.plain:
            parts = [self.pool(part, self.embed_dim) for part in parts]
        return [part[0].permute(1, 2, 0) for part in parts]

    @staticmethod
    def pool(patches: torch.Tensor, length: int) -> torch.Tensor:
        """Pool the channels of (1, C, h, w) to a length."""
        flat = patches[0].flatten(1).T[:, None]  # (h * w, 1, C)
        pooled = F.adaptive_avg_pool1d(flat, length)[:, 0].T
        return pooled.reshape(1, length, *patches.shape[2:])

    def points(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise features (..., D) for the cosine distance."""
        return features / features.norm(dim=-1, keepdim=True) if self.cosine else features

    def distances(self, one: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return the distances of features (D,) to features (n, D)."""
        if self.cosine:
            return 1 - F.cosine_similarity(one[None], others, dim=1)
        return (one - others).norm(dim=1)

    def mean_feature(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return the mean of an image's points in each bank, by which images are retrieved."""
        return torch.cat([self.points(self.points(part).mean((0, 1))) for part in features])

    def check_selection(self, indices: np.ndarray, percentage: float) -> None:
        """Check that each selected patch was the farthest one, but for rounding."""
        for bank in range(self.num_banks):
            patches = torch.cat([features[bank].flatten(0, 1) for features in self.embedded])
            length = max(features.shape[2] for features in self.embedded[0])
            points = F.pad(self.points(patches), (0, length - patches.shape[1]))
            if points.shape[1] != 128:
                torch.manual_seed(self.seed)
                linear = torch.nn.Linear(points.shape[1], 128, bias=False)
                points = points @ linear.weight.detach().T.double()
            selected = indices[bank :: self.num_banks].tolist()
            assert len(set(selected)) == len(selected) == int(len(points) * percentage)
            starting = np.random.RandomState(self.seed).choice(len(points), 10, replace=False)
            distances = torch.cdist(points, points[starting]).mean(1)
            for index in selected:
                assert distances[index] >= distances.max() * (1 - 1e-4)
                distances = torch.minimum(distances, (points - points[index]).norm(dim=1))

    def judge(
        self, crop: np.ndarray, indices: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Judge an image by the selected patches.

        Args:
            crop: (H, W, 3) uint8.
            indices: (M * L,) int64, numbers of the selected patches, those of the banks in turn.

        Returns:
            The score, the map (H, W), the distances and the nearest patches (h, w, L * k).
        """
        features = self.embed(crop)
        height, width = self.grid
        found = np.zeros((height, width, self.num_banks, self.k))
        nearest = np.zeros(found.shape, dtype=np.int64)
        for bank in range(self.num_banks):
            numbers = indices[bank :: self.num_banks]
            image, position = np.divmod(numbers, height * width)
            place = np.stack(np.divmod(position, width), axis=1)
            rows = torch.stack(
                [self.embedded[i][bank][tuple(p)] for i, p in zip(image, place, strict=True)]
            )
            among = self.images_to_search(features, image)
            for row in range(height):
                for column in range(width):
                    allowed = np.flatnonzero(np.isin(image, among))
                    if self.radius is not None:
                        away = np.abs(place[allowed] - [row, column]).max(1)
                        limit = max(self.radius, np.sort(away)[self.k - 1])
                        allowed = allowed[away <= limit]
                    values = self.distances(features[bank][row, column], rows[allowed]).numpy()
                    order = np.argsort(values, kind="stable")[: self.k]
                    found[row, column, bank] = values[order]
                    nearest[row, column, bank] = allowed[order] * self.num_banks + bank
        if self.masks:
            found[~self.foreground(features)] = 0
        scores = found.mean((2, 3))
        anomaly_map = self.smooth(scores, crop.shape[:2])
        flat = (height, width, -1)
        rows = nearest[:, :, 0, 0]
        score = self.image_score_of(scores, anomaly_map, features, indices, rows)
        return score, anomaly_map, found.reshape(flat), nearest.reshape(flat)

    def images_to_search(self, features: list[torch.Tensor], image: np.ndarray) -> np.ndarray:
        """Return the training images with the most similar mean features that have patches."""
        present = np.unique(image)
        if self.retrieved is None:
            return present
        own = self.mean_feature(features)
        away = []
        for number in present:
            other = self.mean_feature(self.embedded[number])
            away.append(float((own - other).norm()))
        order = present[np.argsort(away, kind="stable")]
        count = self.retrieved
        while np.isin(image, order[:count]).sum() < self.k:
            count += 1
        return order[:count]

    def foreground(self, features: list[torch.Tensor]) -> np.ndarray:
        """Return (h, w) bool: AnomalyDINO's mask by the first principal component."""
        height, width = self.grid
        tokens = torch.cat(features, dim=2).flatten(0, 1).numpy()
        component = PCA(n_components=1, svd_solver="full").fit_transform(tokens)
        component = component.reshape(self.grid)
        mask = component > self.threshold
        middle = mask[int(height * 0.2) : int(height * 0.8), int(width * 0.2) : int(width * 0.8)]
        if middle.sum() <= middle.size * 0.35:
            mask = -component > self.threshold
        kernel = np.ones((3, 3), np.uint8)
        mask = cv2.dilate(mask.astype(np.uint8), kernel)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel).astype(bool)
        return mask if mask.any() else np.ones_like(mask)

    def smooth(self, scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Resize patch scores to the image and smooth them."""
        resized = F.interpolate(
            torch.from_numpy(scores)[None, None], size, mode="bilinear", align_corners=False
        )[0, 0].numpy()
        return gaussian_filter(resized, self.sigma) if self.sigma else resized

    def image_score_of(
        self,
        scores: np.ndarray,
        anomaly_map: np.ndarray,
        features: list[torch.Tensor],
        indices: np.ndarray,
        nearest: np.ndarray,
    ) -> float:
        """Return the image score; ``nearest`` (h, w) is the nearest selected patch of each."""
        if self.image_score == "max_patch":
            return scores.max()
        if self.image_score == "max_map":
            return anomaly_map.max()
        if self.image_score in ("top_share", "top_share_map"):
            values = scores if self.image_score == "top_share" else anomaly_map
            count = max(1, int(values.size * self.top_share))
            return np.mean(sorted(values.flatten(), reverse=True)[:count])
        image, position = np.divmod(indices, scores.size)  # equation 7 of the PatchCore paper
        patches = [
            self.embedded[i][0].flatten(0, 1)[p] for i, p in zip(image, position, strict=True)
        ]
        bank = torch.stack(patches)
        m_test = features[0].flatten(0, 1)[int(scores.argmax())]
        to_bank = self.distances(m_test, bank)
        m_star = int(nearest.flatten()[int(scores.argmax())])
        near = self.distances(bank[m_star], bank).argsort()[: self.num_reweight]
        return float((1 - to_bank[m_star].exp() / to_bank[near].exp().sum()) * scores.max())
