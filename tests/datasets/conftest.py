"""Small IDX folders, written for each test that requests one, and folders served over the loopback."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mirror import Quiet

from hxtrain.datasets import write_idx
from hxtrain.datasets.catalogue import IDX_NAMES

FolderMaker = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> FolderMaker:
    """Return a function that writes four IDX files of random 28x28 images and returns their folder."""

    def make(
        counts: tuple[int, int, int, int] = (7, 7, 5, 5),
        ending: str = "",
        dotted: bool = False,
        highest: int = 9,
        seed: int = 0,
        directory: str = "idx",
    ) -> Path:
        folder = tmp_path / directory
        folder.mkdir()
        rng = torch.Generator().manual_seed(seed)
        for name, count in zip(IDX_NAMES, counts, strict=True):
            if "images" in name:
                values = torch.randint(0, 256, (count, 28, 28), generator=rng)
            else:
                values = torch.arange(count).flip(0) % 10
                values[0] = highest
            spelling = name.replace("-idx", ".idx") if dotted else name
            write_idx(folder / f"{spelling}{ending}", values.to(torch.uint8))
        return folder

    return make


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """Return a function that serves a folder until the end of the test, and returns its address."""
    monkeypatch.setenv("no_proxy", "*")
    with ExitStack() as servers:
        yield lambda folder: servers.enter_context(served_folder(folder))


@contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
