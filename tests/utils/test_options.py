"""Every flag is read, explained, and arrives where it changes what is done.

`EXAMPLES` and `TestDestinations` are complete by a test each: who adds a flag adds it to both.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import main
from datasets.images import map_ahead
from patchcore import PatchCore, PatchCoreError
from patchcore import model as model_module
from tests.support import (
    DEFECT_TYPES,
    NUM_PATCHES,
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    make_category,
    one_thread,
    quick,
)
from utils.commands import category as category_module
from utils.commands import evaluate as evaluate_module
from utils.commands import pictures as pictures_module
from utils.commands.category import CategoryResult
from utils.errors import UsageError
from utils.options import Options, parse_options

FLAGS = {field.name for field in fields(Options)}
EXAMPLES: dict[str, tuple[str, object]] = {  # flag: what a user types, what the program gets
    "path_data": ("some/folder", Path("some/folder")),
    "categories": ("wood bottle", ("wood", "bottle")),
    "path_result": ("out", Path("out")),
    "pictures": ("defective", "defective"),
    "summary": ("", True),
    "percentage_coreset": ("0.01 0.1 1", (0.01, 0.1, 1.0)),
    "k": ("9", 9),
    "seed": ("7", 7),
    "backbone": ("resnet18", "resnet18"),
    "weights": ("file.pth", "file.pth"),
    "layers": ("features.6 features.13", ("features.6", "features.13")),
    "size_resize": ("320", (320,)),
    "size_crop": ("200 300", (200, 300)),
    "patch_size": ("5", 5),
    "embed_dim": ("384", 384),
    "sigma": ("2.5", 2.5),
    "batch_size": ("32", 32),
    "num_workers": ("0", 0),
    "device": ("cpu", "cpu"),
}


def parse(text: str, defaults: Options | None = None) -> Options:
    return parse_options(
        text.split(), command="try", description="Try.", defaults=defaults or Options()
    )


class TestParsing:
    def test_every_flag_has_an_example(self):
        assert set(EXAMPLES) == FLAGS

    @pytest.mark.parametrize("flag", EXAMPLES)
    def test_a_flag_sets_its_own_option_and_no_other(self, flag):
        words, value = EXAMPLES[flag]
        options = parse(f"--{flag} {words}")
        assert options == replace(Options(), **{flag: value})
        found = getattr(options, flag)
        assert type(found) is type(value)
        if isinstance(value, tuple):
            assert [type(item) for item in found] == [type(item) for item in value]

    def test_all_flags_together(self):
        text = " ".join(f"--{flag} {words}" for flag, (words, _) in EXAMPLES.items())
        assert parse(text) == Options(**{flag: value for flag, (_, value) in EXAMPLES.items()})

    def test_what_is_not_given_takes_the_commands_own_default(self):
        defaults = Options(k=3, percentage_coreset=(0.25,), path_data=Path("elsewhere"))
        assert parse("", defaults) == defaults
        assert parse("--k 5", defaults) == replace(defaults, k=5)

    def test_the_defaults_are_the_papers(self):
        options = Options()
        assert options.backbone == "wide_resnet50_2"
        assert options.layers == ("layer2", "layer3")
        assert options.size("size_resize") == (256, 256)
        assert options.size("size_crop") == (224, 224)
        assert (options.k, options.patch_size, options.embed_dim, options.sigma) == (1, 3, 1024, 4)
        assert options.percentage_coreset == (0.1,)

    def test_two_sizes_are_height_and_width(self):
        assert parse("--size_crop 200 300").size("size_crop") == (200, 300)


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("--topk 3", "unrecognized arguments: --topk 3"),
            ("--percentage 0.1", "unrecognized arguments: --percentage 0.1"),  # no abbreviations
            ("--sum", "unrecognized arguments: --sum"),
            ("evalute", "unrecognized arguments: evalute"),
            ("--k many", "--k: invalid int value: 'many'"),
            ("--k 1.5", "--k: invalid int value: '1.5'"),
            ("--percentage_coreset 10%", "--percentage_coreset: invalid float value: '10%'"),
            ("--size_crop big", "--size_crop: invalid int value: 'big'"),
            ("--device tpu", r"--device: invalid choice: '?tpu'? .*auto.*cpu.*cuda"),
            ("--pictures some", r"--pictures: invalid choice: '?some'? .*all.*defective.*none"),
            ("--categories", "--categories: expected at least one argument"),
            ("--backbone", "--backbone: expected one argument"),
            ("--size_resize 1 2 3", "one to 2 values for --size_resize, .*3"),
            ("--size_crop 1 2 3 4", "one to 2 values for --size_crop, .*4"),
        ],
    )
    def test_what_cannot_be_read_is_named_and_help_is_offered(self, text, message):
        with pytest.raises(UsageError, match=message) as caught:
            parse(text)
        assert "python main.py try --help" in str(caught.value)

    @pytest.mark.parametrize("value", ["0", "-0.1", "1.01", "10", "nan", "0.1 2"])
    def test_a_percentage_outside_its_range(self, value):
        with pytest.raises(UsageError, match=r"--percentage_coreset in \(0, 1\].*found") as caught:
            parse(f"--percentage_coreset {value}")
        assert value in str(caught.value)

    @pytest.mark.parametrize(
        ("flag", "least"),
        [
            ("k", 1),
            ("seed", 0),
            ("patch_size", 1),
            ("embed_dim", 1),
            ("sigma", 0),
            ("batch_size", 1),
            ("num_workers", 0),
        ],
    )
    def test_a_number_below_its_least(self, flag, least):
        with pytest.raises(UsageError, match=f"--{flag} of at least {least}, found {least - 1}"):
            parse(f"--{flag} {least - 1}")
        assert getattr(parse(f"--{flag} {least}"), flag) == least

    @pytest.mark.parametrize("value", ["nan", "inf"])
    def test_a_smoothing_that_is_no_number(self, value):
        with pytest.raises(UsageError, match=f"--sigma.*{value}"):
            parse(f"--sigma {value}")

    def test_a_seed_that_no_generator_takes(self):
        assert parse(f"--seed {2**32 - 1}").seed == 2**32 - 1
        with pytest.raises(UsageError, match=f"--seed.*{2**32}"):
            parse(f"--seed {2**32}")


class TestHelp:
    @pytest.fixture
    def show(self, capsys, monkeypatch) -> Callable[[str], dict[str, str]]:
        """Return {flag: its entry in --help, in one line}."""
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("NO_COLOR", "1")

        def show(*arguments: str) -> dict[str, str]:
            with pytest.raises(SystemExit) as caught:
                main.main([*arguments, "--help"])
            assert caught.value.code == 0
            self.text = capsys.readouterr().out
            entries = self.text.split("\n  --")[1:]
            return {e.split()[0]: " ".join(e.split("\n\n")[0].split()) for e in entries}

        return show

    def test_every_flag_is_shown_with_its_meaning_and_default(self, show):
        shown = show()
        assert set(shown) == FLAGS
        for field in fields(Options):
            assert len(field.metadata["text"]) > 20
            assert " ".join(field.metadata["text"].split()) in shown[field.name]
            default = getattr(Options(), field.name)
            values = default if isinstance(default, tuple) else (default,)
            if values and default is not False:  # a switch says what it switches on
                assert shown[field.name].endswith(f"[{' '.join(map(str, values))}]")

    def test_flags_are_grouped(self, show):
        show()
        for group in ("input:", "output:", "method:", "backbone:", "preprocessing:", "computing:"):
            assert self.text.count(f"\n{group}\n") == 1

    def test_choices_are_shown(self, show):
        shown = show()
        assert "{auto,cpu,cuda}" in shown["device"]
        assert "{all,defective,none}" in shown["pictures"]

    def test_it_ends_with_the_commands(self, show):
        show("evaluate")
        assert all(f"\n  {name} " in self.text for name in main.COMMANDS)

    def test_a_commands_own_defaults_are_shown(self, show):
        assert show("demo")["percentage_coreset"].endswith("[0.01 0.1]")


@dataclass
class Seen:
    """What one category's evaluation came to."""

    model: PatchCore
    result: CategoryResult
    coreset: list[int]  # training patches in order of selection
    bank: torch.Tensor  # (M, D)

    @property
    def prediction(self):
        return self.result.measurements[-1].prediction


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_category(folder, "gadget", seed=1)
    make_category(folder, "widget")
    return folder


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


class TestDestinations:
    """`test_<flag>` shows, through the whole program, that the flag changes what is done."""

    @pytest.fixture(autouse=True)
    def in_one_thread(self):
        with one_thread():
            yield

    @pytest.fixture(autouse=True)
    def spies(self, data, tmp_path, monkeypatch):
        self.data, self.folder, self.patch = data, tmp_path / "result", monkeypatch
        self.seen: list[Seen] = []
        coresets, banks = [], []
        measure, select = evaluate_module.measure_category, model_module.greedy_coreset

        def measure_spy(model, *arguments):
            result = measure(model, *arguments)
            self.seen.append(Seen(model, result, coresets[-1].tolist(), banks[-1]))
            return result

        def select_spy(embeddings, *arguments, **options):
            coresets.append(select(embeddings, *arguments, **options))
            banks.append(embeddings[coresets[-1]])
            return coresets[-1]

        monkeypatch.setattr(evaluate_module, "measure_category", measure_spy)
        monkeypatch.setattr(model_module, "greedy_coreset", select_spy)

    def run(self, text: str = "", status: int = 0) -> Seen:
        """Evaluate one category (or those that the flags name) with these flags."""
        base = f"--path_data {self.data} --path_result {self.folder} --categories widget"
        assert main.main(quick(*base.split(), *text.split())) == status
        return self.seen[-1]

    def names_like(self, pattern: str) -> set[str]:
        return {file.name for file in self.folder.glob(pattern)}

    def test_path_data(self, tmp_path):
        make_category(tmp_path / "other", "widget", seed=5)
        ours = self.run().result.category
        other = self.run(f"--path_data {tmp_path / 'other'}").result.category
        assert ours.train[0].path.is_relative_to(self.data)
        assert other.train[0].path.is_relative_to(tmp_path / "other")

    def test_categories(self):
        self.run("--categories widget gadget")
        assert [seen.result.category.name for seen in self.seen] == ["widget", "gadget"]

    def test_path_result(self, tmp_path):
        self.run(f"--path_result {tmp_path / 'elsewhere'}")
        assert (tmp_path / "elsewhere/results.csv").is_file()
        assert not self.folder.exists()

    @pytest.mark.parametrize(
        ("choice", "types"),
        [("none", ()), ("defective", DEFECT_TYPES), ("all", ("good", *DEFECT_TYPES))],
    )
    def test_pictures(self, choice, types):
        self.run(f"--pictures {choice}")
        drawn = {name.rsplit("_p0100", 1)[0] for name in self.names_like("localization_*.png")}
        assert drawn == {
            f"localization_widget_{kind}_{index:03d}"
            for kind in types
            for index in range(NUM_TEST_PER_TYPE)
        }

    def test_summary(self, capsys):
        self.run()
        assert "Total params" not in capsys.readouterr().out
        self.run("--summary")
        shown = capsys.readouterr().out
        assert "Total params" in shown
        assert "Fire" in shown
        assert "Linear" not in shown

    def test_percentage_coreset(self):
        patches = NUM_TRAIN * NUM_PATCHES
        seen = self.run("--percentage_coreset 0.2 0.02")
        assert [m.row.percentage_coreset for m in seen.result.measurements] == [0.02, 0.2]
        small, large = (m.prediction.nearest.max() for m in seen.result.measurements)
        assert small < patches * 2 // 100 <= large  # patches of the coreset that were found
        assert len(seen.coreset) == patches * 20 // 100

    def test_k(self):
        one, three = self.run("--k 1"), self.run("--k 3")
        assert one.prediction.distance.shape[3] == 1
        assert three.prediction.distance.shape[3] == 3
        assert three.result.measurements[0].row.to_record()["k"] == "3"
        assert (three.prediction.score > one.prediction.score).all()
        assert all("_k03_" in name for name in self.names_like("*_p0100_*"))
        assert self.names_like("pred-dist_*_k03_*")

    def test_seed(self, weights_file):
        # Weights from a file: only the selection is left to chance.
        first, again, other = (
            self.run(f"--weights {weights_file} --seed {seed}") for seed in (0, 0, 1)
        )
        assert first.coreset == again.coreset != other.coreset
        assert other.result.measurements[0].row.to_record()["seed"] == "1"

    def test_seed_draws_random_weights(self):
        first, again, other = (self.run(f"--seed {seed}").model.backbone for seed in (0, 0, 1))
        weights = [next(b.network.parameters()).detach() for b in (first, again, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_backbone(self):
        seen = self.run("--backbone resnet18 --layers layer1 layer2")
        assert isinstance(seen.model.backbone.network, torchvision.models.ResNet)
        assert seen.model.backbone.channels == (64, 128)

    def test_weights(self, weights_file):
        network = self.run(f"--weights {weights_file}").model.backbone.network
        expected = torch.load(weights_file)
        assert network.state_dict()
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, expected[name])

    def test_layers(self):
        seen = self.run("--layers features.4 features.7")
        assert seen.model.backbone.layers == ("features.4", "features.7")
        assert seen.model.backbone.channels == (128, 256)

    def test_size_resize(self):
        # The crop of a larger image shows less of it.
        seen, larger = self.run("--pictures all"), self.run("--pictures all --size_resize 128 96")
        assert larger.model.preprocess.size_resize == (128, 96)
        assert larger.result.masks.shape == seen.result.masks.shape
        assert larger.result.masks.sum() != seen.result.masks.sum()

    def test_size_crop(self):
        seen = self.run("--size_crop 48 56")
        assert seen.prediction.anomaly_map.shape[1:] == (48, 56)
        assert seen.result.masks.shape[1:] == (48, 56)

    def test_patch_size(self):
        usual, wide, even = (self.run(f"--patch_size {size}") for size in (3, 5, 2))
        assert usual.prediction.distance.shape == wide.prediction.distance.shape
        assert not np.allclose(usual.prediction.distance, wide.prediction.distance, rtol=0.01)
        assert even.prediction.distance.shape[1:3] == (14, 14)

    def test_embed_dim(self):
        assert self.run("--embed_dim 48").bank.shape[1] == 48

    def test_sigma(self):
        sharp, smooth = (self.run(f"--sigma {sigma}").prediction for sigma in (0, 8))
        np.testing.assert_array_equal(sharp.score, smooth.score)
        assert sharp.anomaly_map.max() > 1.1 * smooth.anomaly_map.max()
        assert sharp.anomaly_map.std() > smooth.anomaly_map.std()

    def test_batch_size(self):
        sizes, embed = [], PatchCore.embed

        def spy(model, batch):
            sizes.append(len(batch))
            return embed(model, batch)

        self.patch.setattr(PatchCore, "embed", spy)
        self.run("--batch_size 4")
        assert sizes == [4, 2, 4, 2]  # 6 training and 6 test images

    @pytest.mark.parametrize("workers", [0, 3])
    def test_num_workers(self, workers):
        given = []

        def spy(*arguments, num_workers, **options):
            given.append(num_workers)
            return map_ahead(*arguments, num_workers=num_workers, **options)

        self.patch.setattr(category_module, "map_ahead", spy)
        self.patch.setattr(pictures_module, "map_ahead", spy)
        self.run(f"--num_workers {workers} --pictures defective")
        assert given == [workers] * 3  # training images, test images, pictures

    @pytest.mark.parametrize(
        ("choice", "gpu", "expected"),
        [
            ("auto", False, "cpu"),
            ("auto", True, "cuda"),
            ("cpu", True, "cpu"),
            ("cuda", True, "cuda"),
        ],
    )
    def test_device(self, choice, gpu, expected):
        given = []

        def stop(*arguments, device, **options):
            given.append(torch.device(device).type)
            raise PatchCoreError("far enough")

        self.patch.setattr(torch.cuda, "is_available", lambda: gpu)
        self.patch.setattr(torch.backends.cudnn, "allow_tf32", True)  # put back at the end
        self.patch.setattr(evaluate_module, "PatchCore", stop)
        arguments = f"--path_data {self.data} --device {choice}".split()
        assert main.main(quick(*arguments)) == main.USER_MISTAKE
        assert given == [expected]


def test_every_flag_has_a_test_of_its_destination():
    tests = {name.removeprefix("test_") for name in vars(TestDestinations) if "test_" in name}
    assert FLAGS - tests == set()
