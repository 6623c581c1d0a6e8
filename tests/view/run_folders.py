"""Run directories as a training writes them, made by hand."""

import base64
import json
from pathlib import Path
from typing import Any

STEPS = 40


def record(epoch: int) -> dict[str, Any]:
    accuracy = 0.9 - 0.3 / epoch
    return {
        "epoch": epoch, "train_loss": 1.0 / epoch, "train_accuracy": accuracy, "test_accuracy": accuracy - 0.01,
        "hidden_spikes_per_sample": 20.0 + epoch, "samples_per_second": 1000.0, "seconds": 2.0, "chip_seconds": 0.4,
        "dropped_spikes": 3, "retries": 1, "notes": ["note: 2 neurons missed a target"],
    }  # fmt: skip


def snapshot(epoch: int, epochs: int, step: int) -> dict[str, Any]:
    """Return a snapshot of a 6-4-2 network on a chip of 64 circuits; neuron 1 is silent, circuit 3 missed a target."""
    steps = [epoch * STEPS + k + 1 for k in range(step)]
    image = base64.b64encode(bytes([0, 60, 127, 129, 200, 255])).decode()
    trace = [0.0, 0.5, 0.9, 0.2]
    return {
        "format": 1, "written": 1.0, "epoch": epoch, "epochs": epochs, "step": step, "steps_per_epoch": STEPS,
        "steps": {
            "step": steps, "loss": [1 / k for k in steps], "accuracy": [0.5] * step, "hidden_spikes": [2.0] * step,
            "samples_per_second": [900.0] * step, "chip_seconds": [0.01 * k for k in steps],
        },
        "sample": {
            "label": 1, "window": 6.8, "dt": 1.7,
            "trains": [
                {"name": "input", "size": 6, "spikes": 3, "times": [0.1, 1.0, 2.0], "units": [4, 0, 1],
                 "ranks": [0, 1, 2]},
                {"name": "layer0", "size": 4, "spikes": 2, "times": [1.5, 3.0], "units": [2, 0], "ranks": [0, 1]},
            ],
            "membranes": [
                {"name": "layer0", "spiking": True, "neurons": [0, 2], "measured": [trace] * 2,
                 "modelled": [trace[::-1]] * 2},
                {"name": "layer1", "spiking": False, "neurons": [0, 1], "measured": [trace] * 2,
                 "modelled": [trace] * 2},
            ],
        },
        "weights": [
            {"name": "input->layer0", "shape": [4, 6], "image_shape": [2, 3], "image": image, "end": 63.0,
             "unit": "LSB", "counts": [1, 5, 2], "at_limit": 0.25, "zero": 0.125}
        ],
        "firing": [
            {"name": "layer0", "silent": [1], "saturated": [2], "mean": 0.5, "end": 1.0, "counts": [1, 2, 1]},
            {"name": "layer1", "silent": [], "saturated": []},
        ],
        "remarks": ["warning: layer0 is silent <b>bold</b>"],
        "placement": [["neuron circuits", "10", "64"]],
        "chip": {
            "name": "W66F3", "circuits": 64, "populations": ["layer0", "layer1"], "neurons": [0, 0, 0, 0, 1, 1],
            "places": [[0, 2, 4, 6, 8, 9], [1, 3, 5, 7, -1, -1]], "missed": {"tau_mem": [3, 40]},
        },
    }  # fmt: skip


def write_run(folder: Path, epochs: int = 3, trained: int = 3, is_finished: bool = True, is_live: bool = True) -> Path:
    folder.mkdir(parents=True)
    name = folder.name
    (folder / "config.yaml").write_text(f"seed: {len(name)}\nname: {name}\ntrainer:\n  epochs: {epochs}\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record(k + 1)) + "\n" for k in range(trained)))
    if is_live:
        content = snapshot(min(trained, epochs - 1), epochs, STEPS if is_finished else 25)
        (folder / "live.json").write_text(json.dumps(content, separators=(",", ":")))
    if is_finished:
        result = {"test_accuracy": 0.87, "epochs": epochs, "backend": "emulator", "chip": "W66F3", "data": "digits"}
        (folder / "result.json").write_text(json.dumps(result | {"evaluated_on": "test", "notes": ["note: end"]}))
    return folder
