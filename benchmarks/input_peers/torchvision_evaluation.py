"""torchvision's evaluation: short side 256, central 224; uint8, two worker processes."""

from measure import SIZE, serve
from torchvision_v2 import batches, v2

serve(batches(v2.Compose([v2.Resize(256), v2.CenterCrop(SIZE), v2.PILToTensor()])), None)
