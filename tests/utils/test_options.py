"""Every flag is read and explained; that it arrives is shown in test_flag_destinations.py.

`EXAMPLES` is complete by a test: who adds a flag adds it.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

import main
from patchcore.weights import default_layers
from utils.errors import UsageError
from utils.options import PROTOCOLS, Member, Options, parse_options

FLAGS = {field.name for field in fields(Options)}
EXAMPLES: dict[str, tuple[str, object]] = {  # flag: what a user types, what the program gets
    "path_data": ("some/folder", Path("some/folder")),
    "categories": ("wood bottle", ("wood", "bottle")),
    "path_result": ("out", Path("out")),
    "pictures": ("defective", "defective"),
    "pictures_limit": ("4", 4),
    "explain_top": ("2", 2),
    "score_max": ("7.5", 7.5),
    "path_trained": ("kept", Path("kept")),
    "trained_dtype": ("float16", "float16"),
    "save_index": ("", True),
    "threshold": ("f1_max", "f1_max"),
    "threshold_pixel": ("2.5", "2.5"),
    "nominal_fpr": ("0.05", 0.05),
    "nominal_fpr_pixel": ("0.02", 0.02),
    "save_maps": ("", True),
    "profile": ("", True),
    "summary": ("", True),
    "protocol": ("patchcore_ex", "patchcore_ex"),
    "percentage_coreset": ("0.01 0.1 1", (0.01, 0.1, 1.0)),
    "k": ("9", 9),
    "seed": ("7 0", (7, 0)),
    "image_score": ("reweighted", "reweighted"),
    "num_reweight": ("3", 3),
    "layer_weights": ("1 0.5", (1.0, 0.5)),
    "aupro_limit": ("0.05", 0.05),
    "backbone": ("resnet18 resnet34", ("resnet18", "resnet34")),
    "weights": ("file.pth", ("file.pth",)),
    "layers": ("features.6 features.13", (("features.6", "features.13"),)),
    "size_resize": ("320", (320,)),
    "size_crop": ("200 300", (200, 300)),
    "interpolation": ("area", "area"),
    "flip": ("vertical horizontal", ("vertical", "horizontal")),
    "patch_size": ("5", 5),
    "embed_dim": ("384", 384),
    "sigma": ("2.5", 2.5),
    "precision": ("bfloat16", "bfloat16"),
    "memory_budget": ("1.5", 1.5),
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

    @pytest.mark.parametrize("flag", sorted(FLAGS - {"protocol"}))  # which is there to set others
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
        assert options.backbone == ("wide_resnet50_2",)
        assert default_layers(options.backbone[0]) == ("layer2", "layer3")
        assert options.size("size_resize") == (256, 256)
        assert options.size("size_crop") == (224, 224)
        assert (options.k, options.patch_size, options.embed_dim, options.sigma) == (1, 3, 1024, 4)
        assert options.percentage_coreset == (0.1,)
        assert (options.image_score, options.interpolation) == ("max_patch", "bilinear")
        assert options.aupro_limit == 0.3

    def test_two_sizes_are_height_and_width(self):
        assert parse("--size_crop 200 300").size("size_crop") == (200, 300)


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
        assert parse(f"--protocol {name}") == replace(Options(), protocol=name, **PROTOCOLS[name])

    def test_the_papers_is_the_default(self):
        assert parse("--protocol paper") == Options()

    def test_patchcore_ex(self):
        options = parse("--protocol patchcore_ex")
        assert (options.interpolation, options.k, options.image_score) == ("area", 5, "max_map")

    def test_anomalib_like(self):
        options = parse("--protocol anomalib_like")
        assert options.size("size_resize") == options.size("size_crop") == (256, 256)
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
        defaults = Options(k=3, percentage_coreset=(0.25,))
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
            ("--k many", "--k: invalid int value: 'many'"),
            ("--k 1.5", "--k: invalid int value: '1.5'"),
            ("--percentage_coreset 10%", "--percentage_coreset: invalid float value: '10%'"),
            ("--size_crop big", "--size_crop: invalid int value: 'big'"),
            ("--device tpu", r"--device: invalid choice: '?tpu'? .*auto.*cpu.*cuda"),
            ("--pictures some", r"--pictures: invalid choice: '?some'? .*all.*defective.*none"),
            ("--protocol mine", r"--protocol: invalid choice: '?mine'? .*paper.*patchcore_ex"),
            ("--flip up", r"--flip: invalid choice: '?up'? .*horizontal.*vertical"),
            ("--seed 0 one", "--seed: invalid int value: 'one'"),
            ("--categories", "--categories: expected at least one argument"),
            ("--backbone", "--backbone: expected at least one argument"),
            ("--precision", "--precision: expected one argument"),
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
            ("num_reweight", 2),
            ("patch_size", 1),
            ("embed_dim", 1),
            ("sigma", 0),
            ("batch_size", 1),
            ("num_workers", -1),
            ("memory_budget", 0),
        ],
    )
    def test_a_number_below_its_least(self, flag, least):
        with pytest.raises(UsageError, match=f"--{flag} of at least {least}, found {least - 1}"):
            parse(f"--{flag} {least - 1}")
        assert getattr(parse(f"--{flag} {least}"), flag) == least

    @pytest.mark.parametrize(
        ("flag", "value"), [("sigma", "nan"), ("sigma", "inf"), ("memory_budget", "nan")]
    )
    def test_what_is_no_number(self, flag, value):
        with pytest.raises(UsageError, match=f"--{flag}.*{value}"):
            parse(f"--{flag} {value}")

    @pytest.mark.parametrize("value", ["0", "-0.1", "1.5", "nan"])
    def test_a_false_positive_rate_outside_its_range(self, value):
        with pytest.raises(UsageError, match=rf"--aupro_limit in \(0, 1\], found {value}"):
            parse(f"--aupro_limit {value}")
        assert parse("--aupro_limit 1").aupro_limit == 1

    @pytest.mark.parametrize("value", [-1, 2**32])
    def test_a_seed_that_no_generator_takes(self, value):
        with pytest.raises(UsageError, match=f"--seed from 0 to {2**32 - 1}.*{value}"):
            parse(f"--seed 3 {value}")
        assert parse(f"--seed 0 {2**32 - 1}").seed == (0, 2**32 - 1)


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
        for field in fields(Options):
            assert len(field.metadata["text"]) > 20
            assert " ".join(field.metadata["text"].split()) in shown[field.name]
            default = as_typed(getattr(Options(), field.name))
            if default and default != "False":  # a switch says what it switches on
                assert shown[field.name].endswith(f"[{default}]")

    def test_flags_are_grouped(self, show):
        show()
        for group in ("input:", "output:", "method:", "backbone:", "preprocessing:", "computing:"):
            assert self.text.count(f"\n{group}\n") == 1

    def test_choices_are_shown(self, show):
        shown = show()
        assert "{auto,cpu,cuda}" in shown["device"]
        assert "{all,defective,worst,none}" in shown["pictures"]

    def test_it_ends_with_the_commands(self, show):
        show("evaluate")
        assert all(f"\n  {name} " in self.text for name in main.COMMANDS)

    def test_a_protocols_defaults_are_shown(self, show):
        shown = show("--protocol", "patchcore_ex")
        assert shown["k"].endswith("[5]")
        assert shown["image_score"].endswith("[max_map]")

    def test_a_commands_own_defaults_are_shown(self, show):
        assert show("demo")["percentage_coreset"].endswith("[0.01 0.1]")
