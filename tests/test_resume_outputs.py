"""Outputs of earlier runs into the same folder: which are kept, made again, and replaced."""

import shutil
from pathlib import Path

import pytest

from tests.support import (
    call,
    evaluate,
    make_category,
    make_data,
    names,
    quick,
    read_run,
    read_table,
    truncate,
)
from tests.utils.report.test_page import data_of
from utils.pipeline.drawing import Drawing

FIGURES = "--pictures worst --pictures_limit 2 --explain_top 1"
# Its weights do not depend on the seed.
NETWORK = "--backbone formulanet --weights default --layers layer1 --categories widget"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def views_of(folder: Path) -> list[dict]:
    return data_of((folder / "index.html").read_text())["views"]


def files_of_page(folder: Path) -> set[str]:
    """Return the figures that the page shows, with the records of the explanations."""
    images = [image for view in views_of(folder) for image in view["images"]]
    found = {image[kind] for image in images for kind in ("large", "why") if image[kind]}
    return found | {name[:-4] + ".json" for name in found if name.startswith("explanation")}


def large_figures(folder: Path) -> set[str]:
    return names(folder, "localization_*") | names(folder, "explanation_*")


def test_another_seed_leaves_models_and_figures_of_the_first_alone(
    data, tmp_path, computed, caplog
):
    caplog.set_level("INFO")
    folder, flags = tmp_path / "result", f"{FIGURES} --path_trained {tmp_path / 'trained'}"
    files = []
    for seeds in ("0", "0 1", "0 2 1"):
        evaluate(data, folder, f"{flags} --categories widget --seed {seeds}")
        paths = [*folder.glob("*/*.jpg"), *folder.glob("localization_*")]
        paths += [*folder.glob("explanation_*"), *(tmp_path / "trained").rglob("*.*")]
        files.append({path: path.read_bytes() for path in paths if path.is_file()})
    assert computed == ["widget"] * 3
    assert len(files[0]) > 10
    assert files[0] == files[1] == files[2]
    assert "computed again" not in caplog.text


def test_a_new_first_seed_is_computed_alone_and_its_figures_replace_the_others(
    data,
    tmp_path,
    computed,
    caplog,
):
    caplog.set_level("INFO")
    folder = evaluate(data, tmp_path / "result", f"{NETWORK} {FIGURES}", plots=True)
    before = large_figures(folder)
    assert before == files_of_page(folder)
    evaluate(data, folder, f"{NETWORK} {FIGURES} --seed 1 0", plots=True)
    assert "computed again" not in caplog.text
    assert large_figures(folder) == files_of_page(folder) != before
    assert len(names(folder, "pred-dist_*")) == 1
    assert "widget, coreset 10 %: files of earlier figures that are removed: " in caplog.text


def test_settings_that_only_another_seed_has_measured_have_no_curves(data, tmp_path):
    folder = evaluate(data, tmp_path / "result", NETWORK, plots=True)
    assert "roc-curve_p0100_k01" in (folder / "index.html").read_text()
    evaluate(data, folder, f"{NETWORK} --percentage_coreset 0.2 --seed 1", plots=True)
    assert [row["seed"] for row in read_table(folder)] == ["1", "0"]
    page = (folder / "index.html").read_text()
    assert "roc-curve_p0200_k01" in page
    assert "roc-curve_p0100_k01" not in page


def test_figures_that_other_flags_do_not_choose_are_removed(data, tmp_path):
    folder = tmp_path / "result"
    evaluate(data, folder, "--pictures all --explain_top 1 --percentage_coreset 0.1 0.2")
    both = large_figures(folder)
    evaluate(data, folder, f"{FIGURES} --categories widget --score_max 9")
    assert large_figures(folder) == files_of_page(folder) < both
    assert len(names(folder, "localization_gadget_*")) == 2 * 6
    assert len(names(folder, "localization_widget_*_p0200_*")) == 6


def test_images_of_the_same_results_stay_on_the_page_without_pictures(data, tmp_path):
    folder = evaluate(data, tmp_path / "result", FIGURES)
    before = views_of(folder)
    evaluate(data, folder, f"--path_trained {tmp_path / 'trained'}")
    assert views_of(folder) == before


@pytest.mark.parametrize("pattern", ["thumbnails/*", "explanation_*.png"])
def test_figures_that_are_gone_are_drawn_again(data, tmp_path, computed, caplog, pattern):
    caplog.set_level("INFO")
    folder = evaluate(data, tmp_path / "result", f"{FIGURES} --categories widget")
    (lost := sorted(folder.glob(pattern))[0]).unlink()
    evaluate(data, folder, f"{FIGURES} --categories widget")
    assert computed == ["widget"] * 2
    assert f"widget: finished by an earlier run, computed again: {lost} is missing" in caplog.text
    assert lost.exists()


def test_numbers_are_kept_if_the_run_is_killed_while_it_draws(
    data,
    tmp_path,
    monkeypatch,
    computed,
    caplog,
):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    folder = tmp_path / "result"
    with monkeypatch.context() as patched:
        patched.setattr(Drawing, "draw", killed)
        with pytest.raises(Killed):
            call(*quick("--path_data", data, "--path_result", folder, *FIGURES.split()))
    assert "0 of 2 categories" in caplog.text
    evaluate(data, folder)
    assert computed == ["gadget", "widget"]
    assert not (folder / "earlier").exists()


@pytest.mark.parametrize("apart", [False, True])
def test_categories_never_share_figures(tmp_path, apart):
    """Category a with type b_x and category a_b with type x would."""
    root, folder = tmp_path / "data", tmp_path / "result"
    for seed, (name, kind) in enumerate((("a", "b_x"), ("a_b", "x"))):
        path = make_category(root, name, seed=seed)
        for part in ("test", "ground_truth"):
            (path / part / "hole").rename(path / part / kind)
    for flags in ("--categories a_b", "--categories a") if apart else ("",):
        evaluate(root, folder, f"--pictures all --explain_top 1 {flags}")
    views = views_of(folder)
    images = [image for view in views for image in view["images"]]
    assert len(images) == 12
    for kind in ("thumb", "large", "why"):
        assert len({image[kind] for image in images}) == 12
    assert len(names(folder, "thumbnails/*")) == len(names(folder, "explanation_*.json")) == 12
    (plain,) = (view for view in views if view["category"] == ("a_b" if apart else "a"))
    for image in plain["images"]:
        assert f"{plain['category']}_{image['type']}_0" in image["thumb"]


def test_only_names_of_this_program_are_partial_files(data, tmp_path):
    folder = evaluate(data, tmp_path / "result", "--categories widget")
    kept = {".notes.partial", ".a.partial.txt", ".partial"}
    for name in (*kept, ".0.png.17.partial"):
        (folder / name).touch()
    evaluate(data, folder, "--categories widget")
    assert names(folder, ".*partial*") == kept


def test_notes_about_categories_of_earlier_runs_stay(tmp_path):
    root, folder = make_data(tmp_path / "data"), tmp_path / "result"
    shutil.rmtree(root / "gadget/ground_truth")
    evaluate(root, folder, "--categories gadget")
    (note,) = (note for note in read_run(folder)["notes"] if note.startswith("gadget"))
    for flags in ("--categories widget", ""):
        evaluate(root, folder, flags)
        assert read_run(folder)["notes"].count(note) == 1
        assert f"> {note}\n" in (folder / "tables.md").read_text()


def test_a_damaged_model_is_written_again_and_named(data, tmp_path, caplog):
    caplog.set_level("INFO")
    folder, flags = tmp_path / "result", f"--categories widget --path_trained {tmp_path / 'kept'}"
    evaluate(data, folder, flags)
    (model,) = (tmp_path / "kept").rglob("model.json")
    truncate(model)
    evaluate(data, folder, flags)
    assert f"widget: finished by an earlier run, computed again: {model.parent} is damaged" in (
        caplog.text
    )


def test_paths_may_be_written_in_another_way(data, tmp_path, monkeypatch, computed, caplog):
    flags = "--categories widget --save_maps --path_trained"
    evaluate(data, tmp_path / "result", f"{flags} {tmp_path / 'kept'}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result").rename(tmp_path / "moved")
    evaluate(data, Path("moved"), f"{flags} kept")
    assert computed == ["widget"]


def test_a_model_of_another_run_is_not_called_missing(data, tmp_path, caplog):
    caplog.set_level("INFO")
    flags = f"--categories widget --path_trained {tmp_path / 'kept'}"
    evaluate(data, tmp_path / "other", flags)
    folder = evaluate(data, tmp_path / "result", "--categories widget")
    evaluate(data, folder, flags)
    assert "p0100_k01 was made with other flags or by another run" in caplog.text
