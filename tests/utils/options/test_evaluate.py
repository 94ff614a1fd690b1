"""Every flag is read and explained; its effect is tested in test_flag_destinations.py.

A test checks that `EXAMPLES` is complete: add every new flag to it.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

import main
from patchcore.protocols import PROTOCOL_BACKBONES, PROTOCOLS
from patchcore.settings import Settings
from patchcore.weights import default_layers
from utils.errors import UsageError
from utils.options.backbone import Member
from utils.options.evaluate import EvaluateOptions, OutputOptions
from utils.options.method import SEVERAL, parse_options
from utils.options.train import DEFAULTS as TRAINING
from utils.options.train import TrainOptions

FLAGS = {field.name for field in fields(EvaluateOptions)}
EXAMPLES: dict[str, tuple[str, object]] = {  # flag: what a user types, what the program gets
    "path_data": ("some/folder", Path("some/folder")),
    "dataset": ("visa", "visa"),
    "holdout": ("0.4", 0.4),
    "normal_dir": ("a", "a"),
    "abnormal_dir": ("b c", ("b", "c")),
    "mask_dir": ("d", "d"),
    "spro_limit": ("0.1", 0.1),
    "categories": ("wood bottle", ("wood", "bottle")),
    "shots": ("4 1", (4, 1)),
    "path_result": ("out", Path("out")),
    "fresh": ("", True),
    "max_megapixels": ("40.5", 40.5),
    "bit_depth": ("12", 12),
    "on_error": ("skip", "skip"),
    "pictures": ("defective", "defective"),
    "pictures_limit": ("4", 4),
    "explain_top": ("2", 2),
    "score_max": ("7.5", 7.5),
    "path_trained": ("kept", Path("kept")),
    "ignore_mask": ("mask.png", "mask.png"),
    "trained_dtype": ("float16", "float16"),
    "save_index": ("", True),
    "threshold": ("f1_max", "f1_max"),
    "threshold_pixel": ("2.5", "2.5"),
    "nominal_fpr": ("0.05", 0.05),
    "nominal_fpr_pixel": ("0.02", 0.02),
    "map_size": ("original", "original"),
    "save_maps": ("", True),
    "profile": ("", True),
    "summary": ("", True),
    "quiet": ("", True),
    "verbose": ("", True),
    "protocol": ("patchcore_ex", "patchcore_ex"),
    "percentage_coreset": ("0.01 0.1 1", (0.01, 0.1, 1.0)),
    "k": ("9", 9),
    "seed": ("7 0", (7, 0)),
    "distance": ("cosine", "cosine"),
    "image_score": ("reweighted", "reweighted"),
    "top_share": ("0.05", 0.05),
    "neighbourhood": ("plain", "plain"),
    "banks": ("per_layer", "per_layer"),
    "search_radius": ("2", 2),
    "retrieve_images": ("5", 5),
    "foreground": ("pca", "pca"),
    "foreground_threshold": ("3.5", 3.5),
    "num_reweight": ("3", 3),
    "layer_weights": ("1 0.5", (1.0, 0.5)),
    "aupro_limit": ("0.05", 0.05),
    "backbone": ("resnet18 resnet34", ("resnet18", "resnet34")),
    "weights": ("file.pth", ("file.pth",)),
    "layers": ("features.6 features.13", (("features.6", "features.13"),)),
    "resize": ("shorter_edge", "shorter_edge"),
    "scales": ("1 0.5", (1.0, 0.5)),
    "context": ("0.5", 0.5),
    "tile": ("96", 96),
    "overlap": ("16", 16),
    "size_resize": ("320", (320,)),
    "size_crop": ("200 100", (200, 100)),
    "interpolation": ("area", "area"),
    "augment": ("vertical horizontal", ("vertical", "horizontal")),
    "patch_size": ("5", 5),
    "embed_dim": ("384", 384),
    "sigma": ("2.5", 2.5),
    "norm_tokens": ("", True),
    "precision": ("bfloat16", "bfloat16"),
    "memory_budget": ("1.5", 1.5),
    "batch_size": ("32", 32),
    "num_workers": ("0", 0),
    "device": ("cuda:1", "cuda:1"),
    "engine": ("ray", "ray"),
    "address": ("auto", "auto"),
    "task_cpus": ("3", 3),
    "shards": ("3", 3),
}
# Flags with examples that exclude those of others.
EXCLUSIVE = {"neighbourhood", "banks", "scales", "context", "quiet"}
EXCLUSIVE |= {"nominal_fpr", "nominal_fpr_pixel"}  # of the thresholds


def parse(text: str, defaults: EvaluateOptions | None = None) -> EvaluateOptions:
    return parse_options(
        text.split(), defaults or EvaluateOptions(), command="try", description="Try."
    )


class TestParsing:
    def test_every_flag_has_an_example(self):
        assert set(EXAMPLES) == FLAGS

    @pytest.mark.parametrize("flag", sorted(FLAGS - {"protocol"}))  # which is there to set others
    def test_a_flag_sets_its_own_option_and_no_other(self, flag):
        words, value = EXAMPLES[flag]
        options = parse(f"--{flag} {words}")
        assert options == replace(EvaluateOptions(), **{flag: value})
        found = getattr(options, flag)
        assert type(found) is type(value)
        if isinstance(value, tuple):
            assert [type(item) for item in found] == [type(item) for item in value]

    def test_all_flags_together(self):
        examples = {flag: e for flag, e in EXAMPLES.items() if flag not in EXCLUSIVE}
        text = " ".join(f"--{flag} {words}" for flag, (words, _) in examples.items())
        assert parse(text) == EvaluateOptions(
            **{flag: value for flag, (_, value) in examples.items()}
        )

    def test_what_is_not_given_takes_the_commands_own_default(self):
        defaults = EvaluateOptions(k=3, percentage_coreset=(0.25,), path_data=Path("elsewhere"))
        assert parse("", defaults) == defaults
        assert parse("--k 5", defaults) == replace(defaults, k=5)

    def test_the_defaults_are_the_papers(self):
        options = EvaluateOptions()
        assert options.backbone == ("wide_resnet50_2",)
        assert default_layers(options.backbone[0]) == ("layer2", "layer3")
        assert options.settings().size_resize == (256, 256)
        assert options.settings().size_crop == (224, 224)
        assert (options.k, options.patch_size, options.embed_dim, options.sigma) == (1, 3, 1024, 4)
        assert options.percentage_coreset == (0.1,)
        assert (options.image_score, options.interpolation) == ("max_patch", "backbone")
        assert options.aupro_limit == 0.3

    def test_two_sizes_are_height_and_width(self):
        assert parse("--size_crop 200 100").settings().size_crop == (200, 100)


class TestMembers:
    """Several backbones: what they have in common is given once, else once for each."""

    def test_one_network(self):
        assert parse("--backbone a --weights w --layers x y").members() == [
            Member("a", "w", ("x", "y"))
        ]

    def test_weights_and_layers_for_all(self):
        assert parse("--backbone a b --weights w --layers x y").members() == [
            Member("a", "w", ("x", "y")),
            Member("b", "w", ("x", "y")),
        ]

    def test_weights_and_layers_for_each(self):
        options = parse("--layers x y --backbone a b --layers z --weights v w")
        assert options.members() == [Member("a", "v", ("x", "y")), Member("b", "w", ("z",))]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("--backbone a b c --weights v w", "--weights once, or once for each of 3 .* found 2"),
            ("--weights v w", "--weights once, or once for each of 1 .* found 2"),
            ("--layers x --layers y", "--layers groups once, or once for each of 1 .* found 2"),
            ("--backbone a b c --layers x --layers y", "--layers groups .* of 3 .* found 2"),
        ],
    )
    def test_neither_for_all_nor_for_each(self, text, message):
        with pytest.raises(UsageError, match=message):
            parse(text)


class TestProtocol:
    """A protocol changes the defaults of other flags, whatever the order they are given in."""

    @pytest.mark.parametrize("name", PROTOCOLS)
    def test_it_sets_what_it_is_known_for_and_nothing_else(self, name):
        options = parse(f"--protocol {name}")
        assert options.settings() == Settings(**PROTOCOLS[name])
        settings = {field.name: getattr(options, field.name) for field in fields(Settings)}
        backbone, layers = PROTOCOL_BACKBONES.get(name, ("wide_resnet50_2", ()))
        network = {"backbone": (backbone,), "layers": (layers,) if layers else ()}
        assert options == replace(EvaluateOptions(), protocol=name, **network, **settings)

    @pytest.mark.parametrize("text", ["--backbone timm:x", "--backbone=timm:x"])
    def test_a_backbone_that_is_given_has_its_own_layers(self, text):
        options = parse(f"{text} --protocol anomalydino")
        assert (options.backbone, options.layers) == (("timm:x",), ())
        assert options.norm_tokens

    def test_a_setting_that_is_on_can_be_turned_off(self):
        assert not parse("--protocol anomalydino --no-norm_tokens").norm_tokens

    def test_layers_that_are_given_replace_the_protocols(self):
        options = parse("--protocol anomalydino --layers blocks.8 blocks.11")
        assert options.backbone == ("timm:vit_small_patch14_dinov2.lvd142m",)
        assert options.layers == (("blocks.8", "blocks.11"),)

    def test_the_papers_is_the_default(self):
        assert parse("--protocol paper") == EvaluateOptions()

    def test_patchcore_ex(self):
        options = parse("--protocol patchcore_ex")
        assert (options.interpolation, options.k, options.image_score) == ("area", 5, "max_map")

    def test_a_preset_is_the_same_as_its_flags(self):
        """A square's size is one number in both, as `rerun` compares them."""
        options = parse("--size_resize 366 --size_crop 320")
        assert parse("--protocol paper_320") == replace(options, protocol="paper_320")

    def test_anomalib_like(self):
        options = parse("--protocol anomalib_like")
        assert options.settings().size_resize == options.settings().size_crop == (256, 256)
        assert (options.embed_dim, options.image_score, options.num_reweight) == (
            *(1536, "reweighted", 9),
        )

    @pytest.mark.parametrize(
        "text",
        [
            "--protocol patchcore_ex --k 2",
            "--k 2 --protocol patchcore_ex",
            "--k 2 --protocol=patchcore_ex",
        ],
    )
    def test_flags_that_are_given_have_their_way(self, text):
        options = parse(text)
        assert (options.k, options.interpolation) == (2, "area")

    def test_a_default_that_is_given_counts_too(self):
        assert parse("--protocol patchcore_ex --k 1").k == 1

    def test_a_commands_own_defaults_give_way(self):
        defaults = EvaluateOptions(k=3, percentage_coreset=(0.25,))
        options = parse("--protocol patchcore_ex", defaults)
        assert (options.k, options.percentage_coreset) == (5, (0.25,))


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("--topk 3", "unrecognized arguments: --topk 3"),
            ("--percentage 0.1", "unrecognized arguments: --percentage 0.1"),  # no abbreviations
            ("--sum", "unrecognized arguments: --sum"),
            ("evalute", "unrecognized arguments: evalute"),
            ("--k many", "--k: expected a whole number, found 'many'"),
            ("--k 1.5", "--k: expected a whole number, found '1.5'"),
            ("--percentage_coreset 10%", "--percentage_coreset: expected a number, found '10%'"),
            ("--size_crop big", "--size_crop: expected a whole number, found 'big'"),
            ("--pictures some", "--pictures: expected all, defective, worst, none, found 'some'"),
            ("--protocol mine", "--protocol: expected paper, .*, patchcore_ex, .*, found 'mine'"),
            ("--augment up", "--augment: expected .*horizontal.*vertical.*, found 'up'"),
            ("--seed 0 one", "--seed: expected a whole number, found 'one'"),
            ("--categories", "--categories: expected at least one argument"),
            ("--backbone", "--backbone: expected at least one argument"),
            ("--precision", "--precision: expected one argument"),
            ("--size_resize 1 2 3", "one to 2 values for --size_resize, .*3"),
            ("--size_crop=", "--size_crop: expected a value, found an empty text"),
            ("--path_result=", "--path_result: expected a value, found an empty text"),
            ("--ignore_mask=", "--ignore_mask: expected a value, found an empty text"),
            ("--topk 3", r"arguments: --topk 3.* \(python main.py try --help lists all flags\)$"),
            ("--backbnoe resnet18", r"--backbnoe resnet18. Did you mean --backbone\?"),
            ("--picture=all", r"--picture=all. Did you mean --pictures\b"),
            ("--pictures wrost", r"found 'wrost'. Did you mean worst\?"),
            ("--protocol Papper", r"found 'Papper'. Did you mean paper\b"),
            ("--size_crop 1 2 3 4", "one to 2 values for --size_crop, .*4"),
        ],
    )
    def test_what_cannot_be_read_is_named_and_help_is_offered(self, text, message):
        with pytest.raises(UsageError, match=message) as caught:
            parse(text)
        assert "python main.py try --help" in str(caught.value)

    def test_a_depth_that_no_image_has(self):
        with pytest.raises(UsageError, match="expected --bit_depth 0, 8, 10, 12, 14, 16, found 9"):
            parse("--bit_depth 9")

    @pytest.mark.parametrize("value", ["0", "-0.1", "1.01", "10", "nan", "0.1 2"])
    def test_a_percentage_outside_its_range(self, value):
        message = r"percentage_coreset in \(0, 1\], for example 0.1 for 10 %, found"
        with pytest.raises(UsageError, match=f"{message} {value} .--percentage_coreset.$"):
            parse(f"--percentage_coreset {value}")

    @pytest.mark.parametrize(
        ("flag", "least"),
        [
            ("k", 1),
            ("num_reweight", 2),
            ("patch_size", 1),
            ("embed_dim", 1),
            ("batch_size", 1),
            ("num_workers", -1),
            ("memory_budget", 0),
            ("pictures_limit", 0),
            ("explain_top", 0),
            ("score_max", 0),
            ("shards", 0),
            ("task_cpus", 0),
        ],
    )
    def test_a_number_below_its_least(self, flag, least):
        message = rf"{flag} of at least {least}, found {least - 1} \(--{flag}\)"
        with pytest.raises(UsageError, match=message):
            parse(f"--{flag} {least - 1}")
        assert getattr(parse(f"--{flag} {least}"), flag) == least

    @pytest.mark.parametrize(
        ("flag", "value"),
        [("sigma", "nan"), ("sigma", "inf"), ("memory_budget", "nan")],
    )
    def test_what_is_no_number(self, flag, value):
        with pytest.raises(UsageError, match=rf"{flag} .* found {value} \(--{flag}\)"):
            parse(f"--{flag} {value}")

    @pytest.mark.parametrize("value", ["0", "-0.1", "1.5", "nan"])
    @pytest.mark.parametrize("flag", ["aupro_limit", "nominal_fpr", "nominal_fpr_pixel"])
    def test_a_false_positive_rate_outside_its_range(self, flag, value):
        with pytest.raises(UsageError, match=rf"in \(0, 1\], found {value} \(--{flag}\)"):
            parse(f"--{flag} {value}")
        assert getattr(parse(f"--{flag} 1"), flag) == 1

    @pytest.mark.parametrize(
        ("flag", "accepted", "refused"),
        [
            ("holdout", ["0.001", "0.9"], ["0", "0.91", "nan"]),
            ("max_megapixels", ["0.001", "1e9"], ["0", "-1", "inf"]),
            ("shots", ["1", "3 1"], ["0", "3 0"]),
            ("spro_limit", ["0.001", "1"], ["0", "1.01"]),
        ],
    )
    def test_other_bounds(self, flag, accepted, refused):
        for text in accepted:
            parse(f"--{flag} {text}")
        for text in refused:
            with pytest.raises(UsageError, match=rf"expected .*{flag} .*found .* \(--{flag}\)"):
                parse(f"--{flag} {text}")

    @pytest.mark.parametrize("value", [-1, 2**32])
    def test_a_seed_that_no_generator_takes(self, value):
        with pytest.raises(UsageError, match=rf"in \[0, 4294967295\], found 3 {value} \(--seed\)"):
            parse(f"--seed 3 {value}")
        assert parse(f"--seed 0 {2**32 - 1}").seed == (0, 2**32 - 1)

    @pytest.mark.parametrize("value", ["CPU", "cuda:", "cuda:x", "cuda 1", "0", ":1"])
    def test_what_is_no_device(self, value):
        message = f"expected a torch device such as cpu.* found '{value}' .--device.$"
        with pytest.raises(UsageError, match=message):
            replace(EvaluateOptions(), device=value)

    def test_a_crop_larger_than_the_image(self):
        with pytest.raises(
            UsageError, match=r"size_crop at most .*\(--size_crop, --size_resize\)$"
        ):
            parse("--size_crop 300")


class TestSettings:
    def test_every_setting_is_a_flag_with_its_default_and_meaning(self):
        flags = {field.name: field for field in fields(EvaluateOptions)}
        for field in fields(Settings):
            text = field.metadata["text"] + SEVERAL.get(field.name, "")
            assert flags[field.name].metadata["text"] == text
            assert flags[field.name].metadata["bounds"] == field.metadata["bounds"]
            assert flags[field.name].metadata["choices"] == field.metadata["choices"]
        assert EvaluateOptions().settings() == Settings()

    def test_flags_set_them(self):
        names = [f.name for f in fields(Settings) if f.name not in EXCLUSIVE]
        words = {name: EXAMPLES[name][0] for name in names}
        text = " ".join(f"--{name} {value}" for name, value in words.items())
        assert parse(text).settings() == Settings(
            percentage_coreset=(0.01, 0.1, 1.0),
            k=9,
            seed=7,  # the first
            distance="cosine",
            image_score="reweighted",
            top_share=0.05,
            search_radius=2,
            retrieve_images=5,
            foreground="pca",
            foreground_threshold=3.5,
            resize="shorter_edge",
            tile=96,
            overlap=16,
            num_reweight=3,
            patch_size=5,
            embed_dim=384,
            layer_weights=(1.0, 0.5),
            sigma=2.5,
            size_resize=(320, 320),
            size_crop=(200, 100),
            interpolation="area",
            augment=("vertical", "horizontal"),
            norm_tokens=True,
            precision="bfloat16",
        )

    def test_a_record_of_a_run_has_the_values_as_typed(self):
        """`tables` compares them with those of former runs."""
        record = asdict(parse("--percentage_coreset 0.1 0.01 --size_resize 320"))
        assert record["percentage_coreset"] == (0.1, 0.01)
        assert (record["size_resize"], record["size_crop"]) == ((320,), (224,))
        assert (record["layer_weights"], record["seed"]) == ((), (0,))


class TestModels:
    """Trained models are saved if a folder is given."""

    @pytest.mark.parametrize("text", ["", "--path_trained none"])
    def test_none_by_default(self, text):
        options = parse(text)
        assert not options.saves_models
        assert not options.needs_held_out_scores
        assert options.needs_patch_images  # of the figures
        assert not parse(f"{text} --pictures none").needs_patch_images

    def test_in_a_folder(self):
        options = parse("--path_trained kept --pictures none")
        assert options.saves_models
        assert options.needs_held_out_scores
        assert options.needs_patch_images
        assert not parse("--path_trained x --threshold 1 --threshold_pixel 2").needs_held_out_scores

    def test_train_saves_them_and_has_no_flag_of_an_output(self):
        assert TRAINING.saves_models
        assert TRAINING.path_trained == Path("trained")
        outputs = {field.name for field in fields(OutputOptions)}
        assert {"pictures", "aupro_limit", "path_result"} < outputs
        assert outputs == FLAGS - {field.name for field in fields(TrainOptions)}
        assert {f.name for f in fields(TrainOptions)} - FLAGS == {
            "paths",
            "category",
            "keep_copies",
            "extend",
        }

    def test_a_missing_weights_file(self, tmp_path):
        parse("--backbone a b --weights default random").check_files()
        with pytest.raises(
            UsageError, match=r"no weights file w.pth \(--weights\); give 'default'"
        ):
            parse("--backbone a b --weights default w.pth").check_files()


def as_typed(value: object) -> str:
    return " ".join(map(as_typed, value)) if isinstance(value, tuple) else str(value)


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
        for field in fields(EvaluateOptions):
            assert len(field.metadata["text"]) > 20
            assert " ".join(field.metadata["text"].split()) in shown[field.name]
            default = as_typed(getattr(EvaluateOptions(), field.name))
            if default and default != "False":  # a switch says what it switches on
                assert shown[field.name].endswith(f"[{default}]")

    def test_flags_are_grouped(self, show):
        show()
        found = re.findall(r"\n([\w ]+):\n", self.text)[1:]  # after "options", with --help
        assert found == [
            *("input", "output", "trained models", "thresholds", "method", "preprocessing"),
            *("computing", "backbone", "messages"),
        ]

    def test_choices_are_shown(self, show):
        shown = show()
        assert "{backbone,bilinear,bicubic,area}" in shown["interpolation"]
        assert "{all,defective,worst,none}" in shown["pictures"]

    def test_it_ends_with_the_commands(self, show):
        show("evaluate")
        assert all(f"\n  {name:<10} {text}\n" in self.text for name, text in main.COMMANDS.items())

    def test_a_protocols_defaults_are_shown(self, show):
        shown = show("--protocol", "patchcore_ex")
        assert shown["k"].endswith("[5]")
        assert shown["image_score"].endswith("[max_map]")

    def test_a_commands_own_defaults_are_shown(self, show):
        assert show("demo")["percentage_coreset"].endswith("[0.01 0.1]")

    def test_a_number_that_stands_for_a_default_in_words_is_not_shown(self, show):
        shown = show("infer")
        assert shown["percentage_coreset"].endswith("(default: the only one)")
        assert shown["score_max"].endswith("(default: twice the pixel threshold)")
