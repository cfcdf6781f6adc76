"""The networks as torchvision and timm write them, with weights by formula. Imports torch.

The three that neither has are written down here from their papers, under our layers' names.
"""

import formula
import numpy as np
import torch
from torch import library, nn
from torch.nn.functional import avg_pool2d, max_pool2d

try:
    import torchvision
except RuntimeError:
    # Its compiled half is of another torch: the signatures of its operators are all it asks for.
    for _operator in ("nms", "qnms"):
        library.define(
            f"torchvision::{_operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor"
        )
    import torchvision

import timm

THEIR_NAMES = {"alexnet_owt": "alexnet", "googlenet_bn": "googlenet"}
WITH_AUX_HEADS = ("googlenet_bn", "inception_v3")
FEATURES_PX = {"alexnet_owt": {127: 3, 224: 6}}


class FromPaper(nn.Module):
    """A network in the words of its paper; dense layers take their input's size from an image.

    Local response normalisation has the constants of Krizhevsky et al. 2012, section 3.3; torch
    divides its alpha by the window's size, the paper does not.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.norm = nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2)
        self.define(num_classes)

    def conv(self, name: str, *sizes: int, **options: int) -> None:
        self.add_module(f"{name}_conv", nn.Conv2d(*sizes, **options))

    def relu(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, f"{name}_conv")(x).relu()

    def define_dense(self, num_classes: int) -> None:
        self.fc1 = nn.LazyLinear(4096)
        self.fc2 = nn.Linear(4096, 4096)
        self.logits = nn.Linear(4096, num_classes)

    def dense(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(self.fc2(self.fc1(x.flatten(1)).relu()).relu())


class AlexNet(FromPaper):
    """Krizhevsky et al. 2012, section 3.5; kernels of 48 and 192 channels see one of two towers."""

    def define(self, num_classes: int) -> None:
        self.conv("conv1", 3, 96, 11, stride=4)
        self.conv("conv2", 96, 256, 5, padding=2, groups=2)
        self.conv("conv3", 256, 384, 3, padding=1)
        self.conv("conv4", 384, 384, 3, padding=1, groups=2)
        self.conv("conv5", 384, 256, 3, padding=1, groups=2)
        self.define_dense(num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = max_pool2d(self.norm(self.relu("conv1", x)), 3, 2)
        x = max_pool2d(self.norm(self.relu("conv2", x)), 3, 2)
        x = self.relu("conv5", self.relu("conv4", self.relu("conv3", x)))
        return self.dense(max_pool2d(x, 3, 2))


class ZFNet(FromPaper):
    """Zeiler and Fergus 2013, Figure 3: rectified, pooled, then normalised across maps."""

    def define(self, num_classes: int) -> None:
        self.conv("conv1", 3, 96, 7, stride=2, padding=1)
        self.conv("conv2", 96, 256, 5, stride=2)
        self.conv("conv3", 256, 384, 3, padding=1)
        self.conv("conv4", 384, 384, 3, padding=1)
        self.conv("conv5", 384, 256, 3, padding=1)
        self.define_dense(num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(max_pool2d(self.relu("conv1", x), 3, 2, ceil_mode=True))
        x = self.norm(max_pool2d(self.relu("conv2", x), 3, 2, ceil_mode=True))
        x = self.relu("conv5", self.relu("conv4", self.relu("conv3", x)))
        return self.dense(max_pool2d(x, 3, 2, ceil_mode=True))


class GoogLeNet(FromPaper):
    """Szegedy et al. 2014, Table 1 and Figure 3; section 5 for the auxiliary heads."""

    # Depth before; #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
    TABLE = (
        ("3a", 192, 64, 96, 128, 16, 32, 32),
        ("3b", 256, 128, 128, 192, 32, 96, 64),
        ("4a", 480, 192, 96, 208, 16, 48, 64),
        ("4b", 512, 160, 112, 224, 24, 64, 64),
        ("4c", 512, 128, 128, 256, 24, 64, 64),
        ("4d", 512, 112, 144, 288, 32, 64, 64),
        ("4e", 528, 256, 160, 320, 32, 128, 128),
        ("5a", 832, 256, 160, 320, 32, 128, 128),
        ("5b", 832, 384, 192, 384, 48, 128, 128),
    )
    AUX = (("4a", "aux1", 512), ("4d", "aux2", 528))

    def define(self, num_classes: int) -> None:
        self.conv("conv1", 3, 64, 7, stride=2, padding=3)
        self.conv("conv2_reduce", 64, 64, 1)
        self.conv("conv2", 64, 192, 3, padding=1)
        for module, depth, one, reduce3, three, reduce5, five, projection in self.TABLE:
            name = f"inception{module}"
            self.conv(f"{name}_1x1", depth, one, 1)
            self.conv(f"{name}_3x3_reduce", depth, reduce3, 1)
            self.conv(f"{name}_3x3", reduce3, three, 3, padding=1)
            self.conv(f"{name}_5x5_reduce", depth, reduce5, 1)
            self.conv(f"{name}_5x5", reduce5, five, 5, padding=2)
            self.conv(f"{name}_projection", depth, projection, 1)
        for _, head, depth in self.AUX:
            self.conv(f"{head}_conv1", depth, 128, 1)
            self.add_module(f"{head}_fc1", nn.LazyLinear(1024))
            self.add_module(f"{head}_logits", nn.Linear(1024, num_classes))
        self.logits = nn.Linear(1024, num_classes)

    def inception(self, name: str, x: torch.Tensor) -> torch.Tensor:
        branches = (
            self.relu(f"{name}_1x1", x),
            self.relu(f"{name}_3x3", self.relu(f"{name}_3x3_reduce", x)),
            self.relu(f"{name}_5x5", self.relu(f"{name}_5x5_reduce", x)),
            self.relu(f"{name}_projection", max_pool2d(x, 3, 1, padding=1)),
        )
        return torch.cat(branches, 1)

    def aux_head(self, head: str, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(f"{head}_conv1", avg_pool2d(x, 5, 3)).flatten(1)
        return getattr(self, f"{head}_logits")(getattr(self, f"{head}_fc1")(x).relu())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(max_pool2d(self.relu("conv1", x), 3, 2, ceil_mode=True))
        x = self.norm(self.relu("conv2", self.relu("conv2_reduce", x)))
        x = max_pool2d(x, 3, 2, ceil_mode=True)
        heads = {module: head for module, head, _ in self.AUX}
        for module, *_ in self.TABLE:
            x = self.inception(f"inception{module}", x)
            if module in heads:
                self.aux_head(heads[module], x)
            if module in ("3b", "4e"):
                x = max_pool2d(x, 3, 2, ceil_mode=True)
        return self.logits(x.mean((2, 3)))


FROM_PAPERS = {"alexnet": AlexNet, "zfnet": ZFNet, "googlenet": GoogLeNet}


def peer(name: str, px: int, num_classes: int = 10) -> torch.nn.Module:
    """The peer of one of our networks, in evaluation mode, its state filled by formula."""
    if name in FROM_PAPERS:
        module = FROM_PAPERS[name](num_classes)
        module(torch.zeros(1, 3, px, px))
    elif name == "seresnet50":
        module = timm.create_model(name, num_classes=num_classes)
    elif name in WITH_AUX_HEADS:
        make = getattr(torchvision.models, THEIR_NAMES.get(name, name))
        module = make(num_classes=num_classes, aux_logits=True, init_weights=False)
    else:
        make = getattr(torchvision.models, THEIR_NAMES.get(name, name))
        module = make(num_classes=num_classes)
    if name.startswith(("vgg", "alexnet_owt")):
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
