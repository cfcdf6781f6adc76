"""What an exported model is, seen from outside: no code of ours on the client's side."""

import ctypes
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from keras import layers
from PIL import Image
from sklearn.datasets import load_digits
from tensorflow.core.framework import tensor_pb2

import keras_zoo
from pipelines.config import ExportConfig, ServeConfig
from pipelines.data.streams import encoded_images, evaluation_stream, open_dataset
from pipelines.errors import BadInput, Failed
from pipelines.exporting import fresh_process, verification
from pipelines.exporting.engines import open_engine
from pipelines.exporting.export import export
from pipelines.exporting.folding import fold_batch_norm
from pipelines.exporting.grad_cam import grad_cam
from pipelines.exporting.sources import Images, open_source
from pipelines.exporting.versions import latest_version, write_serving_configs
from pipelines.serving.observing import Metrics
from pipelines.serving.versions import Loader
from pipelines.training.checkpoints import MODEL
from pipelines.training.run import Run
from pipelines.training.state import State


@pytest.fixture(scope="module")
def held_out(digits):
    """Every held-out image of the digits, as the bytes that were prepared."""
    return list(encoded_images(open_dataset(digits), "validation").as_numpy_iterator())


@pytest.fixture(scope="module")
def expected(run, digits):
    """The trained model's own probabilities on the held-out images, `(N, 10)`."""
    model, config = Run.open(run).classifier(), Run.open(run).config()
    stream = evaluation_stream(open_dataset(digits), "validation", config.input, 64)
    return np.concatenate(
        [tf.nn.softmax(model(pixels)).numpy()[mask] for pixels, _, mask in stream]
    )


@pytest.fixture(scope="module")
def version(saved_models):
    return latest_version(saved_models / "digits")


@pytest.fixture(scope="module")
def loaded(version):
    return tf.saved_model.load(version)


def test_tensorflow_alone_gets_the_trained_models_answers(version, held_out, expected, tmp_path):
    np.save(tmp_path / "images.npy", np.array(held_out, dtype=object), allow_pickle=True)
    script = (
        "import sys, numpy as np, tensorflow as tf\n"
        "images = np.load(sys.argv[2], allow_pickle=True)\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "answer = model.signatures['serving_default'](image_bytes=tf.constant(list(images)))\n"
        "answer = {name: value.numpy() for name, value in answer.items()}\n"
        "np.savez(sys.argv[3], **answer | {'classes': answer['classes'].astype(bytes)})\n"
        "assert not {'pipelines', 'keras_zoo'} & set(sys.modules)"
    )
    answers = tmp_path / "answers.npz"
    arguments = [sys.executable, "-I", "-c", script, version, tmp_path / "images.npy", answers]
    subprocess.run(arguments, check=True, capture_output=True)
    with np.load(answers) as answer:
        ids, probabilities, classes = (
            answer[name] for name in ("class_ids", "probabilities", "classes")
        )
    assert (ids[:, 0] == expected.argmax(axis=1)).all()
    top5 = np.sort(expected, axis=1)[:, :-6:-1]
    np.testing.assert_allclose(probabilities, top5, atol=1e-4)
    names = [[name.decode() for name in row] for row in classes.tolist()]
    assert names == ids.astype(str).tolist()


def test_the_signatures_name_what_they_take_and_give(loaded):
    top = {"classes": (tf.string, 5), "class_ids": (tf.int32, 5), "probabilities": (tf.float32, 5)}
    told = {
        name: (signature.structured_input_signature[1], signature.structured_outputs)
        for name, signature in loaded.signatures.items()
    }
    assert set(told) == {"serving_default", "image_tensor", "features"}
    for name, (inputs, outputs) in told.items():
        if name == "image_tensor":
            assert inputs["images"] == tf.TensorSpec((None, None, None, 3), tf.uint8, "images")
        else:
            assert inputs["image_bytes"] == tf.TensorSpec((None,), tf.string, "image_bytes")
        given = {key: (spec.dtype, spec.shape[1]) for key, spec in outputs.items()}
        assert given == ({"features": (tf.float32, 128)} if name == "features" else top)


def test_all_ways_in_agree(loaded, held_out, expected):
    """Bytes, tensors, and one image at a time with the network on all of them."""
    files = held_out[:8]
    pillow = [np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")) for encoded in files]
    from_bytes = loaded.signatures["serving_default"](image_bytes=tf.constant(files))
    from_tensor = loaded.signatures["image_tensor"](images=tf.constant(np.stack(pillow)))
    for name, values in from_bytes.items():
        if name == "probabilities":
            np.testing.assert_allclose(from_tensor[name], values, atol=1e-6)
        else:
            np.testing.assert_array_equal(from_tensor[name], values)
    pixels = tf.stack([loaded.preprocess(encoded) for encoded in files])
    assert pixels.dtype == tf.uint8
    np.testing.assert_array_equal(pixels[0], loaded.preprocess_image(pillow[0]))
    np.testing.assert_allclose(loaded.classify(pixels), expected[:8], atol=1e-4)
    features = loaded.signatures["features"](image_bytes=tf.constant(files))["features"]
    np.testing.assert_allclose(features, loaded.embed(pixels), atol=1e-5)


def test_the_features_are_what_the_classifier_sees(loaded, run, held_out):
    pixels = tf.stack([loaded.preprocess(encoded) for encoded in held_out[:4]])
    head = Run.open(run).classifier().layers[-1].get_layer("logits")
    logits = loaded.embed(pixels) @ head.kernel + head.bias
    np.testing.assert_allclose(tf.nn.softmax(logits), loaded.classify(pixels), atol=1e-5)


def test_the_explanation_is_the_trained_models(loaded, run, held_out):
    pixels = tf.stack([loaded.preprocess(encoded) for encoded in held_out[:8]])
    class_ids = tf.range(8)
    expected = grad_cam(Run.open(run).classifier(), pixels, class_ids)
    assert expected.shape == (8, 6, 6)
    np.testing.assert_allclose(loaded.explain(pixels, class_ids), expected, atol=1e-4)


def test_one_batch_takes_files_of_any_size_format_and_colour(loaded):
    zero = Image.fromarray(np.uint8(load_digits().images[0] * 15.9))
    files = []
    for size, mode, image_format in (
        ((32, 32), "L", "PNG"),
        ((320, 320), "RGB", "PNG"),
        ((64, 64), "RGBA", "PNG"),
        ((100, 100), "L", "JPEG"),
        ((200, 200), "RGB", "JPEG"),
        ((96, 96), "RGB", "BMP"),
        ((64, 64), "P", "GIF"),
        ((64, 64), "RGB", "WEBP"),
    ):
        file = io.BytesIO()
        zero.resize(size, Image.Resampling.BILINEAR).convert(mode).save(file, image_format)
        files.append(file.getvalue())
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant(files))
    assert answer["classes"].numpy()[:, 0].tolist() == [b"0"] * len(files)


def test_the_labels_and_the_card_are_inside_and_beside(version, loaded, run, held_out):
    names = [name.decode() for name in loaded.labels().numpy()]
    assert names == [str(number) for number in range(10)]
    assert (version / "labels.txt").read_text().split() == names
    beside = json.loads((version / "model_card.json").read_text())
    inside = json.loads(loaded.card().numpy())
    assert inside == {key: beside[key] for key in inside}
    assert beside.keys() - inside.keys() == {"formats"}
    own = Run.open(run)
    sha256 = own.checkpoint().joinpath("record.json").read_text()
    assert beside["weights_sha256"] == json.loads(sha256)["sha256"][MODEL]
    assert beside["input"] == json.loads(json.dumps(dataclasses.asdict(own.config().input)))
    assert (beside["name"], beside["version"], beside["classes"]) == ("digits", 1, 10)
    assert beside["metrics"]["n"] == len(held_out)
    verified = beside["formats"]["savedmodel"]
    assert (verified["images"], verified["agreement"]) == (256, 1.0)
    assert verified["largest_difference"] <= 1e-4


def test_warming_up_sends_each_signature_what_it_takes(version, loaded):
    """Read back by protobuf's own parser, from the declarations that TensorFlow Serving has."""
    declared = FileDescriptorProto()
    text_format.Parse(SERVING_PROTO, declared)
    pool = DescriptorPool()
    for dependency in ("tensor_shape", "types", "resource_handle", "tensor"):
        known = tensor_pb2.DESCRIPTOR.pool.FindFileByName(
            f"tensorflow/core/framework/{dependency}.proto"
        )
        pool.AddSerializedFile(known.serialized_pb)
    pool.Add(declared)
    log_class = GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.PredictionLog"))
    records = tf.data.TFRecordDataset(
        str(version / "assets.extra" / "tf_serving_warmup_requests")
    ).as_numpy_iterator()
    asked = set()
    for record in records:
        request = log_class.FromString(record).predict_log.request
        assert request.model_spec.name == "digits"
        arrays = {}
        for name, message in request.inputs.items():
            tensor = tensor_pb2.TensorProto.FromString(message.SerializeToString())
            arrays[name] = tf.constant(tf.make_ndarray(tensor))
        answer = loaded.signatures[request.model_spec.signature_name](**arrays)
        assert {len(values) for values in answer.values()} == {1}
        asked.add(request.model_spec.signature_name)
    assert asked == set(loaded.signatures)


SERVING_PROTO = """
name: "serving.proto" package: "tensorflow.serving" syntax: "proto3"
dependency: "tensorflow/core/framework/tensor.proto"
message_type {
  name: "ModelSpec"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "signature_name" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL }
}
message_type {
  name: "PredictRequest"
  field { name: "model_spec" number: 1 type: TYPE_MESSAGE label: LABEL_OPTIONAL
          type_name: ".tensorflow.serving.ModelSpec" }
  field { name: "inputs" number: 2 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: ".tensorflow.serving.PredictRequest.InputsEntry" }
  nested_type {
    name: "InputsEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_MESSAGE label: LABEL_OPTIONAL
            type_name: ".tensorflow.TensorProto" }
  }
}
message_type {
  name: "PredictLog"
  field { name: "request" number: 1 type: TYPE_MESSAGE label: LABEL_OPTIONAL
          type_name: ".tensorflow.serving.PredictRequest" }
}
message_type {
  name: "PredictionLog"
  field { name: "predict_log" number: 6 type: TYPE_MESSAGE label: LABEL_OPTIONAL
          type_name: ".tensorflow.serving.PredictLog" }
}
"""


def test_tensorflow_servings_configs_list_every_model(saved_models, tmp_path):
    for name in ("flowers", "digits"):
        (tmp_path / name / "3").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    write_serving_configs(tmp_path)
    assert (tmp_path / "models.config").read_text() == (
        "model_config_list {\n"
        '  config { name: "digits" base_path: "/models/digits" model_platform: "tensorflow" }\n'
        '  config { name: "flowers" base_path: "/models/flowers" model_platform: "tensorflow" }\n'
        "}\n"
    )
    assert 'name: "digits"' in (saved_models / "models.config").read_text()
    assert "max_batch_size { value: 32 }" in (saved_models / "batching.config").read_text()


CONFIG_PROTO = """
name: "config.proto" package: "of" syntax: "proto3"
message_type {
  name: "Model"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "base_path" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "model_platform" number: 4 type: TYPE_STRING label: LABEL_OPTIONAL }
}
message_type {
  name: "Models"
  field { name: "config" number: 1 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: ".of.Model" }
}
message_type {
  name: "Server"
  field { name: "model_config_list" number: 1 type: TYPE_MESSAGE label: LABEL_OPTIONAL
          type_name: ".of.Models" }
}
"""


def test_any_name_of_a_model_is_read_back_from_tensorflow_servings_config(tmp_path):
    names = ['6" pots', "back\\slash", "new\nline", "Blüten"]
    for name in names:
        (tmp_path / name / "1").mkdir(parents=True)
    write_serving_configs(tmp_path)
    pool = DescriptorPool()
    pool.Add(text_format.Parse(CONFIG_PROTO, FileDescriptorProto()))
    config = GetMessageClass(pool.FindMessageTypeByName("of.Server"))()
    text_format.Parse((tmp_path / "models.config").read_text(), config)
    rows = config.model_config_list.config
    assert [row.name for row in rows] == sorted(names)
    assert [row.base_path for row in rows] == [f"/models/{name}" for name in sorted(names)]


def test_exports_that_end_at_once_write_the_configs_in_turn(tmp_path):
    (tmp_path / "first" / "1").mkdir(parents=True)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    another = threading.Thread(target=write_serving_configs, args=[tmp_path])
    another.start()
    another.join(0.2)
    assert another.is_alive()
    (tmp_path / "second" / "1").mkdir(parents=True)
    os.close(held)
    another.join()
    assert 'name: "second"' in (tmp_path / "models.config").read_text()


def test_a_weight_is_stored_once(version, run):
    model = Run.open(run).classifier()
    parameters = sum(4 * np.prod(weight.shape) for weight in model.weights)
    stored = sum(file.stat().st_size for file in (version / "variables").iterdir())
    assert stored < 1.05 * parameters


class SignalStack(ctypes.Structure):
    """stack_t, as sigaltstack(2) has it."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack():
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.start, stack.flags, stack.size


@pytest.mark.skipif(sys.platform != "linux", reason="sigaltstack as Linux has it")
def test_signals_of_the_main_thread_keep_their_stack(compressed):
    before = signal_stack()
    first, second = (open_engine(Path(compressed.saved_model), "openvino") for _ in range(2))
    assert signal_stack() == before
    # Not the last one first, as the stacks would be put back in order.
    del first
    del second
    assert signal_stack() == before


def test_every_format_answers_as_the_trained_model(compressed, held_out, expected, loaded):
    assert list(compressed.formats) == [
        *("savedmodel", "onnx", "onnx-int8", "onnx-dynamic"),
        *("litert", "litert-int8", "litert-dynamic", "litert-float16"),
        *("openvino", "openvino-int8", "openvino-float16"),
    ]
    pixels = np.stack([loaded.preprocess(encoded) for encoded in held_out])
    for name, told in compressed.formats.items():
        engine = open_engine(Path(compressed.saved_model), name)
        given = np.concatenate([engine(pixels[:1]), engine(pixels[1:6]), engine(pixels[6:])])
        assert (given.dtype, given.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(given.sum(axis=1), 1, atol=0.02)
        assert (given.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98
        if "-" not in name:
            np.testing.assert_allclose(given, expected, atol=1e-4)
        of_verified = given[:256].argmax(axis=1) == expected[:256].argmax(axis=1)
        assert told["agreement"] == pytest.approx(of_verified.mean(), abs=1 / 256)
        assert told["images"] == 256


def test_compressed_weights_take_a_half_or_a_quarter(compressed):
    sizes = {name: told["bytes"] for name, told in compressed.formats.items()}
    shares = {"int8": 0.25, "dynamic": 0.25, "float16": 0.5}
    for name, size in sizes.items():
        kind, _, how = name.partition("-")
        if how:
            assert size / sizes[kind] == pytest.approx(shares[how], rel=0.1)


def test_what_was_measured_is_a_table(compressed):
    head, *rows = str(compressed).splitlines()[1:-1]
    assert head.split() == ["format", "MB", "top-1", "agreement", "images/s"]
    assert [row.split()[0] for row in rows] == list(compressed.formats)


def test_a_format_that_was_not_verified_is_not_opened(version, tmp_path):
    with pytest.raises(BadInput, match=r"has no verified 'onnx'; it has savedmodel; .* --format"):
        open_engine(version, "onnx")
    with pytest.raises(BadInput, match="has no verified 'savedmodel'; it has none"):
        open_engine(tmp_path, "savedmodel")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"format": "caffe"}, "format has 'caffe'; some of savedmodel, onnx, litert, openvino"),
        ({"format": "onnx", "quantize": "int4"}, "quantize has 'int4'; some of int8, dynamic"),
        ({"quantize": "int8"}, "there is int8 in onnx, litert, openvino: add one to --format"),
        ({"format": "onnx", "quantize": "float16"}, "there is float16 in litert, openvino"),
    ],
)
def test_a_format_that_there_is_not_is_told(arguments, told):
    with pytest.raises(ValueError, match=told):
        ExportConfig(Path("run"), Path("out"), **arguments)


def test_the_same_checkpoint_is_exported_once(run, saved_models):
    killed = saved_models / "digits" / ".partial-2"
    killed.mkdir()
    again = export(ExportConfig(run, saved_models / "digits"))
    assert again.saved_model == str(saved_models / "digits" / "1")
    assert list((saved_models / "digits").iterdir()) == [saved_models / "digits" / "1"]


def test_another_export_is_the_next_version_and_a_class_may_have_any_name_of_one_line(
    run, saved_models, tmp_path
):
    shutil.copytree(saved_models / "digits", tmp_path / "digits")
    shutil.copytree(run, tmp_path / "run")
    names = ["0", "1\x0bone", "2\u2028two", "3\x85", *"456789"]
    (tmp_path / "run" / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    result = export(ExportConfig(tmp_path / "run", tmp_path / "digits", images=8))
    second = Path(result.saved_model)
    assert second == tmp_path / "digits" / "2"
    assert sorted(second.parent.iterdir()) == [second.with_name("1"), second]
    of_first, of_second = (
        json.loads((second.with_name(name) / "model_card.json").read_text()) for name in "12"
    )
    assert of_first["content_sha256"] != of_second["content_sha256"]
    assert of_first["weights_sha256"] == of_second["weights_sha256"]
    # A file cut short beside the model misnames nothing.
    (second / "labels.txt").write_text("0\n")
    served = Loader(ServeConfig(tmp_path), Metrics()).load(second)
    assert served.labels == names


def test_a_version_with_too_few_names_for_its_classes_is_not_served(tmp_path):
    module = tf.Module()
    module.preprocess = tf.function(
        tf.io.decode_image, input_signature=[tf.TensorSpec((), tf.string)]
    )
    module.classify = tf.function(
        lambda pixels: tf.zeros((tf.shape(pixels)[0], 4)),
        input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.uint8)],
    )
    module.labels = tf.function(lambda: tf.constant(["red", "green", "blue"]), input_signature=[])
    signatures = {
        "serving_default": tf.function(
            lambda pixels: {"probabilities": module.classify(pixels)},
            input_signature=module.classify.input_signature,
        )
    }
    tf.saved_model.save(module, tmp_path / "colours" / "1", signatures=signatures)
    with pytest.raises(Failed, match="3 names of classes and 4 probabilities"):
        Loader(ServeConfig(tmp_path), Metrics()).load(tmp_path / "colours" / "1")


def test_the_metrics_are_of_the_epoch_of_the_checkpoint(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = ExportConfig(tmp_path / "run", tmp_path / "out")
    third = Run.open(config.source).checkpoint()
    record = json.loads((third / "record.json").read_text())
    rows = record["history"]
    rows[1]["val_top1"], rows[1]["val_top5"] = 1.0, 0.5

    def metrics(checkpoint, name, **changes):
        if name != third.name:
            shutil.copytree(third, third.with_name(name), dirs_exist_ok=True)
        (third.with_name(name) / "record.json").write_text(json.dumps(record | changes))
        source = open_source(dataclasses.replace(config, checkpoint=checkpoint))
        assert source.origin["checkpoint"] == name
        return source.origin["metrics"]

    told = {"epoch": 3, "top1": rows[2]["val_top1"], "top5": rows[2]["val_top5"]}
    assert metrics("newest", "epoch_0003") == told | {"n": rows[2]["val_n"]}
    told = {"epoch": 2, "top1": 1.0, "top5": 0.5, "n": rows[1]["val_n"]}
    assert metrics("best", "epoch_0002", history=rows[:2]) == told
    assert metrics("newest", "epoch_0003_step_000005", step=5) is None


def test_a_network_is_exported_with_the_weights_of_a_file(tmp_path):
    """Four classes of its own; verified with the photographs that scikit-learn carries."""
    model = keras_zoo.build("simple_cnn", num_classes=4)
    weights, labels = tmp_path / "some.weights.h5", tmp_path / "labels.txt"
    model.save_weights(weights)
    labels.write_text("red\ngreen\nblue\nlight\x0bgrey\n")
    config = ExportConfig(Path("simple_cnn"), tmp_path / "models" / "colours", init=str(weights))
    with pytest.raises(BadInput, match=r"has 4 classes and there are 1000 names .* --labels FILE"):
        export(config)
    result = export(dataclasses.replace(config, labels=labels))
    assert result.verified_images == 2
    loaded = tf.saved_model.load(result.saved_model)
    assert loaded.labels().numpy()[3] == b"light\x0bgrey"
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1), np.uint8)
    spec = keras_zoo.card("simple_cnn").input
    expected = keras.ops.softmax(model((pixels - np.array(spec.mean)) / np.array(spec.std)))
    np.testing.assert_allclose(loaded.classify(pixels), expected, atol=1e-4)
    card = json.loads(Path(result.saved_model, "model_card.json").read_text())
    assert card["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_a_model_that_answers_nan_is_not_published(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    broken = Run.open(folder)
    state = State(broken.config(), 10, None, steps_per_epoch=1)
    progress = broken.checkpoints.restore(state)
    state.model.set_weights([np.full_like(weight, np.nan) for weight in state.model.get_weights()])
    broken.checkpoints.save(state, dataclasses.replace(progress, step=1), kept=1)
    with pytest.raises(Failed, match="does not answer as the trained model does"):
        export(ExportConfig(folder, tmp_path / "model", images=8))
    assert not latest_version(tmp_path / "model")


@pytest.fixture(scope="module")
def answered(version, held_out, loaded, tmp_path_factory):
    """What `fresh_process` writes of eight images, and what it was asked."""
    files, answers = (tmp_path_factory.mktemp("answered") / name for name in ("in", "out.npz"))
    with tf.io.TFRecordWriter(str(files)) as file:
        for encoded in held_out[:8]:
            file.write(encoded)
    fresh_process.main(str(version), str(files), str(answers))
    pixels = tf.stack([loaded.preprocess(encoded) for encoded in held_out[:8]])
    images = Images(held_out[:8], pixels.numpy(), None)
    with np.load(answers) as answer:
        return images, loaded.embed(pixels).numpy(), dict(answer)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, None),
        ({"classes": lambda names: names[:, ::-1]}, "are not called as those of the model"),
        ({"as_tensor": lambda given: given + 1e-3}, "image_tensor of .* is not serving_default"),
        ({"as_tensor": lambda given: given * np.nan}, "image_tensor of .* is not serving_default"),
        ({"explanation": lambda given: given * np.nan}, r"explanations of .* not in \[0, 1\]"),
    ],
)
def test_a_saved_model_is_asked_in_every_way_before_it_is_published(
    changed, told, answered, expected, monkeypatch
):
    images, features, answer = answered
    given = answer | {name: change(answer[name]) for name, change in changed.items()}
    monkeypatch.setattr(verification, "_answers_elsewhere", lambda *_: given)
    trained = verification.Expected(expected[:8], features)
    names = [str(number) for number in range(10)]
    if told is None:
        assert verification.verify_saved_model(Path(), images, trained, names).images == 8
    else:
        with pytest.raises(Failed, match=told):
            verification.verify_saved_model(Path(), images, trained, names)


@pytest.mark.parametrize(
    ("n", "lost", "gained", "published"),
    [
        (256, 6, 0, True),
        (256, 7, 0, False),
        (256, 15, 9, True),
        (256, 18, 7, False),
        (10_000, 140, 0, False),
        (10_000, 110, 0, True),
        (20, 2, 0, True),
    ],
)
def test_a_compressed_format_may_not_surely_cost_more_than_a_point_of_top1(
    n, lost, gained, published, monkeypatch
):
    """The bounds by hand: lost - gained <= n / 100 + 1.645 sqrt(lost + gained)."""
    one_hot = np.eye(2, dtype=np.float32)
    labels = np.zeros(n, np.int64)
    of_trained, chosen = np.zeros(n, np.int64), np.zeros(n, np.int64)
    chosen[:lost] = 1
    of_trained[lost : lost + gained] = 1
    images = Images([], np.arange(n), labels)
    monkeypatch.setattr(
        verification, "open_format", lambda *_: lambda indices: one_hot[chosen[indices]]
    )
    trained = verification.Expected(one_hot[of_trained], np.zeros((n, 1)))
    if published:
        told = verification.verify_format("onnx-int8", Path(), images, trained)
        assert told.top1 == pytest.approx(1 - lost / n)
    else:
        with pytest.raises(Failed, match=r"onnx-int8 has a top-1 of 0\.9.* leave it out"):
            verification.verify_format("onnx-int8", Path(), images, trained)


QUANTIZED = {"init": "some.weights.h5", "format": "litert", "quantize": "float16"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"source": Path("resnet18")} | QUANTIZED, "quantize is 'float16': .* give --data DATA"),
        ({"source": Path("nowhere")}, "no run in 'nowhere'.* or give a network"),
        ({"source": Path("resnet18")}, "a network without weights; give --init imagenet"),
        ({"source": Path("resnet18"), "init": "imaginary"}, "unknown weights 'imaginary'"),
        ({"source": Path("resnet18"), "init": "none.pth"}, "no file at none.pth"),
    ],
)
def test_what_cannot_be_exported_is_told_and_leaves_nothing(arguments, told, tmp_path):
    config = ExportConfig(out=tmp_path / "model", **arguments)
    with pytest.raises(BadInput, match=told):
        export(config)
    assert list(tmp_path.iterdir()) == []


# Normalisations before and after folding; those of pre-activations stay.
FOLDED = {"resnet18": (20, 0), "resnet50_v2": (49, 17)}
FOLDED_SLOWLY = {
    "seresnet50": (53, 0),
    "resnext50_32x4d": (53, 0),
    "googlenet_bn": (57, 0),
    "inception_v3": (94, 0),
    "vgg11_bn": (8, 0),
    "alexnet": (0, 0),
}


@pytest.fixture
def float64():
    """Layers compute in float64: what differs then is not rounding."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("network", FOLDED)
def test_folding_batch_normalisation_changes_nothing(network, float64):
    require_folded(network, FOLDED[network])


@pytest.mark.slow
@pytest.mark.parametrize("network", FOLDED_SLOWLY)
def test_folding_changes_no_family(network, float64):
    require_folded(network, FOLDED_SLOWLY[network])


def require_folded(network, counts):
    rng = np.random.default_rng(0)
    side_px = max(64, keras_zoo.card(network).min_size_px)
    model = keras_zoo.build(network, num_classes=10, input_shape=(side_px, side_px, 3))
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        for weight in norm.weights:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    folded = fold_batch_norm(model)
    left = [layer for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    assert (len(norms), len(left)) == counts
    assert not any(isinstance(layer, layers.Dropout) for layer in folded.layers)
    images = rng.normal(size=(2, side_px, side_px, 3))
    expected = keras.ops.convert_to_numpy(model(images, training=False))
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(folded(images), expected, atol=1e-5 * np.abs(expected).max())
