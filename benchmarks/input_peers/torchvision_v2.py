"""torchvision's v2 transforms on Pillow images, uint8, two worker processes."""

import torch
from measure import BATCH, SIZE, folder, serve
from torch import library

# torchvision beside a torch of another build: its ops are declared, and never called.
library.define("torchvision::nms", "(Tensor a, Tensor b, float c) -> Tensor")
library.define("torchvision::qnms", "(Tensor a, Tensor b, float c) -> Tensor")
import itertools  # noqa: E402

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from torchvision.datasets import ImageFolder  # noqa: E402
from torchvision.transforms import v2  # noqa: E402


def resize(crop):
    return np.asarray(v2.functional.resize(Image.fromarray(crop), [SIZE, SIZE], antialias=True))


def batches(transform):
    images = ImageFolder(folder(), transform)
    loader = torch.utils.data.DataLoader(
        images, BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


if __name__ == "__main__":
    steps = [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    serve(batches(v2.Compose(steps)), resize)
