"""The models and maps that a run was asked for, and what they depend on."""

import pytest

from patchcore.errors import PatchCoreError
from tests.utils.report.pages import make_row
from utils.options.evaluate import EvaluateOptions
from utils.pipeline import wanted
from utils.pipeline.wanted import Wanted


@pytest.mark.parametrize("names", [("net",), ("net", "other")])
def test_maps_are_of_each_model_and_seed_and_of_the_ensemble_if_there_is_one(tmp_path, names):
    options = EvaluateOptions(save_maps=True, seed=(4, 2), percentage_coreset=(0.1,))
    states = Wanted(options, tmp_path, names).states_of("nut")
    models = names if len(names) == 1 else (*names, "ensemble")
    expected = {f"maps_nut_{m}_p0100_k01_seed{seed}.npz" for m in models for seed in (4, 2)}
    assert states == dict.fromkeys(expected, "")


def test_the_state_of_a_model_is_of_its_flags_and_content(tmp_path, monkeypatch):
    """It is empty if the model is missing or damaged."""
    digests = {"net_p0100_k01": "abc"}

    def read(path):
        if path.name not in digests:
            raise PatchCoreError("expected a model")
        return {"digest": digests[path.name]}

    monkeypatch.setattr(wanted, "read_record", read)

    def states(**flags):
        options = EvaluateOptions(path_trained=tmp_path / "trained", seed=(4, 2), **flags)
        return Wanted(options, tmp_path, ["net"]).states_of("nut")

    folder = tmp_path / "trained/nut"
    found = states(percentage_coreset=(0.1, 0.2))
    assert found.keys() == {str(folder / f"net_p{n}_k01") for n in ("0100", "0200")}
    first, second = found.values()
    assert second == ""
    assert states(percentage_coreset=(0.1,)) == {str(folder / "net_p0100_k01"): first}
    assert states(percentage_coreset=(0.1,), nominal_fpr=0.25) != {
        str(folder / "net_p0100_k01"): first
    }
    digests["net_p0100_k01"] = "other"
    assert states(percentage_coreset=(0.1,)) != {str(folder / "net_p0100_k01"): first}


def test_own_rows_are_of_the_categories_settings_and_seeds_of_a_run():
    rows = [make_row("nut"), make_row("bolt"), make_row("nut", 0.2), make_row("nut", seed=3)]
    options = EvaluateOptions(percentage_coreset=(0.1,), seed=(0,))
    assert wanted.own_rows(rows, options, ["nut", "cap"]) == rows[:1]
