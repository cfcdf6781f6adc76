"""The input doctor over several networks, and the rows of what it measured: one for each stage."""

from dataclasses import dataclass

from rich.console import Console

import keras_zoo
from keras_zoo import macs
from pipelines.benchmarking.results import Row, append, command_line, machine, results_file
from pipelines.benchmarking.rounds import in_new_process
from pipelines.config import InputBenchmarkConfig
from pipelines.data.doctor import InputReport, diagnose
from pipelines.data.parallel import native_code_silenced
from pipelines.data.streams import class_names, open_dataset


@dataclass(frozen=True)
class InputReports:
    """What limits the stream of each network's training, and the file that it was added to."""

    file: str
    reports: list[InputReport]

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.reports), f"added to {self.file}"])


def diagnose_each(configs: list[InputBenchmarkConfig]) -> InputReports:
    """Measures the streams, each in a process of its own, and adds their rows.

    Raises:
        BadInput: a file with other columns, no such data or split, or a batch that the split
            cannot fill.
        Failed: a process was killed.
    """
    reports = []
    for config in configs:
        file = results_file("input", config.out)
        measuring = Console(stderr=True).status(f"measuring the stream of {config.network}")
        with native_code_silenced(), measuring:
            reports.append(in_new_process(diagnose, config))
        append(rows_of(config, reports[-1]), config.out)
    return InputReports(str(file), reports)


def rows_of(config: InputBenchmarkConfig, report: InputReport) -> list[Row]:
    """A row for each stage, in the report's order; one process has no noise to tell of."""
    classes = len(class_names(open_dataset(config.data)))
    shape = (config.last_size_px, config.last_size_px, config.input.num_channels)
    network = keras_zoo.build(
        config.network, num_classes=classes, input_shape=shape, width=config.width
    )
    layers, measured_on = macs.rows(network), machine()
    return [
        Row(
            subject="input",
            network=config.network,
            width=config.width,
            size_px=config.last_size_px,
            channels=config.input.channels,
            num_classes=classes,
            batch_size=config.global_batch_size,
            precision=config.precision,
            engine=None,
            clients=None,
            stage=stage,
            images_per_s=images_per_s,
            noise=None,
            p50_ms=None,
            p99_ms=None,
            refused=None,
            memory_mib=report.resident_mib,
            parameters=sum(layer.parameters for layer in layers),
            gmacs=sum(layer.macs for layer in layers) / 1e9,
            ceiling_gflops=None,
            utilisation=None,
            command=command_line("input", config),
            **measured_on,
        )
        for stage, images_per_s in report.images_per_s.items()
    ]
