"""torchvision's network in eager torch, channels last, with the same optimizer."""

import os

import torch
from measure import CLASSES, MEAN, STD, batch, network, serve
from torch_networks import torchvision_network

torch.set_num_threads(len(os.sched_getaffinity(0)))
model = torchvision_network(network(), CLASSES).train()
optimizer = torch.optim.SGD(
    model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-5
)
loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
images, labels = (torch.from_numpy(array) for array in batch())
mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))


def step() -> tuple[float, int]:
    # The permuted view of (B, S, S, 3) is channels last already.
    pixels = (images.permute(0, 3, 1, 2).float() - mean) / std
    optimizer.zero_grad(set_to_none=True)
    logits = model(pixels)
    loss = loss_of(logits, labels)
    loss.backward()
    optimizer.step()
    return loss.item(), int((logits.argmax(1) == labels).sum())


serve(lambda steps: [step() for _ in range(steps)])
