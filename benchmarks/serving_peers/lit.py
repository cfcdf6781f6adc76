"""LitServe over the same functions of the same SavedModel, with batches of the same size.

python lit.py VERSION PORT BATCH
"""

import sys

import litserve
import numpy as np
import tensorflow as tf
from fastapi import Request


class Classifier(litserve.LitAPI):
    """Decodes each file of a form, then asks the network for all of a batch."""

    def setup(self, device: str) -> None:
        model = tf.saved_model.load(sys.argv[1])
        (self.preprocess,) = model.preprocess.concrete_functions
        (self.classify,) = model.classify.concrete_functions
        self.labels = [name.decode() for name in model.labels().numpy()]
        self._model = model

    def decode_request(self, request: Request) -> np.ndarray:
        return self.preprocess(tf.constant(request["image"].file.read())).numpy()

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        return self.classify(tf.constant(pixels)).numpy()

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, probabilities: np.ndarray) -> dict:
        ids = np.argsort(-probabilities, kind="stable")[:5]
        return {
            "classes": [self.labels[number] for number in ids],
            "probabilities": probabilities[ids].tolist(),
        }


if __name__ == "__main__":
    api = Classifier(max_batch_size=int(sys.argv[3]), batch_timeout=0.002)
    litserve.LitServer(api, accelerator="cpu", timeout=120).run(
        port=int(sys.argv[2]), log_level="warning", generate_client_file=False
    )
