"""Images a second of exported models, beside other ways to run the same network, in one run.

    python benchmarks/inference.py [--python torch=PYTHON] [--run RUN]

ResNet-50 with fresh weights at 224 px: our SavedModel against what `model.export` of the same model
writes, Keras's `predict` and eager torch; and its ONNX, LiteRT and OpenVINO exports against it.
With `--run`, the folder of a trained run: its compressed exports against its SavedModel, with the
accuracy of each on the run's validation images. Each is a process of its own, and they take turns,
those whose turn it is not stopped. Reported are medians, their spread, and ratios round by round.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import turns

PEERS = Path(__file__).parent / "inference_peers"
NETWORK, SIZE_PX = "resnet50", 224
FORMATS = "savedmodel,onnx,litert,openvino"
SAVED_MODEL, OURS = "savedmodel", "our SavedModel"
IMAGES_A_PASS = 24
Rates = dict[str, list[float]]


class Peer(NamedTuple):
    """One way to run a network.

    Args:
        script: in `inference_peers`.
        model: the script's first argument.
        goal: the least ratio of ours to it, where there is one.
    """

    script: str
    model: str
    goal: float | None = None


def main() -> None:
    arguments = parse_arguments()
    turns.end_children_with_this_process()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.models or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not arguments.only_run:
            compare_networks(arguments, folder)
        if arguments.run:
            compare_compressed(arguments, folder)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--run", type=Path, help="a trained run; its data has to be there")
    parser.add_argument("--only-run", action="store_true", help="nothing but what --run adds")
    parser.add_argument("--models", type=Path, help="where to write models, or find them again")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PYTHON")
    arguments = parser.parse_args()
    arguments.python = dict(pair.split("=", 1) for pair in arguments.python)
    return arguments


def compare_networks(arguments: argparse.Namespace, scratch: Path) -> None:
    """Our SavedModel of one network against others' ways, and against our other formats."""
    weights, kept = scratch / f"{NETWORK}.weights.h5", scratch / "keras_export"
    if not kept.is_dir():
        written = [sys.executable, PEERS / "networks.py", NETWORK, scratch]
        subprocess.run(written, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    card, version = export(NETWORK, scratch, "--init", str(weights), "--format", FORMATS)
    ours, theirs = card[SAVED_MODEL]["bytes"], size_bytes(kept)
    print(
        f"{NETWORK}, size on disk: ours {ours / 1e6:.1f} MB, model.export {theirs / 1e6:.1f} MB, "
        f"ratio {ours / theirs:.3f} (goal 0.55)"
    )
    exported = {OURS: Peer("engine.py", f"{version}:{SAVED_MODEL}")}
    exported["model.export"] = Peer("keras_export.py", str(kept), 1.1)
    others = {
        "keras predict": Peer("keras_predict.py", f"{NETWORK}:{weights}", 2.2),
        "torch eager": Peer("torch_eager.py", NETWORK, 1.0),
    }
    formats = {
        name: Peer("engine.py", f"{version}:{name}") for name in card if name != "savedmodel"
    }
    rates = measured(exported | others | formats, 1, SIZE_PX, arguments, scratch)
    report(f"{NETWORK}, batch 1, ours / its", rates, exported | others)
    report_formats(f"{NETWORK}, batch 1, its / ours", rates, list(formats), 1.6)
    rates = measured(exported, 8, SIZE_PX, arguments, scratch)
    report(f"{NETWORK}, batch 8, ours / its", rates, exported)


def compare_compressed(arguments: argparse.Namespace, scratch: Path) -> None:
    """The compressed exports of a trained run against its SavedModel."""
    options = ["--format", FORMATS, "--quantize", "int8,dynamic,float16", "--images", "10000"]
    card, version = export(str(arguments.run), scratch, *options)
    size_px = json.loads((version / "model_card.json").read_text())["input"]["size_px"]
    peers = {name: Peer("engine.py", f"{version}:{name}") for name in card}
    rates = measured(peers, 1, size_px, arguments, scratch)
    rates[OURS] = rates.pop(SAVED_MODEL)
    title = f"{arguments.run.name} at {size_px} px, its / ours"
    float32 = [name for name in rates if "-" not in name and name != OURS]
    report_formats(title, rates, float32, 1.6)
    report_formats(title, rates, [name for name in rates if name.endswith("int8")], 2.3)
    report_formats(title, rates, [name for name in rates if name.endswith(("c", "16"))], None)
    print(f"\n{'':34}{'MB':>8}{'top-1':>8}{'agreement':>11}{'n':>7}")
    for name, row in card.items():
        print(
            f"{name:34}{row['bytes'] / 1e6:>8.1f}{row['top1']:>8.3f}{row['agreement']:>11.3f}"
            f"{row['images']:>7}"
        )


def export(source: str, scratch: Path, *options: str) -> tuple[dict, Path]:
    """Exports a network; gives its formats, as the card tells them, and its folder."""
    out = scratch / "models" / Path(source).name
    command = [sys.executable, "-m", "pipelines.export", source, "--out", out, "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result = json.loads(done.stdout)
    return result["formats"], Path(result["saved_model"])


def size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measured(
    peers: dict[str, Peer], batch: int, size_px: int, arguments: argparse.Namespace, scratch: Path
) -> Rates:
    """Images a second of each peer, a value a round; peers that do not start are left out."""
    with ExitStack() as children:
        started = {}
        for name, peer in peers.items():
            python = arguments.python.get(peer.script.partition("_")[0], sys.executable)
            numbers = [batch, IMAGES_A_PASS, size_px]
            command = [python, PEERS / peer.script, peer.model, *numbers]
            try:
                started[name], _ = turns.start(command, scratch / "log", children)
            except RuntimeError as error:
                print(f"skipped: {name} ({error})", flush=True)
        rates = {name: [] for name in started}
        for _ in range(arguments.rounds):
            for name, process in started.items():
                turn = turns.turn(process)
                rates[name].append(turn["images"] / turn["wall_s"])
    return rates


def report(title: str, rates: Rates, peers: dict[str, Peer]) -> None:
    """Our SavedModel, and the ratio of ours to each of the others."""
    head(title)
    for name, peer in peers.items():
        if name in rates:
            row(name, rates[name], rates[OURS], rates[name], peer.goal)


def report_formats(title: str, rates: Rates, names: list[str], goal: float | None) -> None:
    """The ratio of each of our other formats to our SavedModel; the goal is the fastest one's."""
    head(title)
    row(OURS, rates[OURS], rates[OURS], rates[OURS], None)
    fastest = max(names, key=lambda name: statistics.median(rates[name]))
    for name in names:
        row(name, rates[name], rates[name], rates[OURS], goal if name == fastest else None)


def head(title: str) -> None:
    print(f"\n{title:34}{'images/s':>10}{'spread':>20}{'ratio':>8}{'spread':>14}{'goal':>6}")


def row(
    name: str, rate: list[float], upper: list[float], lower: list[float], goal: float | None
) -> None:
    ratio = [a / b for a, b in zip(upper, lower, strict=True)]
    print(
        f"{name:34}{statistics.median(rate):>10.1f}{spread(rate):>20}"
        f"{statistics.median(ratio):>8.2f}{spread(ratio):>14}"
        f"{'' if goal is None else format(goal, '.2f'):>6}",
        flush=True,
    )


def spread(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    main()
