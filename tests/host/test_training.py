"""Training runs: learning, bit-exact resumption, and error messages."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated_runs import HEALTHY, replace_runs
from rich.console import Console

import hxtrain as hx
from hxtrain.backends import DeviceError, Health
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig, DatasetError, load_dataset
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.objectives import Burst
from hxtrain.objectives.distillation import Distillation
from hxtrain.rules import LossNotFiniteError, train_step
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.runs.lock import locked
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress, hidden_spikes
from hxtrain.runs.randomness import epoch_order, generator
from hxtrain.training.config import TrainerConfig
from hxtrain.training.diagnosis import diagnose
from hxtrain.training.schedule import learning_rate


def quiet():
    return Progress(show=False, console=Console(file=io.StringIO()))


def digits(epochs=1, backend="emulator", preset="calibrated", **trainer):
    return RunConfig(
        backend=BackendConfig(backend),
        chip=ChipConfig(preset=preset),
        network=NetworkConfig(hidden=[60], init_gain=1.4, dropout=trainer.pop("dropout", 0.0)),
        data=DataConfig("digits"),
        augment=ImageAugmentation(**trainer.pop("augment", {})),
        trainer=TrainerConfig(
            epochs=epochs, batch_size=50, progress=False, **{"plots": False, "learning_rate_decay": 0.95, **trainer}
        ),
    )


@pytest.mark.parametrize(
    ("backend", "preset"),
    [("software", "ideal"), ("emulator", "calibrated"), ("emulator", "uncalibrated"), ("reference", "ideal")],
)
def test_digits_are_learnt_on_every_device(tmp_path, backend, preset):
    config = digits(5, backend, preset, train_samples=700, test_samples=200)
    result = run(config, tmp_path, "test", quiet())
    assert result["test_accuracy"] > 0.8
    assert 3 < result["hidden_spikes_per_sample"] < 100
    saved = json.loads((tmp_path / "result.json").read_text())
    keys = "test_accuracy train_accuracy hidden_spikes_per_sample epochs backend chip chip_hash seed seconds"
    assert {*keys.split(), "samples_per_second", "command"} <= set(saved)
    assert saved["backend"] == backend
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    weights = np.load(tmp_path / "weights.npz")
    if backend != "software":
        assert weights["input->layer0"].shape == (60, 64)
        assert weights["input->layer0"].dtype == np.int8
        assert 10 < abs(weights["layer0->layer1"]).max() <= 63


def test_a_network_without_a_hidden_population_has_no_hidden_spikes(tmp_path):
    config = digits(1, "software", train_samples=50, test_samples=20)
    config = replace(config, network=NetworkConfig(hidden=[]))
    screen = io.StringIO()
    result = run(config, tmp_path, "test", Progress(show=False, console=Console(file=screen, width=200)))
    assert result["hidden_spikes_per_sample"] is None
    assert "epoch   1" in screen.getvalue()
    assert "spikes/sample" not in screen.getvalue()
    assert hidden_spikes(result) == ""
    resumed = replace(config, trainer=replace(config.trainer, epochs=2, resume=True))
    assert run(resumed, tmp_path, "test", quiet())["hidden_spikes_per_sample"] is None


def test_a_run_leaves_plots(tmp_path):
    run(digits(1, plots=True, train_samples=200, test_samples=50), tmp_path, "test", quiet())
    names = {p.name for p in (tmp_path / "plots").iterdir()}
    assert names == {"learning_curves.png", "samples.png", "weights.png", "fields.png", "confusion.png"}


def final_state(folder):
    state = load_checkpoint(folder / "checkpoint.pt")
    return state["model"], state["records"], state["clock"]


def assert_same_end(first, second):
    (model, records, clock), (model2, records2, clock2) = first, second
    assert clock == clock2
    for name in model:
        assert torch.equal(model[name], model2[name]), name
    timeless = [{k: v for k, v in r.items() if k not in ("seconds", "samples_per_second")} for r in records]
    assert timeless == [{k: v for k, v in r.items() if k not in ("seconds", "samples_per_second")} for r in records2]


SCRIPT = """
import sys, pathlib
from test_training import quiet, resumable
from hxtrain.commands.train import run
run(resumable(sys.argv[2]), pathlib.Path(sys.argv[1]), "test", quiet())
"""


def resumable(mode):
    """Return the settings of a run of three epochs, "new" or "resume"."""
    augment = {"rotation": 10.0, "elastic": 0.5}
    settings = {"checkpoint_steps": 4, "dropout": 0.2, "augment": augment, "schedule": "cosine"}
    return digits(3, resume=mode == "resume", **settings)


def start(folder, mode):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder), mode]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=folder.parent)


def wait_for_checkpoint(folder, process, steps):
    """Wait until the run has reached `steps` steps in total."""
    while process.poll() is None:
        try:
            state = load_checkpoint(folder / "checkpoint.pt")
        except CheckpointError:
            time.sleep(0.02)
            continue
        if state["epoch"] * 26 + state["step"] >= steps:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1])


def test_a_killed_run_resumes_to_the_very_same_weights(tmp_path):
    """After two SIGKILLs at arbitrary steps, the resumed run equals an uninterrupted one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(resumable("new"), whole, "test", quiet())
    for mode, steps in (("new", 5), ("resume", 34)):
        process = start(broken, mode)
        wait_for_checkpoint(broken, process, steps)
        process.kill()
        process.communicate()
    assert load_checkpoint(broken / "checkpoint.pt")["epoch"] < 3
    run(resumable("resume"), broken, "test", quiet())
    assert_same_end(final_state(whole), final_state(broken))


def test_ctrl_c_finishes_the_step_and_saves(tmp_path):
    process = start(tmp_path, "new")
    wait_for_checkpoint(tmp_path, process, 4)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode != 0
    assert "TrainingInterrupt: interrupted after step" in error
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert f"after step {state['step']} of epoch {state['epoch'] + 1}" in error


def test_equal_seeds_give_equal_runs_and_other_seeds_others(tmp_path):
    config = digits(1, train_samples=300, test_samples=100)
    ends = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(replace(config, seed=seed), tmp_path / name, "test", quiet())
        ends.append(final_state(tmp_path / name))
    assert_same_end(ends[0], ends[1])
    assert not torch.equal(ends[0][0]["stack.0.weight"], ends[2][0]["stack.0.weight"])


def test_other_settings_and_other_chips_cannot_resume(tmp_path):
    config = digits(1, train_samples=100, test_samples=50)
    run(config, tmp_path, "test", quiet())
    with pytest.raises(CheckpointError, match=r"holds a run already; continue it with trainer.resume=true"):
        run(config, tmp_path, "test", quiet())
    resume = replace(config.trainer, resume=True)
    with pytest.raises(CheckpointError, match=r"chip.name: checkpoint 'W66F3', now 'OTHER'[\s\S]*identity.chip_hash"):
        run(replace(config, chip=ChipConfig("OTHER"), trainer=resume), tmp_path, "test", quiet())
    with pytest.raises(CheckpointError, match=r"trainer.learning_rate: checkpoint 0.0015, now 0.1"):
        run(replace(config, trainer=replace(resume, learning_rate=0.1)), tmp_path, "test", quiet())
    with pytest.raises(CheckpointError, match=r"trainer.resume=true, but .* holds no checkpoint.pt"):
        run(replace(config, trainer=resume), tmp_path / "empty", "test", quiet())
    longer = run(replace(config, trainer=replace(resume, epochs=2)), tmp_path, "test", quiet())
    assert longer["epochs"] == 2


def test_randomness_is_a_function_of_place():
    assert torch.equal(epoch_order(1, 2, 50), epoch_order(1, 2, 50))
    assert sorted(epoch_order(1, 2, 50).tolist()) == list(range(50))
    draws = {
        float(torch.rand(1, generator=generator(*place)))
        for place in ((1, "a", 0, 0), (1, "a", 0, 1), (1, "b", 0, 0), (2, "a", 0, 0))
    }
    assert len(draws) == 4
    rng_state = torch.random.get_rng_state()
    generator(0, "x")
    assert torch.equal(rng_state, torch.random.get_rng_state())


def test_rotation_by_known_angles():
    image = torch.zeros(1, 9, 9)
    image[0, 4, 7] = 1.0
    assert ImageAugmentation()(image, generator(0)) is image
    assert torch.allclose(ImageAugmentation(rotation=1e-9)(image, generator(0)), image, atol=1e-6)
    rotated = torch.cat([ImageAugmentation(rotation=90.0)(image, generator(s)) for s in range(40)])
    assert float(rotated.sum((1, 2)).mean()) == pytest.approx(1, abs=0.25)
    assert (rotated[:, 4, 4] < 0.01).all()
    assert float(rotated.amax(0)[1, 4]) > 0.3 or float(rotated.amax(0)[7, 4]) > 0.3


def test_shift_mirror_scale_and_shear_of_a_known_image():
    image = torch.zeros(1, 9, 9)
    image[0, 4, 7] = 1.0
    shifted = torch.cat([ImageAugmentation(shift=2.0)(image, generator(s)) for s in range(60)])
    columns = (shifted.sum(1) * torch.arange(9)).sum(1) / shifted.sum((1, 2)).clamp(min=1e-6)
    assert 4.9 < float(columns[shifted.sum((1, 2)) > 0.9].min()) < 6
    mirrored = torch.cat([ImageAugmentation(mirror=True)(image, generator(s)) for s in range(200)])
    left, right = (int((mirrored[:, 4, column] > 0.99).sum()) for column in (1, 7))
    assert left + right == 200
    assert 60 < left < 140
    large = torch.ones(1, 9, 9)
    small = ImageAugmentation(scale=0.5)(large, generator(3))
    assert float(small.sum()) <= 81
    sheared = ImageAugmentation(shear=0.5)(image, generator(1))
    assert torch.allclose(sheared[0, 4], image[0, 4], atol=1e-6), "the middle row does not move"


def test_elastic_displacements_have_the_requested_size():
    ramp = torch.linspace(0, 1, 33).expand(1, 33, 33)
    moved = torch.cat([ImageAugmentation(elastic=1.0)(ramp, generator(s)) for s in range(50)])
    shift = (moved - ramp)[:, 8:-8, 8:-8] * 32
    assert 0.4 < float(shift.std()) < 1.2
    assert float((shift[:, 1:] - shift[:, :-1]).abs().mean()) < 0.35, "neighbours move alike"


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [("rotation", 181.0, "0..180"), ("scale", 1.0, "0..0.9"), ("elastic", -1.0, "negative")],
)
def test_bad_augmentation_is_named(name, value, limits):
    with pytest.raises(ValueError, match=rf"augment.{name}={value} .*{limits}"):
        ImageAugmentation(**{name: value})


def test_learning_rates():
    falling = TrainerConfig(epochs=4, learning_rate=1.0, learning_rate_decay=0.5)
    assert [learning_rate(falling, epoch, 3, 10) for epoch in range(3)] == [1.0, 0.5, 0.25]
    cosine = TrainerConfig(epochs=4, learning_rate=1.0, schedule="cosine", warmup=1.0)
    assert learning_rate(cosine, 2, 0, 10) == pytest.approx(0.5)
    assert learning_rate(cosine, 3, 9, 10) == pytest.approx(0.0015, abs=1e-4)
    assert learning_rate(cosine, 0, 4, 10) == pytest.approx(0.5 * 0.9755, abs=1e-3)


def test_software_epochs_come_first_and_respect_the_devices_range(tmp_path):
    settings = {"train_samples": 200, "test_samples": 20, "software_epochs": 2}
    config = digits(3, **settings)
    config.network.init_gain = 20.0
    result = run(config, tmp_path / "both", "test", quiet())
    lines = [json.loads(line) for line in (tmp_path / "both/metrics.jsonl").read_text().splitlines()]
    assert [line["in_software"] for line in lines] == [True, True, False]
    state = load_checkpoint(tmp_path / "both/checkpoint.pt")
    assert state["clock"] == 220, "one epoch and one evaluation on the device"
    assert result["chip_seconds_per_sample"] > 0
    limit = 63 / 241
    weight = max(float(w.abs().max()) for w in state["model"].values())
    assert weight == pytest.approx(limit, rel=0.05)
    with pytest.raises(ValueError, match=r"trainer.software_epochs=3 must be less than trainer.epochs=3"):
        digits(3, software_epochs=3)


def test_software_epochs_are_those_of_the_software_twin(tmp_path):
    run(digits(2, train_samples=200, test_samples=20, software_epochs=1), tmp_path / "both", "test", quiet())
    run(digits(1, "software", train_samples=200, test_samples=20), tmp_path / "software", "test", quiet())
    mixed, software = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("both", "software")
    )
    for key in ("train_loss", "train_accuracy", "test_accuracy"):
        assert mixed[key] == software[key]


def test_a_cosine_run_cannot_be_made_longer(tmp_path):
    run(digits(1, train_samples=100, test_samples=20, schedule="cosine"), tmp_path, "test", quiet())
    with pytest.raises(CheckpointError, match=r"trainer.epochs: checkpoint 1, now 2"):
        run(digits(2, train_samples=100, test_samples=20, schedule="cosine", resume=True), tmp_path, "test", quiet())


def test_validation_images_are_not_trained_on(tmp_path):
    data = load_dataset("digits")
    held = DataConfig("digits", validation=297).load()
    assert (len(held.train), len(held.test), held.evaluated_on) == (1000, 297, "validation")
    assert torch.equal(held.test.images, data.train.images[1000:])
    assert held.sha256 == data.sha256
    with pytest.raises(DatasetError, match=r"validation=1297 of 1297 training images"):
        DataConfig("digits", validation=1297).load()


def activity(net, gain):
    spikes = hx.LatencyEncoder()(torch.rand(8, 20, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        for layer in net.layers:
            layer.linear.weight.mul_(gain)
        return net(spikes)


@pytest.mark.parametrize(
    ("gain", "hint", "text"),
    [
        (0.0, "silent", r"layer0 is silent \(0 spikes per sample\).*network.init_gain=2"),
        (100.0, "clipped", r"layer0 is clipped: \d+% of its weights.*regularizer.weight_decay.strength"),
        (100.0, "saturated", r"layer1 is saturated: \d+% of its answers"),
    ],
)
def test_unhealthy_layers_are_named_with_a_fix(gain, hint, text):
    net = hx.Network(hx.Linear(20, 16, mean=0.02, gain=1), hx.LIF(16), hx.Linear(16, 3), hx.LI(3))
    net.attach(hx.Device(hx.backends.create_backend("emulator")))
    import re

    assert any(re.search(text, warning) for warning in diagnose(net, activity(net, gain), trained=True)), hint


@pytest.mark.parametrize(("shares", "warned"), [((0.3, 0.02), False), ((0.0, 0.5), True)], ids=["low", "high"])
def test_a_readout_is_saturated_where_its_answers_are(shares, warned):
    """Wrong classes far below rest do not count."""
    from hxtrain.training.diagnosis import _saturation

    low, high = (int(share * 100) for share in shares)
    trace = torch.full((20, 100, 2), 0.5)
    trace[:, :low, 0] = -0.8
    trace[:, :high, 1] = 2.0
    trace[:, 0, 0] = -0.8
    trace[:, 0, 1] = 2.0
    assert bool(_saturation("layer1", trace, spiking=False)) is warned


def test_a_healthy_network_has_no_warnings():
    net = hx.Network(hx.Linear(20, 16, gain=2), hx.LIF(16), hx.Linear(16, 3), hx.LI(3))
    net.attach(hx.Device(hx.backends.create_backend("emulator")))
    assert diagnose(net, activity(net, 1.0), trained=True) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate_decay", 1.5),
        ("warmup", 99.0),
        ("schedule", "steps"),
        ("train_samples", -1),
    ],
)
def test_bad_trainer_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"trainer.{name}={value!r}"):
        TrainerConfig(**{name: value})


def test_more_samples_than_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"trainer\.train_samples=99999 exceeds the 1297 available samples"):
        run(digits(1, train_samples=99999), tmp_path, "test", quiet())


def test_tuning_is_undone():
    n_threads = torch.get_num_threads()
    with tuned(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == n_threads


@pytest.mark.parametrize("broken_run", [17, 27, 30])
def test_a_failed_device_costs_nothing_but_the_failed_step(tmp_path, mocker, broken_run):
    """The link breaks within a step, or within an evaluation (runs 25 to 28 of the first epoch)."""
    config = digits(2, train_samples=600, test_samples=100, evaluation_batch_size=50)
    run(config, tmp_path / "whole", "test", quiet())
    count = 0

    def fragile(self, weights, stimulus):
        nonlocal count
        count += 1
        if count >= broken_run:
            raise DeviceError("link lost")
        return HEALTHY(self, weights, stimulus)

    patches = replace_runs(mocker, fragile)
    with pytest.raises(DeviceError, match="failed 6 times, last: link lost"):
        run(config, tmp_path / "broken", "test", quiet())
    for patch in patches:
        mocker.stop(patch)
    state = load_checkpoint(tmp_path / "broken/checkpoint.pt")
    assert state["epoch"] * 12 + state["step"] == {17: 8, 27: 12, 30: 12}[broken_run]
    run(replace(config, trainer=replace(config.trainer, resume=True)), tmp_path / "broken", "test", quiet())
    assert_same_end(final_state(tmp_path / "whole"), final_state(tmp_path / "broken"))


def test_resuming_a_finished_run_repeats_its_result(tmp_path):
    config = digits(1, train_samples=200, test_samples=100)
    first = run(config, tmp_path, "test", quiet())
    second = run(replace(config, trainer=replace(config.trainer, resume=True)), tmp_path, "test", quiet())
    for key in ("test_accuracy", "hidden_spikes_per_sample", "epochs", "chip_hash"):
        assert first[key] == second[key]


def test_one_process_per_run_directory(tmp_path):
    with locked(tmp_path), pytest.raises(CheckpointError, match="another process trains in"):
        run(digits(1, train_samples=100, test_samples=50), tmp_path, "test", quiet())
    run(digits(1, train_samples=100, test_samples=50), tmp_path, "test", quiet())


def test_the_settings_of_the_run_are_beside_it(tmp_path):
    config = digits(1, train_samples=100, test_samples=50)
    run(config, tmp_path, "test", quiet())
    with pytest.raises(CheckpointError):
        run(replace(config, seed=7), tmp_path, "test", quiet())
    text = (tmp_path / "config.yaml").read_text()
    assert "learning_rate: 0.0015" in text
    assert "\nseed: 0\n" in "\n" + text


@pytest.mark.parametrize("backend", ["software", "emulator"])
def test_a_diverging_run_stops_with_a_hint(tmp_path, backend, mocker):
    mocker.patch.object(hx.MaxOverTime, "scores", lambda self, readout: readout.amax(0) * float("nan"))
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1, step 1; nothing was learnt before"):
        run(digits(1, backend, train_samples=100, test_samples=50), tmp_path, "test", quiet())


def test_health_of_all_batches_is_in_the_result(tmp_path, mocker):
    replace_runs(mocker, lambda self, w, s: replace(HEALTHY(self, w, s), health=Health(dropped_spikes=2)))
    console = io.StringIO()
    progress = Progress(show=False, console=Console(file=console, width=200))
    result = run(digits(1, train_samples=100, test_samples=50), tmp_path, "test", progress)
    assert result["dropped_spikes"] == 2 * (4 + 2)
    assert "training, epoch 1, step 1: the device dropped 4 spikes" in console.getvalue()


def test_warnings_keep_their_brackets():
    console = io.StringIO()
    Progress(show=False, console=Console(file=console, width=200)).warn("try regularizer=[burst,weight_decay]")
    assert "try regularizer=[burst,weight_decay]" in console.getvalue()


@pytest.mark.parametrize(
    "name",
    ["nonsense", pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"))],
)
def test_a_torch_device_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"trainer.torch_device='{name}' cannot be used: .*; use cpu, or install"):
        run(digits(1, train_samples=100, test_samples=50, torch_device=name), tmp_path, "test", quiet())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("backend", ["software", "emulator"])
def test_training_on_a_gpu_learns_what_the_cpu_learns(tmp_path, backend):
    accuracies = []
    for name in ("cpu", "cuda"):
        config = digits(1, train_samples=600, test_samples=200, torch_device=name)
        settings = {"device": name} if backend == "emulator" else {}
        config = replace(config, backend=BackendConfig(backend, settings))
        accuracies.append(run(config, tmp_path / name, "test", quiet())["test_accuracy"])
    assert abs(accuracies[0] - accuracies[1]) < 0.05


@pytest.mark.parametrize("name", ["loss", "Burst", "gradient"])
def test_a_step_whose_numbers_are_none_changes_nothing(name, mocker):
    net = hx.Network(hx.Linear(4, 3, mean=1.0), hx.LIF(3), hx.Linear(3, 2), hx.LI(2))
    weights = [p.detach().clone() for p in net.parameters()]
    losses = {"loss": lambda x, y: x.sum() * torch.nan, "gradient": lambda x, y: (x.sum() * 0).sqrt()}
    loss = losses.get(name, lambda x, y: x.square().sum())
    if name == "Burst":
        mocker.patch.object(Burst, "penalty", lambda self, activity, weights: activity.readout.sum() * torch.nan)
    penalty = Burst(strength=1.0)
    spikes = hx.LatencyEncoder()(torch.ones(2, 4))
    with pytest.raises(LossNotFiniteError, match=name):
        train_step(net, loss, [penalty], torch.optim.Adam(net.parameters()), spikes, torch.zeros(2, dtype=torch.long))
    assert all(map(torch.equal, net.parameters(), weights))


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), DeviceError("gone"), ZeroDivisionError()])
@pytest.mark.parametrize("begun", [False, True])
def test_a_broken_step_saves_the_previous_state_unless_weights_have_changed(tmp_path, mocker, error, begun):
    """No checkpoint is written at the end of a step here, so an existing one is that of the failure."""
    mocker.patch("hxtrain.rules.Clamp.apply" if begun else "hxtrain.training.shares.predictions", side_effect=error)
    with pytest.raises(DeviceError if isinstance(error, DeviceError) else type(error)):
        run(digits(1, "software", train_samples=100, test_samples=50), tmp_path, "test", quiet())
    assert (tmp_path / "checkpoint.pt").exists() is not begun


def test_weights_that_are_no_numbers_are_never_saved(tmp_path, mocker):
    def spoil(net):
        with torch.no_grad():
            net.stack[0].weight[0, 0] = float("nan")

    mocker.patch("hxtrain.rules.Clamp.apply", side_effect=spoil)
    config = digits(1, "software", train_samples=100, test_samples=50)
    config.trainer.checkpoint_steps = 1
    with pytest.raises(
        ValueError, match=r"stack\.0\.weight is not finite after epoch 1, step 1; .*there is no checkpoint"
    ):
        run(config, tmp_path, "test", quiet())
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_optimizer_whose_sums_overflow_is_not_saved(tmp_path, mocker):
    """Such weights never move again: steps are divided by the root of an infinite square."""

    def explode(gradients):
        gradients[0].fill_(1e30)
        return True

    mocker.patch("hxtrain.rules.step.all_finite", explode)
    config = digits(1, "software", train_samples=150, test_samples=50)
    with pytest.raises(ValueError, match=r"the optimizer's exp_avg_sq is not finite after epoch 1, step 3"):
        run(config, tmp_path, "test", quiet())
    assert not (tmp_path / "checkpoint.pt").exists()


REFUSALS = {
    "seed": lambda c: replace(c, seed=9),
    "network": lambda c: replace(c, network=NetworkConfig(hidden=[5])),
    "chip": lambda c: replace(c, chip=ChipConfig("W62F0", preset="uncalibrated")),
    "software": lambda c: replace(c, backend=BackendConfig("software")),
    "too large": lambda c: replace(c, network=NetworkConfig(hidden=[50000])),
    "no such server": lambda c: replace(
        c, backend=BackendConfig("remote", settings={"address": "tcp://127.0.0.1:1", "patience": 0.1})
    ),
    "no such teacher": lambda c: replace(c, distillation=Distillation("none.pt")),
    "samples": lambda c: replace(c, trainer=replace(c.trainer, train_samples=99999)),
    "augmentation": lambda c: replace(c, augment=ImageAugmentation(rotation=5)),
    "torch device": lambda c: replace(c, trainer=replace(c.trainer, torch_device="nonsense")),
    "fewer epochs": lambda c: replace(c, trainer=replace(c.trainer, epochs=1)),
}
"""Changes with which a run of two epochs cannot be resumed."""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    config = digits(2, preset="uncalibrated", train_samples=100, test_samples=50)
    run(config, folder, "test", quiet())
    return folder, replace(config, trainer=replace(config.trainer, epochs=3, resume=True))


@pytest.mark.parametrize("change", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refused_resume_leaves_every_file_as_it_was(finished_run, change):
    folder, config = finished_run
    contents = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises((ValueError, CheckpointError, DeviceError)):
        run(change(config), folder, "test", quiet())
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == contents


def test_a_resume_from_a_damaged_checkpoint_leaves_the_previous_one(finished_run, tmp_path):
    folder, config = finished_run
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / "checkpoint.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "checkpoint.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"the one before it is intact: move .*checkpoint\.previous\.pt"):
        run(config, copy, "test", quiet())
    (copy / "checkpoint.previous.pt").replace(copy / "checkpoint.pt")
    assert run(config, copy, "test", quiet())["epochs"] == 3
