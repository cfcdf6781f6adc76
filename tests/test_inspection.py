"""What inspect tells of a data set is what is in it."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.config import AugmentConfig, InspectConfig, PrepareConfig, TrainConfig
from pipelines.data.inspection import inspect, measure, training_views
from pipelines.data.preparation import prepare
from pipelines.data.streams import class_names, open_dataset
from pipelines.errors import BadInput
from tests.photographs import photograph, read


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two cats to one dog, each image of a size of its own."""
    root = tmp_path_factory.mktemp("inspected")
    for index in range(30):
        name = "dog" if index % 3 == 0 else "cat"
        for offset, split in ((0, "train"), (100, "val")):
            path = root / "data" / split / name / f"{index}.JPEG"
            photograph(path, index + offset, (60 + index, 90 - index))
    prepare(PrepareConfig(str(root / "data"), root / "out"))
    return root / "out"


def configured(prepared, out, **options):
    whole = AugmentConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0))
    train = TrainConfig(prepared, network="simple_cnn", augment=whole)
    return InspectConfig(prepared, train, out, **options)


def test_counts_and_sizes_are_those_of_the_images(prepared, tmp_path):
    result = inspect(configured(prepared, tmp_path / "page.html"))
    images = read(prepared, "train")
    sizes = [Image.open(io.BytesIO(encoded)).size for encoded, _ in images.values()]
    train = result.splits["train"]
    assert (train.images, train.measured, train.classes) == (30, 30, 2)
    assert (train.least, train.most) == (10, 20)
    assert train.smallest_side_px == min(min(size) for size in sizes)
    assert train.median_width_px == int(np.median([width for width, _ in sizes]))
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    with Image.open(tmp_path / "page.png") as grid:
        assert grid.width > 1000
    assert "train      30" in str(result)


def test_only_a_sample_is_measured(prepared):
    measured = measure(open_dataset(prepared), "train", sample=7)
    assert (measured.images, len(measured.label)) == (30, 7)


def test_the_grid_shows_images_under_their_own_class(prepared, tmp_path):
    config = configured(prepared, tmp_path / "page.html", grid_images=30)
    images, labels = training_views(open_dataset(prepared), config)
    assert images.dtype == np.uint8
    assert len(images) == len(labels) == 30
    assert sorted(labels) == ["cat"] * 20 + ["dog"] * 10
    assert set(labels) == set(class_names(open_dataset(prepared)))


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no prepared data set"):
        inspect(configured(tmp_path, tmp_path / "page.html"))
