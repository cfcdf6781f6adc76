"""A person's own images: files, folders, standard input, and what is none."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.config import EvaluateConfig
from pipelines.data.images import evaluation_image
from pipelines.data.streams import encoded_images, names_and_labels, open_dataset
from pipelines.evaluation.evaluate import evaluate
from pipelines.exporting.grad_cam import grad_cam
from pipelines.exporting.versions import latest_version
from pipelines.predict import main
from pipelines.training.run import Run


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """Forty of the held-out digits as files, called as they are in the data set."""
    folder = tmp_path_factory.mktemp("images")
    dataset = open_dataset(digits)
    names, _ = names_and_labels(dataset, "validation[:40]")
    encoded = encoded_images(dataset, "validation[:40]").as_numpy_iterator()
    for name, content in zip(names, encoded, strict=True):
        (folder / name).write_bytes(content)
    return folder


def answers(capsys, *arguments):
    """The status, what `--json` prints, and what is told on standard error."""
    status = main([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    return status, json.loads(printed.out), printed.err


@pytest.mark.parametrize("exported", [False, True])
def test_a_folder_is_answered_as_evaluation_does(
    run, saved_models, folder, exported, capsys, tmp_path
):
    model = saved_models / "digits" if exported else run
    status, given, _ = answers(capsys, model, folder, "--top_k", "3")
    evaluate(EvaluateConfig(model, split="validation[:40]", out=tmp_path / "out"))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    told = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[1:]
    expected = {row.split('"')[1]: row for row in told}
    assert (status, metrics["n"], len(given["predictions"])) == (0, 40, 40)
    for prediction in given["predictions"]:
        columns = expected[Path(prediction["image"]).name].split(",")
        assert prediction["classes"] == [columns[place].strip('"') for place in (7, 10, 13)]
        shares = [float(columns[place]) for place in (8, 11, 14)]
        assert prediction["probabilities"] == pytest.approx(shares, abs=1e-6)


def test_bad_images_are_told_and_the_others_answered(run, folder, tmp_path, capsys):
    image = next(folder.iterdir())
    (tmp_path / "torn.png").write_bytes(image.read_bytes()[:40])
    (tmp_path / "text.png").write_text("no image")
    bad = [tmp_path / "torn.png", tmp_path / "text.png", tmp_path / "missing.png"]
    status, given, told = answers(capsys, run, bad[0], image, *bad[1:])
    assert status == 1
    assert [row["image"] for row in given["predictions"]] == [str(image)]
    assert [row["image"] for row in given["unreadable"]] == list(map(str, bad))
    assert given["unreadable"][2]["reason"] == "No such file or directory"
    assert told.startswith(f"failed: 3 of 4 could not be read, {bad[0]} first: not a JPEG")


def test_standard_input_is_one_image(run, folder, capsys, monkeypatch):
    image = next(folder.iterdir())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(image.read_bytes())))
    status, given, _ = answers(capsys, run, "-", image)
    from_stdin, from_file = given["predictions"]
    assert (status, from_stdin.pop("image"), from_file.pop("image")) == (
        0,
        "standard input",
        str(image),
    )
    assert from_stdin == from_file


def test_a_person_reads_shares_and_names(saved_models, folder, capsys):
    image = next(folder.iterdir())
    assert main([str(latest_version(saved_models / "digits")), str(image)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(image)
    assert len(lines) == 6
    shares = [float(line.split()[0].rstrip("%")) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.05


def test_an_explanation_is_the_image_under_the_heat_of_its_first_answer(
    run, saved_models, folder, tmp_path, capsys
):
    """The same of the run and of the SavedModel, and nearer to black where nothing spoke for it."""
    images = list(folder.iterdir())[:3]
    pictures = []
    for model, out in ((run, "run"), (saved_models / "digits", "exported")):
        status, given, _ = answers(capsys, model, *images, "--explain", tmp_path / out)
        files = [Path(row["explanation"]) for row in given["predictions"]]
        assert status == 0
        assert sorted((tmp_path / out).iterdir()) == files
        pictures.append(np.stack([np.asarray(Image.open(file)) for file in files]).astype(int))
    assert pictures[0].shape == (3, 320, 320, 3)
    assert np.abs(pictures[0] - pictures[1]).max() <= 2

    classifier = Run.open(run).classifier()
    pixels = evaluation_image(images[0].read_bytes(), Run.open(run).config().input)[tf.newaxis]
    number = np.argmax(classifier(pixels), axis=1).astype(np.int32)
    (heat,) = grad_cam(classifier, pixels, number).numpy()
    enlarged = Image.fromarray(heat).resize((320, 320), Image.Resampling.BICUBIC)
    image = Image.fromarray(pixels.numpy().squeeze()).resize((320, 320), Image.Resampling.BICUBIC)
    added = pictures[0][0].sum(axis=-1) - 1.5 * np.asarray(image)
    assert np.corrcoef(added.ravel(), np.asarray(enlarged).ravel())[0, 1] > 0.9


def test_an_image_larger_than_the_network_sees_is_resized(run, folder, tmp_path, capsys):
    image = next(folder.iterdir())
    large = Image.open(image).resize((320, 320), Image.Resampling.BICUBIC)
    large.convert("RGB").save(tmp_path / "large.jpg", quality=95)
    status, given, _ = answers(capsys, run, image, tmp_path / "large.jpg")
    first, second = given["predictions"]
    assert (status, first["class_ids"][0]) == (0, second["class_ids"][0])


@pytest.mark.parametrize(
    ("images", "told"),
    [([], "required"), (["."], "no images in the folder '.'")],
)
def test_nothing_to_answer_is_told(run, images, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(run), *images]) == 2
    assert told in capsys.readouterr().err
