"""Neural Tangent Transfer: a sparse network that starts like a dense one, and learns like it; no labels are read.

A student with masks approaches outputs and neural tangent kernel of a dense teacher, which is the student before
(Liu and Zenke 2020, arXiv:2006.08228)::

    loss = kernel_weight mean (K_student - K_teacher)^2 + mean (f_student - f_teacher)^2 + decay / density sum w^2

The kernels are those between the two halves of a batch. Masks follow the magnitudes of the student's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .rate_model import RateModel

Masker = Callable[[Sequence[Tensor]], list[Tensor]]
"""Returns the masks `[N, J]` of each layer for its weights."""


class Transfer(NamedTuple):
    """What a transfer gave.

    Attributes:
        masks: Existing synapses of each layer, True in `[N, J]`.
        student: Rate model with the masked weights.
        distance_at_start: Mean squared distance of the kernels under the first masks, on the last batch.
        distance: The same with the final weights and masks.
    """

    masks: list[Tensor]
    student: RateModel
    distance_at_start: float
    distance: float


class Terms(NamedTuple):
    """Terms of the loss, without their factors: mean squared distances of kernels and outputs, squared weights.

    As in the code of Liu and Zenke, biases are not penalised.
    """

    kernel: Tensor
    output: Tensor
    weights: Tensor


def terms(student: RateModel, teacher: RateModel, inputs: Tensor) -> Terms:
    """Return the terms of the loss for inputs `[B, J]`; both halves of the batch enter the kernel."""
    half = len(inputs) // 2
    first = inputs[:half]
    second = inputs[half:]
    kernel = (student.kernel(first, second) - teacher.kernel(first, second)).square().mean()
    output = (student.outputs(inputs) - teacher.outputs(inputs)).square().mean()
    return Terms(kernel, output, torch.stack([weight.square().sum() for weight in student.weights]).sum())


def transfer(
    teacher: RateModel,
    inputs: Tensor,
    masker: Masker,
    *,
    kernel_weight: float = 1e-3,
    decay: float = 1e-4,
    learning_rate: float = 5e-4,
    batch_size: int = 64,
    steps: int = 2000,
    interval: int = 100,
    generator: torch.Generator,
) -> Transfer:
    """Train a sparse student to have outputs and kernel of a dense teacher.

    Args:
        teacher: Dense rate model; it stays as it is.
        inputs: Samples without labels `[S, J]`.
        masker: Function from weights to masks; it is given the student's weights.
        kernel_weight: Factor of the distance of the kernels.
        decay: Factor of the squared weights, for a density of 1.
        learning_rate: Learning rate of Adam.
        batch_size: Samples of a step, at least 2.
        steps: Number of steps.
        interval: Steps between two choices of the masks; the last `interval` steps keep theirs.
        generator: Source of the batches.

    Raises:
        ValueError: There are fewer than two samples, or the training diverges.
    """
    if min(batch_size, len(inputs)) < 2:
        raise ValueError(
            f"mask=ntt: student_batch_size={batch_size} of {len(inputs)} samples; a kernel needs two halves of a "
            "batch, give at least 2 of both"
        )
    weights = [weight.detach().clone().requires_grad_() for weight in teacher.weights]
    biases = None if teacher.biases is None else [bias.detach().clone().requires_grad_() for bias in teacher.biases]
    student = RateModel(weights, biases)
    parameters = [*weights, *(biases or ())]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    masks = masker([weight.detach() for weight in weights])
    density = sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    first_masks = masks
    batch = inputs[:batch_size]
    for step in range(steps):
        if step % interval == 0 and 0 < step <= steps - interval:
            masks = masker([weight.detach() for weight in weights])
        batch = inputs[torch.randperm(len(inputs), generator=generator)[:batch_size].to(inputs.device)]
        parts = terms(student.masked(masks), teacher, batch)
        loss = kernel_weight * parts.kernel + parts.output + decay / density * parts.weights
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    with torch.no_grad():
        sparse = RateModel([weight.detach() for weight in weights], biases and [bias.detach() for bias in biases])
        sparse = sparse.masked(masks)
        start = terms(teacher.masked(first_masks), teacher, batch)
        end = terms(sparse, teacher, batch)
    if not all(bool(weight.isfinite().all()) for weight in sparse.weights):
        raise ValueError(
            f"mask=ntt: the student's weights are not finite after {steps} steps; give a smaller "
            f"mask.student_learning_rate than {learning_rate}"
        )
    return Transfer(masks, sparse, float(start.kernel), float(end.kernel))
