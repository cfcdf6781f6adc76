"""A whole evaluation: against independent computations, and whatever the batch."""

import csv
import io
import itertools
import json
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from scipy.special import softmax
from sklearn import metrics as peers

from keras_zoo import InputSpec
from pipelines.config import EvaluateConfig
from pipelines.data.streams import encoded_images, evaluation_stream, open_dataset
from pipelines.errors import BadInput, Failed
from pipelines.evaluation.classifiers import Classifier
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.metrics import (
    Figures,
    calibration,
    calibration_error,
    class_accuracies,
    confusion,
    mean_interval,
    most_confused,
    wilson_interval,
)
from pipelines.evaluation.predictions import Answers, answers
from pipelines.training.checkpoints import model_file
from pipelines.training.run import Run

CLASSES = 12
NAMES = [f"class {number}" for number in range(CLASSES)]


@pytest.fixture(scope="module")
def probabilities():
    return np.random.default_rng(0).dirichlet(np.full(CLASSES, 0.3), 400)


@pytest.fixture(scope="module")
def labels(probabilities):
    """The most probable class of half of the images, and any for the others; none is of class 7."""
    random = np.random.default_rng(1)
    drawn = np.where(
        random.random(400) < 0.5, probabilities.argmax(axis=1), random.integers(0, CLASSES, 400)
    )
    return np.where(drawn == 7, 8, drawn)


@pytest.fixture(scope="module")
def given(probabilities, labels):
    return Answers.of(probabilities, labels)


def test_the_figures_are_those_of_scikit_learn(given, probabilities, labels):
    figures = Figures.of(given)
    for k, top in ((1, figures.top1), (5, figures.top5)):
        theirs = peers.top_k_accuracy_score(labels, probabilities, k=k, labels=range(CLASSES))
        assert top == pytest.approx(theirs)
    theirs = peers.log_loss(labels, probabilities, labels=range(CLASSES))
    assert figures.loss == pytest.approx(theirs, rel=1e-6)
    matrix = confusion(given, CLASSES)
    theirs = peers.confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(CLASSES))
    np.testing.assert_array_equal(matrix, theirs)


def test_the_accuracy_of_a_class_is_its_recall(given, probabilities, labels):
    classes = class_accuracies(given, NAMES)
    present = [each for each in classes if each.n]
    recalls = peers.recall_score(
        labels, probabilities.argmax(axis=1), labels=[each.label for each in present], average=None
    )
    np.testing.assert_allclose([each.accuracy for each in present], recalls)
    assert [each.n for each in classes] == np.bincount(labels, minlength=CLASSES).tolist()
    assert (classes[7].n, classes[7].accuracy, classes[7].interval) == (0, None, None)


def test_the_table_has_the_rank_and_the_first_five_of_each_image(given, probabilities, labels):
    order = np.argsort(-probabilities, axis=1)
    ranks = 1 + (order == labels[:, np.newaxis]).argmax(axis=1)
    table = given.table([f"{row}.png" for row in range(400)], NAMES).to_pydict()
    assert table["rank"] == ranks.tolist()
    assert table["class"] == [NAMES[label] for label in labels]
    assert table["top5_label"] == order[:, 4].tolist()
    np.testing.assert_allclose(table["top2_probability"], np.sort(probabilities, axis=1)[:, -2])
    np.testing.assert_allclose(table["loss"], -np.log(probabilities[range(400), labels]))


def test_ties_are_broken_against_the_label():
    """So a constant network earns nothing, and each of its answers is another class."""
    constant = Answers.of(np.full((10, 10), 0.1), np.arange(10))
    assert constant.rank.tolist() == [10] * 10
    assert not constant.correct.any()
    assert (constant.top_ids != np.arange(10)[:, np.newaxis]).all()
    half = Answers.of(np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]]), np.array([1, 0]))
    assert half.rank.tolist() == [2, 3]
    assert half.top_ids.tolist() == [[0, 1, 2], [1, 2, 0]]


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (7, 10), (10, 10), (623, 1000), (1, 1)])
def test_an_interval_of_a_share_is_wilsons(correct, n):
    """The shares from which what was found lies no more than 1.96 standard deviations away."""
    z = 1.959963984540054
    share = correct / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    expected = max(0, centre - reach), min(1, centre + reach)
    np.testing.assert_allclose(wilson_interval(correct, n), expected, atol=1e-12)


def test_an_interval_of_a_mean_is_students():
    """Of two values, whose mean is off by 12.706 times half their distance."""
    interval = mean_interval(np.array([1.0, 3.0]))
    assert interval == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert mean_interval(np.array([1.0])) is None


def test_the_calibration_error_of_predictions_made_by_hand():
    """Ten answers of 0.8, six of them right; five of 0.55, four right; five of 1, all right."""
    confidences = np.array([0.8] * 10 + [0.55] * 5 + [1.0] * 5)
    right = [True] * 6 + [False] * 4 + [True] * 4 + [False] + [True] * 5
    rest = 1 - confidences
    answers = Answers.of(np.stack([confidences, rest], axis=1), np.where(right, 0, 1))
    bins = calibration(answers)
    assert len(bins) == 15
    filled = {index: each for index, each in enumerate(bins) if each.n}
    assert list(filled) == [8, 11, 14]
    assert [each.n for each in filled.values()] == [5, 10, 5]
    assert [each.accuracy for each in filled.values()] == [0.8, 0.6, 1.0]
    assert calibration_error(bins) == pytest.approx((5 * 0.25 + 10 * 0.2 + 0) / 20)


def test_the_calibration_error_is_that_of_its_definition(given, probabilities, labels):
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            expected += inside.sum() / 400 * gap
    assert Figures.of(given).calibration_error == pytest.approx(expected)


def test_what_is_confused_is_told_with_its_surest_examples():
    probabilities = np.full((9, 4), 0.1)
    labels, chosen = [0, 0, 0, 0, 1, 1, 2, 3, 3], [2, 2, 2, 0, 3, 1, 2, 1, 1]
    probabilities[range(9), chosen] = [0.5, 0.7, 0.6, 0.9, 0.5, 0.6, 0.7, 0.3, 0.4]
    given = Answers.of(probabilities, np.array(labels))
    images = [f"{row}.png" for row in range(9)]
    first, second, third = most_confused(given, list("abcd"), images, pairs=10)
    assert (first.label, first.answer, first.images, first.of) == ("a", "c", 3, 4)
    assert first.examples == ["1.png", "2.png", "0.png"]
    assert (second.label, second.answer, second.examples) == ("d", "b", ["8.png", "7.png"])
    assert (third.label, third.answer, third.images, third.of) == ("b", "d", 1, 2)
    assert len(most_confused(given, list("abcd"), images, pairs=1)) == 1


def test_the_probabilities_of_ten_crops_are_averaged(digits):
    """A linear network on the digits, whose crops NumPy cuts out of what Pillow decodes."""
    spec = InputSpec(24, crop_fraction=0.75, channels="L", mean=(0.0,), std=(1.0,))
    weights = np.random.default_rng(0).normal(scale=0.002, size=(24 * 24, 10))

    def network(pixels):
        return softmax(pixels.reshape(-1, 24 * 24).astype(float) @ weights, axis=1)

    dataset = open_dataset(digits)
    stream = evaluation_stream(dataset, "validation", spec, 50, "ten_crops")
    given = answers(network, stream.as_numpy_iterator())
    expected = []
    for encoded in encoded_images(dataset, "validation").as_numpy_iterator():
        whole = np.asarray(Image.open(io.BytesIO(encoded)))
        views = []
        for top, left in [*itertools.product((0, 8), (0, 8)), (4, 4)]:
            crop = whole[top : top + 24, left : left + 24]
            views += [crop, crop[:, ::-1]]
        logits = np.stack(views).reshape(10, -1) @ weights
        expected.append((np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).mean(axis=0))
    expected = np.stack(expected)
    assert len(given) == len(expected) == 356
    np.testing.assert_array_equal(given.answer, expected.argmax(axis=1))
    np.testing.assert_allclose(given.confidence, expected.max(axis=1), rtol=1e-9)
    np.testing.assert_allclose(given.probability, expected[range(356), given.label], rtol=1e-9)


def test_a_network_whose_answers_are_no_numbers_is_broken():
    batch = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), np.array([True, True])
    with pytest.raises(Failed, match="probabilities that are no numbers"):
        answers(lambda pixels: np.full((len(pixels), 3), np.nan), [batch])


def test_the_result_does_not_depend_on_the_batch_size(run):
    results = {
        (e.n, e.top1, e.top5)
        for e in (evaluate(EvaluateConfig(run, batch_size=size)) for size in (1, 7, 64, 1000))
    }
    metrics = Run.open(run).metrics()
    assert results == {(metrics["n"], metrics["top1"], metrics["top5"])}


@pytest.mark.parametrize("engine", ["savedmodel", "onnx", "litert", "openvino"])
def test_an_exported_model_is_measured_as_the_run_is(written, compressed, engine):
    _, trained = written
    for batch_size in (7, 64):
        given = evaluate(
            EvaluateConfig(compressed.saved_model, engine=engine, batch_size=batch_size)
        )
        assert (given.n, given.top1, given.top5) == (trained.n, trained.top1, trained.top5)
        assert given.loss == pytest.approx(trained.loss, rel=1e-4)
        assert (given.data, given.split) == (trained.data, trained.split)
        assert given.most_confused == trained.most_confused


def test_a_network_with_a_file_of_weights_is_measured_as_the_run_is(run, digits, written):
    weights = model_file(Run.open(run).checkpoint())
    given = evaluate(EvaluateConfig(f"simple_cnn@{weights}", data=digits))
    _, trained = written
    assert (given.n, given.top1, given.loss) == (trained.n, trained.top1, trained.loss)


def test_there_is_a_result_for_each_size_and_each_view(numbered, monkeypatch):
    """Of a network that always gives the same answer, the surer the smaller the image."""
    asked = []

    def network(spec):
        def answer(pixels):
            asked.append((spec.size_px, len(pixels)))
            return np.tile(softmax(np.arange(10) / spec.size_px), (len(pixels), 1))

        return answer

    names = [str(number) for number in range(10)]
    spec = InputSpec(16, crop_fraction=1.0)
    classifier = Classifier("it", spec, names, numbered, "validation", network, None, "next")
    monkeypatch.setattr("pipelines.evaluation.evaluate.open_classifier", lambda config: classifier)
    measured = evaluate(EvaluateConfig("x", sizes_px=(8, 12), views=("centre", "flip")))
    settings = [("centre", 8), ("flip", 8), ("centre", 12), ("flip", 12)]
    assert [(e.views, e.size_px) for e in (measured, *measured.others)] == settings
    assert set(asked) == {(8, 64), (8, 128), (12, 64), (12, 128)}
    for each in (measured, *measured.others):
        # Of the classes 0 to 9, of 25 or 26 images each, the last is always the answer.
        assert (each.n, each.top1) == (257, 25 / 257)
        logits = np.arange(10) / each.size_px
        losses = np.log(np.exp(logits).sum()) - logits[np.arange(257) % 10]
        assert each.loss == pytest.approx(losses.mean())
    lines = str(measured).splitlines()[2:6]
    assert [line.split()[:2] for line in lines] == [[views, str(px)] for views, px in settings]


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """What an evaluation leaves in its folder, and what it says."""
    out = tmp_path_factory.mktemp("evaluation") / "out"
    return out, evaluate(EvaluateConfig(run, views=("centre", "flip"), out=out))


def rows(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_figure_follows_from_the_predictions(written):
    out, measured = written
    predictions = [row for row in rows(out / "predictions.csv") if row["views"] == "centre"]
    assert len(predictions) == measured.n == len({row["image"] for row in predictions})
    ranks = np.array([int(row["rank"]) for row in predictions])
    assert (measured.top1, measured.top5) == ((ranks == 1).mean(), (ranks <= 5).mean())
    losses = [-np.log(float(row["probability"])) for row in predictions]
    assert measured.loss == pytest.approx(np.mean(losses))
    wrong = [row for row in predictions if row["label"] != row["top1_label"]]
    assert len(wrong) == (ranks > 1).sum()

    pairs = rows(out / "confusion.csv")
    assert sum(int(row["images"]) for row in pairs) == measured.n
    assert sum(int(row["images"]) for row in pairs if row["label"] != row["answer"]) == len(wrong)
    classes = rows(out / "per_class.csv")
    assert [int(row["n"]) for row in classes] == [
        sum(row["label"] == str(label) for row in predictions) for label in range(10)
    ]
    assert sum(int(row["correct"]) for row in classes) == (ranks == 1).sum()
    assert all(float(row["low"]) < float(row["accuracy"]) <= float(row["high"]) for row in classes)


def test_predictions_are_the_same_in_both_formats(written):
    out, _ = written
    as_text = rows(out / "predictions.csv")
    typed = parquet.read_table(out / "predictions.parquet").to_pylist()
    assert as_text[0].keys() == typed[0].keys()
    assert [row["image"] for row in as_text] == [row["image"] for row in typed]
    assert [float(row["loss"]) for row in as_text] == [row["loss"] for row in typed]


def test_what_is_printed_is_what_is_written(written):
    out, measured = written
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["top1"], metrics["n"], metrics["out"]) == (measured.top1, 356, str(out))
    assert sum(each["n"] for each in metrics["calibration"]) == 356
    assert metrics["others"][0]["views"] == "flip"
    assert f"{measured.top1:.4f} ({measured.top1_interval[0]:.4f}" in str(measured)


def test_charts_load_nothing_from_elsewhere(written):
    out, measured = written
    assert measured.most_confused
    for name in ("reliability", "per_class", "confusion"):
        root = ElementTree.parse(out / f"{name}.svg").getroot()
        links = [
            value
            for element in root.iter()
            for key, value in element.attrib.items()
            if key.endswith("href")
        ]
        assert all(link.startswith(("#", "data:")) for link in links)
    with Image.open(out / "mistakes.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_the_best_checkpoint_is_that_of_the_best_epoch(run, tmp_path):
    """In a copy whose record says that the epoch before the last was the best."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    file = Run.open(folder).checkpoint() / "record.json"
    record = json.loads(file.read_text())
    told = [row["val_top1"] for row in record["history"]]
    for row in record["history"][:1] + record["history"][2:]:
        row["val_top1"] = 0.0
    file.write_text(json.dumps(record))
    for which, epoch in (("newest", 3), ("best", 2)):
        measured = evaluate(EvaluateConfig(folder, checkpoint=which))
        assert measured.top1 == told[epoch - 1]
        assert f"its {which} checkpoint" in str(measured)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split": "test"}, "no split 'test'"),
        ({"views": ("ten_crops",)}, "views has 'ten_crops' and the .*crop_fraction is 1"),
        ({"sizes_px": (16,)}, "simple_cnn, at this input_shape"),
        ({"engine": "onnx"}, "engine is 'onnx', and .* is no exported model"),
        ({"model": "nothing"}, "no run in 'nothing'; .*; or give an exported model, or NETWORK@"),
        ({"model": "resnet18@imagenet"}, "does not tell what it was trained with; give --data"),
        ({"model": "resnet18@imagenett"}, "unknown weights 'imagenett' for resnet18"),
    ],
)
def test_what_cannot_be_measured_is_told(run, options, told):
    with pytest.raises(BadInput, match=told):
        evaluate(EvaluateConfig(**{"model": run} | options))


def test_other_data_and_other_sizes_than_a_model_has_are_told(compressed, digits, numbered):
    with pytest.raises(BadInput, match="has 10 classes and 'resnet18@imagenet' tells 1,000 apart"):
        evaluate(EvaluateConfig("resnet18@imagenet", data=digits))
    with pytest.raises(BadInput, match="takes images of 32 px only; leave out sizes_px"):
        evaluate(EvaluateConfig(compressed.saved_model, sizes_px=(40,)))


def test_an_evaluation_that_is_there_is_not_written_over(run, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="which is there; choose another --out"):
        evaluate(EvaluateConfig(run, out=tmp_path / "out"))
