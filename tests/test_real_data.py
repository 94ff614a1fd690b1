"""MVTec AD's bottle, with networks that fit into the shared folder: the figures are right."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

import main
from tests.support import read_maps, read_table, start

pytestmark = pytest.mark.real_data
KEPT = ("--path_trained", "none")


@pytest.fixture
def measure(shared, tmp_path) -> Callable[[str], list[dict[str, str]]]:
    """Evaluate with flags; return the rows of the results, which lie in tmp_path."""

    def measure(flags: str) -> list[dict[str, str]]:
        paths = ["--path_data", str(shared / "mvtec_anomaly_detection"), "--path_result"]
        assert main.main([*paths, str(tmp_path), "--pictures", "none", *KEPT, *flags.split()]) == 0
        rows = read_table(tmp_path)
        assert {(row["num_train"], row["num_test"]) for row in rows} == {("209", "83")}
        return rows

    return measure


@pytest.fixture
def mobilenet(shared) -> str:
    weights = shared / "weights/mobilenet_v2.pth"
    return f"--backbone mobilenet_v2 --layers features.6 features.13 --weights {weights}"


def check_aurocs(rows: list[dict[str, str]], *, image: float, pixel: float) -> None:
    assert [row["percentage_coreset"] for row in rows] == ["0.01", "0.1"]
    for row in rows:
        assert float(row["image_auroc"]) >= image
        assert float(row["pixel_auroc"]) >= pixel


def test_mobilenet_v2(measure, mobilenet):
    rows = measure(f"{mobilenet} --percentage_coreset 0.01 0.1")
    check_aurocs(rows, image=0.995, pixel=0.970)


@pytest.mark.slow
def test_a_network_that_torchvision_does_not_have(measure, shared, monkeypatch):
    monkeypatch.syspath_prepend(shared / "backbones")
    network = "--backbone resnet50_v2:resnet50_v2 --layers layer2 layer3"
    check_aurocs(measure(f"{network} --percentage_coreset 0.01 0.1"), image=1.0, pixel=0.983)


def test_what_the_tables_say_is_what_scikit_learn_says_of_the_saved_maps(
    measure, mobilenet, tmp_path
):
    rows = measure(f"{mobilenet} --percentage_coreset 0.01 --seed 0 1 --save_maps")
    assert [row["seed"] for row in rows] == ["0", "1"]
    for row in rows:
        saved = read_maps(tmp_path, row)
        assert saved["anomaly_maps"].shape == saved["masks"].shape == (83, 224, 224)
        for kind, labels, scores in (
            ("image", saved["labels"], saved["scores"]),
            ("pixel", saved["masks"].reshape(-1), saved["anomaly_maps"].reshape(-1)),
        ):
            auroc = sklearn_metrics.roc_auc_score(labels, scores)
            precision = sklearn_metrics.average_precision_score(labels, scores)
            assert float(row[f"{kind}_auroc"]) == pytest.approx(auroc, abs=1e-6)
            assert float(row[f"{kind}_ap"]) == pytest.approx(precision, abs=1e-6)
    values = [100 * float(row["pixel_auroc"]) for row in rows]
    expected = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    table = (tmp_path / "tables.md").read_text().partition("### Pixel AUROC (%)")[2]
    assert f"| bottle | 98.50 | {expected} | {np.mean(values) - 98.5:.2f} |" in table


def test_what_was_trained_judges_as_the_evaluation_did(shared, mobilenet, tmp_path):
    """In a new process, over a folder in another order; then frames of a film of test images."""
    bottle = shared / "mvtec_anomaly_detection/bottle"
    result, trained, inferred = (tmp_path / name for name in ("result", "trained", "inferred"))
    flags = f"--pictures none --percentage_coreset 0.01 --save_maps {mobilenet}"
    paths = ["--path_data", str(bottle.parent), "--path_result", str(result)]
    assert main.main([*paths, "--path_trained", str(trained), *flags.split()]) == 0
    (row,) = read_table(result)
    saved = read_maps(result, row)
    expected = dict(zip(saved["files"], saved["scores"], strict=True))

    words = ["--path_trained", str(trained), "--path_result", str(inferred)]
    process = start("infer", str(bottle / "test"), *words, "--threshold", "f1_max")
    assert process.returncode == 1, process.stderr
    rows = read_table(inferred / "predictions.csv")
    assert len(rows) == 83
    for found in rows:
        path = Path(found["path"])
        assert float(found["score"]) == pytest.approx(expected[f"{path.parent.name}/{path.name}"])
        defective = path.parent.name != "good"  # this network tells them all
        assert found["verdict"] == ("anomaly" if defective else "normal")

    film = tmp_path / "film.avi"
    names = ["good/000.png", "broken_large/000.png"]
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"FFV1"), 5, (900, 900))
    for name in names:
        writer.write(cv2.imread(str(bottle / "test" / name)))
    writer.release()
    words += ["--batch_size", "2"]
    assert main.main(["infer", str(film), *words, "--annotate", "--threshold", "f1_max"]) == 1
    frames = read_table(inferred / "predictions.csv")
    assert [frame["verdict"] for frame in frames] == ["normal", "anomaly"]
    for frame, name in zip(frames, names, strict=True):
        assert float(frame["score"]) == pytest.approx(expected[name], rel=1e-5)
    assert len(list((inferred / "annotated").glob("*.mp4"))) == 1
