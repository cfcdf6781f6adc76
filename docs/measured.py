"""Writes docs/measured.csv from the folder of a comparison.

    python docs/measured.py COMPARISON

What `python -m pipelines compare` measured of each network: `report/comparison.csv`, and the commit
that each run was begun at.
"""

import csv
import json
import sys
from pathlib import Path

OUT = Path(__file__).with_name("measured.csv")
TOLD = ("network", "top1", "n", "epochs", "size_px")
COLUMNS = (*TOLD, "cpu_minutes", "images_per_s_infer", "commit")


def rows(comparison: Path) -> list[dict[str, object]]:
    """A row a network, the best first."""
    with (comparison / "report" / "comparison.csv").open(newline="") as file:
        told = sorted(csv.DictReader(file), key=lambda row: -float(row["top1"]))
    return [
        {
            **{name: row[name] for name in TOLD},
            "cpu_minutes": f"{float(row['train_cpu_s']) / 60:.1f}",
            "images_per_s_infer": f"{float(row['images_per_s']):.1f}",
            "commit": _commit(comparison / "runs" / row["run"]),
        }
        for row in told
    ]


def _commit(run: Path) -> str:
    return json.loads((run / "environment.json").read_text())["commit"][:7]


if __name__ == "__main__":
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(Path(sys.argv[1])))
