"""A format of an exported model: `VERSION:FORMAT`."""

from pathlib import Path

from measure import model, serve

from pipelines.exporting.engines import open_engine

version, _, name = model().rpartition(":")
serve(open_engine(Path(version), name))
