"""An exported model on Ray Serve: `MODEL=saved_models/tiny/1 serve run docs.ray_serve:app`.

`pip install 'ray[serve]' tensorflow` is all it needs. Each replica batches on its own; answers are
those of `POST /classify/NAME`.
"""

import os

import tensorflow as tf
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

MAX_BATCH = 8


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Classifier:
    """Decodes each file on its own, and asks the network for several at a time."""

    def __init__(self, version: str) -> None:
        self._model = tf.saved_model.load(version)
        self._labels = [label.decode() for label in self._model.labels().numpy()]

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.002)
    async def probabilities(self, pixels: list[tf.Tensor]) -> list:
        return list(self._model.classify(tf.stack(pixels)).numpy())

    async def __call__(self, request: Request) -> dict | JSONResponse:
        try:
            pixels = self._model.preprocess(tf.constant(await request.body()))
        except tf.errors.InvalidArgumentError:
            return JSONResponse({"error": "the body is no image that can be decoded"}, 400)
        row = await self.probabilities(pixels)
        ids = (-row).argsort(kind="stable")[:5].tolist()
        predictions = [
            {"class": self._labels[number], "class_id": number, "probability": float(row[number])}
            for number in ids
        ]
        return {"predictions": predictions}


app = Classifier.bind(os.environ["MODEL"])
