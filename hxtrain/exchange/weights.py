"""Weights of other programs for a network of given sizes, and weights of a network for other programs.

A source is a `state_dict` of torch (snnTorch, norse, plain modules), an archive `.npz` of matrices, or tensors by name.
Weights are matched by name, or else matrices by their order, in which recurrent weights follow those onto their layer.
"""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hxtrain.network import LateralInhibition, Network
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.saved import require_finite

from .device_weights import device_weights_of
from .errors import ExchangeError
from .files import output
from .hdf5 import MOST_BYTES

log = logging.getLogger(__name__)
INTEGERS = "_integers"
"""End of the name of integer weights."""
SCALE = "_scale"
"""End of the name of the scale of integer weights."""
THRESHOLDS = ("threshold", "v_th", "v_threshold")
"""Names of thresholds of neurons in other programs."""
LEAST_FILES = 1000
"""Greatest number of arrays in an archive."""


def matched_weights(
    net: Network, weights: Mapping[str, Any], origin: str, transposed: bool = False
) -> dict[str, Tensor]:
    """Return weights by the names of a network's `state_dict`.

    Args:
        net: Network whose sizes count.
        weights: Tensors or arrays by name.
        origin: Origin of the weights, for errors.
        transposed: Whether matrices are `[sources, targets]`, as in JAX and Keras.

    Raises:
        ExchangeError: Numbers or shapes differ, there is a bias or a threshold other than 1, or a weight is not finite.
    """
    tensors = {str(name): _tensor(str(name), value, origin) for name, value in weights.items()}
    expected = net.state_dict()
    if tensors.keys() >= expected.keys():
        return {name: tensor for name, tensor in tensors.items() if not name.endswith((INTEGERS, SCALE))}
    projections = [p for p in net.projections if not isinstance(p.synapses, LateralInhibition)]
    places = {id(module): f"stack.{place}.weight" for place, module in enumerate(net.stack)}
    names = [places[id(projection.synapses)] for projection in projections]
    if tensors.keys() >= {projection.name for projection in projections}:
        matrices = {projection.name: tensors[projection.name] for projection in projections}
    else:
        matrices = _matrices(tensors, origin)
    if transposed:
        matrices = {name: matrix.t() for name, matrix in matrices.items()}
    shapes = [tuple(expected[name].shape) for name in names]
    _require_shapes(matrices, shapes, origin)
    result = dict(expected)
    result.update({n: m.to(expected[n].dtype) for n, m in zip(names, matrices.values(), strict=True)})
    try:
        require_finite(result, origin)
    except CheckpointError as error:
        raise ExchangeError(str(error)) from error
    return result


def _tensor(name: str, value: Any, origin: str) -> Tensor:
    try:
        tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExchangeError(f"{origin}: {name} is a {type(value).__name__}, expected a tensor or an array") from error
    if tensor.is_complex():
        raise ExchangeError(f"{origin}: {name} is of {tensor.dtype}; weights are real numbers")
    return tensor


def _matrices(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Return the weights among the tensors of another program, in their order.

    Raises:
        ExchangeError: A bias is not 0, or a threshold not 1.
    """
    matrices: dict[str, Tensor] = {}
    ignored: list[str] = []
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if tensor.ndim == 2 and not last.endswith((INTEGERS, "mask")) and tensor.is_floating_point():
            matrices[name] = tensor
        elif last.startswith("bias") and bool((tensor != 0).any()):
            raise ExchangeError(
                f"{origin}: {name} holds biases up to {float(tensor.abs().max()):.3g}, and no biases exist here: train "
                "without (`bias=False` of torch), or give the layer an input that fires in every sample "
                "(docs/exchange.md)"
            )
        elif last in THRESHOLDS and bool((tensor != 1).any()):
            raise ExchangeError(
                f"{origin}: {name} is {_values(tensor)}, thresholds here are 1: divide the weights onto the layer by "
                "it, or "
                "exchange the network as a NIR graph, which does so"
            )
        elif not last.endswith((INTEGERS, SCALE, "mask")) and not last.startswith("bias"):
            ignored.append(f"{name} = {_values(tensor)}")
    if ignored:
        log.warning(
            "%s: only weights are loaded; set the constants of the neurons yourself, or exchange a NIR graph: %s",
            origin,
            "; ".join(ignored[:8]),
        )
    return matrices


def _values(tensor: Tensor) -> str:
    unique = torch.unique(tensor.double())[:3].tolist()
    return ", ".join(f"{value:.4g}" for value in unique) + (", ..." if tensor.numel() > 3 else "")


def _require_shapes(matrices: Mapping[str, Tensor], shapes: list[tuple[int, ...]], origin: str) -> None:
    """Check the shapes of weights against those of a network.

    Raises:
        ExchangeError: They differ.
    """
    shapes_given = [tuple(matrix.shape) for matrix in matrices.values()]
    if shapes_given == shapes:
        return
    named = {name: tuple(matrix.shape) for name, matrix in matrices.items()}
    if [shape[::-1] for shape in shapes_given] == shapes:
        raise ExchangeError(f"{origin} has the weights {named}, which are transposed; load them with transposed=True")
    raise ExchangeError(
        f"{origin} is a state_dict with weights {named}; the network takes matrices [post, pre] of the shapes "
        f"{shapes}, in "
        "this order, and no biases: use the same sizes in network.hidden, and remove all else from it"
    )


def read_archive(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an archive `.npz`; sizes are checked before memory is allocated, and no code is run.

    Raises:
        ExchangeError: The archive is damaged, or holds more than arrays of numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > LEAST_FILES or sum(member.file_size for member in members) > MOST_BYTES:
                raise ExchangeError(f"{path} holds more than {MOST_BYTES} bytes or {LEAST_FILES} arrays")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except ExchangeError as error:
        raise ExchangeError(f"{error}; give an archive of numpy.savez") from error
    except OSError as error:
        raise ExchangeError(
            f"{path} cannot be read ({error.strerror or error}); give the path of an archive"
        ) from error
    except Exception as error:  # a damaged archive raises nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExchangeError(f"{path} is no archive of matrices ({reason}); write it with numpy.savez") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    """Return an array of an archive after a check that its header tells the size of its bytes."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if dtype.kind not in "fiub" or math.prod(shape) * dtype.itemsize > member.file_size:
            raise ExchangeError(f"{archive.filename}: {member.filename} is of {dtype} and shape {list(shape)[:4]}")
        values = np.frombuffer(file.read(), dtype=dtype, count=math.prod(shape))
    array = values.reshape(shape, order="F" if fortran else "C")
    native = array.astype(dtype.newbyteorder("="))
    return torch.from_numpy(np.ascontiguousarray(native))


def named_weights(net: Network, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the effective weights of a network, with integer weights and scales if it runs on a device.

    Args:
        net: Network.
        names: Name of each projection.
    """
    device_weights = device_weights_of(net)
    values: dict[str, Tensor] = {}
    for name, projection in zip(names, net.projections, strict=True):
        values[name] = projection.synapses.effective_weight.detach().cpu().clone()
        if device_weights is not None:
            values[f"{name}{INTEGERS}"] = device_weights.integers[projection.name].cpu()
            values[f"{name}{SCALE}"] = torch.tensor(device_weights.scales[projection.name], dtype=torch.float64)
    return values


def save_archive(net: Network, path: str | Path) -> None:
    """Write the weights of a network into an archive `.npz`, by projection."""
    values = named_weights(net, [projection.name for projection in net.projections])
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in values.items()}
    with output(path) as file:
        np.savez_compressed(file, **arrays)


def save_state_dict(net: Network, path: str | Path) -> None:
    """Write the weights of a network as a `state_dict` of torch, in the order of the projections."""
    names = {id(module): f"stack.{place}.weight" for place, module in enumerate(net.stack)}
    values = named_weights(net, [names[id(projection.synapses)] for projection in net.projections])
    with output(path) as file:
        torch.save(values, file)
