"""The fastest that a machine computes: its rate in products of two square matrices."""

import time

import tensorflow as tf

# Larger ones are tried until a product takes so long.
SIDES = (256, 512, 1024, 2048, 4096, 8192, 16384)
LONGEST_PRODUCT_S = 0.05
# Products of one size.
PRODUCTS = 8


def ceiling_gflops(precision: str) -> float:
    """10^9 operations a second in the fastest product found, on the first GPU if there is one.

    A multiply-accumulate is two operations. Networks may come above it: an algorithm that
    multiplies less (Winograd's) is counted at what it saves.

    Args:
        precision: of the matrices: `float32`, `bfloat16` or `float16`.
    """
    fastest = 0.0
    for side in SIDES:
        product_s = _product_s(side, precision)
        fastest = max(fastest, 2 * side**3 / product_s / 1e9)
        if product_s > LONGEST_PRODUCT_S:
            break
    return fastest


def _product_s(side: int, precision: str) -> float:
    """How long the shortest of a few products takes."""
    factor = tf.cast(tf.random.stateless_normal((side, side), (0, 0)), precision)
    times_s = []
    for _ in range(PRODUCTS):
        began_s = time.perf_counter()
        # Reading a number back waits for the product.
        tf.matmul(factor, factor)[0, 0].numpy()
        times_s.append(time.perf_counter() - began_s)
    return min(times_s)
