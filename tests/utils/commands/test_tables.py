"""`main.py tables`: what runs measured apart comes together, and what must not mix stays apart."""

import dataclasses
import errno
import json
import re

import numpy as np
import pytest
import torch
import torchvision

from tests.support import QUICK_NETWORK, call, evaluate, make_data, read_run, read_table
from utils.commands import tables
from utils.commands.tables import method_settings
from utils.options.evaluate import EvaluateOptions

SETTING = "--categories widget"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def seeds(data, tmp_path_factory):
    flags = f"{SETTING} --percentage_coreset 0.05 0.2 --seed 0 3"
    return evaluate(data, tmp_path_factory.mktemp("seeds"), flags)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    return evaluate(data, tmp_path_factory.mktemp("one") / "result", SETTING)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(torchvision.models.get_model(QUICK_NETWORK, weights=None).state_dict(), path)
    return path


def copy_run(source, target, pattern="$^", replacement=""):
    """Copy what the command reads of a result folder, with a change of its results."""
    target.mkdir(exist_ok=True)
    text = (source / "results.csv").read_text()
    (target / "results.csv").write_text(re.sub(pattern, replacement, text))
    (target / "run.json").write_bytes((source / "run.json").read_bytes())
    return target


def change_options(source, folder, **changed):
    """Copy a result folder as if its run had had another seed and other options."""
    other = copy_run(source, folder / "other", "(widget,0.1,1),0,", r"\1,7,")
    run = read_run(other)
    assert all(run["options"][name] != value for name, value in changed.items())
    run["options"] |= changed
    (other / "run.json").write_text(json.dumps(run))
    return other


@pytest.fixture
def gather(tmp_path, capsys):
    """Run the command on result folders; return the Markdown that it prints."""

    def gather(*folders, path_result=tmp_path / "tables"):
        capsys.readouterr()
        assert call("tables", *folders, "--path_result", path_result) == 0
        printed = capsys.readouterr().out
        assert printed.strip() in (path_result / "tables.md").read_text()
        return printed

    return gather


def section(text, title):
    return text.partition(f"### {title}")[2].partition("###")[0].strip()


class TestTogether:
    """One run of several, and several runs of one, give the same tables."""

    @pytest.mark.parametrize(
        ("whole", "parts"),
        [
            (
                "--categories widget --percentage_coreset 0.05 0.2",
                [f"--categories widget --percentage_coreset {p}" for p in (0.2, 0.05)],
            ),
            ("--categories gadget widget", ["--categories widget", "--categories gadget"]),
        ],
        ids=["percentages", "categories"],
    )
    def test_runs_apart_come_together(self, data, tmp_path, gather, whole, parts):
        together = evaluate(data, tmp_path / "whole", whole)
        folders = [
            evaluate(data, tmp_path / f"part{number}", part) for number, part in enumerate(parts)
        ]
        expected = (together / "tables.md").read_text()
        printed = gather(*folders)
        for title in ("Image AUROC (%)", "Pixel AP (%)", "AUPRO (%)"):
            assert section(printed, title) == section(expected, title) != ""
        for folder in folders:  # each run's command is told
            assert read_run(folder)["command"] in printed

    def test_seeds_apart_come_together(self, plain, tmp_path, gather):
        # Two runs with random weights would draw other ones: here the second is made up.
        value = 100 * float(read_table(plain)[0]["pixel_auroc"])
        other = copy_run(plain, tmp_path / "other", "(widget,0.1,1),0,", r"\1,7,")
        printed = gather(plain, other)
        assert f"| widget | - | {value:.2f} ± 0.00 |" in section(printed, "Pixel AUROC (%)")

    def test_what_was_measured_twice_is_told_and_the_last_counts(
        self, plain, tmp_path, gather, caplog
    ):
        measured = read_table(plain)[0]["pixel_auroc"]
        later = copy_run(plain, tmp_path / "later", f",{measured},", ",0.125,")
        assert "| widget | - | 12.50 |" in section(gather(plain, later), "Pixel AUROC (%)")
        assert "squeezenet1_1, widget, coreset 10 %, seed 0: measured more than" in caplog.text
        assert f"the result of {later} is used" in caplog.text

    @pytest.mark.parametrize(
        ("pattern", "replacement"),
        [
            pytest.param("widget,0.1,1,0,", "gadget,0.1,1,0,", id="category"),
            pytest.param("widget,0.1,1,0,", "widget,0.2,1,0,", id="percentage"),
            pytest.param("widget,0.1,1,0,", "widget,0.1,3,0,", id="k"),
            pytest.param("widget,0.1,1,0,", "widget,0.1,1,7,", id="seed"),
            pytest.param(",squeezenet1_1", ",ensemble", id="model"),
        ],
    )
    def test_rows_that_differ_in_one_setting_are_two_measurements(
        self, plain, tmp_path, gather, caplog, pattern, replacement
    ):
        gather(plain, copy_run(plain, tmp_path / "other", pattern, replacement))
        assert "measured more than once" not in caplog.text

    def test_results_that_were_edited_are_reported(self, plain, tmp_path, gather, caplog):
        gather(plain)
        assert "has changed" not in caplog.text
        gather(copy_run(plain, tmp_path / "other", "widget,0.1,1,0,", "widget,0.2,1,0,"))
        changed = tmp_path / "other/results.csv"
        assert f"{changed} has changed since its run wrote it" in caplog.text

    def test_results_that_a_spreadsheet_saved_are_read(self, plain, tmp_path, gather, caplog):
        other = copy_run(plain, tmp_path / "other")
        text = (other / "results.csv").read_text()
        (other / "results.csv").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
        assert gather(plain).startswith(gather(other))  # without the defect types
        assert "has changed" not in caplog.text

    def test_runs_with_other_outputs_are_of_one_method(self, plain, tmp_path, gather):
        changed = {"pictures": "all", "path_trained": "elsewhere", "threshold": "f1_max"}
        other = change_options(plain, tmp_path, **changed, batch_size=3, memory_budget=2.0)
        assert "squeezenet1_1 (" not in gather(plain, other)


class TestApart:
    """Rows of other settings never stand in one column, nor take another's place."""

    def test_other_settings_are_kept_apart(self, data, plain, tmp_path, gather):
        sharp = evaluate(data, tmp_path / "sharp", f"{SETTING} --sigma 1")
        printed = gather(plain, sharp)
        assert "squeezenet1_1 (result)" in printed
        assert "squeezenet1_1 (sharp)" in printed

    def test_results_of_another_version_are_kept_apart(self, plain, tmp_path, gather):
        other = change_options(plain, tmp_path)
        record = read_run(other) | {"results_version": 1}
        (other / "run.json").write_text(json.dumps(record))
        assert "squeezenet1_1 (other)" in gather(plain, other)

    @pytest.mark.parametrize("name", method_settings())
    def test_every_setting_of_the_method_counts(self, plain, tmp_path, gather, name):
        printed = gather(plain, change_options(plain, tmp_path, **{name: "another"}))
        assert "squeezenet1_1 (result)" in printed
        assert "squeezenet1_1 (other)" in printed

    def test_folders_of_the_same_name_too(self, data, plain, tmp_path, gather):
        sharp = evaluate(data, tmp_path / "two/result", f"{SETTING} --sigma 1")
        assert plain.name == sharp.name
        assert gather(plain, sharp).count("### Pixel AUROC (%): ") == 2

    @pytest.mark.parametrize("flags", ["--k 5", "--layers features.4 features.7", "--weights FILE"])
    def test_another_k_or_other_layers_or_weights_too(
        self, data, plain, tmp_path, gather, flags, weights_file
    ):
        flags = flags.replace("FILE", str(weights_file))
        other = evaluate(data, tmp_path / "other", f"{SETTING} {flags}")
        printed = gather(plain, other)
        for folder in (plain, other):
            value = 100 * float(read_table(folder)[0]["pixel_ap"])
            assert f"{value:.2f}" in printed.partition("### Pixel AP (%)")[2]

    @pytest.mark.parametrize(
        ("layers", "weights", "apart"),
        [
            (["f1"], "4", ""),
            (["f1", "f1"], "4", ""),  # given for all, or for each
            (["f1", "f2"], "4", "b ensemble"),
            (["f2"], "4", "a b ensemble"),
            (["f1"], "5", "b ensemble"),
        ],
    )
    def test_a_member_is_compared_by_its_own_layers_and_weights(
        self, plain, tmp_path, gather, layers, weights, apart
    ):
        line = r"(?m)^(widget,.*),squeezenet1_1(.*)$"
        folders = []
        for name, seed, own, digest in (("one", 0, ["f1"], "4"), ("two", 7, layers, weights)):
            lines = "\n".join(rf"\1,{model}\2" for model in ("a", "b", "ensemble"))
            folder = copy_run(plain, tmp_path / name, line, lines)
            results = folder / "results.csv"
            results.write_text(
                results.read_text().replace("widget,0.1,1,0,", f"widget,0.1,1,{seed},")
            )
            run = read_run(folder) | {"weights_digest": {"a": "3", "b": digest}}
            run["options"] |= {"backbone": ["a", "b"], "layers": [[layer] for layer in own]}
            (folder / "run.json").write_text(json.dumps(run))
            folders.append(folder)
        printed = gather(*folders)
        for model in ("a", "b", "ensemble"):
            is_apart = f"### Pixel AUROC (%): {model} (two)\n" in printed
            assert is_apart == (model in apart.split())

    def test_an_unknown_setting_of_an_older_run_is_another_one(self, plain, tmp_path, gather):
        other = change_options(plain, tmp_path)
        run = read_run(other)
        del run["options"]["sigma"]
        (other / "run.json").write_text(json.dumps(run))
        assert "squeezenet1_1 (other)" in gather(plain, other)

    def test_settings_are_those_of_the_method_and_options_of_evaluate(self):
        options = {entry.name for entry in dataclasses.fields(EvaluateOptions)}
        assert {"k", "sigma", "augment", "aupro_limit"} < set(method_settings()) < options
        assert {"percentage_coreset", "seed"}.isdisjoint(method_settings())


class TestForms:
    def test_as_csv_and_latex_too(self, seeds, tmp_path, gather):
        gather(seeds, path_result=tmp_path)
        (row, *_) = [r for r in read_table(tmp_path / "tables.csv") if r["column"] == "5 %"]
        values = [100 * float(r["image_auroc"]) for r in read_table(seeds)[::2]]
        assert row["table"] == "Image AUROC (%)"
        assert float(row["value"]) == pytest.approx(np.mean(values), abs=0.005)
        assert float(row["deviation"]) == pytest.approx(np.std(values, ddof=1), abs=0.005)
        latex = (tmp_path / "tables.tex").read_text()
        assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") > 5
        assert r"5 \%" in latex

    def test_the_readmes_section_is_replaced_and_nothing_else(self, seeds, tmp_path):
        readme = tmp_path / "README.md"
        readme.write_text(
            "before\n<!-- tables:begin -->\nformer text\n<!-- tables:end -->\nafter\n", newline="\n"
        )
        for _ in range(2):  # twice changes nothing more
            assert call("tables", seeds, "--path_result", tmp_path, "--readme", readme) == 0
            text = readme.read_text()
            assert text.startswith("before\n<!-- tables:begin -->\n")
            assert text.endswith("<!-- tables:end -->\nafter\n")
            assert "former text" not in text
            assert text.count("### Image AUROC (%)") == text.count("### AUPRO (%)") == 1
            assert b"\r" not in readme.read_bytes()

    def test_a_link_to_a_readme_stays_a_link(self, plain, tmp_path):
        readme, link = tmp_path / "README.md", tmp_path / "link.md"
        readme.write_text("<!-- tables:begin -->\n<!-- tables:end -->\n")
        link.symlink_to(readme.name)
        assert call("tables", plain, "--path_result", tmp_path, "--readme", link) == 0
        assert link.is_symlink()
        assert "### AUPRO (%)" in readme.read_text()

    def test_a_readme_keeps_its_line_ends(self, plain, tmp_path):
        readme = tmp_path / "README.md"
        readme.write_bytes(b"before\r\n<!-- tables:begin -->\r\n<!-- tables:end -->\r\nafter\r\n")
        assert call("tables", plain, "--path_result", tmp_path, "--readme", readme) == 0
        content = readme.read_bytes()
        assert content.startswith(b"before\r\n<!-- tables:begin -->\r\n\r\n")
        assert content.endswith(b"<!-- tables:end -->\r\nafter\r\n")
        assert content.count(b"\n") == content.count(b"\r\n") > 9


@pytest.mark.parametrize("flag", ["--quiet", "--verbose"])
def test_each_flag_of_the_log_can_be_given_alone(plain, tmp_path, flag):
    assert call("tables", plain, "--path_result", tmp_path, flag) == 0


class TestMistakes:
    """One line of error, and nothing is changed."""

    @pytest.fixture
    def copy(self, plain, tmp_path):
        """Return a result folder to be spoilt."""
        return copy_run(plain, tmp_path)

    def test_quiet_and_verbose(self, copy, capsys):
        assert call("tables", copy, "--quiet", "--verbose") == 2
        assert "expected --quiet or --verbose, found both" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("results.csv", None, "results.csv"),
            ("results.csv", "a,b\n1,2\n", "cannot find the column 'category'"),
            ("results.csv", "category,k\n", "expected rows of results in"),
            ("results.csv", "", "expected rows of results in"),
            ("run.json", None, "run.json"),
            ("run.json", "{", "run.json"),
            ("run.json", "[]", "run.json"),
            ("run.json", json.dumps({"command": "another program's"}), "run.json"),
            ("run.json", json.dumps({"weights_digest": {}, "options": {"layers": []}}), "run.json"),
        ],
    )
    def test_a_folder_without_results_is_named(self, copy, capsys, name, content, message):
        (copy / name).unlink() if content is None else (copy / name).write_text(content)
        assert call("tables", copy) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert str(copy) in error

    @pytest.mark.parametrize("text", ["no marks", "<!-- tables:end --><!-- tables:begin -->"])
    def test_a_readme_without_marks_is_left_alone(self, copy, capsys, text):
        readme = copy / "README.md"
        readme.write_text(text)
        assert call("tables", copy, "--readme", readme) == 2
        assert "tables:begin" in capsys.readouterr().err
        assert readme.read_text() == text

    def test_a_readme_in_another_encoding_is_left_alone(self, copy, capsys):
        readme = copy / "README.md"
        readme.write_bytes(b"caf\xe9 <!-- tables:begin --><!-- tables:end -->")
        assert call("tables", copy, "--readme", readme) == 2
        assert re.search(r"text in UTF-8, .*README\.md \(--readme\)", capsys.readouterr().err)
        assert readme.read_bytes().startswith(b"caf\xe9")

    def test_an_unwritable_readme_is_named(self, copy, capsys, monkeypatch):
        def refuse(target, data):
            raise PermissionError(errno.EACCES, "Permission denied")

        readme = copy / "README.md"
        readme.write_text("<!-- tables:begin --><!-- tables:end -->")
        monkeypatch.setattr(tables, "replace_file", refuse)
        assert call("tables", copy, "--readme", readme) == 2
        message = r"cannot write .*README\.md \(--readme\): Permission denied"
        assert re.search(message, capsys.readouterr().err)

    def test_an_unwritable_result_folder_is_named(self, copy, capsys):
        assert call("tables", copy, "--path_result", copy / "run.json") == 2
        assert re.search(r"results to, found .*run\.json", capsys.readouterr().err)

    def test_a_missing_readme_is_named(self, copy, capsys):
        assert call("tables", copy, "--readme", copy / "nowhere.md") == 2
        assert re.search(r"nowhere\.md \(--readme\)", capsys.readouterr().err)

    def test_without_a_folder_the_command_explains_itself(self, capsys):
        assert call("tables") == 2
        assert "RESULT (python main.py tables --help" in capsys.readouterr().err
