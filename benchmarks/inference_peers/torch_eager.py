"""torchvision's network in eager torch, channels last, with the normalisation."""

import os

import torch
from measure import model, serve
from torch import library

# torchvision beside a torch of another build: its ops are declared, and never called.
library.define("torchvision::nms", "(Tensor a, Tensor b, float c) -> Tensor")
library.define("torchvision::qnms", "(Tensor a, Tensor b, float c) -> Tensor")
import torchvision  # noqa: E402

MEAN = torch.tensor((123.675, 116.28, 103.53)).view(1, 3, 1, 1)
STD = torch.tensor((58.395, 57.12, 57.375)).view(1, 3, 1, 1)

torch.set_num_threads(len(os.sched_getaffinity(0)))
network = torchvision.models.get_model(model()).eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def classify(images):
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return network((x - MEAN) / STD).softmax(dim=1).numpy()


serve(classify)
