"""Damaged, foreign and hostile files of runs are refused with a text, and nothing is lost."""

import json
import random
import zipfile
from importlib.metadata import version

import pytest
import torch

from hxtrain.ann.teachers import load_ann
from hxtrain.backends.files import path_part, remove_leftovers, replacing
from hxtrain.commands.construction import load_weights
from hxtrain.commands.evaluate import load_trained
from hxtrain.commands.report.config import ReportConfig, Series
from hxtrain.execution.config import ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, previous_of, read_checkpoint, save_checkpoint
from hxtrain.runs.lock import locked
from hxtrain.runs.saved import component, module_with_weights, read_result, read_settings, require_finite, take_weights

STATE = {"model": {"w": torch.arange(300.0)}, "optimizer": {}, "records": [{"epoch": 1}], "settings": {"a": 1}}


def is_equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    return first == second


def flips(data, count):
    generator = random.Random(5)
    for _ in range(count):
        place = generator.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= 1 << generator.randrange(8)
        yield bytes(damaged)


def test_no_flipped_bit_is_accepted_with_other_content(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    for damaged in flips(path.read_bytes(), 400):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
            load_checkpoint(path)


def test_checkpoints_of_earlier_versions_have_no_hash_but_sums(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = {"format": 1, **STATE}
    torch.save(state, path)
    whole = path.read_bytes()
    n_refused = 0
    assert is_equal(load_checkpoint(path), state)
    for damaged in flips(whole, 200):
        path.write_bytes(damaged)
        try:
            assert is_equal(load_checkpoint(path), state)  # a bit of the padding
        except CheckpointError:
            n_refused += 1
    assert n_refused > 150


@pytest.mark.parametrize("cut", [1, 10, 64, 79, 80, 100, 0.5, 0.99, 1.0])
def test_a_file_that_lacks_its_end_is_refused(tmp_path, cut):
    """A number of bytes, or a share of the file, is missing."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - (cut if isinstance(cut, int) else int(cut * len(whole)))])
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        load_checkpoint(path)


def test_the_previous_checkpoint_is_kept_and_named(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for epoch in range(4):
        save_checkpoint(path, {**STATE, "epoch": epoch})
    assert load_checkpoint(previous_of(path))["epoch"] == 2
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"the one before it is intact: move .*checkpoint\.previous\.pt to"):
        load_checkpoint(path)
    previous_of(path).write_bytes(b"PK\3\4")
    with pytest.raises(CheckpointError, match=r"checkpoint\.previous\.pt, is damaged, too"):
        load_checkpoint(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_the_hash_of_a_checkpoint_is_that_of_its_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    first = read_checkpoint(path).sha256
    save_checkpoint(path, {**STATE, "model": {"w": torch.zeros(300)}})
    assert first == read_checkpoint(previous_of(path)).sha256 != read_checkpoint(path).sha256


def test_the_first_checkpoint_on_a_full_disk_claims_no_other(tmp_path, mocker):
    mocker.patch("hxtrain.backends.files.os.fsync", side_effect=OSError(28, "No space left on device"))
    with pytest.raises(CheckpointError, match=r"there is none before it\. Free some space and start again"):
        save_checkpoint(tmp_path / "checkpoint.pt", STATE)
    assert not list(tmp_path.iterdir())


def test_links_in_a_run_directory_are_not_followed(tmp_path):
    folder, victim = tmp_path / "run", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    (folder / "checkpoint.pt").symlink_to(victim)
    (folder / "checkpoint.previous.pt").symlink_to(victim)
    for _ in range(3):
        save_checkpoint(folder / "checkpoint.pt", STATE)
    (folder / "config.yaml").symlink_to(victim)
    with replacing(folder / "config.yaml") as file:
        file.write(b"a: 1")
    (folder / ".lock").symlink_to(victim)
    with pytest.raises(CheckpointError, match="is a link to somewhere else"), locked(folder):
        pass
    assert victim.read_text() == "precious"


def test_the_lock_empties_nothing_and_removes_leftovers_of_a_killed_process(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    leftover = tmp_path / f".config.yaml.{'0' * 32}.tmp"
    foreign = tmp_path / "mine.tmp"
    leftover.touch()
    foreign.touch()
    with locked(tmp_path):
        assert not leftover.exists()
    assert foreign.exists()
    assert (tmp_path / ".lock").read_text() == "mine"
    remove_leftovers(tmp_path)


@pytest.mark.parametrize("name", ["W66F3", "A-b_c.1", "x" * 64])
def test_names_that_become_a_part_of_a_path(name):
    assert path_part(name, "chip.name") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a..b", "x" * 65, "a\n", "Ä", "[/b]", "~", ".x"]
)
def test_names_that_would_leave_a_folder_are_refused_wherever_they_are_given(name):
    with pytest.raises(ValueError, match=r"chip\.name=.* becomes a part of file names"):
        ChipConfig(name=name)
    with pytest.raises(ValueError, match="becomes a part of file names"):
        ReportConfig(name=name, folders=["a"], series=[Series("b")])


def test_a_population_of_chips_may_have_a_long_name():
    assert ChipConfig(name="+".join(f"W{n}F0" for n in range(30))).name.startswith("W0F0+W1F0")


RESULTS = [
    ("[1]", "it holds a list"),
    ("[" * 100_000, "recursion"),
    ('{"test_accuracy": NaN}', "NaN is no number"),
    ('{"test_accuracy": 2.5}', r"test_accuracy=2\.5 is outside of 0\.\.1"),
    ('{"test_accuracy": 1' + "0" * 400 + "}", "more than 64 bits|outside"),
    ('{"settings": [1]}', "settings is a list"),
    ("\x00\xff", "damaged"),
]


@pytest.mark.parametrize(("text", "reason"), RESULTS, ids=[text[:20] for text, _ in RESULTS])
def test_damaged_results_are_refused(tmp_path, text, reason):
    file = tmp_path / "result.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=reason):
        read_result(file)


def test_entries_that_are_needed_are_looked_for(tmp_path):
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"epochs": "many"}))
    with pytest.raises(CheckpointError, match="epochs is a str"):
        read_result(file, {"epochs": int})
    with pytest.raises(CheckpointError, match="lacks settings"):
        read_result(file, {"settings": dict})


CONFIGS = ["- 1", "", "a: &a [1]\nb: *a", "x: !!python/object/apply:os.system ['true']", "\x00", "a: ["]


@pytest.mark.parametrize("text", CONFIGS)
def test_damaged_configs_are_refused(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    if text == "":
        assert read_settings(file) == {}
        return
    with pytest.raises(CheckpointError, match=r"is not a run's config\.yaml"):
        read_settings(file)


SETTINGS = [
    ({"adaptation": 1e-6}, rf": network\.adaptation \(it was written by hxtrain 9\.0, this is {version('hxtrain')}"),
    ({"hidden": "100"}, "network: "),
    ({"steps": 2.5}, "could not be converted"),
    ({"dt": float("nan")}, r"network\.dt='nan' is no value"),
    ({"surrogate": "${oc.env:HOME}"}, r"network\.surrogate=.*is no value"),
    ({"dropout": 2.0}, "must be in 0 <= x < 1"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "text"), SETTINGS, ids=[next(iter(s)) for s, _ in SETTINGS])
def test_settings_that_this_version_cannot_use_are_named(tmp_path, settings, text):
    state = {"settings": {f"network.{k}": v for k, v in settings.items()}, "versions": {"hxtrain": "9.0"}}
    with pytest.raises(CheckpointError, match=text):
        component(tmp_path, state, "network", NetworkConfig)
    assert component(tmp_path, {"settings": {"network.gone": None}}, "network", NetworkConfig) == NetworkConfig()


def test_checkpoints_that_lack_anything_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    whole = {"settings": {"seed": 0, "data.sha256": "x"}, "model": {}, "epoch": 1, "records": []}
    for key in whole:
        save_checkpoint(path, {name: value for name, value in whole.items() if name != key})
        with pytest.raises(CheckpointError, match=f"lacks {key}"):
            load_trained(str(path))
    laughs = "x"
    for _ in range(10):
        laughs = [laughs] * 8
    for settings in ([1], {"seed": "x", "data.sha256": "x"}, {**whole["settings"], "network.at_spike": laughs}):
        save_checkpoint(path, {**whole, "settings": settings})
        with pytest.raises(CheckpointError, match="damaged"):
            load_trained(str(path))
    save_checkpoint(path, {**whole, "kind": "ann"})
    with pytest.raises(CheckpointError, match="lacks"):
        load_ann(path)


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"format": 1, **STATE}, tmp_path / "checkpoint.pt")
    with (
        zipfile.ZipFile(tmp_path / "checkpoint.pt") as archive,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name) if name.endswith("pkl") else bytes(2**24))
    with pytest.raises(CheckpointError, match=r"is compressed, which torch\.save never does"):
        load_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("hidden", [[20_000_000], [20_000] * 4])
def test_no_memory_is_taken_for_a_network_whose_weights_are_not_there(tmp_path, hidden, mocker):
    weights = network().state_dict()
    drawn = mocker.spy(torch, "randn")
    with pytest.raises(CheckpointError, match="use the same network settings"):
        module_with_weights(lambda: NetworkConfig(hidden=hidden).build(64, 10, seed=0), weights, tmp_path)
    assert not drawn.called


def test_a_checkpoint_downloads_no_data(tmp_path, mocker):
    path = tmp_path / "checkpoint.pt"
    settings = {"seed": 0, "data.sha256": "x", "loss.kind": "MaxOverTime", "data.name": "mnist", "data.size": 28}
    state = {"settings": {**settings, "data.download": True}, "model": {}, "epoch": 1, "records": []}
    save_checkpoint(path, state)
    reached = mocker.patch("urllib.request.urlopen")
    with pytest.raises(CheckpointError, match="its data cannot be loaded"):
        load_trained(str(path))
    assert not reached.called


def network():
    return NetworkConfig(hidden=[4]).build(3, 2, seed=0)


def test_weights_of_another_program_are_taken_by_their_order(tmp_path):
    path = tmp_path / "other.pt"
    weights = {"0.weight": torch.ones(4, 3), "2.weight": torch.zeros(2, 4)}
    torch.save(weights, path)
    net = network()
    load_weights(net, path)
    assert torch.equal(net.layers[0].linear.weight, torch.ones(4, 3))
    torch.save({**weights, "2.bias": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"is a state_dict with weights .* and no biases"):
        load_weights(network(), path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_neither_taken_nor_saved(tmp_path, value):
    weights = network().state_dict()
    weights["stack.0.weight"][1, 1] = value
    with pytest.raises(CheckpointError, match=r"stack\.0\.weight holds weights that are NaN or infinite"):
        take_weights(network(), weights, tmp_path)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        require_finite(weights, "here")


def test_weights_of_other_types_are_refused(tmp_path):
    weights = {name: weight.to(torch.complex64) for name, weight in network().state_dict().items()}
    with pytest.raises(CheckpointError, match=r"is of torch\.complex64"):
        take_weights(network(), weights, tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights by name"):
        take_weights(network(), [1], tmp_path)
