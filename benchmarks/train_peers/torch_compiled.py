"""torchvision's network under torch.compile, channels last, autocast to bfloat16, on the GPU."""

import torch
from measure import CLASSES, MEAN, STD, batch, network, serve
from torch_networks import torchvision_network

model = torchvision_network(network(), CLASSES).cuda().train()
compiled = torch.compile(model)
optimizer = torch.optim.SGD(
    model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-5
)
loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
images, labels = (torch.from_numpy(array).cuda() for array in batch())
mean, std = (torch.tensor(values).view(1, 3, 1, 1).cuda() for values in (MEAN, STD))


def train(steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(compiled((images.permute(0, 3, 1, 2).float() - mean) / std), labels)
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()


serve(train, lambda: torch.cuda.max_memory_allocated() / 2**20)
