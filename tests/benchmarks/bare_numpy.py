"""The training of ``digits.yaml`` by one worker, as one would write it by hand in numpy: a yardstick, not the product.

    python bare_numpy.py DATA.npz [EPOCHS]

DATA.npz holds x (n, features) uint8, y (n,) and the mask ``train`` (n,). Prints the test accuracy as one line of JSON.
"""

import json
import sys
from itertools import pairwise

import numpy as np

HIDDEN, EPOCHS, RESET_EVERY, BATCH = 100, 100, 5, 32
LR, MOMENTUM, L2 = 0.05, 0.9, 0.35


def main(path: str, epochs: int = EPOCHS) -> None:
    with np.load(path) as data:
        x, y, train = data["x"], data["y"], data["train"]
    x = x.astype(np.float32) / np.float32(255)
    x_test, y_test = x[~train], y[~train]
    x, y = x[train], y[train]

    rng = np.random.default_rng(0)
    widths = (x.shape[1], HIDDEN, int(y.max()) + 1)
    w1, w2 = (rng.normal(0.0, (2.0 / a) ** 0.5, (a, b)).astype(np.float32) for a, b in pairwise(widths))
    b1, b2 = (np.zeros(width, np.float32) for width in widths[1:])
    parameters = (w1, b1, w2, b2)
    decay = L2 / len(x)

    for epoch in range(epochs):
        if epoch % RESET_EVERY == 0:
            velocities = [np.zeros_like(parameter) for parameter in parameters]
        order = rng.permutation(len(x))
        for start in range(0, len(x), BATCH):
            chosen = order[start : start + BATCH]
            x_batch, y_batch = x[chosen], y[chosen]
            hidden = np.maximum(x_batch @ w1 + b1, 0)
            z = hidden @ w2 + b2
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(p)), y_batch] -= 1
            delta2 = p / len(p)
            delta1 = (delta2 @ w2.T) * (hidden > 0)
            gradients = (
                x_batch.T @ delta1 + decay * w1,
                delta1.sum(axis=0),
                hidden.T @ delta2 + decay * w2,
                delta2.sum(axis=0),
            )
            for parameter, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
                velocity *= MOMENTUM
                velocity += gradient
                parameter -= LR * velocity

    outputs = np.maximum(x_test @ w1 + b1, 0) @ w2 + b2
    print(json.dumps({"test_accuracy": float((outputs.argmax(axis=1) == y_test).mean())}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
