"""MVTec AD's bottle: the ONNX file, run by onnxruntime alone, judges as the model does."""

import json
import subprocess
import sys

import numpy as np
import pytest

from datasets.images import read_image
from datasets.layouts import open_dataset
from patchcore import PatchCore
from patchcore.export import export
from utils.metrics import measure

pytestmark = pytest.mark.real_data

# What somebody writes who has the file and its description, and not this program.
ALONE = """
import json, sys
import numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1])
scores = []
for path in sys.argv[2:]:
    image = Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    crop = numpy.asarray(image.crop((16, 16, 240, 240)))  # (224, 224, 3)
    score, anomaly_map = session.run(None, {"images": crop.transpose(2, 0, 1)[None]})
    scores.append(float(score[0]))
assert not {"torch", "patchcore"} & set(sys.modules)
print(json.dumps(scores))
"""


@pytest.mark.slow
def test_the_onnx_file_alone_gives_the_same_auroc(shared, tmp_path):
    category = open_dataset(shared / "mvtec_anomaly_detection").read_category("bottle")
    model = PatchCore(
        "mobilenet_v2",
        ["features.6", "features.13"],
        weights=str(shared / "weights/mobilenet_v2.pth"),
        percentage_coreset=0.01,
    )
    model.fit(read_image(sample.path) for sample in category.train[::3])
    images = [read_image(sample.path) for sample in category.test]
    exported = export(model, tmp_path / "bottle.onnx", images=images[::10])
    assert exported.difference < 1e-5

    command = [sys.executable, "-I", "-c", ALONE, exported.path]
    command += [sample.path for sample in category.test]
    run = subprocess.run(map(str, command), check=True, capture_output=True, text=True, timeout=200)
    alone = np.array(json.loads(run.stdout))
    score = model.predict(images).score
    # Here the crop is cut after resizing, which may round single grey levels otherwise.
    np.testing.assert_allclose(alone, score, rtol=1e-3)
    labels = np.array([sample.is_defective for sample in category.test])
    assert measure(alone, labels).auroc == measure(score, labels).auroc > 0.99
