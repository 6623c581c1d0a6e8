"""A user's own data: arrays, pictures, IDX files of any number of classes, or a refusal that names what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hxtrain.datasets import DatasetError, load_dataset, write_idx

IMAGES = np.arange(26 * 2 * 36, dtype=np.int64).reshape(52, 6, 6).astype(np.uint8)
LABELS = np.arange(52) % 26


def data_npz(folder: Path, **changes) -> None:
    arrays = {f"{part}_images": IMAGES for part in ("train", "test")}
    arrays |= {f"{part}_labels": LABELS for part in ("train", "test")}
    np.savez(folder / "data.npz", **{k: v for k, v in (arrays | changes).items() if v is not None})


def keras_npz(folder: Path) -> None:
    np.savez(folder / "data.npz", x_train=IMAGES[..., None], y_train=LABELS, x_test=IMAGES / 255, y_test=LABELS)


def two_npz(folder: Path) -> None:
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", images=IMAGES.astype(np.int32), labels=LABELS.astype(np.uint16))


def idx(folder: Path) -> None:
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte", torch.from_numpy(IMAGES))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", torch.from_numpy(LABELS.astype(np.uint8)))


def pictures(folder: Path) -> None:
    from matplotlib.image import imsave

    for part in ("train", "test"):
        for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
            (folder / part / str(label)).mkdir(parents=True, exist_ok=True)
            imsave(folder / part / str(label) / f"{number:02}.png", image, cmap="gray", vmin=0, vmax=255)


@pytest.mark.parametrize("write", [data_npz, keras_npz, two_npz, idx, pictures])
def test_every_layout_is_read(write, tmp_path: Path) -> None:
    write(tmp_path)
    data = load_dataset("folder", folder=tmp_path)
    assert (len(data.classes), data.shape) == (26, (6, 6))
    order = np.argsort(LABELS, kind="stable") if write is pictures else np.arange(52)
    for split in (data.train, data.test):
        assert split.labels.tolist() == LABELS[order].tolist()
        assert np.abs(split.images.numpy().astype(int) - IMAGES[order]).max() <= 1
    assert load_dataset("folder", size=4, folder=tmp_path).shape == (4, 4)


def test_features_and_names_of_classes(tmp_path: Path) -> None:
    features = np.linspace(0, 1, 52 * 5).reshape(52, 5)
    names = np.array([f"letter {label}" for label in range(26)])
    data_npz(tmp_path, train_images=features, test_images=features, classes=names)
    data = load_dataset("folder", folder=tmp_path)
    assert (data.shape, data.train.samples.dtype, data.classes[25]) == ((5,), torch.float32, "letter 25")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"test_labels": None}, "expected an array test_labels or y_test, found train_images"),
        ({"train_labels": LABELS / 2}, "train_labels is float64; expected class numbers"),
        ({"train_labels": LABELS[:3]}, "52 images but 3 labels"),
        ({"train_labels": LABELS - 1}, "labels run from -1 to 24"),
        ({"classes": np.array(["a", "b"])}, "labels run from 0 to 25, expected 0 to 1"),
        ({"train_images": IMAGES * 2.5}, "spans 0 to 637.5; expected 0 to 1"),
        ({"train_images": IMAGES[:, :, :5]}, "6x5 pixels; give a `size`"),
        ({"train_images": IMAGES[:, None, None]}, "expected grey images"),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "train part holds no sample"),
        ({"train_images": np.array([object()])}, "no readable .npz file of plain arrays"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_does_not_fit_is_refused(changes, text: str, tmp_path: Path) -> None:
    data_npz(tmp_path, **changes)
    with pytest.raises(DatasetError) as caught:
        load_dataset("folder", folder=tmp_path)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "needs folder=FOLDER"),
        ({"folder": "/nowhere"}, "found no such folder"),
        ({"folder": "."}, "none of them"),
    ],
)
def test_no_data_are_refused(settings, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=text):
        load_dataset("folder", **settings)


def test_a_network_of_one_s_own_data_is_trained_and_read_back(tmp_path: Path) -> None:
    """From the run's folder alone; a folder with other samples is refused."""
    import io

    from rich.console import Console

    from hxtrain.commands.evaluate import load_trained
    from hxtrain.commands.settings import RunConfig
    from hxtrain.commands.train import run
    from hxtrain.datasets import DataConfig
    from hxtrain.execution.config import BackendConfig
    from hxtrain.network import NetworkConfig
    from hxtrain.runs.checkpoint import CheckpointError
    from hxtrain.runs.progress import Progress
    from hxtrain.training.config import TrainerConfig

    data_npz(tmp_path)
    config = RunConfig(
        backend=BackendConfig("software"),
        network=NetworkConfig(hidden=[8]),
        data=DataConfig("folder", folder=str(tmp_path)),
        trainer=TrainerConfig(epochs=1, plots=False),
    )
    run(config, tmp_path / "run", "test", Progress(False, Console(file=io.StringIO())))
    trained = load_trained(str(tmp_path / "run/checkpoint.pt"))
    assert (len(trained.data.classes), trained.net.layers[-1].neurons.size) == (26, 26)
    data_npz(tmp_path, test_images=255 - IMAGES)
    with pytest.raises(CheckpointError, match="use the same files"):
        load_trained(str(tmp_path / "run/checkpoint.pt"))
