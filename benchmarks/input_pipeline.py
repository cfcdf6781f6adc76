"""Images a second of this project's input pipeline, beside others on the same files in one run.

    python benchmarks/input_pipeline.py FOLDER [--python NAME=PYTHON ...]

FOLDER has class folders of photographs. Every pipeline starts in a process of its own, and then
they take turns, `--rounds` times; those whose turn it is not are stopped (SIGSTOP), and what one
had prepared before its turn is thrown away before the clock starts. Reported are medians, their
spread, and the ratio of ours to each, round by round; beside it how faithful the resize is: PSNR
against Pillow's antialiased bilinear, median over crops that shrink 1 to 2 times. A peer that does
not start is skipped by name; `--python NAME=PYTHON` runs one with the interpreter of another
environment. Peers are measured as they ship: the float32 ones pay for normalising. The first batch
is timed from the start of the process, imports included; memory is what the process grew by
between opening the stream and that batch, the shuffle buffer included.

Ours also runs on 1,000, 10,000 and 100,000 records with the shuffle buffer that training has. They
are the same photographs over and over, their files hard links to the prepared ones: all are read
from memory, and what is measured is what many records cost, not a disk.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
import turns
from PIL import Image

from keras_zoo.quiet import native_messages_held_back
from pipelines.config import TrainConfig

PEERS = Path(__file__).parent / "input_peers"
AUGMENTED = (
    "--augment.policy=randaugment",
    "--augment.erasing_probability=0.25",
    "--augment.mixup_alpha=0.2",
    "--augment.cutmix_alpha=1",
)
# Name: script and arguments, and what ours is compared with it.
PIPELINES = {
    "ours": ("ours.py", ()),
    "ours, augmented": ("ours.py", AUGMENTED),
    "limit": ("limit.c", ()),
    "flax": ("flax_sequence.py", ()),
    "model garden": ("model_garden_sequence.py", ()),
    "torchvision": ("torchvision_v2.py", ()),
    "keras": ("keras_layers.py", ()),
    "dali": ("dali_cpu.py", ()),
    "grain": ("grain_cv2.py", ()),
    "ours, evaluation": ("ours_evaluation.py", ()),
    "torchvision, evaluation": ("torchvision_evaluation.py", ()),
}
# Ours on so many records of one larger data set.
RECORDS = {
    "ours, 1k records": 1_000,
    "ours, 10k records": 10_000,
    "ours, 100k records": 100_000,
}
SHUFFLE_BUFFER = TrainConfig.shuffle_buffer
WITH_WORKERS = {"torchvision_v2.py", "torchvision_evaluation.py", "grain_cv2.py"}
# Numerator, denominator, the least it should be.
RATIOS = (
    ("ours", "limit", 0.75),
    ("ours", "flax", 2.0),
    ("ours", "model garden", 2.0),
    ("ours", "torchvision", 2.0),
    ("ours", "keras", 3.5),
    ("ours", "dali", 1.3),
    ("ours", "grain", 1.3),
    ("ours, augmented", "ours", 0.6),
    ("ours, evaluation", "torchvision, evaluation", 1.5),
    ("ours, 10k records", "ours, 1k records", 0.95),
    ("ours, 100k records", "ours, 1k records", 0.95),
)


def main() -> None:
    arguments = parse_arguments()
    # Those that are stopped would stay for ever.
    turns.end_children_with_this_process()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as children:
        scratch, files = Path(folder), jpegs(arguments.folder)
        prepared, repeated, crops = (scratch / name for name in ("prepared", "many", "crops.npz"))
        subprocess.run(
            [
                *(sys.executable, "-m", "pipelines.prepare", arguments.folder),
                *("--out", prepared, "--holdout_fraction", "0.01"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with native_messages_held_back():
            record_mib = repeat(prepared, repeated, max(RECORDS.values()))
        save_crops(files, crops)
        peers, starts = {}, {}
        for name, (script, extra) in (PIPELINES | larger(repeated)).items():
            if arguments.only and name not in arguments.only:
                continue
            python = arguments.python.get(name, sys.executable)
            settings = [arguments.folder, prepared, str(arguments.images), crops, *extra]
            try:
                peers[name], starts[name] = start(
                    script, python, settings, files, scratch, children
                )
            except RuntimeError as error:
                print(f"skipped: {name} ({error})", flush=True)
        passes = {name: [] for name in peers}
        for _ in range(arguments.rounds):
            for name, peer in peers.items():
                passes[name].append(turns.turn(peer))
    report(passes, starts, arguments.images)
    if starts.keys() & RECORDS.keys():
        report_shuffle(starts, record_mib)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1024, help="images a pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*PIPELINES, *RECORDS],
        metavar="NAME",
        help="only the pipelines so named; all unless given",
    )
    arguments = parser.parse_args()
    arguments.python = dict(pair.split("=", 1) for pair in arguments.python)
    return arguments


def repeat(prepared: Path, out: Path, records: int) -> float:
    """A data set of at least so many records, the prepared ones over and over; MiB of a record."""
    builder = tfds.builder_from_directory(prepared)
    train = builder.info.splits["train"]
    times = -(-records // train.num_examples)
    out.mkdir()
    files = sorted(Path(file) for file in train.filepaths)
    for number, file in enumerate(files * times):
        name = file.name.partition(".tfrecord-")[0]
        os.link(file, out / f"{name}.tfrecord-{number:05d}-of-{len(files) * times:05d}")
    mib = sum(file.stat().st_size for file in files) / 2**20
    # TFDS reports on standard output.
    with redirect_stdout(io.StringIO()):
        tfds.folder_dataset.write_metadata(
            data_dir=out,
            features=builder.info.features,
            split_infos=[
                tfds.core.SplitInfo(
                    name="train",
                    shard_lengths=list(train.shard_lengths) * times,
                    num_bytes=int(mib * 2**20) * times,
                )
            ],
        )
    return mib / train.num_examples


def larger(data: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Rows like those of `PIPELINES`: ours on the first records of a larger data set."""
    return {
        name: (
            "ours.py",
            (
                f"--data={data}",
                f"--train_split=train[:{records}]",
                f"--shuffle_buffer={SHUFFLE_BUFFER}",
            ),
        )
        for name, records in RECORDS.items()
    }


def jpegs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))


def save_crops(files: list[Path], out: Path) -> None:
    """Square crops of photographs that shrink 1 to 2 times, and what Pillow makes of them."""
    rng, arrays = np.random.default_rng(0), {}
    for path in files:
        image = Image.open(path).convert("RGB")
        side = int(224 * rng.uniform(1, 2))
        if min(image.size) < side or len(arrays) >= 64:
            continue
        left, top = (int(rng.integers(length - side + 1)) for length in image.size)
        crop = image.crop((left, top, left + side, top + side))
        number = len(arrays) // 2
        arrays[f"crop{number}"] = np.asarray(crop)
        arrays[f"pillow{number}"] = np.asarray(crop.resize((224, 224), Image.Resampling.BILINEAR))
    np.savez(out, **arrays)


def start(
    script: str,
    python: str,
    settings: list,
    files: list[Path],
    scratch: Path,
    children: ExitStack,
) -> tuple[subprocess.Popen, dict]:
    """A pipeline that waits for a line, and what it said at its start.

    Ends, with its own children, when `children` closes.

    Raises:
        RuntimeError: it did not start.
    """
    if script.endswith(".c"):
        return start_limit(PEERS / script, settings, files, scratch, children)
    began_s = time.time()
    peer, said = turns.start([python, PEERS / script, *settings], scratch / "log", children)
    return peer, said | {"first_batch_s": said["first_batch_at_s"] - began_s}


def start_limit(
    source: Path, settings: list, files: list[Path], scratch: Path, children: ExitStack
) -> tuple[subprocess.Popen, dict]:
    """Compiles the C program and hands it the files."""
    program = scratch / "limit"
    flags = ["-O3", "-march=native", "-ffast-math", "-pthread"]
    try:
        subprocess.run(
            ["cc", *flags, source, "-o", program, "-ljpeg", "-lm"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"cc and libjpeg-turbo's header are needed: {error}") from error
    crops = np.load(settings[3])
    errors = []
    for number in range(len(crops.files) // 2):
        crop = crops[f"crop{number}"]
        size = [str(side) for side in crop.shape[:2]]
        done = subprocess.run(
            [program, "resize", *size], input=crop.tobytes(), stdout=subprocess.PIPE, check=True
        )
        ours = np.frombuffer(done.stdout, np.uint8).reshape(224, 224, 3).astype(np.float64)
        errors.append(np.mean((ours - crops[f"pillow{number}"]) ** 2))
    threads = str(len(os.sched_getaffinity(0)))
    peer = turns.launch([program, threads, settings[2]], scratch / "log", children)
    for path in files:
        print(path, file=peer.stdin)
    print(file=peer.stdin, flush=True)
    psnr_db = float(np.median(10 * np.log10(255**2 / np.maximum(errors, 1e-4))))
    return peer, {"first_batch_s": None, "grown_mib": None, "psnr_db": psnr_db}


def report(passes: dict[str, list[dict]], starts: dict[str, dict], images: int) -> None:
    print(
        f"{'pipeline':26}{'images/s':>10}{'spread':>14}{'/CPU-s':>8}{'first batch':>13}"
        f"{'memory':>11}{'PSNR':>9}"
    )
    rates = {
        name: [images / one["wall_s"] for one in measured] for name, measured in passes.items()
    }
    for name, rate in rates.items():
        begun = starts[name]
        spread = f"{min(rate):.0f} to {max(rate):.0f}"
        # Worker processes are not in their parent's time and memory.
        alone = PIPELINES.get(name, PIPELINES["ours"])[0] not in WITH_WORKERS
        busy = statistics.median(images / one["cpu_s"] for one in passes[name])
        cpu = f"{busy:.0f}" if alone else "-"
        memory = f"{begun['grown_mib']:,.0f} MiB" if alone and begun["grown_mib"] else "-"
        fidelity = f"{begun['psnr_db']:.1f} dB" if begun["psnr_db"] else "-"
        first = f"{begun['first_batch_s']:.1f} s" if begun["first_batch_s"] else "-"
        print(
            f"{name:26}{statistics.median(rate):>10.0f}{spread:>14}{cpu:>8}{first:>13}"
            f"{memory:>11}{fidelity:>9}"
        )
    print(f"\n{'ratio':42}{'median':>8}{'spread':>16}{'goal':>6}")
    for above, below, goal in RATIOS:
        if above in rates and below in rates:
            ratio = [a / b for a, b in zip(rates[above], rates[below], strict=True)]
            spread = f"{min(ratio):.2f} to {max(ratio):.2f}"
            median = statistics.median(ratio)
            print(f"{above + ' / ' + below:42}{median:>8.2f}{spread:>16}{goal:>6.2f}")


def report_shuffle(starts: dict[str, dict], record_mib: float) -> None:
    """What the shuffle buffer holds once it is full, beside what the process grew by."""
    print(f"\n{'shuffle buffer':26}{'records':>10}{'encoded':>14}{'process grew by':>17}")
    for name, records in RECORDS.items():
        if name in starts:
            held = min(records, SHUFFLE_BUFFER)
            encoded, grown = f"{held * record_mib:,.0f} MiB", starts[name]["grown_mib"]
            print(f"{name:26}{held:>10,}{encoded:>14}{grown:>13,.0f} MiB")


if __name__ == "__main__":
    main()
