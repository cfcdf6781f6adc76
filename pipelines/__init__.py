"""The workflow around the zoo: prepare, train, evaluate, export, serve; one stage a module.

The stages are TensorFlow programs, whatever backend Keras is configured for elsewhere.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
