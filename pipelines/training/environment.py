"""What a number was measured on: versions, commit, hardware."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tensorflow as tf

PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "keras-tuner", "numpy")


def environment() -> dict[str, Any]:
    """Versions, commit (None outside a checkout) and hardware, as plain values."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "devices": [device.name for device in tf.config.list_physical_devices()],
    }


def _commit() -> str | None:
    """`git describe` of the source this runs from: a hash, `-dirty` if files differ from it."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
