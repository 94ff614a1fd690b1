"""The model card: what a trained network is, how it came about, and what it was measured on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """AUROC of one network by category, as (image, pixel), and their mean.

    Attributes:
        name: What the column is called.
        scores: By category.
        mean: Over the categories.
    """

    name: str
    scores: Mapping[str, tuple[float, float]]
    mean: tuple[float, float]


@dataclass(frozen=True)
class Measurement:
    """What networks were measured on.

    Attributes:
        protocol: How was measured.
        networks: Their results, of the same categories.
    """

    protocol: str
    networks: Sequence[Measured]


def model_card(facts: Mapping[str, object], measurements: Sequence[Measurement]) -> str:
    """Return the card as Markdown.

    Args:
        facts: What is known, by name, in order: recipe, time, machine.
        measurements: One after another.
    """
    lines = ["## How it was trained", "", "| | |", "|:---|:---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "## What it was measured on"]
    for measurement in measurements:
        lines += ["", measurement.protocol, "", *_table(measurement.networks)]
    return "\n".join(lines) + "\n"


def _table(networks: Sequence[Measured]) -> Iterator[str]:
    """Yield a table's lines: a row for each category, and one for their mean."""
    yield "| category | " + " | ".join(network.name for network in networks) + " |"
    yield "|:---|" + "---:|" * len(networks)
    for category in networks[0].scores:
        cells = (_cell(network.scores[category]) for network in networks)
        yield f"| {category} | {' | '.join(cells)} |"
    if len(networks[0].scores) > 1:
        yield f"| **Mean** | {' | '.join(_cell(network.mean) for network in networks)} |"


def _cell(score: tuple[float, float]) -> str:
    return " / ".join(f"{100 * value:.2f}" for value in score)
