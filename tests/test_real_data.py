"""MVTec AD's bottle, with networks that fit into the shared folder: the figures are right."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

import main
from tests.support import ROOT, read_maps, read_table, start

pytestmark = pytest.mark.real_data
SHARED = ROOT.parent / "shared"


def measure(folder: Path, flags: str) -> list[dict[str, str]]:
    """Evaluate bottle with flags; return the rows of the results."""
    paths = ["--path_data", str(SHARED / "mvtec_anomaly_detection"), "--path_result", str(folder)]
    assert main.main([*paths, "--pictures", "none", *flags.split()]) == 0
    rows = read_table(folder)
    assert {(row["num_train"], row["num_test"]) for row in rows} == {("209", "83")}
    return rows


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory) -> Path:
    """Evaluate with MobileNetV2; return the folder of the results and, in it, of the models."""
    folder = tmp_path_factory.mktemp("mobilenet")
    weights = SHARED / "weights/mobilenet_v2.pth"
    flags = f"--backbone mobilenet_v2 --layers features.6 features.13 --weights {weights}"
    flags += f" --percentage_coreset 0.01 0.1 --seed 0 1 --save_maps --path_trained {folder}/models"
    flags += " --threshold f1_max --threshold_pixel f1_max"  # the quickest to find
    measure(folder, flags)
    return folder


def check_aurocs(rows: list[dict[str, str]], *, image: float, pixel: float) -> None:
    assert {row["percentage_coreset"] for row in rows} == {"0.01", "0.1"}
    for row in rows:
        assert float(row["image_auroc"]) >= image
        assert float(row["pixel_auroc"]) >= pixel


def test_mobilenet_v2(mobilenet):
    check_aurocs(read_table(mobilenet), image=0.995, pixel=0.970)


@pytest.mark.slow
def test_a_network_that_torchvision_does_not_have(shared, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(shared / "backbones")
    network = "--backbone resnet50_v2:resnet50_v2 --layers layer2 layer3"
    rows = measure(tmp_path, f"{network} --percentage_coreset 0.01 0.1")
    check_aurocs(rows, image=1.0, pixel=0.983)


def test_what_the_tables_say_is_what_scikit_learn_says_of_the_saved_maps(mobilenet):
    rows = [row for row in read_table(mobilenet) if row["percentage_coreset"] == "0.01"]
    assert [row["seed"] for row in rows] == ["0", "1"]
    for row in rows:
        saved = read_maps(mobilenet, row)
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
    table = (mobilenet / "tables.md").read_text().partition("### Pixel AUROC (%)")[2]
    (line,) = [line for line in table.splitlines() if line.startswith("| bottle")][:1]
    assert expected in line
    assert f"{np.mean(values) - 98.5:.2f}" in line


def test_what_was_trained_judges_as_the_evaluation_did(shared, mobilenet, tmp_path):
    """In a new process, over a folder in another order; then frames of a film of test images."""
    bottle, inferred = shared / "mvtec_anomaly_detection/bottle", tmp_path / "inferred"
    row = read_table(mobilenet)[0]
    saved = read_maps(mobilenet, row)
    expected = dict(zip(saved["files"], saved["scores"], strict=True))

    words = ["--path_trained", str(mobilenet / "models"), "--path_result", str(inferred)]
    words += ["--percentage_coreset", row["percentage_coreset"]]
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
