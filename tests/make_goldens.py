"""Records what the torch peers compute, so that parity can be proven where there is no torch.

    python tests/make_goldens.py

Needs torch, torchvision and timm; writes tests/goldens/torch.json. Per network: the input size, a
digest of the names and shapes of the peer's state, and by the name of the submodule the largest
magnitude of its output and the output's values at formula-drawn places, for the logits (all
values) and for layers spread evenly through the network; of auxiliary heads the logits.
"""

import json
from pathlib import Path

import formula
import numpy as np
import torch_peers

GOLDENS = Path(__file__).parent / "goldens" / "torch.json"
SIZES_PX = {
    "alexnet": 131,
    "zfnet": 95,
    "googlenet": 127,
    "alexnet_owt": 127,
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), 96),
    **dict.fromkeys(("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"), 96),
    "googlenet_bn": 101,
    "inception_v3": 107,
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), 63),
    **dict.fromkeys(("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2"), 64),
    "seresnet50": 64,
}
# Response normalisation shows its constants only where activations are as large as in 2012, when
# pixels went in as they were.
SPREADS = dict.fromkeys(torch_peers.FROM_PAPERS, 64.0)
AUX_SIZES_PX = {"googlenet": 127, "googlenet_bn": 101, "inception_v3": 299}
AUX_LOGITS = ("aux1_logits", "aux2_logits", "aux1.fc2", "aux2.fc2", "AuxLogits.fc")
LAYERS = 12


def _drawn(name: str, output: np.ndarray) -> np.ndarray:
    return output.ravel()[formula.places(name, output.size)]


def _digits(value: float) -> float:
    return float(f"{value:.8g}")


def record(name: str, px: int) -> dict:
    module = torch_peers.peer(name, px)
    spread = SPREADS.get(name, 2.0)
    found = torch_peers.outputs(module, formula.images(px, spread=spread))
    kinds = ("Conv2d", "BatchNorm2d")
    candidates = [n for n, m in module.named_modules() if type(m).__name__ in kinds and n in found]
    chosen = {candidates[round(i)] for i in np.linspace(0, len(candidates) - 1, LAYERS)}
    shapes = {
        key: value.shape
        for key, value in torch_peers.state(module).items()
        if not key.startswith("AuxLogits.")
    }
    return {
        "px": px,
        "spread": spread,
        "state": formula.digest(shapes),
        "logits": [_digits(v) for v in found[""].ravel()],
        "layers": {
            layer: {
                "largest": _digits(np.abs(found[layer]).max()),
                "values": [_digits(v) for v in _drawn(layer, found[layer])],
            }
            for layer in candidates
            if layer in chosen
        },
    }


def record_aux(name: str, px: int) -> dict:
    images = formula.images(px, spread=SPREADS.get(name, 2.0))
    found = torch_peers.outputs(torch_peers.peer(name, px), images)
    logits = {head: found[head] for head in AUX_LOGITS if head in found}
    return {
        "px": px,
        "logits": {head: [_digits(v) for v in values.ravel()] for head, values in logits.items()},
    }


if __name__ == "__main__":
    goldens = {name: record(name, px) for name, px in SIZES_PX.items()}
    for name, px in AUX_SIZES_PX.items():
        goldens[name]["aux"] = record_aux(name, px)
    GOLDENS.parent.mkdir(exist_ok=True)
    lines = (f"{json.dumps(name)}: {json.dumps(golden)}" for name, golden in goldens.items())
    GOLDENS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{GOLDENS}: {len(goldens)} networks, {GOLDENS.stat().st_size} bytes")
