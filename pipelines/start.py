"""Starting TensorFlow without the page of messages that it begins with."""

import importlib
import logging
import os
import sys
import tempfile
from types import ModuleType


def import_stage(module: str) -> ModuleType:
    """Imports a module that imports TensorFlow, and finds the devices, quietly.

    TensorFlow's native code writes notes (oneDNN is on, no CUDA here) to the process's standard
    error before any log level applies. They are held back, and shown when the import fails.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.stderr.flush()
    real_stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            imported = importlib.import_module(module)
            importlib.import_module("tensorflow").config.list_physical_devices()
        except BaseException:
            held_back.seek(0)
            os.write(real_stderr, held_back.read())
            raise
        finally:
            os.dup2(real_stderr, 2)
            os.close(real_stderr)
    return imported
