"""Damaged and hostile files: refused before memory is allocated for what they announce."""

import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.conversion import ConversionError
from hxtrain.conversion import from_nir as rates_of_nir
from hxtrain.exchange import ExchangeError, read_graph
from hxtrain.exchange.weights import read_archive

pytest.importorskip("nir")
MOST = 8e6
"""Greatest memory that a refusal may take (bytes)."""


def network_file(path: Path) -> Path:
    """Write an intact graph."""
    hx.save(hx.Network(hx.Linear(4, 3), hx.LIF(3, refractory=0.0), steps=20), path)
    return path


def long_shape(node: h5py.Group) -> None:
    del node["nodes/synapses0/weight"]
    node["nodes/synapses0"].create_dataset("weight", (10**9, 4), "f4", chunks=(1, 4), compression="gzip")


def unwritten(node: h5py.Group) -> None:
    del node["nodes/layer0/r"]
    node["nodes/layer0"].create_dataset("r", (10**9,), "f8", fillvalue=1.0)


def large_chunk(node: h5py.Group) -> None:
    del node["nodes/layer0/r"]
    node["nodes/layer0"].create_dataset("r", (3,), "f8", maxshape=(None,), chunks=(10**8,), compression="gzip")


def many_arrays(node: h5py.Group) -> None:
    for place in range(5):
        node["nodes/synapses0"].create_dataset(f"weight{place}", (2**23,), "f8", chunks=(2**16,), compression="gzip")


def bomb_in_metadata(node: h5py.Group) -> None:
    node["metadata"].create_dataset("bomb", (2**30,), "u1", chunks=(2**20,), compression="gzip")


def object_type(node: h5py.Group) -> None:
    del node["nodes/synapses0/weight"]
    node["nodes/synapses0"].create_dataset("weight", (3, 4), h5py.vlen_dtype(np.float64))


def references(node: h5py.Group) -> None:
    node["metadata"].create_dataset("link", (2,), h5py.ref_dtype)


def long_text(node: h5py.Group) -> None:
    node["metadata"].create_dataset("text", (), "S100000000")


def loop_of_groups(node: h5py.Group) -> None:
    node["nodes/layer0/metadata"] = node


def other_file(node: h5py.Group) -> None:
    del node["nodes/synapses0/weight"]
    node["nodes/synapses0/weight"] = h5py.ExternalLink("/etc/passwd", "weight")


def soft_link(node: h5py.Group) -> None:
    node["metadata/link"] = h5py.SoftLink("/node")


def outer_product(node: h5py.Group) -> None:
    for name, shape in {"v_threshold": (30_000, 1), "w_in": (1, 30_000)}.items():
        del node[f"nodes/layer0/{name}"]
        node["nodes/layer0"][name] = np.ones(shape)


def unknown_kind(node: h5py.Group) -> None:
    del node["nodes/layer0/type"]
    node["nodes/layer0/type"] = "dict2NIRNode"


def missing_field(node: h5py.Group) -> None:
    del node["nodes/layer0/tau_mem"]


def huge_input(node: h5py.Group) -> None:
    del node["nodes/input/shape"]
    node["nodes/input/shape"] = np.array([10**15])


def strange_edge(node: h5py.Group) -> None:
    del node["edges"]
    node["edges"] = np.array([["input", "nowhere"]], dtype=object)


FILES: list[tuple[Callable[[h5py.Group], None], str]] = [
    (long_shape, r"weight has the shape \[1000000000, 4\]"),
    (unwritten, r"r has the shape \[1000000000\]"),
    (large_chunk, r"r has the shape \[3\] of float64 in chunks of \[100000000\]"),
    (many_arrays, "a file may hold 268435456 bytes"),
    (bomb_in_metadata, r"metadata/bomb has the shape \[1073741824\]"),
    (object_type, "weight is of type object; only numbers and texts"),
    (references, "link is of type object; only numbers and texts"),
    (long_text, "text has the shape"),
    (loop_of_groups, "nested more than 10 deep"),
    (other_file, "weight is a ExternalLink, which leads elsewhere"),
    (soft_link, "link is a SoftLink, which leads elsewhere"),
    (outer_product, r"node 'layer0' \(CubaLIF\): .* has the shape"),
    (unknown_kind, "node 'layer0' is of the unknown kind 'dict2NIRNode'"),
    (missing_field, r"node 'layer0' \(CubaLIF\) lacks tau_mem"),
    (huge_input, r"node 'input' \(Input\) has the shape \[1000000000000000\]"),
    (strange_edge, "edges of 'nowhere', which is no node of it"),
]


@pytest.mark.parametrize(("damage", "text"), FILES, ids=[damage.__name__ for damage, _ in FILES])
def test_a_hostile_file_is_refused_with_flat_memory(
    tmp_path: Path, damage: Callable[[h5py.Group], None], text: str
) -> None:
    path = network_file(tmp_path / "net.nir")
    with h5py.File(path, "r+") as file:
        damage(file["node"])
    tracemalloc.start()
    try:
        with pytest.raises(ExchangeError, match=text):
            read_graph(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST
    with pytest.raises(ConversionError, match=text):
        rates_of_nir(path)


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    path = network_file(tmp_path / "net.nir")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for place in range(30):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 255
        cut = bytes(damaged) if place % 2 else content[: int(rng.integers(len(content)))]
        path.write_bytes(cut)
        try:
            hx.from_nir(path)
            outcomes.add("read")
        except ExchangeError:
            outcomes.add("refused")
    assert "refused" in outcomes  # a changed byte of a weight is no error
    path.write_bytes(b"not HDF5")
    with pytest.raises(ExchangeError, match="no readable HDF5 file"):
        read_graph(path)
    with pytest.raises(ExchangeError, match="cannot be read"):
        read_graph(tmp_path / "absent.nir")


def test_a_wide_product_of_weights_is_refused() -> None:
    nir = pytest.importorskip("nir")
    wide = {"input": nir.Input({"input": np.array([30_000])}), "output": nir.Output({"output": np.array([30_000])})}
    nodes = {**wide, "a": nir.Linear(np.ones((1, 30_000))), "b": nir.Linear(np.ones((30_000, 1)))}
    graph = nir.NIRGraph(nodes, [("input", "a"), ("a", "b"), ("b", "output")], type_check=False)
    with pytest.raises(ExchangeError, match="30000 x 30000 synapses; put neurons between them"):
        hx.from_nir(graph, dt=1e-4, steps=10)


@pytest.mark.parametrize("shape", ["(1000000000, 1000)", "(3, 4)"])
def test_an_archive_that_lies_is_refused(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "weights.npz"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weight.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + bytes(8))
    tracemalloc.start()
    try:
        with pytest.raises(ExchangeError, match=r"weight\.npy is of float32 and shape|no archive of matrices"):
            read_archive(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST


def test_an_archive_with_objects_or_bombs_is_refused(tmp_path: Path, mocker) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, weight=np.array([{}], dtype=object))
    with pytest.raises(ExchangeError, match=r"weight\.npy is of object"):
        read_archive(path)
    mocker.patch("hxtrain.exchange.weights.MOST_BYTES", 2**16)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2**17))
    with pytest.raises(ExchangeError, match="holds more than 65536 bytes"):
        read_archive(path)


def test_metadata_that_are_no_json_are_refused(tmp_path: Path) -> None:
    path = network_file(tmp_path / "net.nir")
    for text in ("[" * 100_000, "{", json.dumps({"version": 1}), json.dumps([1])):
        with h5py.File(path, "r+") as file:
            del file["node/metadata/hxtrain"]
            file["node/metadata/hxtrain"] = text
        with pytest.raises(ExchangeError, match="the metadata 'hxtrain' are damaged"):
            hx.from_nir(path)
    assert torch.is_tensor(hx.from_nir(path, dt=1.7e-6, steps=20, metadata=False).effective_weights()[0])
