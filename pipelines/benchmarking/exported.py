"""A network with fresh weights, exported for as long as it is measured."""

import json
from pathlib import Path

import keras

from keras_zoo import macs
from pipelines.benchmarking.rounds import Facts
from pipelines.config import InferBenchmarkConfig, ServeBenchmarkConfig
from pipelines.exporting.card import CARD
from pipelines.exporting.export import GRAPH, SAVED_MODEL
from pipelines.exporting.formats import FORMATS, Network, write_formats
from pipelines.exporting.saved_model import for_inference, save
from pipelines.training.model import image_classifier, num_parameters

TOP_K = 5


def version_folder(config: InferBenchmarkConfig | ServeBenchmarkConfig, models: Path) -> Path:
    """Where in a folder of models the network is."""
    return models / config.network / "1"


def write(config: InferBenchmarkConfig | ServeBenchmarkConfig, models: Path) -> Facts:
    """Writes the SavedModel, and the engine's format beside it; nothing is verified.

    Raises:
        BadInput: a package that writes the format is not installed.
    """
    model = image_classifier(config.network, config.input, config.classes, width=config.width)
    lean, version = for_inference(model), version_folder(config, models)
    written = [config.engine] if config.engine != SAVED_MODEL else []
    files = {SAVED_MODEL: GRAPH} | {name: FORMATS[name].file for name in written}
    card = {
        "name": config.network,
        "formats": {name: {"file": file} for name, file in files.items()},
    }
    class_names = [str(number) for number in range(config.classes)]
    save(lean, config.input, class_names, min(TOP_K, config.classes), card, version)
    write_formats(Network(lean, None), written, version)
    (version / CARD).write_text(json.dumps(card))
    return facts(model)


def facts(model: keras.Model) -> Facts:
    """Of an `image_classifier`."""
    *_, network = model.layers
    return Facts(num_parameters(model), macs.count(network))
