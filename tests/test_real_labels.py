"""ImageNet-ReaL's labels: against their definition, through a whole evaluation, and wrong files."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_zoo import InputSpec
from pipelines.config import EvaluateConfig
from pipelines.data.streams import class_names, names_and_labels, open_dataset
from pipelines.errors import BadInput
from pipelines.evaluation.classifiers import Classifier
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.predictions import Answers
from pipelines.evaluation.real_labels import measure_real, real_labels

IMAGES = 70
SPEC = InputSpec(size_px=16)


@pytest.fixture(scope="module")
def ilsvrc2012(tmp_path_factory):
    """Some validation images of ILSVRC2012, by their names: one-coloured, the colour a class.

    Gives the folder, and `(number, label, class of the colour)` of each; `other` has other names.
    """
    random = np.random.default_rng(0)
    numbers = random.choice(np.arange(1, 50_001), IMAGES, replace=False)
    rows = np.stack([numbers, *random.integers(0, 1000, (2, IMAGES))], axis=1)
    rows[::3, 2] = rows[::3, 1]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=1000),
            "file_name": tfds.features.Text(),
        }
    )
    folder = tmp_path_factory.mktemp("ilsvrc2012")
    names = {"validation": "val/ILSVRC2012_val_{:08d}.JPEG", "other": "val/{}.JPEG"}
    for split, name in names.items():
        path = folder / f"images-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as file:
            for number, label, colour in rows:
                example = {
                    "image": np.full((16, 16, 3), [colour % 256, colour // 256, 0], np.uint8),
                    "label": label,
                    "file_name": name.format(number),
                }
                file.write(features.serialize_example(features.encode_example(example)))
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="images", filetype_suffix="tfrecord"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, filename_template=template
    )
    return folder, rows


def labelled(folder, split, file):
    dataset = open_dataset(folder)
    images, labels = names_and_labels(dataset, split)
    return real_labels(file, images, labels, f"{split!r} of {folder}", len(class_names(dataset)))


def colours(pixels):
    """Probabilities that say the class of an image's colour."""
    centre = pixels[:, 8, 8].astype(int)
    return np.eye(1000)[centre[:, 0] + 256 * centre[:, 1]]


def real_json(path, rows):
    """None, one or two labels for each image.

    Its own is among them, but for every fifth's; the class of its colour for every second's.
    """
    random = np.random.default_rng(1)
    labels = [random.integers(0, 1000, random.integers(0, 3)).tolist() for _ in range(50_000)]
    for index, (number, label, colour) in enumerate(rows.tolist()):
        if labels[number - 1] and index % 5:
            labels[number - 1][0] = label
        if labels[number - 1] and not index % 2:
            labels[number - 1].append(colour)
    path.write_text(json.dumps(labels))
    return labels


def test_a_first_answer_counts_where_it_is_among_the_labels():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(12), 80)
    right = random.random((80, 12)) < 0.15
    probabilities[2, 4] = probabilities[2, 5] = 9
    right[2, 4], right[2, 5] = True, False
    probabilities[3, 4] = probabilities[3, 5] = 9
    right[3, 4] = right[3, 5] = True
    answers = Answers.of(probabilities, random.integers(0, 12, 80))
    given = measure_real(answers, [set(np.flatnonzero(row)) for row in right])
    correct = right[np.arange(80), probabilities.argmax(axis=1)]
    correct[2] = False
    assert correct[3]
    assert 10 < correct.sum() < given.n == right.any(axis=1).sum() < 80
    assert given.top1 == correct.sum() / given.n


@pytest.mark.parametrize("batch_size", [16, 70])
def test_evaluation_counts_the_images_that_have_labels(
    ilsvrc2012, batch_size, tmp_path, monkeypatch
):
    folder, rows = ilsvrc2012
    classifier = Classifier(
        title="colours",
        input=SPEC,
        class_names=class_names(open_dataset(folder)),
        data=folder,
        split="validation",
        network=lambda spec: colours,
        explainer=None,
        next="",
    )
    monkeypatch.setattr("pipelines.evaluation.evaluate.open_classifier", lambda config: classifier)
    labels = real_json(tmp_path / "real.json", rows)
    config = EvaluateConfig(
        "colours", real_labels=tmp_path / "real.json", batch_size=batch_size, sizes_px=(16,)
    )
    given = evaluate(config)
    labelled = [(labels[number - 1], colour) for number, _, colour in rows if labels[number - 1]]
    correct = sum(colour in classes for classes, colour in labelled)
    assert 0 < correct < len(labelled) < IMAGES
    assert (given.real.n, given.real.top1) == (len(labelled), correct / len(labelled))
    assert (given.n, given.top1) == (IMAGES, np.mean(rows[:, 1] == rows[:, 2]))
    assert f"ReaL labels: n = {len(labelled)}" in str(given)
    assert f"{correct / len(labelled):.4f}" in str(given)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not json", "is not JSON"),
        ("{}", "holds no list"),
        (json.dumps([[1]] * 49_999), "holds 49,999 entries"),
        (json.dumps([[1]] * 49_999 + [[0, 1000]]), r"entry 50,000 of .* is \[0, 1000\]"),
        (json.dumps([[1]] * 49_999 + [3]), "entry 50,000 of .* is 3; a list"),
        (json.dumps([[]] * 50_000), "has a ReaL label"),
    ],
)
def test_a_file_of_something_else_is_refused(ilsvrc2012, text, told, tmp_path):
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(BadInput, match=told):
        labelled(ilsvrc2012[0], "validation", tmp_path / "real.json")


def test_classes_in_another_order_are_refused(ilsvrc2012, tmp_path):
    folder, rows = ilsvrc2012
    next_class = np.stack([rows[:, 0], (rows[:, 1] + 1) % 1000, rows[:, 2]], axis=1)
    real_json(tmp_path / "real.json", next_class)
    with pytest.raises(BadInput, match=r"\d of \d\d images .* not in the order of the sorted syn"):
        labelled(folder, "validation", tmp_path / "real.json")


def test_other_images_and_other_classes_are_refused(ilsvrc2012, numbered, tmp_path):
    folder, rows = ilsvrc2012
    real_json(tmp_path / "real.json", rows)
    with pytest.raises(BadInput, match=r"'val/\d+.JPEG' in 'other' of .* is no validation"):
        labelled(folder, "other", tmp_path / "real.json")
    with pytest.raises(BadInput, match="has 10 classes"):
        labelled(numbered, "validation", tmp_path / "real.json")
