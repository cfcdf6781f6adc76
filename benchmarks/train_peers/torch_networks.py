"""torchvision's networks by the zoo's names."""

import torch
from torch import library

# torchvision beside a torch of another build: its ops are declared, and never called.
library.define("torchvision::nms", "(Tensor a, Tensor b, float c) -> Tensor")
library.define("torchvision::qnms", "(Tensor a, Tensor b, float c) -> Tensor")
import torchvision  # noqa: E402

NAMES = {"alexnet_owt": "alexnet"}
OPTIONS = {"inception_v3": {"aux_logits": False, "init_weights": False}}


def torchvision_network(network: str, num_classes: int) -> torch.nn.Module:
    """In channels-last memory order."""
    name = NAMES.get(network, network)
    model = torchvision.models.get_model(name, num_classes=num_classes, **OPTIONS.get(name, {}))
    return model.to(memory_format=torch.channels_last)
