"""The model card: what a version is, where it comes from, and how it was verified."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from pipelines.exporting.sources import Source
from pipelines.training.environment import environment

CARD = "model_card.json"
LABELS = "labels.txt"


def card_of(source: Source, top_k: int, formats: list[str], version: Path) -> dict[str, Any]:
    """What a version is, before it is verified: plain values."""
    measured_on = environment()
    return {
        "name": version.parent.name,
        "version": int(version.name),
        "content_sha256": content_sha256(source, top_k, formats),
        "source": source.name,
        "network": source.network,
        "weights_sha256": source.weights_sha256,
        "input": dataclasses.asdict(source.input),
        "classes": len(source.class_names),
        "top_k": top_k,
        **source.origin,
        "commit": measured_on.pop("commit"),
        "environment": measured_on,
    }


def content_sha256(source: Source, top_k: int, formats: list[str]) -> str:
    """What two exports have in common that answer alike: weights, input, classes, formats."""
    content = [
        source.network,
        source.weights_sha256,
        dataclasses.asdict(source.input),
        source.class_names,
        top_k,
        formats,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_card(version: Path) -> dict[str, Any] | None:
    """A version's card; None where there is none that can be read."""
    try:
        return json.loads((version / CARD).read_text())
    except (OSError, ValueError):
        return None
