"""What is written first: a FastAPI handler that calls the SavedModel for each request.

python plain_fastapi.py VERSION PORT
"""

import sys
from typing import Annotated

import tensorflow as tf
import uvicorn
from fastapi import Depends, FastAPI, Request

version, port = sys.argv[1:]
answer = tf.saved_model.load(version).signatures["serving_default"]
app = FastAPI()


async def body(request: Request) -> bytes:
    return await request.body()


# Not async: FastAPI runs it in a thread, as its documentation says for work that blocks.
@app.post("/classify")
def classify(image: Annotated[bytes, Depends(body)]) -> dict:
    outputs = answer(image_bytes=tf.constant([image]))
    return {
        "classes": [name.decode() for name in outputs["classes"][0].numpy()],
        "probabilities": outputs["probabilities"][0].numpy().tolist(),
    }


@app.get("/healthz")
def healthz() -> dict:
    return {}


uvicorn.run(app, port=int(port), log_level="warning")
