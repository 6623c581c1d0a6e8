"""A calibration from settings to files, in this process."""

import json
from pathlib import Path

import pytest

from hxtrain.backends import DeviceError
from hxtrain.commands.calibrate import CalibrateConfig, calibrate_chip
from hxtrain.execution.config import BackendConfig, ChipConfig


def calibrated(folder: Path, **backend: object) -> dict[str, object]:
    config = CalibrateConfig(BackendConfig(**backend), ChipConfig("T1"), stages=["cadc"])  # type: ignore[arg-type]
    file, outcomes = calibrate_chip(config, folder, "test", lambda text: None)
    assert file.exists()
    assert outcomes
    return json.loads((folder / "calibration.json").read_text())  # type: ignore[no-any-return]


def test_a_chip_behind_a_faulty_link_is_calibrated_like_any_other(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("plain", "faulty")]
    for folder in folders:
        folder.mkdir()
    plain = calibrated(folders[0])
    faulty = calibrated(folders[1], faults={"timeout": 0.5, "lost_samples": 0.5})
    assert json.dumps(faulty["outcomes"]) == json.dumps(plain["outcomes"])  # some are NaN, which equals nothing
    assert faulty["chip_hash"] == plain["chip_hash"]
    assert "timeout" in str(faulty["faults"])


@pytest.mark.parametrize("backend", ["reference", "software", "brainscales2"])
def test_a_device_that_cannot_be_calibrated_from_here_says_so(backend: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=f"backend={backend} cannot be calibrated from here"):
        calibrated(tmp_path, name=backend)
