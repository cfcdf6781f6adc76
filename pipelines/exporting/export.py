"""The export stage: a trained network becomes the next version of a model, verified first."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines import atomic
from pipelines.config import ExportConfig
from pipelines.exporting.card import CARD, LABELS, card_of, read_card
from pipelines.exporting.formats import FORMATS, Network, write_formats
from pipelines.exporting.saved_model import for_inference, save
from pipelines.exporting.sources import Images, Source, open_source
from pipelines.exporting.verification import (
    Verification,
    expected,
    images_per_s,
    verify_format,
    verify_saved_model,
)
from pipelines.exporting.versions import latest_version, next_version, write_serving_configs
from pipelines.exporting.warm_up import write_warm_up
from pipelines.reporting.text import aligned
from pipelines.stage_log import logged

SAVED_MODEL, GRAPH, VARIABLES = "savedmodel", "saved_model.pb", "variables/*"
# As many as OpenVINO's quantisation looks at by default.
CALIBRATION_IMAGES = 300


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
            f"{self._table()}"
            f"next: python -m pipelines.serve {quote(str(Path(self.saved_model).parent.parent))}"
        )

    def _table(self) -> str:
        """The formats side by side, where there are several."""
        if len(self.formats) == 1:
            return ""
        rows = [
            (
                name,
                f"{row['bytes'] / 1e6:.1f}",
                "-" if row["top1"] is None else f"{row['top1']:.3f}",
                f"{row['agreement']:.3f}",
                f"{row['images_per_s']:.1f}",
            )
            for name, row in self.formats.items()
        ]
        return aligned([("format", "MB", "top-1", "agreement", "images/s"), *rows]) + "\n"


def export(config: ExportConfig) -> Export:
    """Writes a trained network as the model's next version.

    The version appears when it is whole and its answers to real images equal the trained model's.
    If the latest version is of the same weights and options, nothing is written.

    Raises:
        BadInput: no such source, no weights, or no data set to verify with.
        Failed: a format cannot be written, or does not answer as the trained model does.
    """
    source = open_source(config)
    with atomic.locked(config.out):
        version, new = latest_version(config.out), next_version(config.out)
        # What a killed export left.
        shutil.rmtree(atomic.neighbour(new), ignore_errors=True)
        made = (read_card(version) if version else None) or {}
        card = card_of(source, config, new)
        is_new = made.get("content_sha256") != card["content_sha256"]
        version = new if is_new else version
        with logged(source.run, "export", version):
            if is_new:
                with atomic.replacing(version) as partial:
                    made = _write(source, config, card, partial)
    write_serving_configs(config.out.parent)
    verified = made["formats"]["savedmodel"]
    return Export(
        saved_model=str(version),
        source=made["source"],
        weights_sha256=made["weights_sha256"],
        top_k=made["top_k"],
        verified_images=verified["images"],
        largest_difference=verified["largest_difference"],
        formats=made["formats"],
    )


def _write(
    source: Source, config: ExportConfig, card: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Writes a version, verifies it, and gives its card with what was measured."""
    model, images = source.classifier(), source.images(config.images)
    calibrated = any(name.endswith("int8") for name in config.formats)
    calibration = source.training_images(CALIBRATION_IMAGES) if calibrated else None
    lean = for_inference(model)
    save(lean, source.input, source.class_names, card["top_k"], card, folder)
    write_formats(Network(lean, calibration), config.formats, folder)
    trained = expected(model, images)
    verified = verify_saved_model(folder, images, trained, source.class_names)
    formats = {SAVED_MODEL: _row(SAVED_MODEL, GRAPH, VARIABLES, verified, folder, images)}
    for name in config.formats:
        file, _, weights = FORMATS[name]
        verified = verify_format(name, folder / file, images, trained)
        formats[name] = _row(name, file, weights, verified, folder, images)
    write_warm_up(folder, card["name"], images.encoded[0])
    (folder / LABELS).write_text("".join(f"{name}\n" for name in source.class_names))
    card = card | {"formats": formats}
    (folder / CARD).write_text(json.dumps(card, indent=2))
    return card


def _row(
    name: str,
    file: str,
    weights: str | None,
    verified: Verification,
    folder: Path,
    images: Images,
) -> dict[str, Any]:
    """What the card tells of a format: its file, and what was measured."""
    parts = [folder / file, *(folder.glob(weights) if weights else [])]
    return {
        "file": file,
        "bytes": sum(part.stat().st_size for part in parts),
        **verified._asdict(),
        "images_per_s": images_per_s(name, folder / file, images),
    }
