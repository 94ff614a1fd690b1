"""From images that a layout found to a category: split, hold-out, names and reports."""

import os
from pathlib import Path

import pytest

from datasets.base import GOOD, DatasetError, LeftOut, MaskFiles
from datasets.entries import (
    TEST,
    TRAIN,
    UNSPLIT,
    VALIDATION,
    Entry,
    ReadOptions,
    make_category,
    split_in,
    split_named,
)

ROOT = Path("data")
MASK = MaskFiles((Path("mask.png"),))


def good(count: int, split: str = UNSPLIT, folder: str = "good") -> list[Entry]:
    return [Entry(ROOT / folder / f"{n:03}.png", GOOD, split) for n in range(count)]


def bad(name: str = "bad/0.png", split: str = UNSPLIT, mask=MASK, kind: str = "dent") -> Entry:
    return Entry(ROOT / name, kind, split, mask)


def make(entries, **options):
    return make_category(ROOT, "nut", entries, ReadOptions(**options))


def names(samples) -> list[str]:
    return [sample.path.relative_to(ROOT).as_posix() for sample in samples]


class TestHoldOut:
    def held_out(self, entries, **options):
        return set(names(s for s in make(entries, **options).test if not s.is_defective))

    def test_a_share_of_the_good_images_is_tested_and_not_learned(self):
        category = make([*good(10), bad()], holdout=0.3)
        held_out = {s.path for s in category.test if not s.is_defective}
        learned = {s.path for s in category.train}
        assert (len(held_out), len(learned)) == (3, 7)
        assert held_out | learned == {entry.path for entry in good(10)}
        assert category.facts == (
            "3 of 10 good images are held out for testing (--holdout 0.3, --seed 0)",
        )

    def test_the_choice_depends_on_names_and_seed_alone(self):
        entries = [*good(20), bad()]
        chosen = self.held_out(entries)
        assert chosen == self.held_out(entries[::-1])
        elsewhere = Path("elsewhere")
        moved = [Entry(elsewhere / e.path.relative_to(ROOT), e.defect_type, "") for e in entries]
        found = make_category(elsewhere, "nut", moved, ReadOptions())
        assert chosen == {
            s.path.relative_to(elsewhere).as_posix() for s in found.test if not s.is_defective
        }
        assert chosen != self.held_out(entries, seed=1)

    def test_one_more_image_changes_the_choice_by_one_at_most(self):
        before, after = (self.held_out([*good(n), bad()]) for n in (20, 21))
        assert len(before) == len(after) == 4
        assert len(before - after) <= 1

    @pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.9, 1), (0.5, 1)])
    def test_at_least_one_image_is_tested_and_one_learned(self, share, count):
        category = make([*good(2), bad()], holdout=share)
        assert len(category.train) == count == sum(not s.is_defective for s in category.test)

    def test_names_need_not_be_text(self):
        entries = [Entry(ROOT / os.fsdecode(name), GOOD, "") for name in (b"\xfc", b"\xe9", b"u")]
        category = make([*entries, bad()])
        assert (len(category.train), len(category.test)) == (2, 2)

    def test_images_may_lie_outside_of_the_folder(self):
        """As those of annotations in a folder of their own."""
        images = [*good(5), bad("good/000.jpg")]
        category = make_category(ROOT / "annotations", "nut", images, ReadOptions())
        assert (len(category.train), len(category.test)) == (4, 2)

    @pytest.mark.parametrize("other", [good(1), [bad("good/000.png")]])
    def test_an_image_that_is_there_twice_is_refused(self, other):
        with pytest.raises(DatasetError, match=r"each image once, found data/good/000.png twice"):
            make([*good(3), *other])

    def test_a_split_is_kept_and_the_flag_reported(self):
        entries = [*good(3, TRAIN), *good(2, TEST, "other"), bad(split=TEST)]
        category = make(entries, holdout=0.5)
        assert names(category.train) == ["good/000.png", "good/001.png", "good/002.png"]
        assert names(category.test) == ["other/000.png", "other/001.png", "bad/0.png"]
        assert category.facts == ("--holdout has no effect: the data have a split",)
        assert make(entries).facts == ()

    def test_training_alone_learns_all_good_images(self):
        category = make([*good(10), bad()], training_only=True)
        assert len(category.train) == 10
        assert (category.test, category.has_masks) == ((), False)
        assert category.facts == ("the data have no split: all good images are training images",)


def test_what_is_neither_learned_nor_tested_is_left_out_with_its_reason():
    entries = [
        *good(2, TRAIN),
        bad("a.png", TRAIN),
        *good(1, VALIDATION, "valid"),
        *good(1, TEST, "test"),
        bad("b.png", TEST),
    ]
    assert make(entries).left_out == (
        LeftOut(ROOT / "a.png", "defective images of the training split", by_split=True),
        LeftOut(ROOT / "valid/000.png", "validation images", by_split=True),
    )


def test_test_images_come_in_order_of_types_and_keep_their_order_within():
    entries = [
        *good(1, TRAIN),
        bad("z/2.png", TEST, kind="z"),
        bad("z/1.png", TEST, kind="z"),
        bad("a/1.png", TEST, kind="a"),
        *good(1, TEST, "test"),
    ]
    assert names(make(entries).test) == ["test/000.png", "a/1.png", "z/2.png", "z/1.png"]


class TestReports:
    @pytest.mark.parametrize(
        ("tested", "note"),
        [
            (good(2, TEST, "t"), "no test image is defective: there are no metrics"),
            ([bad(split=TEST)], "no test image is good: there are no metrics of images"),
            (
                [*good(1, TEST, "t"), bad(split=TEST, mask=None)],
                "no defective test image has a mask: there are no metrics of pixels",
            ),
            (
                [*good(1, TEST, "t"), bad(split=TEST), bad("c.png", TEST, mask=None)],
                "1 of 2 defective test images have no mask: metrics of pixels do not include them",
            ),
        ],
    )
    def test_what_cannot_be_measured_is_said(self, tested, note):
        category = make([*good(2, TRAIN), *tested])
        assert category.notes == (note,)
        assert category.has_masks == any(entry.mask is not None for entry in tested)

    def test_remarks_count_the_files_of_each_reason(self):
        left_out = [LeftOut(Path(name), "a video") for name in ("a", "b")]
        left_out.append(LeftOut(Path("c"), "validation images"))
        entries = [*good(2, TRAIN), *good(1, TEST, "t"), bad(split=TEST)]
        category = make_category(ROOT, "nut", entries, ReadOptions(), left_out=left_out)
        assert category.remarks() == [
            "2 files skipped: a video (for example a)",
            "1 file skipped: validation images (c)",
        ]

    def test_findings_are_the_remarks_that_may_be_faults(self):
        entries = [*good(4), bad(mask=None), *good(1, VALIDATION, "valid")]
        left_out = [LeftOut(Path("a"), "a video")]
        category = make_category(ROOT, "nut", entries, ReadOptions(), left_out=left_out)
        assert category.findings() == [
            "no defective test image has a mask: there are no metrics of pixels",
            "1 file skipped: a video (a)",
        ]
        assert category.remarks() == [
            "1 of 4 good images are held out for testing (--holdout 0.2, --seed 0)",
            *category.findings(),
            f"1 file skipped: validation images ({ROOT / 'valid/000.png'})",
        ]

    def test_no_training_image(self):
        with pytest.raises(DatasetError, match=r"training images without defects of nut in data"):
            make([bad()])

    def test_no_test_image(self):
        with pytest.raises(DatasetError, match=r"test images of nut in data, found none; train"):
            make(good(3, TRAIN))


class TestNames:
    def test_images_of_one_name_in_different_folders_have_names_of_their_own(self):
        entries = [*good(2, TRAIN), *good(1, TEST, "a/b"), *good(1, TEST, "a"), bad(split=TEST)]
        category = make(entries)
        assert [sample.name for sample in category.test] == ["a_b_000", "a_000", "0"]

    def test_they_differ_also_where_case_does_not_count(self):
        entries = [*good(1, TRAIN), bad("a.png", TEST), bad("x/A.png", TEST)]
        assert [sample.name for sample in make(entries).test] == ["a", "x_A"]

    def test_and_where_folders_and_names_join_to_the_same(self):
        entries = [*good(1, TRAIN)]
        entries += [bad(name, TEST) for name in ("a/b/1.png", "a_b/1.png", "a/b/1.jpg")]
        assert [sample.name for sample in make(entries).test] == ["a_b_1", "a_b_1_", "a_b_1__"]

    @pytest.mark.parametrize("order", [1, -1])
    def test_and_where_a_path_gives_the_name_of_another_image(self, order):
        files = ["a_1.png", "a/1.png", "b/1.png"][::order]
        category = make([*good(1, TRAIN), *(bad(file, TEST) for file in files)])
        assert [sample.name for sample in category.test] == ["a_1", "a_1_", "b_1"][::order]

    def test_and_where_a_name_continues_the_defect_type(self):
        entries = [bad("x/a_1.png", TEST, kind="x"), bad("x/a/1.png", TEST, kind="x_a")]
        category = make([*good(1, TRAIN), *entries])
        assert [(sample.defect_type, sample.name) for sample in category.test] == [
            ("x", "x_a_1"),
            ("x_a", "x_a_1"),
        ]


@pytest.mark.parametrize(
    ("text", "split"),
    [("train", TRAIN), ("Training", TRAIN), ("VAL", VALIDATION), ("test", TEST), ("", UNSPLIT)],
)
def test_names_of_splits(text, split):
    assert split_named(text, ROOT) == split


def test_an_unknown_split():
    with pytest.raises(DatasetError, match=r"expected the split .*, found 'tst' in data"):
        split_named("tst", ROOT)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_train2017", TRAIN),
        ("valid", VALIDATION),
        ("_annotations.coco", UNSPLIT),
        ("test-public", TEST),
        ("contest", UNSPLIT),
    ],
)
def test_a_split_in_a_name(name, split):
    assert split_in(name) == split
