"""The model card: what a version is, where it comes from, and how it was verified."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from pipelines.config import ExportConfig
from pipelines.exporting.sources import Source
from pipelines.training.environment import environment

CARD = "model_card.json"
LABELS = "labels.txt"


def card_of(source: Source, config: ExportConfig, version: Path) -> dict[str, Any]:
    """What a version is, before it is verified: plain values.

    `content_sha256` is the same of two exports that answer alike, in the same formats.
    """
    measured_on = environment()
    content = {
        "network": source.network,
        "weights_sha256": source.weights_sha256,
        "input": dataclasses.asdict(source.input),
        "top_k": min(config.top_k, len(source.class_names)),
    }
    further = {"class_names": source.class_names, "formats": config.formats}
    return {
        "name": version.parent.name,
        "version": int(version.name),
        "content_sha256": hashlib.sha256(json.dumps(content | further).encode()).hexdigest(),
        "source": source.name,
        **content,
        "classes": len(source.class_names),
        **source.origin,
        "commit": measured_on.pop("commit"),
        "environment": measured_on,
    }


def read_card(version: Path) -> dict[str, Any] | None:
    """A version's card; None where there is none that can be read."""
    try:
        return json.loads((version / CARD).read_text())
    except (OSError, ValueError):
        return None
