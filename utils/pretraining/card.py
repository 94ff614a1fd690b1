"""The model card: what a trained network is, how it came about, and what it was measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def model_card(facts: Mapping[str, object], measured: Sequence[Measured], protocol: str) -> str:
    """Return the card as Markdown.

    Args:
        facts: What is known, by name, in order: recipe, time, machine.
        measured: The networks, of the same categories.
        protocol: How was measured.
    """
    lines = ["## How it was trained", "", "| | |", "|:---|:---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "## What it was measured on", "", protocol, ""]
    lines.append("| category | " + " | ".join(m.name for m in measured) + " |")
    lines.append("|:---|" + "---:|" * len(measured))
    for category in measured[0].scores:
        cells = (_cell(m.scores[category]) for m in measured)
        lines.append(f"| {category} | {' | '.join(cells)} |")
    lines.append(f"| **Mean** | {' | '.join(_cell(m.mean) for m in measured)} |")
    return "\n".join(lines) + "\n"


def _cell(score: tuple[float, float]) -> str:
    return " / ".join(f"{100 * value:.2f}" for value in score)
