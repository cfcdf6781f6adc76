"""The export stage: a trained network becomes the next version of a model, verified first."""

import json
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines import atomic
from pipelines.config import ExportConfig
from pipelines.exporting.card import CARD, LABELS, card_of, content_sha256, read_card
from pipelines.exporting.saved_model import for_inference, save
from pipelines.exporting.sources import Source, open_source
from pipelines.exporting.verification import expected, verify_saved_model
from pipelines.exporting.versions import latest_version, next_version, write_serving_configs
from pipelines.exporting.warm_up import write_warm_up


@dataclass(frozen=True)
class Export:
    """What `export` wrote, and how it was verified.

    `largest_difference` is the largest absolute difference between a probability that the
    SavedModel gives for a file's bytes and the one that the trained model gives in evaluation.
    """

    saved_model: str
    source: str
    weights_sha256: str
    top_k: int
    verified_images: int
    largest_difference: float
    formats: dict[str, dict[str, Any]]

    def __str__(self) -> str:
        return (
            f"{self.saved_model}: equal to {self.source} on {self.verified_images} real "
            f"images (same classes, probabilities within {self.largest_difference:.1e})\n"
            f"next: python -m pipelines.serve {quote(str(Path(self.saved_model).parent.parent))}"
        )


def export(config: ExportConfig) -> Export:
    """Writes a trained network as the model's next version.

    The version appears when it is whole and its answers to real images equal the trained model's.
    If the latest version is of the same weights and options, nothing is written.

    Raises:
        BadInput: no such source, no weights, or no data set to verify with.
        Failed: the exported model does not answer as the trained one does.
    """
    source = open_source(config)
    top_k = min(config.top_k, len(source.class_names))
    with atomic.locked(config.out):
        latest = latest_version(config.out)
        made = read_card(latest) if latest else None
        if made is None or made["content_sha256"] != content_sha256(source, top_k):
            latest = next_version(config.out)
            with atomic.replacing(latest) as partial:
                made = _write(source, top_k, config.images, latest, partial)
    write_serving_configs(config.out.parent)
    verified = made["formats"]["savedmodel"]
    return Export(
        saved_model=str(latest),
        source=made["source"],
        weights_sha256=made["weights_sha256"],
        top_k=top_k,
        verified_images=verified["images"],
        largest_difference=verified["largest_difference"],
        formats=made["formats"],
    )


def _write(
    source: Source, top_k: int, most_images: int, version: Path, folder: Path
) -> dict[str, Any]:
    """Writes a version to another folder, verifies it, and gives its card."""
    model, images = source.classifier(), source.images(most_images)
    card = card_of(source, top_k, version)
    save(for_inference(model), source.input, source.class_names, top_k, card, folder)
    verified = verify_saved_model(folder, images, expected(model, images))
    write_warm_up(folder, version.parent.name, images.encoded[0])
    (folder / LABELS).write_text("".join(f"{name}\n" for name in source.class_names))
    graph, variables = folder / "saved_model.pb", folder / "variables"
    size = sum(file.stat().st_size for file in (graph, *variables.iterdir()))
    formats = {"savedmodel": {"file": graph.name, "bytes": size, **verified._asdict()}}
    (folder / CARD).write_text(json.dumps(card | {"formats": formats}, indent=2))
    return card | {"formats": formats}
