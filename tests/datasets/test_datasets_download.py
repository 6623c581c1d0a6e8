"""Downloads over the loopback: mirrors, checksums, remaining files."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from mirror import Quiet

from hxtrain.datasets import DatasetError, load_dataset
from hxtrain.datasets.catalogue import CATALOGUE, DIGITS, IDX_NAMES, MNIST, DatasetInfo
from hxtrain.datasets.download import cache_folder, download_dataset, download_files

NAME = f"{IDX_NAMES[1]}.gz"


@pytest.fixture
def served(make_folder: Callable[..., Path]) -> Path:
    return make_folder(ending=".gz", directory="served")


@pytest.fixture
def mirror(served: Path, serve: Callable[[Path], str]) -> str:
    return serve(served)


@pytest.fixture
def dead() -> str:
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        return f"http://127.0.0.1:{server.server_address[1]}/"


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def info_for(served: Path, *mirrors: str) -> DatasetInfo:
    return replace(MNIST, mirrors=mirrors, md5=tuple(md5(served / f"{name}.gz") for name in IDX_NAMES))


def test_all_files_past_a_dead_mirror(served: Path, mirror: str, dead: str, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    download_dataset(info_for(served, dead, mirror), target)
    names = sorted(path.name for path in target.iterdir())
    assert names == sorted(f"{name}.gz" for name in IDX_NAMES)
    assert all((target / name).read_bytes() == (served / name).read_bytes() for name in names)


def test_existing_files_are_left_alone(served: Path, mirror: str, make_folder: Callable[..., Path]) -> None:
    target = make_folder(dotted=True, seed=3)
    (target / "t10k-images.idx3-ubyte").unlink()
    previous = {path.name: path.read_bytes() for path in target.iterdir()}
    download_dataset(info_for(served, mirror), target)
    current = {path.name: path.read_bytes() for path in target.iterdir()}
    assert set(current) - set(previous) == {"t10k-images-idx3-ubyte.gz"}
    assert current | previous == current


def test_wrong_checksum_then_missing_then_dead(served: Path, mirror: str, dead: str, tmp_path: Path) -> None:
    wrong = "0" * 32
    with pytest.raises(DatasetError) as refusal:
        download_files([mirror, f"{mirror}/nowhere", dead, "nonsense"], {NAME: wrong}, tmp_path / "t")
    text = str(refusal.value)
    assert f"could not download {NAME}, all 4 mirror(s) failed" in text
    assert f"{mirror}/{NAME}: wrong checksum: expected MD5 {wrong}, found {md5(served / NAME)}" in text
    assert f"{mirror}/nowhere/{NAME}: HTTP Error 404" in text
    assert f"{dead}{NAME}: <urlopen error" in text
    assert f"nonsense/{NAME}: unknown url type" in text
    assert "put the file into" in text
    assert list((tmp_path / "t").iterdir()) == []


def test_wrong_checksum_falls_to_the_next_mirror(served: Path, mirror: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / NAME).write_bytes(b"an error page")
    download_files([bad.as_uri(), mirror], {NAME: md5(served / NAME)}, tmp_path / "t")
    assert [path.name for path in (tmp_path / "t").iterdir()] == [NAME]
    assert (tmp_path / "t" / NAME).read_bytes() == (served / NAME).read_bytes()


def test_cut_connection(served: Path, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def send_half(self: Quiet, source: object, output: object) -> None:
        output.write(source.read()[:10])  # type: ignore[attr-defined]

    monkeypatch.setattr(Quiet, "copyfile", send_half)
    with pytest.raises(DatasetError, match=r"IncompleteRead|\(10 bytes\)"):
        download_files([mirror], {NAME: md5(served / NAME)}, tmp_path / "t")
    assert list((tmp_path / "t").iterdir()) == []


def test_silent_mirror_times_out(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(Quiet, "do_GET", lambda self: released.wait(10))
    try:
        with pytest.raises(DatasetError, match="timed out"):
            download_files([mirror], {NAME: "0" * 32}, tmp_path / "t", timeout=0.1)
    finally:
        released.set()


def test_load_downloads_into_the_cache(
    served: Path, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HXTRAIN_DATA", str(tmp_path / "cache"))
    monkeypatch.setitem(CATALOGUE, "mnist", info_for(served, mirror))
    data = load_dataset("mnist", size=12, download=True)
    assert data.train.images.shape == (7, 12, 12)
    assert len(list((tmp_path / "cache" / "mnist").iterdir())) == 4
    monkeypatch.setitem(CATALOGUE, "mnist", info_for(served, "nonsense"))
    assert load_dataset("mnist", size=12, download=True).sha256 == data.sha256


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HXTRAIN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder("mnist") == Path("/somewhere/hxtrain/mnist")
    monkeypatch.setenv("HXTRAIN_DATA", "/data")
    assert cache_folder("mnist") == Path("/data/mnist")


def test_nothing_to_download(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'digits' has nothing to download"):
        download_dataset(DIGITS, tmp_path)
