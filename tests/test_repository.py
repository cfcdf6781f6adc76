"""The folder of models while it changes: who is served, and who is answered meanwhile."""

import gc
import shutil
import threading
import weakref

import colour_model
import pytest
from served import ask, one_colour, serving, until

from pipelines.config import ServeConfig
from pipelines.errors import BadInput
from pipelines.serving.observing import Metrics
from pipelines.serving.server import open_models

RED = one_colour((255, 0, 0))
NEXT = ("rouge", "vert", "bleu")


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A version in English, one in French, and one that is torn."""
    folder = tmp_path_factory.mktemp("versions")
    colour_model.write(folder / "english")
    colour_model.write(folder / "french", NEXT)
    shutil.copytree(folder / "french", folder / "torn")
    for file in (folder / "torn" / "variables").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    (folder / "torn" / "saved_model.pb").write_bytes(
        (folder / "torn" / "saved_model.pb").read_bytes()[:5000]
    )
    return folder


@pytest.fixture
def models(versions, tmp_path):
    put(versions / "english", tmp_path / "colour" / "1")
    return tmp_path


def put(version, path):
    """Publishes a version as the export does: beside, and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(version, path.with_name(f".partial-{path.name}")).rename(path)


def states(server):
    rows = ask(f"{server}/v1/models/colour").body["model_version_status"]
    return {row["version"]: row["state"] for row in rows}


class Hammer:
    """Clients that ask without a pause, and what they were answered."""

    def __init__(self, url, clients):
        self.answers = []
        self._url = url
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self):
        while not self._done.is_set():
            answer = ask(self._url, RED)
            row = answer.body["predictions"][0] if answer.status == 200 else answer.body
            self.answers.append((answer.status, row.get("class"), answer.body.get("version")))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        for thread in self._threads:
            thread.join()


def test_a_version_published_under_load_takes_over_and_no_request_fails(models, versions):
    with serving(models) as url, Hammer(f"{url}/classify/colour", clients=8) as hammer:
        until(lambda: len(hammer.answers) > 50)
        put(versions / "french", models / "colour" / "2")
        until(lambda: states(url) == {"2": "AVAILABLE"})
        seen = len(hammer.answers)
        until(lambda: len(hammer.answers) > seen + 50)
    assert set(hammer.answers) == {(200, "red", 1), (200, "rouge", 2)}
    assert all(answer == (200, "rouge", 2) for answer in hammer.answers[-40:])


def test_a_version_that_does_not_load_leaves_the_old_one_serving_and_says_why(models, versions):
    with serving(models) as url, Hammer(f"{url}/classify/colour", clients=2) as hammer:
        put(versions / "torn", models / "colour" / "2")
        until(lambda: states(url) == {"2": "END", "1": "AVAILABLE"})
        row = ask(f"{url}/v1/models/colour").body["model_version_status"][0]
        assert row["status"]["error_code"] not in ("OK", "")
        assert row["status"]["error_message"].startswith(f"cannot load {models}/colour/2: ")
        assert ask(f"{url}/v1/models/colour/versions/2").status == 404
        assert ask(f"{url}/v2/health/ready").status == 200
        put(versions / "french", models / "colour" / "3")
        until(lambda: states(url) == {"3": "AVAILABLE"})
    assert set(hammer.answers) <= {(200, "red", 1), (200, "rouge", 3)}


def test_a_version_that_is_copied_file_by_file_is_served_when_it_is_whole(models, versions):
    with serving(models) as url:
        half = models / "colour" / "2"
        shutil.copytree(versions / "torn", half)
        until(lambda: "2" in states(url))
        shutil.copytree(versions / "french", half, dirs_exist_ok=True)
        until(lambda: states(url) == {"2": "AVAILABLE"})


def test_removing_a_version_takes_the_one_before_back(models, versions):
    put(versions / "french", models / "colour" / "2")
    with serving(models) as url:
        assert states(url) == {"2": "AVAILABLE"}
        shutil.rmtree(models / "colour" / "2")
        until(lambda: states(url) == {"1": "AVAILABLE"})
        assert ask(f"{url}/classify/colour", RED).body["predictions"][0]["class"] == "red"


def test_models_come_and_go(models, versions):
    with serving(models) as url:
        put(versions / "french", models / "couleur" / "7")
        until(lambda: ask(f"{url}/v1/models/couleur").status == 200)
        shutil.rmtree(models / "couleur")
        until(lambda: ask(f"{url}/v1/models/couleur").status == 404)
        assert ask(f"{url}/classify/colour", RED).status == 200


def test_several_versions_and_those_with_a_label_are_served_side_by_side(models, versions):
    for number in ("2", "10"):
        put(versions / "french", models / "colour" / number)
    labels = models / "colour" / "version_labels.yaml"
    labels.write_text("old: 1\n")
    with serving(models) as url:
        assert states(url) == {"10": "AVAILABLE", "1": "AVAILABLE"}
        old = ask(f"{url}/v1/models/colour/labels/old").body["model_version_status"]
        assert [row["version"] for row in old] == ["1"]
        labels.write_text("old: [1")
        put(versions / "french", models / "other" / "1")
        until(lambda: ask(f"{url}/v1/models/other").status == 200)
        assert ask(f"{url}/v1/models/colour/labels/old").status == 200
        labels.write_text("old: 2\n")
        until(lambda: states(url) == {"10": "AVAILABLE", "2": "AVAILABLE"})
    with serving(models, versions=3) as url:
        assert set(states(url)) == {"10", "2", "1"}


def test_a_version_that_is_replaced_under_its_own_number_is_served_as_it_is_now(models, versions):
    def answer():
        return ask(f"{url}/classify/colour", RED).body["predictions"][0]["class"]

    with serving(models) as url:
        assert answer() == "red"
        shutil.rmtree(models / "colour" / "1")
        put(versions / "french", models / "colour" / "1")
        until(lambda: answer() == "rouge")
        shutil.copytree(versions / "torn", models / "colour" / "1", dirs_exist_ok=True)
        said = f"{url}/v1/models/colour/versions/1"
        until(lambda: "cannot load" in str(ask(said).body))
        (row,) = ask(said).body["model_version_status"]
        assert row["state"] == "AVAILABLE"
        assert answer() == "rouge"


def test_a_version_that_is_gone_leaves_no_memory_and_no_metrics(models, versions):
    metrics = Metrics()
    repository = open_models(ServeConfig(models), metrics)
    first = weakref.ref(repository.latest("colour").explain)
    held = repository.latest("colour")
    put(versions / "french", models / "colour" / "2")
    gc.disable()
    try:
        repository.refresh()
        collected = gc.get_stats()[2]["collections"]
        repository.refresh()
        assert gc.get_stats()[2]["collections"] == collected
        del held
        assert first() is None
        repository.refresh()
        assert gc.get_stats()[2]["collections"] == collected + 1
    finally:
        gc.enable()
    served = [
        sample.labels["version"]
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if "version" in sample.labels
    ]
    assert set(served) == {"2"}


@pytest.mark.parametrize("text", [b"stable: [1", b"\xff\xfe", b"stable: one"])
def test_a_model_whose_labels_cannot_be_read_at_the_start_is_served_without(models, text, caplog):
    (models / "colour" / "version_labels.yaml").write_bytes(text)
    repository = open_models(ServeConfig(models), Metrics())
    assert repository.latest("colour").number == 1
    (said,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert "version_labels.yaml" in said.facts["error"]


def test_a_folder_in_which_nothing_loads_is_refused(versions, tmp_path):
    put(versions / "torn", tmp_path / "colour" / "1")
    with (
        pytest.raises(BadInput, match=r"cannot load .*colour/1: .*export it again"),
        serving(tmp_path),
    ):
        pass


def test_a_model_that_does_not_load_beside_one_that_does(models, versions):
    put(versions / "torn", models / "broken" / "1")
    with serving(models) as url:
        assert ask(f"{url}/classify/colour", RED).status == 200
        answer = ask(f"{url}/classify/broken", RED)
        assert answer.status == 404
        assert "GET /v1/models/broken says why" in answer.body["error"]
        assert ask(f"{url}/v2/models/broken/ready").status == 404
        assert ask(f"{url}/v2/health/ready").status == 200
        assert ask(f"{url}/v2/health/live").status == 200


def test_an_engine_that_was_not_exported_is_refused(models):
    refusal = pytest.raises(BadInput, match=r"colour/1' has no verified 'onnx'")
    with refusal, serving(models, engine="onnx"):
        pass
