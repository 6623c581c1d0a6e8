"""A key that is no setting ends every command before it works, in whatever form it arrives."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from hxtrain.experiments.main import main

FILES = {
    "experiment/unknown_key.yaml": "# @package _global_\ntrainer:\n  epoch: 3\n",
    "experiment/unknown_group.yaml": "# @package _global_\nrule: eventprop\n",
    "experiment/nested.yaml": "# @package _global_\ntrainer: {foo: {bar: 3}}\n",
    "experiment/override.yaml": "# @package _global_\ndefaults:\n  - override /dta: digits\n",
    "experiment/no_header.yaml": "trainer:\n  epochs: 3\n",
    "experiment/backend.yaml": "# @package _global_\nbackend: {settings: {substep: 4}}\n",
    "experiment/fault.yaml": "# @package _global_\nbackend: {faults: {timout: 0.1}}\n",
    "network/mine.yaml": "defaults: [lif, _self_]\nhiden: [3]\n",
    "chip/mine.yaml": "nam: W62F0\n",
    "trainer/mine.yaml": "defaults: [default]\nfoo: 3\n",
    "sweep/bad.yaml": "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {trainer.foo: '1,2'}}}\n",
}  # fmt: skip
"""Files of a user's own, below `--config-dir`."""
OWN = "hxtrain --config-dir conf"

KEYS = [
    # how a key is written
    ("hxtrain rule=hopfield", "rule=hopfield is not known; choose one of adm, backprop"),
    ("hxtrain rule=stdp rule.tau=3", "rule.tau is not a setting of the chosen rule, but of rule=resume; choose"),
    ("hxtrain play mask.fan_in=6", "mask.fan_in is not a setting of hxtrain play, but of hxtrain, hxtrain prune,"),
    ("hxtrain play trainer.foo=3", "trainer.foo is not a setting of hxtrain play; hxtrain play --help lists them"),
    ("hxtrain rule=backpop", "rule=backpop is not known; did you mean rule=backprop?"),
    ("hxtrain +rule=hopfield +trainer.foo=3", "rule=hopfield is not known; choose one of adm, backprop"),
    ("hxtrain +rule=hopfield +trainer.foo=3", "trainer.foo is not a setting of hxtrain"),
    ("hxtrain ++rule=hopfield", "rule=hopfield is not known; choose one of adm, backprop"),
    ("hxtrain ~rule", "~rule: the group cannot be removed; choose one of adm, backprop"),
    ("hxtrain ~trainer.epoch", "~trainer.epoch: a setting cannot be removed"),
    ("hxtrain ~network.hidden", "~network.hidden: a setting cannot be removed"),
    ("hxtrain ++network.hiden=[5]", "did you mean network.hidden?"),
    ("hxtrain trainer={epochs:1,foo:2}", "trainer.foo is not a setting of hxtrain"),
    ("hxtrain ++trainer={epochs:1,foo:2}", "trainer.foo is not a setting of hxtrain"),
    ("hxtrain +trainer.foo.bar=7", "trainer.foo is not a setting of hxtrain"),
    ("hxtrain ++trainer.epochs.bar=7", "trainer.epochs has no parts"),
    # groups and packages
    ("hxtrain +loss@foo=max_over_time", "foo is not a setting of hxtrain"),
    ("hxtrain +trainer@foo=default", "foo is not a setting of hxtrain"),
    ("hxtrain loss@los=max_over_time", "loss@los is not a setting of hxtrain"),
    ("hxtrain +data@data2=digits", "data2 is not a setting; did you mean data?"),
    ("hxtrain +network/lif=3", "did you mean network?"),
    ("hxtrain +parallel.chip=[W66F3]", "did you mean parallel.chips"),
    ("hxtrain +regularizer.foo=3", "regularizer.foo is not a setting"),
    ("hxtrain +regularizer.burst.foo=3", "regularizer.burst.foo is not a setting"),
    # entries of dictionaries
    ("hxtrain backend.settings={substep:3}", "did you mean backend.settings.substeps?"),
    ("hxtrain backend=remote ++backend.settings.adress=1", "did you mean backend.settings.address?"),
    ("hxtrain chip.faults.dead_neuron=0.3 experiment=digits", "faults of the die: dead_neuron not known"),
    ("hxtrain +chip.changes.gain_cvv=0.3 experiment=digits", "(on the command line: chip.changes)"),
    # settings of Hydra
    ("hxtrain +hydra.foo=1", "hydra.foo is not a setting of Hydra; hxtrain --cfg hydra lists them"),
    ("hxtrain ++hydra.run.dri=1", "hydra.run.dri is not a setting of Hydra; did you mean hydra.run.dir?"),
    ("hxtrain hydra.run.dri=1", "hydra.run.dri is not a setting of Hydra"),
    # files of a user's own
    (f"{OWN} experiment=unknown_key", "did you mean trainer.epochs? (in experiment/unknown_key.yaml)"),
    (f"{OWN} experiment=unknown_group", "write `- override /rule: eventprop` in the list of defaults (in experiment/"),
    (f"{OWN} experiment=nested", "trainer.foo is not a setting of hxtrain"),
    (f"{OWN} experiment=override", "dta is not a setting; did you mean data? (in experiment/override.yaml)"),
    (f"{OWN} experiment=no_header", "must begin with the line `# @package _global_` (in experiment/no_header.yaml)"),
    (f"{OWN} experiment=backend", "did you mean backend.settings.substeps?"),
    (f"{OWN} experiment=fault", "did you mean backend.faults.timeout?"),
    (f"{OWN} network=mine", "did you mean network.hidden? (in network/mine.yaml)"),
    (f"{OWN} chip=mine", "did you mean chip.name? (in chip/mine.yaml)"),
    (f"{OWN} trainer=mine", "trainer.foo is not a setting of hxtrain"),
    # sweeps
    (f"{OWN} sweep=bad", "trainer.foo is not a setting of hxtrain"),
    ("hxtrain --multirun +trainer.foo=1,2", "trainer.foo is not a setting of hxtrain"),
    ("hxtrain --multirun trainer.epoch=1,2", "did you mean trainer.epochs?"),
    ("hxtrain --multirun +rule=a seed=0,1", "rule=a is not known; choose one of adm, backprop"),
    # other verbs
    ("hxtrain evaluate checkpoint=x +own_devic=true", "did you mean own_device?"),
    ("hxtrain-evaluate checkpoint=x +foo=1", "foo is not a setting of hxtrain evaluate; hxtrain evaluate --help"),
    ("hxtrain evaluate checkpoint=x +data.name=mnist", "is not a setting of hxtrain evaluate: it is the checkpoint's"),
    ("hxtrain report report=best +serie=3", "did you mean series"),
    ("hxtrain report report=best series=[{label:a,wher:{}}]", "did you mean where?"),
    ("hxtrain conformance +tolerances.weigt=0.3", "did you mean tolerances.weight?"),
    ("hxtrain conformance tolerances.weigt=0.3", "did you mean tolerances.weight?"),
    ("hxtrain conformance +exclude.foo=reason", "checks foo are not known"),
    ("hxtrain calibrate targets.tau=1e-6", "did you mean targets.tau_"),
    ("hxtrain fit file=x.npz +foo=1", "foo is not a setting of hxtrain fit"),
    ("hxtrain serve +bnd=1", "did you mean bind"),
    ("hxtrain serve status address=tcp://127.0.0.1:1 adress=x", "adress"),
    ("hxtrain tracker.json_lines.steps=5", "tracker.json_lines is not chosen; choose it: tracker=[json_lines]"),
    *(
        (f"hxtrain {verb} {word}", f"{word.partition('=')[0]} is not a setting of hxtrain {verb}, but of hxtrain, hxt")
        for verb in ("evaluate", "compare", "prune", "fit", "bench")
        for word in ("tracker=[json_lines]", "tracker.json_lines.steps=5")
    ),
    ("hxtrain pool", "error: servers is missing; write hxtrain pool servers="),
    ("hxtrain bench +suit=1", "did you mean suite?"),
    ("hxtrain validate short=true +foo=1", "foo is not a setting of hxtrain validate"),
    ("hxtrain ann +trainer.foo=1", "trainer.foo is not a setting of hxtrain ann"),
    ("hxtrain transfer +chps=[A]", "did you mean chips"),
    ("hxtrain sensitivity +imperfection=[leak]", "did you mean imperfections?"),
    ("hxtrain compare checkpoint=x +tolerance.foo=1", "tolerance.foo is not a setting of hxtrain compare"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a user."""
    root = tmp_path_factory.mktemp("unknown_keys")
    for name, text in FILES.items():
        (root / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "conf" / name).write_text(text)
    return root


def outcome(line: str) -> tuple[int, str]:
    """Run a command line in this process; return its exit status and its output."""
    output = io.StringIO()
    previous = sys.argv
    sys.argv = line.split()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            status = main()
    except SystemExit as end:
        status = end.code  # type: ignore[assignment]
    finally:
        sys.argv = previous
        GlobalHydra.instance().clear()
    return status or 0, output.getvalue()


@pytest.mark.parametrize(("line", "text"), KEYS, ids=[line for line, _ in KEYS])
def test_an_unknown_key_ends_the_command(line: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxtrain.commands.train.trainer_of", lambda *_, **__: pytest.fail("it trains"))
    monkeypatch.chdir(folder)
    status, output = outcome(line)
    assert status == 2, output
    assert text in output


ALLOWED = [
    "hxtrain backend.settings.substeps=8",
    "hxtrain chip.changes.gain_cv=0.3 chip.faults.dead_neurons=0.1",
    "hxtrain backend.faults.timeout=0.1",
    "hxtrain regularizer=[upper_activity] regularizer.upper_activity.strength=0.1",
    "hxtrain +hydra.job.env_set.FOO=1",
    f"{OWN} experiment=digits",
]


@pytest.mark.parametrize("line", ALLOWED)
def test_entries_of_dictionaries_pass(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr("hxtrain.experiments.train.run", lambda *words: calls.append(words) or sys.exit(7))
    monkeypatch.chdir(folder)
    assert outcome(line)[0] == 7
    assert len(calls) == 1


def test_a_setting_of_a_device_without_settings_warns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxtrain.experiments.train.run", lambda *_: sys.exit(7))
    monkeypatch.chdir(folder)
    with pytest.warns(UserWarning, match="backend.settings.foo=1 has no effect: software has no settings"):
        outcome("hxtrain backend=software backend.settings.foo=1")
