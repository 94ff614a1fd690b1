"""Several seeds, several backbones and saved maps, through the program."""

import csv
import json

import cv2
import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as sklearn_metrics

import main
from tests.support import DEFECT_TYPES, QUICK, QUICK_SIZES, make_category, one_thread

PERCENTAGES = ["0.05", "0.2"]
NETWORKS = [
    *("--backbone", "squeezenet1_1", "squeezenet1_0", "--weights", "random"),
    *("--layers", "features.3", "features.6", "--layers", "features.3", "features.7"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_category(root)
    return root


def run(data, result, *flags):
    with one_thread():
        status = main.main(
            [
                *("--path_data", str(data), "--path_result", str(result), "--pictures", "none"),
                *("--percentage_coreset", *PERCENTAGES, *flags),
            ]
        )
    assert status == 0
    return result


@pytest.fixture(scope="module")
def seeds(data, tmp_path_factory):
    flags = [*QUICK, "--seed", "0", "3", "--save_maps"]
    return run(data, tmp_path_factory.mktemp("seeds"), *flags)


@pytest.fixture(scope="module")
def ensemble(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("ensemble"), *NETWORKS, *QUICK_SIZES, "--save_maps")


def rows_of(folder, name="results.csv"):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def maps_of(folder, row):
    per_mille = round(float(row["percentage_coreset"]) * 1000)
    name = f"maps_{row['category']}_{row['model']}_p{per_mille:04d}_k{int(row['k']):02d}"
    with np.load(folder / f"{name}_seed{row['seed']}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def aupro_by_loops(maps, masks, limit=0.3):
    """Each distinct threshold, each region: slow and obvious."""
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    regions = [np.flatnonzero(lab == n) for lab, count in labelled for n in range(1, count + 1)]
    images = [i for i, (_, count) in enumerate(labelled) for _ in range(count)]
    good = np.sort(maps[~masks])
    thresholds = np.unique(maps)[::-1]
    rates = 1 - np.searchsorted(good, thresholds) / len(good)
    overlaps = np.mean(
        [
            1 - np.searchsorted(values, thresholds) / len(values)
            for values in (
                np.sort(maps[i].reshape(-1)[region])
                for i, region in zip(images, regions, strict=True)
            )
        ],
        axis=0,
    )
    rates, overlaps = np.append(0, rates), np.append(0, overlaps)
    inside = rates <= limit
    at_limit = np.interp(limit, rates, overlaps)
    return (
        np.trapezoid(np.append(overlaps[inside], at_limit), np.append(rates[inside], limit)) / limit
    )


def check_against_saved_maps(folder, row):
    """Recompute a row's metrics from what --save_maps wrote."""
    saved = maps_of(folder, row)
    labels, scores = saved["labels"], saved["scores"]
    pixel_labels, pixel_scores = saved["masks"].reshape(-1), saved["anomaly_maps"].reshape(-1)
    defective = saved["masks"].any(axis=(1, 2))
    expected = {
        "image_auroc": sklearn_metrics.roc_auc_score(labels, scores),
        "image_ap": sklearn_metrics.average_precision_score(labels, scores),
        "image_f1_max": max(sklearn_metrics.f1_score(labels, scores >= t) for t in scores),
        "pixel_auroc": sklearn_metrics.roc_auc_score(pixel_labels, pixel_scores),
        "pixel_ap": sklearn_metrics.average_precision_score(pixel_labels, pixel_scores),
        "pixel_auroc_defective": sklearn_metrics.roc_auc_score(
            saved["masks"][defective].reshape(-1), saved["anomaly_maps"][defective].reshape(-1)
        ),
        "pixel_aupro": aupro_by_loops(saved["anomaly_maps"], saved["masks"]),
    }
    for name, value in expected.items():
        assert float(row[name]) == pytest.approx(value, abs=1e-6), name
    found = scores >= float(row["image_threshold"]) * (1 - 1e-7)
    assert int(row["image_false_positives"]) == (found & ~labels).sum()
    assert int(row["image_false_negatives"]) == (~found & labels).sum()


class TestSeeds:
    def test_each_seed_and_percentage_has_its_row(self, seeds):
        found = [(row["seed"], row["percentage_coreset"]) for row in rows_of(seeds)]
        assert found == [(seed, p) for seed in ("0", "3") for p in PERCENTAGES]

    def test_seeds_select_differently(self, seeds):
        first, _, second, _ = (maps_of(seeds, row)["anomaly_maps"] for row in rows_of(seeds))
        assert not np.array_equal(first, second)

    def test_a_seed_among_several_is_what_it_is_alone(self, seeds, data, tmp_path):
        # The weights are random too, and drawn with the first seed.
        alone = run(data, tmp_path, *QUICK, "--seed", "0")
        for name in ("image_auroc", "pixel_auroc", "pixel_aupro", "image_threshold"):
            assert [row[name] for row in rows_of(seeds)[:2]] == [
                row[name] for row in rows_of(alone)
            ]

    def test_tables_show_mean_and_standard_deviation(self, seeds):
        values = [100 * float(row["pixel_auroc"]) for row in rows_of(seeds)[::2]]
        expected = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        table = (seeds / "tables.md").read_text().partition("### Pixel AUROC (%)")[2]
        assert f"| widget | - | {expected} |" in table

    def test_the_saved_maps_are_what_was_measured(self, seeds):
        for row in rows_of(seeds):
            check_against_saved_maps(seeds, row)

    def test_the_saved_maps_name_their_files(self, seeds):
        saved = maps_of(seeds, rows_of(seeds)[0])
        assert saved["files"][0] == "good/000.png"
        assert saved["labels"].tolist() == [not f.startswith("good/") for f in saved["files"]]

    def test_each_defect_type_is_measured_against_the_good_images(self, seeds):
        rows = rows_of(seeds, "results_defects.csv")
        assert [row["defect_type"] for row in rows] == [*DEFECT_TYPES] * 4
        saved = maps_of(seeds, rows[0])
        chosen = np.array([f.split("/")[0] in ("good", "hole") for f in saved["files"]])
        expected = sklearn_metrics.roc_auc_score(saved["labels"][chosen], saved["scores"][chosen])
        assert float(rows[0]["image_auroc"]) == pytest.approx(expected, abs=1e-6)


class TestEnsemble:
    def test_members_and_ensemble_have_rows_of_their_own(self, ensemble):
        models = [row["model"] for row in rows_of(ensemble)]
        assert models == [m for m in ("squeezenet1_1", "squeezenet1_0", "ensemble") for _ in "12"]

    def test_every_row_is_what_its_maps_say(self, ensemble):
        for row in rows_of(ensemble):
            check_against_saved_maps(ensemble, row)

    def test_a_member_is_what_it_is_alone(self, ensemble, data, tmp_path):
        alone = run(data, tmp_path, *QUICK)
        for name in ("image_auroc", "pixel_auroc", "pixel_aupro"):
            found = [row[name] for row in rows_of(ensemble)[:2]]
            assert found == [row[name] for row in rows_of(alone)]

    def test_the_ensembles_map_is_a_weighted_sum_of_its_members(self, ensemble):
        """Each member is shifted and scaled by what training patches say, and by nothing else."""
        first, _, second, _, both, _ = (
            maps_of(ensemble, row)["anomaly_maps"].reshape(-1) for row in rows_of(ensemble)
        )
        known = np.stack([first, second, np.ones_like(first)], axis=1)
        weights, *_ = np.linalg.lstsq(known, both, rcond=None)
        np.testing.assert_allclose(known @ weights, both, atol=1e-3 * np.abs(both).max())
        assert (weights[:2] > 0).all()

    def test_tables_show_each_of_them(self, ensemble):
        text = (ensemble / "tables.md").read_text()
        for name in ("squeezenet1_1", "squeezenet1_0", "ensemble"):
            assert f"### Image AUROC (%): {name}" in text

    def test_its_time_is_that_of_all_members(self, ensemble):
        first, _, second, _, both, _ = (float(r["seconds_total"]) for r in rows_of(ensemble))
        assert both >= first + second

    def test_the_same_network_twice_has_two_names(self, data, tmp_path):
        flags = ["--backbone", "squeezenet1_1", "squeezenet1_1", "--weights", "random"]
        flags += ["--layers", "features.3", "--layers", "features.6"]
        rows = rows_of(run(data, tmp_path, *flags, *QUICK_SIZES))
        assert [row["model"] for row in rows[::2]] == [
            "squeezenet1_1",
            "squeezenet1_1#2",
            "ensemble",
        ]


class TestTables:
    def run(self, *arguments):
        return main.main(["tables", *map(str, arguments)])

    def test_runs_apart_come_together(self, data, tmp_path, capsys):
        for percentage in PERCENTAGES:
            flags = ["--percentage_coreset", percentage, *QUICK]
            run(data, tmp_path / percentage, *flags)
        together = run(data, tmp_path / "both", *QUICK)
        capsys.readouterr()
        assert self.run(*(tmp_path / p for p in PERCENTAGES), "--path_result", tmp_path / "t") == 0
        printed = capsys.readouterr().out
        assert printed.strip() in (tmp_path / "t" / "tables.md").read_text()
        expected = (together / "tables.md").read_text()
        for title in ("### Image AUROC (%)", "### Pixel AP (%)", "### AUPRO (%)"):
            section = expected.partition(title)[2].partition("###")[0].strip()
            assert section in printed

    def test_as_csv_and_latex_too(self, seeds, tmp_path):
        assert self.run(seeds, "--path_result", tmp_path) == 0
        (row, *_) = [r for r in rows_of(tmp_path, "tables.csv") if r["column"] == "5 %"]
        values = [100 * float(r["image_auroc"]) for r in rows_of(seeds)[::2]]
        assert row["table"] == "Image AUROC (%)"
        assert float(row["value"]) == pytest.approx(np.mean(values), abs=0.005)
        assert float(row["deviation"]) == pytest.approx(np.std(values, ddof=1), abs=0.005)
        latex = (tmp_path / "tables.tex").read_text()
        assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") > 5
        assert r"5 \%" in latex

    def test_the_readmes_section_is_replaced_and_nothing_else(self, seeds, tmp_path):
        readme = tmp_path / "README.md"
        readme.write_text("before\n<!-- tables:begin -->\nold\n<!-- tables:end -->\nafter\n")
        for _ in range(2):  # twice changes nothing more
            assert self.run(seeds, "--path_result", tmp_path, "--readme", readme) == 0
            text = readme.read_text()
            assert text.startswith("before\n<!-- tables:begin -->\n")
            assert text.endswith("<!-- tables:end -->\nafter\n")
            assert "old" not in text
            assert text.count("### Image AUROC (%)") == text.count("### AUPRO (%)") == 1

    def test_other_settings_are_kept_apart(self, data, tmp_path, capsys):
        run(data, tmp_path / "plain", *QUICK)
        run(data, tmp_path / "sharp", *QUICK, "--sigma", "1")
        assert self.run(tmp_path / "plain", tmp_path / "sharp", "--path_result", tmp_path) == 0
        printed = capsys.readouterr().out
        assert "squeezenet1_1 (plain)" in printed
        assert "squeezenet1_1 (sharp)" in printed

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda f: (f / "results.csv").unlink(), "results.csv"),
            (lambda f: (f / "results.csv").write_text("a,b\n1,2\n"), "expected results of this"),
            (lambda f: (f / "run.json").write_text("{"), "run.json"),
        ],
    )
    def test_a_folder_without_results_is_named(self, data, tmp_path, capsys, spoil, message):
        spoil(run(data, tmp_path, *QUICK))
        capsys.readouterr()
        assert self.run(tmp_path) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error

    def test_a_readme_without_marks_is_left_alone(self, seeds, tmp_path, capsys):
        readme = tmp_path / "README.md"
        readme.write_text("no marks")
        assert self.run(seeds, "--path_result", tmp_path, "--readme", readme) == 2
        assert "tables:begin" in capsys.readouterr().err
        assert readme.read_text() == "no marks"


def test_a_protocol_sets_several_flags_and_those_given_have_their_way(data, tmp_path):
    flags = ["--protocol", "patchcore_ex", "--image_score", "max_patch", *QUICK]
    options = json.loads((run(data, tmp_path, *flags) / "run.json").read_text())["options"]
    assert options["interpolation"] == "area"
    assert options["k"] == 5
    assert options["image_score"] == "max_patch"


def test_curves_are_drawn_for_each_percentage(seeds):
    for kind, count in (("roc-curve", 2), ("pr-curve", 2), ("pro-curve", 2)):
        pictures = list(seeds.glob(f"{kind}_*.png"))
        assert len(pictures) == count
        assert all(cv2.imread(str(picture)) is not None for picture in pictures)
