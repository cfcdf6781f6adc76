"""NVIDIA DALI on the CPU, two threads: fused random crop decoder, antialiased resize, uint8."""

import itertools

from measure import BATCH, SIZE, folder, serve
from nvidia.dali import fn, pipeline_def, types


@pipeline_def(batch_size=BATCH, num_threads=2, device_id=None)
def photographs():
    encoded, labels = fn.readers.file(file_root=str(folder()), random_shuffle=True)
    images = fn.decoders.image_random_crop(
        encoded, random_area=(0.08, 1.0), random_aspect_ratio=(3 / 4, 4 / 3), output_type=types.RGB
    )
    images = fn.resize(images, size=(SIZE, SIZE), interp_type=types.INTERP_TRIANGULAR)
    return fn.flip(images, horizontal=fn.random.coin_flip()), labels


pipeline = photographs()
pipeline.build()
serve((pipeline.run() for _ in itertools.count()), None)
