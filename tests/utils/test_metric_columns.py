"""Each metric is declared once, and every output reads the declaration."""

import dataclasses
import math

import pytest

from tests.utils.report.pages import make_row
from utils.metric_columns import (
    COUNT,
    IMAGE,
    METRICS,
    PERCENT,
    PIXEL,
    SCORE,
    SECONDS,
    UNITS,
    Output,
)
from utils.metrics import Metrics, defect_record, metrics_record
from utils.results import SECONDS_TOTAL

STORED = [metric for metric in METRICS if metric.attribute]
NAN = math.nan


class TestUnit:
    @pytest.mark.parametrize(
        ("unit", "value", "text"),
        [
            (PERCENT, 98.765, "98.77"),
            (PERCENT, 100.0, "100.00"),
            (COUNT, 3, "3"),
            (COUNT, 4.0, "4"),
            (COUNT, 4.25, "4.2"),
            (SECONDS, 3.0, "3.0"),
            (SCORE, 21.23456, "21.2346"),
            *((unit, NAN, "-") for unit in UNITS),
        ],
    )
    def test_values_have_its_digits(self, unit, value, text):
        assert unit.to_text(value) == text


class TestDeclarations:
    def test_keys_are_unique(self):
        assert len({metric.key for metric in METRICS}) == len(METRICS)

    def test_names_in_the_log_and_titles_of_tables_are_unique(self):
        logged = [(m.items, m.name) for m in METRICS if Output.LOG in m.outputs]
        assert len(set(logged)) == len(logged)
        assert len({m.title for m in METRICS}) == len(METRICS)

    @pytest.mark.parametrize("metric", STORED, ids=lambda metric: metric.key)
    def test_a_stored_metric_is_an_attribute_of_metrics(self, metric):
        assert hasattr(Metrics(), metric.attribute)
        assert metric.items in (IMAGE, PIXEL)

    def test_others_are_the_time_and_sums_of_stored_ones(self):
        others = [metric for metric in METRICS if metric not in STORED]
        assert all(metric.sum_of or metric.key == SECONDS_TOTAL for metric in others)
        keys = {metric.key for metric in STORED}
        assert all(
            {*metric.sum_of, *([metric.limit] * bool(metric.limit))} <= keys for metric in METRICS
        )

    def test_metrics_of_defect_types_are_measured_on_images(self):
        assert all(m.items == IMAGE for m in METRICS if Output.DEFECTS in m.outputs)


class TestValue:
    def test_it_is_in_the_unit(self):
        row = make_row(metrics={"image_auroc": 0.875, "image_false_positives": 3})
        by_key = {metric.key: metric.value(row) for metric in METRICS}
        assert by_key["image_auroc"] == 87.5
        assert by_key["image_false_positives"] == 3
        assert by_key[SECONDS_TOTAL] == 1.5
        assert math.isnan(by_key["pixel_auroc"])

    def test_a_sum_adds_up_its_columns(self):
        (errors,) = [metric for metric in METRICS if metric.sum_of]
        assert errors.value(make_row()) == 3
        assert math.isnan(errors.value(make_row(metrics={"image_false_positives": 1})))


class TestRecords:
    def test_an_optional_column_is_there_only_if_it_was_measured(self):
        optional = {metric.key for metric in METRICS if metric.is_optional}
        assert optional == {"au_spro", "spro_limit"}
        without = set(metrics_record(Metrics(), Metrics()))
        assert without == {metric.key for metric in STORED} - optional
        assert set(metrics_record(Metrics(), Metrics(au_spro=0.5))) - without == {"au_spro"}

    def test_each_column_has_its_attribute_of_its_items(self):
        names = [f.name for f in dataclasses.fields(Metrics) if f.name != "curve"]
        images = Metrics(**{name: index for index, name in enumerate(names)})
        pixels = Metrics(**{name: 100 + index for index, name in enumerate(names)})
        expected = {
            "image_auroc": images.auroc,
            "pixel_auroc": pixels.auroc,
            "pixel_aupro": pixels.aupro,
            "aupro_limit": pixels.aupro_limit,
            "au_spro": pixels.au_spro,
            "spro_limit": pixels.spro_limit,
            "image_ap": images.average_precision,
            "image_f1_max": images.f1_max,
            "image_threshold": images.threshold,
            "image_false_positives": images.false_positives,
            "image_false_negatives": images.false_negatives,
            "pixel_ap": pixels.average_precision,
            "pixel_f1_max": pixels.f1_max,
            "pixel_threshold": pixels.threshold,
            "pixel_auroc_defective": pixels.auroc_defective,
        }
        assert expected.items() <= metrics_record(images, pixels).items()
        expected = {
            "image_auroc": images.auroc,
            "image_ap": images.average_precision,
            "image_f1_max": images.f1_max,
        }
        assert expected.items() <= defect_record(images).items()
