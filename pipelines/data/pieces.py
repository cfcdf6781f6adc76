"""A source in pieces: examined one by one, each leaves the bytes to keep and what is known of them.

What a piece leaves lies under a name that depends on all that it was made from, so what an earlier
attempt finished is found, and what it finished for another purpose is not.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipelines import atomic
from pipelines.config import PrepareConfig
from pipelines.data.cleaning import Facts, examine
from pipelines.data.parallel import Step
from pipelines.data.sources import Source, Split

# Read, examined and kept at a time: small enough that a kill costs seconds.
PIECE_IMAGES = 256


@dataclass(frozen=True)
class Piece:
    """A slice of a split to examine, and where to leave what comes of it."""

    split: str
    examples: Split
    workspace: Path
    config: PrepareConfig

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def stem(self) -> Path:
        """Depends on the examples and on all that decides what is noted and kept of them."""
        config = self.config
        rewritten = sorted(config.handling.items())
        settings = (rewritten, config.min_side_px, config.short_side_px, config.quality)
        return self.workspace / digest(self.split, self.examples, settings)

    @property
    def pack(self) -> Path:
        return self.stem.with_suffix(".pack")

    @property
    def facts_file(self) -> Path:
        """Written last: where it is, the piece is finished."""
        return self.stem.with_suffix(".json")

    def facts(self) -> list[Facts]:
        pack = str(self.pack)
        rows = json.loads(self.facts_file.read_text())
        return [Facts(*row)._replace(pack=pack) for row in rows]


def cut(source: Source, workspace: Path, config: PrepareConfig) -> list[Piece]:
    """The pieces of every split, in order."""
    return [
        Piece(name, split[start : start + PIECE_IMAGES], workspace, config)
        for name, split in source.splits.items()
        for start in range(0, len(split), PIECE_IMAGES)
    ]


def examine_piece(piece: Piece) -> Step:
    """Examines a slice of the source, unless that is done."""
    if not piece.facts_file.exists():
        listing = []
        with atomic.replacing(piece.pack) as partial_pack, partial_pack.open("wb") as pack:
            for example in piece.examples:
                facts, encoded = examine(example, piece.config)
                listing.append(facts._replace(offset=pack.tell()))
                pack.write(encoded)
        atomic.write_text(piece.facts_file, json.dumps(listing))
    listing = piece.facts()
    bad = sum(
        any(piece.config.handling_of(kind) == "drop" for kind in image.found) for image in listing
    )
    return Step(len(listing), bad)


def digest(*parts: object) -> str:
    """A short name for values, by their `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
