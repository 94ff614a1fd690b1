"""Several seeds, several backbones and saved maps, through the program."""

import cv2
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tests.recomputed import check_against_saved_maps
from tests.support import (
    DEFECT_TYPES,
    evaluate,
    make_category,
    names,
    read_maps,
    read_run,
    read_table,
    write_image,
)
from utils.pipeline import evaluate_one

PERCENTAGES = ["0.05", "0.2"]
SETTING = f"--percentage_coreset {' '.join(PERCENTAGES)}"
NETWORKS = (
    "--backbone squeezenet1_1 squeezenet1_0 --layers features.3 features.6 "
    "--layers features.3 features.7"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_category(root)
    return root


@pytest.fixture(scope="module")
def seeds(data, tmp_path_factory):
    flags = f"{SETTING} --seed 0 3 --save_maps"
    return evaluate(data, tmp_path_factory.mktemp("seeds"), flags, plots=True)


@pytest.fixture(scope="module")
def ensemble(data, tmp_path_factory):
    return evaluate(data, tmp_path_factory.mktemp("ensemble"), f"{SETTING} {NETWORKS} --save_maps")


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """Return the results of the first seed and the first network alone."""
    return evaluate(data, tmp_path_factory.mktemp("alone"), SETTING)


class TestSeeds:
    def test_each_seed_and_percentage_has_its_row(self, seeds):
        found = [(row["seed"], row["percentage_coreset"]) for row in read_table(seeds)]
        assert found == [(seed, p) for seed in ("0", "3") for p in PERCENTAGES]

    def test_seeds_select_differently(self, seeds):
        first, _, second, _ = (read_maps(seeds, row)["anomaly_maps"] for row in read_table(seeds))
        assert not np.array_equal(first, second)

    def test_a_seed_among_several_is_what_it_is_alone(self, seeds, alone):
        # The weights are random too, and drawn with the first seed.
        for name in ("image_auroc", "pixel_auroc", "pixel_aupro", "image_threshold"):
            assert [row[name] for row in read_table(seeds)[:2]] == [
                row[name] for row in read_table(alone)
            ]

    def test_tables_show_mean_and_standard_deviation(self, seeds):
        values = [100 * float(row["pixel_auroc"]) for row in read_table(seeds)[::2]]
        expected = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        table = (seeds / "tables.md").read_text().partition("### Pixel AUROC (%)")[2]
        assert f"| widget | - | {expected} |" in table

    def test_the_saved_maps_are_what_was_measured(self, seeds):
        for row in read_table(seeds):
            check_against_saved_maps(seeds, row)

    def test_the_saved_maps_name_their_files(self, seeds):
        saved = read_maps(seeds, read_table(seeds)[0])
        assert saved["files"][0] == "good/000.png"
        assert saved["labels"].tolist() == [not f.startswith("good/") for f in saved["files"]]

    def test_each_defect_type_is_measured_against_the_good_images(self, seeds):
        rows = read_table(seeds / "results_defects.csv")
        assert [row["defect_type"] for row in rows] == [*DEFECT_TYPES] * 4
        saved = read_maps(seeds, rows[0])
        chosen = np.array([f.split("/")[0] in ("good", "hole") for f in saved["files"]])
        expected = sklearn_metrics.roc_auc_score(saved["labels"][chosen], saved["scores"][chosen])
        assert float(rows[0]["image_auroc"]) == pytest.approx(expected, abs=1e-6)


class TestEnsemble:
    def test_members_and_ensemble_have_rows_of_their_own(self, ensemble):
        models = [row["model"] for row in read_table(ensemble)]
        assert models == [m for m in ("squeezenet1_1", "squeezenet1_0", "ensemble") for _ in "12"]

    def test_every_row_is_what_its_maps_say(self, ensemble):
        for row in read_table(ensemble):
            check_against_saved_maps(ensemble, row)

    def test_a_member_is_what_it_is_alone(self, ensemble, alone):
        for name in ("image_auroc", "pixel_auroc", "pixel_aupro"):
            found = [row[name] for row in read_table(ensemble)[:2]]
            assert found == [row[name] for row in read_table(alone)]

    def test_the_ensembles_map_is_a_weighted_sum_of_its_members(self, ensemble):
        """Each member is shifted and scaled by what training patches say, and by nothing else."""
        first, _, second, _, both, _ = (
            read_maps(ensemble, row)["anomaly_maps"].reshape(-1) for row in read_table(ensemble)
        )
        known = np.stack([first, second, np.ones_like(first)], axis=1)
        weights, *_ = np.linalg.lstsq(known, both, rcond=None)
        np.testing.assert_allclose(known @ weights, both, atol=1e-3 * np.abs(both).max())
        assert (weights[:2] > 0).all()

    def test_it_ignores_what_any_member_ignores(self, data, tmp_path, monkeypatch):
        combine, seen = evaluate_one.combine_members, []

        def noted(members, options):
            seen.append((members, found := combine(members, options)))
            return found

        monkeypatch.setattr(evaluate_one, "combine_members", noted)
        mask = np.zeros((64, 64), np.uint8)
        mask[:36, :44] = 255  # the first defect of each type, and half of the second
        mask[4] = 0  # on the left far from the patches that are judged, whose grids differ
        path = write_image(tmp_path / "mask.png", mask)
        flags = (
            "--backbone squeezenet1_0 squeezenet1_1 --layers features.3 features.7 "
            f"--layers features.3 features.6 --save_maps --ignore_mask {path}"
        )
        folder = evaluate(data, tmp_path / "result", flags)
        rows = read_table(folder)
        first, second, both = (read_maps(folder, row)["ignored"] for row in rows)
        np.testing.assert_array_equal(both, first | second)
        assert (second & ~first).any()
        (members, found), *_ = seen
        assert len(members) == 2
        assert found.learned is members[0].learned  # figures show patches of the first
        np.testing.assert_array_equal(found.ignored.patches, members[0].ignored.patches)
        check_against_saved_maps(folder, rows[-1])
        assert (
            "widget: in 2 of 4 defective test images the whole defect is ignored (--ignore_mask)"
            in (folder / "run.log").read_text()
        )

    def test_tables_show_each_of_them(self, ensemble):
        text = (ensemble / "tables.md").read_text()
        for name in ("squeezenet1_1", "squeezenet1_0", "ensemble"):
            assert f"### Image AUROC (%): {name}" in text

    def test_its_time_is_that_of_all_members(self, ensemble):
        first, _, second, _, both, _ = (float(r["seconds_total"]) for r in read_table(ensemble))
        assert both >= first + second

    def test_the_same_network_twice_has_two_names(self, data, tmp_path):
        flags = "--backbone squeezenet1_1 squeezenet1_1 --layers features.3 --layers features.6"
        rows = read_table(evaluate(data, tmp_path, flags))
        assert [row["model"] for row in rows] == [
            "squeezenet1_1",
            "squeezenet1_1#2",
            "ensemble",
        ]


def test_the_page_knows_the_shape_of_the_images(data, tmp_path):
    evaluate(data, tmp_path, "--size_crop 32 64 --pictures worst --pictures_limit 1")
    assert '"aspect": 2.0' in (tmp_path / "index.html").read_text()


def test_curves_are_drawn_for_each_percentage(seeds):
    for kind in ("roc-curve", "pr-curve", "pro-curve"):
        pictures = names(seeds, f"{kind}_*.png")
        assert len(pictures) == len(PERCENTAGES)
        assert all(cv2.imread(str(seeds / name)) is not None for name in pictures)


def test_other_numbers_of_images_than_published_are_noted(tmp_path, capsys):
    make_category(tmp_path / "mvtec", "bottle")
    make_category(tmp_path / "mvtec", "widget", seed=1)
    folder = evaluate(tmp_path / "mvtec", tmp_path / "result")
    note = (
        "bottle: MVTec AD has 209 training images, 20 good and 63 defective test images as "
        "published, here are 6, 2 and 4: the results are not comparable with published ones"
    )
    assert note in read_run(folder)["notes"]
    assert f"> {note}\n" in (folder / "tables.md").read_text()
    assert f"> {note}\n" in capsys.readouterr().out
    assert not any(text.startswith("widget") for text in read_run(folder)["notes"])
