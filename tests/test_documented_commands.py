"""Every command that is documented runs as it stands, page by page, or is listed with its reason.

What a command names and none before it made (`data/tiny`, `runs/a`, `photograph.jpg`) is put into
its page's workplace: small stand-ins, of generated pictures. Options that are appended, the later
ones winning, make a command cheap.
"""

import ast
import configparser
import contextlib
import importlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from documented import REPOSITORY, Command, documented
from isolation import isolated
from photographs import photograph

CLASSES = ("goldfish", "crane", "tabby", "teapot")
AN_EPOCH = "--stop_after_epochs 1 --global_batch_size 8"
FEW_IMAGES = f"{AN_EPOCH} --train_split train[:8] --validation_split validation[:4]"
SERVER_LOG = "server.log"
# A name in capitals or dots that are to be filled in, or no argument where one is needed.
PATTERN = re.compile(r"python -m (keras_zoo|pipelines\.export|.*(\b[A-Z]{3,}\b|\.\.\.).*)$")


class Run(NamedTuple):
    """How a command is run on its page.

    Args:
        options: appended.
        status: the exit status.
        says: what is in the output.
        answers: of a server, the command that succeeds once it is there. The server is stopped by
            SIGTERM when its page ends.
    """

    options: str = ""
    status: int = 0
    says: str = ""
    answers: str = ""


class Quick(NamedTuple):
    """Run in the default suite, with nothing before it."""


class Listed(NamedTuple):
    """Not run, and why; `check` takes the command and fails where it cannot be right."""

    reason: str
    check: Callable[[str], None]


def is_shell(command: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def is_target(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "-n"], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr


def is_executable(command: str) -> None:
    assert os.access(REPOSITORY / command, os.X_OK)


def names_extras(command: str) -> None:
    """`pip install -e '.[EXTRA,...]'`."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    *_, package = shlex.split(command)
    assert set(package.removeprefix(".[").removesuffix("]").split(",")) <= set(
        setup["options.extras_require"]
    )


def sets_json(command: str) -> None:
    """`NAME=JSON`."""
    (assignment,) = shlex.split(command)
    json.loads(assignment.partition("=")[2])


def is_python(program: str) -> None:
    ast.parse(program)


def is_accepted(command: str) -> None:
    """`python -m MODULE ...`, and the arguments make a config."""
    assert _exit_status(command, "--print_config") == 0


def is_described(command: str) -> None:
    """`python -m MODULE ... --option ...`, and the help has all options."""
    named = re.match(r"python -m [\w.]+( [a-z][\w/]*)*", command)[0]
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert _exit_status(named, "--help") == 0
    for option in re.findall(r" (--[\w.]+)", command):
        assert option in told.getvalue()


def is_manifest(text: str) -> None:
    """YAML, in which a container's command is one that is accepted."""
    for document in yaml.safe_load_all(text):
        for words in _containers(document):
            is_accepted(shlex.join(words).replace("$(JOB_COMPLETION_INDEX)", "0"))


def _containers(tree: object) -> Iterator[list[str]]:
    if isinstance(tree, dict):
        if "command" in tree:
            yield [*tree["command"], *tree["args"]]
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _containers(branch)


def _exit_status(command: str, option: str) -> int:
    """Of `python -m MODULE ... --option`, in this process; argparse leaves where it has helped."""
    _, _, module, *arguments = shlex.split(command)
    package = (REPOSITORY / module.replace(".", "/")).is_dir()
    main = importlib.import_module(f"{module}.__main__" if package else module).main
    try:
        return main([*arguments, option])
    except SystemExit as ended:
        return ended.code or 0


# The first that fits a command counts; what none fits is run as it stands.
TABLE: dict[str, Run | Quick | Listed] = {
    "make *": Listed("makes what is run here, and more", is_target),
    ".ci/run": Listed("runs all tests", is_executable),
    "source .venv/bin/activate": Listed("the tests run in that environment", is_shell),
    "pip install -e *": Listed("needs a package index", names_extras),
    "pip install 'ray*": Listed("needs a package index", is_shell),
    "docker run *": Listed("needs Docker and an image", is_shell),
    "MODEL=* serve run *": Listed("needs Ray", is_shell),
    "curl * http://127.0.0.1:8000/": Listed("needs Ray's server", is_shell),
    "import subprocess*ray.train*": Listed("needs Ray", is_python),
    "export WORKERS=*": Listed("needs Slurm", is_shell),
    "srun *": Listed("needs Slurm", is_shell),
    "TF_CONFIG=*": Listed("is a part of two machines", sets_json),
    "python -m pipelines.train * --workers a:*": Listed("is a part of two machines", is_accepted),
    "python -m pipelines --config *demo.yaml": Listed("tests/test_workflow.py does", is_shell),
    "tensorboard --logdir *": Listed("is TensorBoard's own", is_shell),
    "* --precision bfloat16": Listed("needs a GPU", is_accepted),
    "python -m keras_zoo list*": Quick(),
    "python -m keras_zoo timeline *": Quick(),
    "python -m keras_zoo compare *": Quick(),
    '*weights="imagenet"*': Run(status=1, says="cannot download https://"),
    "* --init imagenet *": Run(AN_EPOCH, status=2, says="cannot download https://"),
    # The stand-in has fewer.
    "*@imagenet --data *": Run(status=2, says="tells 1,000 apart"),
    "python -m pipelines.benchmark input *": Run("--global_batch_size 8 --width 0.25"),
    "python -m pipelines.benchmark infer *": Run("--seconds 1"),
    "python -m pipelines compare *": Run(
        "--networks simple_cnn --train.stop_after_epochs 1 --train.global_batch_size 8"
    ),
    "python -m pipelines.train * --dry-run": Run(f"{AN_EPOCH} --width 0.25"),
    "python -m pipelines.train data/imagenet *": Run(f"{FEW_IMAGES} --width 0.25"),
    "python -m pipelines.train *": Run(AN_EPOCH),
    "python -m pipelines.export *": Run("--images 8"),
    "python -m tuning.search *": Run(
        "--max_trials 2 --train.epochs 2 --train.schedule.warmup_epochs 0 "
        "--train.input.size_px 32 --train.global_batch_size 8 --train.train_split train[:16]"
    ),
    "python -m pipelines.serve saved_models*": Run(
        answers="curl --retry 120 --retry-delay 1 --retry-connrefused http://127.0.0.1:8501/healthz"
    ),
    "python -m pipelines.data_service": Run(
        answers=f"timeout 120 sh -c 'until grep -q workers {SERVER_LOG}; do sleep 0.2; done'"
    ),
    "*features*photograph.jpg*8501*": Run(says="outputs"),
    "*photograph.jpg*8501*": Run(says=CLASSES[0]),
}
# What takes minutes is run on the first page that has it.
ONCE = (
    "python -m pipelines compare *",
    "python -m pipelines.benchmark infer *",
    "python -m tuning.search *",
    "python -m tuning.results *",
)


def _on_an_earlier_page(command: Command) -> bool:
    for fits in ONCE:
        if fnmatchcase(command.text, fits):
            first = next(one for one in documented() if fnmatchcase(one.text, fits))
            return first.page != command.page
    return False


def how(command: Command) -> Run | Quick | Listed:
    """What is done with a command."""
    if command.page.endswith(".yaml"):
        return Listed("tests/test_recipes.py and test_tuning.py go by every file", is_accepted)
    if command.page.endswith(".py") or PATTERN.match(command.text):
        return Listed("is a pattern, to be filled in", is_described)
    if command.language == "yaml":
        return Listed("is a manifest, or a file that is read", is_manifest)
    if _on_an_earlier_page(command):
        return Listed("an earlier page does", is_accepted)
    return next((row for fits, row in TABLE.items() if fnmatchcase(command.text, fits)), Run())


class Shell:
    """tests/page_shell.py, in a network of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / ".curlrc").write_text("silent\nshow-error\nfail\n")
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "CURL_HOME": str(folder),
            "KERAS_ZOO_CACHE": str(folder / "cache"),
            # Where a network of its own is not permitted, this one leads nowhere.
            "https_proxy": "http://127.0.0.1:9",
            "no_proxy": "127.0.0.1,localhost",
        }
        self._output = folder / "output"
        self._process = subprocess.Popen(
            isolated([sys.executable, str(REPOSITORY / "tests" / "page_shell.py")]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | environment,
        )

    def start(self, command: str, folder: Path, output: Path) -> int:
        """The process that begins a command."""
        return self._ask("start", str(folder), command, str(output))

    def run(self, command: str, folder: Path) -> tuple[int, str]:
        """The exit status, and all that was printed."""
        self._output.unlink(missing_ok=True)
        status = self._ask("wait", self.start(command, folder, self._output))
        return status, self._output.read_text()

    def end(self, process: int) -> int:
        """The exit status after SIGTERM."""
        return self._ask("end", process)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, *request: str | int) -> int:
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    shell = Shell(tmp_path_factory.mktemp("shell"))
    yield shell
    shell.close()


# What there is a stand-in for, and what else that needs.
STAND_INS = {
    "path/to/tiny-imagenet": (),
    "path/to/imagenet": (),
    "photograph.jpg": (),
    "photographs": (),
    "data/tiny": (),
    "data/imagenet": (),
    "data/b": (),
    "runs/tiny": ("data/tiny",),
    "runs/a": ("data/tiny",),
    "saved_models/tiny": ("data/tiny",),
}
# What a command writes stands behind one of these.
WRITES = ("--out", "--run", "--search", "--explain")


@pytest.fixture(scope="module")
def stand_ins(shell, tmp_path_factory):
    """The folder of all stand-ins, made by the commands that make such things."""
    folder = tmp_path_factory.mktemp("stand_ins")
    write_tiny_imagenet(folder / "path" / "to" / "tiny-imagenet")
    for number, name in enumerate(("photograph.jpg", "photographs/1.jpg", "photographs/2.jpg")):
        photograph(folder / name, number, (80, 60))
    for command in (
        "python -m pipelines.prepare path/to/tiny-imagenet --out data/tiny",
        "python -m pipelines.train data/tiny --recipe tiny_images --network resnet18 "
        f"--run runs/tiny {AN_EPOCH}",
        "python -m pipelines.export runs/tiny --out saved_models/tiny --format onnx --images 8",
    ):
        status, printed = shell.run(command, folder)
        assert status == 0, printed
    for original, copy in (
        ("path/to/tiny-imagenet", "path/to/imagenet"),
        ("data/tiny", "data/imagenet"),
        ("data/tiny", "data/b"),
        ("runs/tiny", "runs/a"),
    ):
        shutil.copytree(folder / original, folder / copy)
    (folder / "saved_models" / "tiny" / "version_labels.yaml").write_text("stable: 1\n")
    return folder


def write_tiny_imagenet(root: Path) -> None:
    """In its layout: `train/SYNSET/images`, and `val/images` with a table of their synsets."""
    synsets = [f"n{10_000_000 + number}" for number in range(len(CLASSES))]
    for number, synset in enumerate(synsets):
        for index in range(12):
            name = f"{synset}_{index}.JPEG"
            photograph(root / "train" / synset / "images" / name, 100 * number + index, (64, 64))
    truth = [(f"val_{index}.JPEG", synsets[index % len(synsets)]) for index in range(8)]
    for index, (name, _) in enumerate(truth):
        photograph(root / "val" / "images" / name, 1000 + index, (64, 64))
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"{name}\t{synset}\t0\t0\t62\t62\n" for name, synset in truth)
    )
    (root / "wnids.txt").write_text("".join(f"{synset}\n" for synset in synsets))
    rows = zip(synsets, CLASSES, strict=True)
    (root / "words.txt").write_text("".join(f"{synset}\t{word}\n" for synset, word in rows))


def put_what_it_reads(command: str, stand_ins: Path, folder: Path) -> None:
    """Copies the stand-ins that a command names to where they are not yet."""
    words = re.findall(r"[\w./@-]+", command)
    read = [word for before, word in itertools.pairwise(["", *words]) if before not in WRITES]
    for name, others in STAND_INS.items():
        if any(_names(word.lstrip("@"), name) for word in read):
            for needed in (name, *others):
                _copy(stand_ins / needed, folder / needed)


def _names(word: str, stand_in: str) -> bool:
    """`saved_models/tiny` is named by itself, by `saved_models` and by `saved_models/tiny/1`."""
    return f"{word}/".startswith(f"{stand_in}/") or stand_in.startswith(f"{word}/")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not target.exists():
        shutil.copytree(source, target)
    elif not target.exists():
        shutil.copyfile(source, target)


def story(page: str) -> Iterator[tuple[str, Run]]:
    """The commands of a page that are run, in its order; Python after the Python before it."""
    python = ""
    for command in documented():
        if command.page == page and isinstance(row := how(command), Run):
            if command.language == "python":
                python += command.text
                yield f"python - <<'END'\n{python}END", row
            else:
                yield command.text, row


STORIES = sorted({command.page for command in documented() if isinstance(how(command), Run)})


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("page", STORIES)
def test_a_page_works_from_top_to_bottom(page, shell, stand_ins, tmp_path):
    with contextlib.ExitStack() as servers:
        for command, row in story(page):
            put_what_it_reads(command, stand_ins, tmp_path)
            ran = f"{command} {row.options}".strip()
            if row.answers:
                process = shell.start(ran, tmp_path, tmp_path / SERVER_LOG)
                servers.callback(_end_well, shell, process, ran)
                ran = row.answers
            status, printed = shell.run(ran, tmp_path)
            assert status == row.status, f"{ran}\n{printed}"
            assert row.says in printed, f"{ran}\n{printed}"


def _end_well(shell: Shell, process: int, command: str) -> None:
    assert shell.end(process) == 0, command


def test_what_takes_a_moment_is_run(command, tmp_path):
    for documented_command in documented():
        if isinstance(how(documented_command), Quick):
            _, _, *arguments = shlex.split(documented_command.text)
            done = command(*arguments, cwd=tmp_path)
            assert done.returncode == 0, done.stderr


def test_what_is_not_run_could_be_right():
    for command in documented():
        if isinstance(row := how(command), Listed):
            row.check(command.text)


def test_every_row_of_the_table_is_that_of_a_command():
    texts = [command.text for command in documented()]
    assert [fits for fits in TABLE if not any(fnmatchcase(text, fits) for text in texts)] == []
