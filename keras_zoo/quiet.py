"""Importing TensorFlow without the page of messages that it begins with."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_messages_held_back() -> Iterator[None]:
    """Holds back what native code writes to the process's standard error, unless the body raises.

    TensorFlow's notes (oneDNN is on, no CUDA here) come before any log level applies, so the file
    descriptor itself is redirected for as long as the body runs.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.stderr.flush()
    real_stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(real_stderr, held_back.read())
            raise
        finally:
            os.dup2(real_stderr, 2)
            os.close(real_stderr)
