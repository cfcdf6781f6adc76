"""Writes the data set that `tfds.builder_from_directory` reads, with TFDS's own pieces.

TFDS's own writer writes a data set in one go and in one process. Here its order (MD5 of split and
key), its number of shards, its serializer and its record files are used one shard at a time, so
that shards are written in parallel and one that is finished stays finished.
"""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.file_adapters import TfRecordFileAdapter
from tensorflow_datasets.core.hashing import Hasher
from tensorflow_datasets.core.utils.shard_utils import ShardConfig, get_shard_boundaries

from pipelines import atomic
from pipelines.data.cleaning import Facts
from pipelines.data.parallel import Step

NAME = "images"
FILENAMES = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclass(frozen=True)
class Shard:
    """One record file and the images in it, in order."""

    path: str
    images: tuple[Facts, ...]

    def __len__(self) -> int:
        return len(self.images)


def features(class_names: list[str]) -> tfds.features.FeaturesDict:
    """`image` (encoded bytes on disk), `label`, and `file_name`: the image's key."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=class_names),
            "file_name": tfds.features.Text(),
        }
    )


def shards(folder: Path, split: str, images: list[Facts]) -> list[Shard]:
    """A split's images in TFDS's order, divided among TFDS's number of shards.

    Args:
        folder: where the data set is written.
        split: its name.
        images: at least one, in any order; their keys are unique.
    """
    hasher = Hasher(split)
    ordered = sorted(images, key=lambda image: hasher.hash_key(image.key))
    num_shards = ShardConfig().get_number_shards(sum(i.size for i in images), len(images))
    stops = get_shard_boundaries(len(images), num_shards)
    return [
        Shard(
            str(folder / f"{NAME}-{split}.tfrecord-{number:05d}-of-{num_shards:05d}"),
            tuple(ordered[start:stop]),
        )
        for number, (start, stop) in enumerate(zip([0, *stops], stops, strict=False))
    ]


def write_shard(shard: Shard, class_names: list[str]) -> Step:
    """Writes a shard, unless it is there."""
    path = Path(shard.path)
    if not path.exists():
        schema = features(class_names)
        serializer = ExampleSerializer(schema.get_serialized_info())

        def records():
            for image in shard.images:
                example = {
                    "image": image.encoded(),
                    "label": image.label,
                    "file_name": image.key,
                }
                proto = serializer.get_tf_example(schema.encode_example(example))
                # A protocol buffer's map has another order in every process, unless asked not to.
                yield image.key, proto.SerializeToString(deterministic=True)

        with atomic.replacing(path) as partial:
            TfRecordFileAdapter.write_examples(partial, records())
    return Step(len(shard))


def write_metadata(
    folder: Path, class_names: list[str], splits: dict[str, list[Shard]], description: str
) -> None:
    """Writes what makes a folder of shards a TFDS data set, and reads its first image."""
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(shard.images) for shard in listing],
            num_bytes=sum(image.size for shard in listing for image in shard.images),
        )
        for split, listing in splits.items()
    ]
    # TFDS reports on standard output, which is this command's result.
    with redirect_stdout(io.StringIO()):
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features(class_names),
            split_infos=infos,
            filename_template=FILENAMES,
            description=description,
        )
