"""The networks as torchvision and timm write them, with weights by formula. Imports torch."""

import formula
import numpy as np
import torch

try:
    import torchvision
except RuntimeError:
    # Its compiled half is of another torch: the signatures of its operators are all it asks for.
    _library = torch.library.Library("torchvision", "DEF")
    for _operator in ("nms", "qnms"):
        _library.define(f"{_operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import torchvision

import timm

THEIR_NAMES = {"alexnet_owt": "alexnet", "googlenet_bn": "googlenet"}
WITH_AUX_HEADS = ("googlenet_bn", "inception_v3")
FEATURES_PX = {"alexnet_owt": {127: 3, 224: 6}}


def peer(name: str, px: int, num_classes: int = 10) -> torch.nn.Module:
    """The peer of one of our networks, in evaluation mode, its state filled by formula."""
    if name == "seresnet50":
        module = timm.create_model(name, num_classes=num_classes)
    elif name in WITH_AUX_HEADS:
        make = getattr(torchvision.models, THEIR_NAMES.get(name, name))
        module = make(num_classes=num_classes, aux_logits=True, init_weights=False)
    else:
        make = getattr(torchvision.models, THEIR_NAMES.get(name, name))
        module = make(num_classes=num_classes)
    if name.startswith(("vgg", "alexnet")):
        _fit_classifier(module, FEATURES_PX.get(name, {}).get(px, px // 32))
    state = {
        key: torch.from_numpy(formula.weight(key, tuple(value.shape)))
        for key, value in module.state_dict().items()
        if value.ndim
    }
    module.load_state_dict(state, strict=False)
    return module.eval()


def _fit_classifier(module: torch.nn.Module, side: int) -> None:
    """Gives the dense layers a feature map of `side` pixels, which adaptive pooling leaves be."""
    first = next(layer for layer in module.classifier if isinstance(layer, torch.nn.Linear))
    index = list(module.classifier).index(first)
    channels = first.in_features // (module.avgpool.output_size[0] ** 2)
    module.avgpool = torch.nn.AdaptiveAvgPool2d((side, side))
    module.classifier[index] = torch.nn.Linear(channels * side**2, first.out_features)


def state(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in module.state_dict().items()}


def outputs(module: torch.nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """What every submodule gives, channels last, by its name; the network itself as `""`.

    Auxiliary heads, which run in training only, are run on what they would see.
    """
    found: dict[str, np.ndarray] = {}

    def keep(name: str):
        def hook(_, __, output: torch.Tensor) -> None:
            array = output.detach().clone().numpy()
            found[name] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array

        return hook

    for name, submodule in module.named_modules():
        submodule.register_forward_hook(keep(name))
    sources = {"aux1": "inception4a", "aux2": "inception4d", "AuxLogits": "Mixed_6e"}
    with torch.no_grad():
        module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        for head, source in sources.items():
            features = found.get(source)
            if features is not None and (head != "AuxLogits" or features.shape[1] >= 17):
                getattr(module, head)(torch.from_numpy(features.transpose(0, 3, 1, 2).copy()))
    return found
