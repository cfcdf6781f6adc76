"""ImageNet-ReaL's labels: against their definition, through a whole evaluation, and wrong files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_zoo import InputSpec
from pipelines.config import EvaluateConfig
from pipelines.data.streams import evaluation_stream, open_dataset
from pipelines.errors import BadInput
from pipelines.evaluation.accuracy import evaluate
from pipelines.evaluation.real_labels import measure_real, with_real_labels
from tests.conftest import numbered_config

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
    images = evaluation_stream(dataset, split, SPEC, 16)
    return with_real_labels(images, dataset, split, file)


def colours(images, training):
    """Logits that say the class of an image's colour."""
    centre = tf.cast(images[:, 8, 8], tf.int32)
    return tf.one_hot(centre[:, 0] + 256 * centre[:, 1], 1000)


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
    logits = random.normal(size=(80, 12)).astype(np.float32)
    right = random.random((80, 12)) < 0.15
    logits[0], logits[1, 3], right[1, 3] = np.nan, np.nan, True
    logits[2, 4] = logits[2, 5] = 9
    right[2, 4], right[2, 5] = True, False
    logits[3, 4] = logits[3, 5] = 9
    right[3, 4] = right[3, 5] = True
    stream = tf.data.Dataset.from_tensor_slices((logits, right)).batch(16)
    given = measure_real(lambda x, training: x, stream)
    answers = logits.argmax(axis=1)
    correct = right[np.arange(80), answers]
    correct[[0, 1, 2]] = False
    assert correct[3]
    assert 10 < correct.sum() < given.n == right.any(axis=1).sum() < 80
    assert given.top1 == correct.sum() / given.n


@pytest.mark.parametrize("batch_size", [16, 70])
def test_evaluation_counts_the_images_that_have_labels(
    ilsvrc2012, batch_size, tmp_path, monkeypatch
):
    folder, rows = ilsvrc2012
    names = open_dataset(folder).info.features["label"].names
    trained = numbered_config(folder)
    run = SimpleNamespace(
        config=lambda: trained,
        require_classes=lambda given, data: given == names or pytest.fail(data),
        classifier=lambda which: colours,
    )
    monkeypatch.setattr(
        "pipelines.evaluation.accuracy.Run", SimpleNamespace(open=lambda folder: run)
    )
    labels = real_json(tmp_path / "real.json", rows)
    config = EvaluateConfig(folder, real_labels=tmp_path / "real.json", batch_size=batch_size)
    given = evaluate(config)
    labelled = [(labels[number - 1], colour) for number, _, colour in rows if labels[number - 1]]
    correct = sum(colour in classes for classes, colour in labelled)
    assert 0 < correct < len(labelled) < IMAGES
    assert (given.real.n, given.real.top1) == (len(labelled), correct / len(labelled))
    assert (given.n, given.top1) == (IMAGES, np.mean(rows[:, 1] == rows[:, 2]))
    assert f"ReaL labels: top-1 {correct / len(labelled):.4f}, n = {len(labelled)}" in str(given)


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
    with pytest.raises(BadInput, match=r"'val/\d+.JPEG' in the split 'other' is no validation"):
        labelled(folder, "other", tmp_path / "real.json")
    with pytest.raises(BadInput, match="has 10 classes"):
        labelled(numbered, "validation", tmp_path / "real.json")
