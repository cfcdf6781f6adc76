"""Grain's loader with two worker processes; OpenCV decodes, crops, resizes (area), flips."""

import cv2
import grain.python as grain
import numpy as np
from measure import BATCH, SIZE, folder, serve

FILES = sorted(path for path in folder().rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))


class Files:
    def __len__(self):
        return len(FILES)

    def __getitem__(self, index):
        return FILES[index].read_bytes()


class Example(grain.RandomMapTransform):
    def random_map(self, encoded, rng):
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        for _ in range(10):
            area = height * width * rng.uniform(0.08, 1)
            aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            h, w = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
            if h <= height and w <= width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                image = image[top : top + h, left : left + w]
                break
        image = resize(image)
        return np.ascontiguousarray(image[:, ::-1]) if rng.uniform() < 0.5 else image


def resize(crop):
    shrinks = min(crop.shape[:2]) >= SIZE
    return cv2.resize(
        crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


if __name__ == "__main__":
    cv2.setNumThreads(1)
    serve(
        grain.DataLoader(
            data_source=Files(),
            sampler=grain.IndexSampler(
                len(FILES), grain.NoSharding(), shuffle=True, num_epochs=None, seed=0
            ),
            operations=[Example(), grain.Batch(BATCH, drop_remainder=True)],
            worker_count=2,
        ),
        resize,
    )
