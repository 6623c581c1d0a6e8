"""The conformance suite from settings to files, for `hxtrain conformance`.

The checks of the suite use the device contract alone. Two further checks belong to the host: training through the
device lowers a loss, and another process obtains the same identity of the device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

import torch

from hxtrain.backends import BACKENDS, Backend, DeviceError
from hxtrain.backends.conformance import (
    TOLERANCES,
    ConformanceError,
    NotApplicableError,
    Result,
    asks,
    judge,
    run_suite,
    select,
)
from hxtrain.backends.conformance import Tolerances as Bounds
from hxtrain.datasets.encoders import LatencyEncoder
from hxtrain.execution import Device
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.network import LI, LIF, Linear, Network
from hxtrain.objectives import MaxOverTime
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.versions import versions

STEPS = 30
"""Steps of the training smoke test."""


ToleranceSettings: Any = make_dataclass(
    "ToleranceSettings",
    [(bound.name, Optional[type(bound.default)], field(default=None)) for bound in fields(Bounds)],  # noqa: UP045
    namespace={"__doc__": Bounds.__doc__},
)
"""`Tolerances`, each of which is None for the value that the device states."""


@dataclass
class ConformanceConfig:
    """Settings of a run through the suite.

    Attributes:
        backend: Kind of the device.
        chip: Chip of the device.
        tolerances: Tolerances of the checks; None selects the value that the device states (`Backend.tolerances`).
        checks: Names of the checks to run; None for all.
        exclude: Checks to skip, each with the reason.
    """

    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    tolerances: ToleranceSettings = field(default_factory=ToleranceSettings)
    checks: Optional[List[str]] = None  # noqa: UP006, UP045
    exclude: Dict[str, str] = field(default_factory=dict)  # noqa: UP006

    def __post_init__(self) -> None:
        select(self.checks, self.exclude, HOST_CHECKS)


def training_lowers_a_loss(backend: Backend) -> str:
    """Training in the loop lowers a loss: gradients of what the device measured point downhill."""
    if not backend.capabilities.traces:
        raise NotApplicableError("the device records no traces, which the surrogate gradient needs")
    caps = backend.capabilities
    inputs = 16
    classes = 2
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % classes
    is_bright = torch.arange(inputs) % classes == labels[:, None]
    images = torch.where(is_bright, 0.9, 0.1) + 0.1 * torch.rand(32, inputs, generator=generator)
    dt = caps.trace_interval
    tau = min(max(float(f"{3.5 * dt:.1g}"), caps.tau_range[0]), caps.tau_range[1])
    steps = min(20, caps.max_samples or 20, int(caps.trial_time / dt + 1e-6))
    hidden = min(20, caps.neuron_circuits // 2)
    net = Network(
        *(Linear(inputs, hidden, mean=0.1, gain=1.0), LIF(hidden, tau, tau)),
        *(Linear(hidden, classes), LI(classes, tau, tau)),
        dt=dt,
        steps=steps,
        seed=0,
    )
    spikes = LatencyEncoder(tau=4 * dt)(images)
    loss = MaxOverTime()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    losses = []
    with Device(backend) as device:
        net.attach(device)
        for _ in range(STEPS):
            value = loss(net(spikes).readout, labels)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(value.detach()))
    first = sum(losses[:3]) / 3
    last = sum(losses[-3:]) / 3
    if not last < 0.8 * first:
        raise ConformanceError(f"the loss went from {first:.3f} to {last:.3f} in {STEPS} steps")
    return f"loss {first:.3f} to {last:.3f} in {STEPS} steps"


def another_process_knows_the_device(config: ConformanceConfig, identity: Mapping[str, str]) -> str:
    """Another process that creates the same device obtains the same identity: no hash depends on the process."""
    settings = {"path": sys.path, "backend": {**asdict(config.backend), "record": None}, "chip": asdict(config.chip)}
    command = [sys.executable, "-c", "from hxtrain.commands.conformance import tell_identity; tell_identity()"]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    completion = subprocess.run(
        command, input=json.dumps(settings), capture_output=True, text=True, check=False, env=environment
    )
    if completion.returncode:
        raise ConformanceError(f"the device cannot be opened in another process: {completion.stderr.strip()[-500:]}")
    received = json.loads(completion.stdout.splitlines()[-1])
    changed = [
        f"{key}={received.get(key)!r} instead of {identity.get(key)!r}"
        for key in {**identity, **received}
        if received.get(key) != identity.get(key)
    ]
    if changed:
        raise ConformanceError(f"in another process the identity has {', '.join(changed)}")
    return f"{len(identity)} entries are the same"


def tell_identity() -> None:
    """Print the identity of the device that standard input describes, as JSON; main function of a second process."""
    settings = json.load(sys.stdin)
    sys.path[:] = settings["path"]
    BACKENDS.resolve(settings["backend"]["name"])  # which may be a class in a module of the user
    backend = BackendConfig(**settings["backend"]).create(ChipConfig(**settings["chip"]))
    assert backend is not None  # software is no device
    with backend:
        print(json.dumps(dict(backend.identity)))


TRAINING = training_lowers_a_loss.__name__
PROCESS = another_process_knows_the_device.__name__
HOST_CHECKS = (TRAINING, PROCESS)
"""Names of the checks of the host."""


def conform(config: ConformanceConfig, folder: Path, command: str, report: Callable[[str], None]) -> list[Result]:
    """Run the suite on a device, and write `conformance.json` into `folder`.

    Args:
        config: Device, tolerances and exclusions.
        folder: Folder of `conformance.json`.
        command: Command that started the suite, for the record.
        report: Called with the name of each check before it runs.

    Raises:
        DeviceError: There is no device, or it cannot be opened.
        ValueError: A check is unknown, or an exclusion has no reason.
    """
    backend = config.backend.create(config.chip)
    if backend is None:
        raise DeviceError(f"backend={SOFTWARE} is no device; name one to be checked")
    checks = config.checks
    exclude = {name: reason for name, reason in config.exclude.items() if name not in HOST_CHECKS}
    names = None if checks is None else [name for name in checks if name not in HOST_CHECKS]
    with backend:
        report("a device that can be opened")
        identity = dict(backend.identity)
    config = replace(config, tolerances=bounds(config.tolerances, backend))
    with tuned(1):
        results = run_suite(backend, config.tolerances, exclude, names, report)
        for name in HOST_CHECKS:
            if checks is None or name in checks:
                report(name)
                results.append(_host_check(name, config, backend, identity))
    write_json(
        folder / "conformance.json",
        {
            "passed": passed(results),
            "identity": identity,
            "checks": [asdict(result) for result in results],
            "settings": asdict(config),
            "command": command,
            "versions": versions(),
        },
    )
    return results


def bounds(settings: Any, backend: Backend) -> Bounds:
    """Return the tolerances of the settings; the device states those that are None.

    Raises:
        ValueError: The device names unknown tolerances, or a tolerance is out of range.
    """
    if backend.tolerances not in TOLERANCES:
        raise ValueError(
            f"the device's tolerances={backend.tolerances!r} are not known; one of {', '.join(TOLERANCES)}"
        )
    values = {name: value for name, value in asdict(settings).items() if value is not None}
    return replace(TOLERANCES[backend.tolerances], **values)


def _host_check(name: str, config: ConformanceConfig, backend: Backend, identity: Mapping[str, str]) -> Result:
    question = asks(training_lowers_a_loss if name == TRAINING else another_process_knows_the_device)
    if name in config.exclude:
        return Result(name, question, "excluded", config.exclude[name])
    if name == TRAINING:
        return judge(name, question, lambda: training_lowers_a_loss(backend))
    return judge(name, question, lambda: another_process_knows_the_device(config, identity))


def passed(results: list[Result]) -> bool:
    """Return whether no check failed."""
    return all(result.verdict != "fail" for result in results)


def result_rows(results: list[Result]) -> list[tuple[str, ...]]:
    """Return the table: check, verdict, and measurement or reason of an omission."""
    return [(result.name, _verdict(result), result.text) for result in results]


def _verdict(result: Result) -> str:
    return "FAIL" if result.verdict == "fail" else result.verdict
