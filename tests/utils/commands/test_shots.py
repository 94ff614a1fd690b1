"""`--shots`: few-shot results through the program."""

import json
import re
import shutil

import numpy as np
import pytest

import main
from patchcore.embedder import Embedder
from patchcore.record import read_record
from tests.support import (
    NUM_PATCHES,
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    TEST_TYPES,
    call,
    evaluate,
    make_category,
    names,
    quick,
    read_run,
    read_table,
)

SHOTS = (1, 2, 9)  # the last one is more than there are
SEEDS = (0, 3)
PERCENTAGES = ("0.05", "1")
SETTING = f"--percentage_coreset {' '.join(PERCENTAGES)} --save_maps"
METRICS = ("image_auroc", "pixel_auroc", "pixel_aupro", "image_threshold", "pixel_threshold")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_category(root)
    return root


@pytest.fixture(scope="module")
def few(data, tmp_path_factory):
    """Return the result folder of several shots and seeds, and the number of embedded images."""
    embedded, embed = [], Embedder.embed

    def spy(embedder, batch):
        embedded.append(len(batch))
        return embed(embedder, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "embed", spy)
        flags = f"{SETTING} --shots 9 1 2 1 --seed 0 3 --pictures defective"
        folder = evaluate(data, tmp_path_factory.mktemp("few"), flags, plots=True)
    return folder, sum(embedded)


@pytest.fixture(scope="module")
def full(data, tmp_path_factory):
    return evaluate(data, tmp_path_factory.mktemp("full"), f"{SETTING} --seed 0 3")


def maps_of(folder, shots, seed, percentage="1000"):
    tag = f"p{percentage}_k01" + (f"_shots{shots:03d}" if shots else "")
    with np.load(folder / f"maps_widget_squeezenet1_1_{tag}_seed{seed}.npz") as arrays:
        return arrays["anomaly_maps"]


def test_each_number_of_shots_has_its_rows(few):
    rows = read_table(few[0])
    assert [(r["shots"], r["seed"], r["percentage_coreset"], r["num_train"]) for r in rows] == [
        (str(shots), str(seed), {"1": "1.0"}.get(p, p), str(min(shots, NUM_TRAIN)))
        for shots in SHOTS
        for seed in SEEDS
        for p in PERCENTAGES
    ]
    defects = read_table(few[0] / "results_defects.csv")
    assert [row["shots"] for row in defects[::2]] == [row["shots"] for row in rows]


def test_without_the_flag_the_column_is_empty(full):
    assert {row["shots"] for row in read_table(full)} == {""}
    assert read_run(full)["shots"] == {}
    assert "| category | *Paper* 5 % | 5 % |" in (full / "tables.md").read_text()


def test_more_shots_than_images_are_a_run_of_all_images(few, full):
    rows = [row for row in read_table(few[0]) if row["shots"] == "9"]
    for mine, theirs in zip(rows, read_table(full), strict=True):
        assert [mine[name] for name in METRICS] == [theirs[name] for name in METRICS]
    for seed in SEEDS:
        np.testing.assert_array_equal(maps_of(few[0], 9, seed), maps_of(full, None, seed))


def test_a_result_is_that_of_a_dataset_with_these_images_alone(few, data, tmp_path):
    chosen = read_run(few[0])["shots"]["widget"]["0"][:2]
    shutil.copytree(data / "widget", tmp_path / "data/widget")
    for file in (tmp_path / "data/widget/train/good").iterdir():
        if not any(path.endswith(file.name) for path in chosen):
            file.unlink()
    alone = evaluate(tmp_path / "data", tmp_path / "result", SETTING)
    rows = [row for row in read_table(few[0]) if (row["shots"], row["seed"]) == ("2", "0")]
    for mine, theirs in zip(rows, read_table(alone), strict=True):
        assert [mine[name] for name in METRICS] == [theirs[name] for name in METRICS]
    np.testing.assert_array_equal(maps_of(few[0], 2, 0), maps_of(alone, None, 0))


def test_each_seed_chooses_its_images(few):
    chosen = read_run(few[0])["shots"]["widget"]
    assert set(chosen) == {"0", "3"}
    assert chosen["0"][0] != chosen["3"][0]
    assert all(len(set(files)) == NUM_TRAIN for files in chosen.values())


def test_test_images_are_embedded_once_and_all_training_images_once_for_all_seeds(few):
    num_test = NUM_TEST_PER_TYPE * len(TEST_TYPES)
    assert few[1] == len(SEEDS) * (1 + 2) + NUM_TRAIN + num_test


def test_tables_show_mean_and_standard_deviation_for_each_number(few):
    table = (few[0] / "tables.md").read_text().partition("### Pixel AUROC (%)")[2]
    assert table.splitlines()[2] == "| category | shots | 5 % | 100 % |"
    rows = read_table(few[0])
    for shots in SHOTS:
        shown = []
        for percentage in ("0.05", "1.0"):
            values = [
                100 * float(row["pixel_auroc"])
                for row in rows
                if (row["shots"], row["percentage_coreset"]) == (str(shots), percentage)
            ]
            shown.append(f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}")
        assert f"| widget | {shots} | {' | '.join(shown)} |" in table
        assert f"| **Average** | {shots} | {' | '.join(shown)} |" in table


def test_figures_have_the_number_of_shots_in_their_names(few):
    folder = few[0]
    for kind in ("roc-curve", "pr-curve", "pro-curve", "pred-dist", "localization", "explanation"):
        tags = {re.search(r"p\d+_k01(_shots\d+)?", n)[0] for n in names(folder, f"{kind}_*.png")}
        assert tags == {f"p{p}_k01_shots{n:03d}" for p in ("0050", "1000") for n in SHOTS}, kind
    for name in names(folder, "explanation_*.json"):
        record = json.loads((folder / name).read_text(encoding="utf-8"))
        assert f"_shots{record['shots']:03d}." in name


def test_the_report_has_a_choice_for_each_number_of_shots(few):
    page = (few[0] / "index.html").read_text()
    chooser = page.partition('<select id="setting">')[2].partition("</select>")[0]
    assert re.findall(r">([^<]+)</option>", chooser) == [
        f"{p} %, {n} shot{'s' if n > 1 else ''}" for n in (9, 2, 1) for p in (100, 5)
    ]
    keys = re.findall(r'value="([^"]+)"', chooser)
    assert set(keys) == set(re.findall(r'data-setting="([^"]+)"', page))
    assert set(keys) == set(re.findall(r'"setting": "([^"]+)"', page))


def test_full_and_few_shot_runs_are_joined_by_tables(few, full, tmp_path, capsys):
    assert call("tables", full, few[0], "--path_result", tmp_path) == 0
    text = capsys.readouterr().out.partition("### Image AUROC (%)")[2].partition("###")[0]
    found = [line.split(" | ")[:2] for line in text.splitlines()[4:] if line]
    assert found == [[n, s] for s in ("1", "2", "9", "all") for n in ("| widget", "| **Average**")]
    assert "shots 1 2 9; protocol" in (tmp_path / "tables.md").read_text()
    latex = (tmp_path / "tables.tex").read_text()
    assert latex.count("widget & 1 & ") == latex.count("widget & all & ") > 1


def test_the_number_of_images_that_are_missing_is_reported(data, tmp_path, caplog):
    evaluate(data, tmp_path / "enough", "--shots 6 2")
    evaluate(data, tmp_path / "fewer", "--shots 7 2")
    (message,) = [r.getMessage() for r in caplog.records if "--shots" in r.getMessage()]
    assert message == (
        "expected at least 7 training images (--shots), found fewer in widget (6): all are used"
    )


def test_an_ensemble_has_its_rows_too(data, tmp_path):
    flags = "--backbone squeezenet1_1 squeezenet1_0 --layers features.3 --shots 1 2"
    rows = read_table(evaluate(data, tmp_path, flags))
    assert [(row["model"], row["shots"]) for row in rows] == [
        (model, shots) for shots in "12" for model in ("squeezenet1_1", "squeezenet1_0", "ensemble")
    ]
    assert set(read_run(tmp_path)["memory"]["widget"]) == {
        f"squeezenet1_{n}, {shots}" for n in "01" for shots in ("1 shot", "2 shots")
    }


def test_a_percentage_that_gives_no_patch_is_refused_before_any_image_is_read(
    data, tmp_path, capsys
):
    shutil.copytree(data / "widget", tmp_path / "data/widget")
    (tmp_path / "data/widget/train/good/000.png").write_bytes(b"damaged")
    flags = f"--path_data {tmp_path / 'data'} --shots 8 1 --percentage_coreset 0.004"
    arguments = quick(*flags.split(), "--path_result", str(tmp_path / "result"))
    assert call(*arguments) == main.WRONG_USAGE
    expected = f"found 0: 0.004 of {NUM_PATCHES} training patches (percentage_coreset, k)"
    assert expected in capsys.readouterr().err


def test_evaluate_and_train_save_the_same_few_shot_model(data, tmp_path):
    """One image gives no held-out scores, and so no threshold."""
    evaluate(data, tmp_path / "result", f"--shots 1 3 --path_trained {tmp_path / 'a'}")
    words = [word for word in quick() if word not in ("--pictures", "none")]
    flags = ["--path_data", data, "--path_trained", tmp_path / "b", "--shots", "3"]
    assert call("train", *words, *flags) == 0
    folder = "widget/squeezenet1_1_p0100_k01_shots003"
    mine, theirs = (tmp_path / name / folder for name in "ba")
    assert (mine / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    one = tmp_path / "a" / "widget/squeezenet1_1_p0100_k01_shots001"
    assert read_record(one)["thresholds"]["image"] is None
    assert read_record(theirs)["thresholds"]["image"] is not None


def test_train_takes_one_number(data, capsys):
    assert call("train", "--path_data", data, "--shots", "1", "2") == main.WRONG_USAGE
    expected = "expected one number of training images, found --shots 1 2; evaluate compares"
    assert expected in capsys.readouterr().err
