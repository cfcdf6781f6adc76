"""The whole way in one go: prepare, train, evaluate, export, and a report of what happened."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from pipelines.config import EvaluateConfig, WorkflowConfig
from pipelines.data.preparation import Preparation, prepare
from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.exporting.export import Export, export
from pipelines.training.train import Training, train


@dataclass(frozen=True)
class Report:
    """What every stage did."""

    data: Preparation
    training: Training
    evaluation: Evaluation
    export: Export

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {split}" for split, count in self.data.images.items())
        left_out = len(self.data.bad_files)
        model = Path(self.export.saved_model)
        rows = {
            "data": f"{self.data.out}: {counts} images, {self.data.classes} classes"
            + (f", {left_out} files left out" if left_out else ""),
            "network": f"{self.training.network}, {self.training.parameters:,} parameters",
            "training": f"{self.training.epochs} epochs, {self.training.training_s:.0f} s, "
            f"{self.training.images_per_s:.0f} images/s, in {self.training.run}",
            "accuracy": f"top-1 {self.evaluation.top1:.4f}, top-5 {self.evaluation.top5:.4f}, "
            f"n = {self.evaluation.n:,}",
            "SavedModel": f"{model}: as the trained model on {self.export.verified_images} images, "
            f"probabilities within {self.export.largest_difference:.1e}",
            "next": f"python -m pipelines.serve {quote(str(model.parent.parent))}",
        }
        return "\n".join(f"{key:<12}{value}" for key, value in rows.items())


def run(config: WorkflowConfig) -> Report:
    """Runs the four stages; each finds what an earlier attempt finished and goes on from there."""
    return Report(
        data=prepare(config.prepare),
        training=train(config.train),
        evaluation=evaluate(EvaluateConfig(str(config.train.run))),
        export=export(config.export),
    )
