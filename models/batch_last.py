"""Small matrices of many poses, with the poses last: arithmetic then runs along the batch.

A processor, or a GPU, gets through long rows of numbers several times as fast as through so many
products of 3x3 matrices, each on its own.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def leading(values: Tensor, own: int) -> Tensor:
    """Move the axes of the batch behind the last ones, so many of its items' own."""
    return values.movedim(tuple(range(-own, 0)), tuple(range(own)))


def trailing(values: Tensor, own: int) -> Tensor:
    """Move the axes of the batch before the first ones, so many of its items' own."""
    return values.movedim(tuple(range(own)), tuple(range(-own, 0)))


def constant(values: Tensor, dimensions: int) -> Tensor:
    """Add axes of a batch for which the values are the same, up to so many in all."""
    return values.reshape(*values.shape, *[1] * (dimensions - values.ndim))


def product(
    first: Float[Tensor, "item row middle *batch"],
    second: Float[Tensor, "item middle column *batch"],
) -> Float[Tensor, "item row column *batch"]:
    """Return the matrices' products."""
    return (first[:, :, :, None] * second[:, None]).sum(2)


def turned(
    matrix: Float[Tensor, "item row column *batch"], vector: Float[Tensor, "item column *batch"]
) -> Float[Tensor, "item row *batch"]:
    """Return what matrices make of vectors."""
    return (matrix * vector[:, None]).sum(2)


def fixed(
    matrix: Float[Tensor, "item row column"], vector: Float[Tensor, "item column *batch"]
) -> Float[Tensor, "item row *batch"]:
    """Return what matrices that are the same for a whole batch make of vectors."""
    return turned(constant(matrix, vector.ndim + 1), vector)


def products(angle: Float[Tensor, "joint turn *batch"]) -> Float[Tensor, "joint term *batch"]:
    """Return all products of 1, cosine or sine of each angle, rad; the last one's change fastest."""
    waves = torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()], 1)
    term, *others = waves.unbind(2)
    for other in others:
        term = (term[:, :, None] * other[:, None]).flatten(1, 2)
    return term


def matrices(
    terms: Float[Tensor, "joint 9 term"], products: Float[Tensor, "joint term *batch"]
) -> Float[Tensor, "joint 3 3 *batch"]:
    """Return matrices that are sums of the products, each times its terms of a matrix."""
    joints, count, *batch = products.shape
    summed = terms @ products.reshape(joints, count, math.prod(batch))
    return summed.reshape(joints, 3, 3, *batch)
