"""Without the right keys nothing is served."""

import os
from pathlib import Path

import pytest
from backends_bench import CIRCUIT, WEIGHTS, stimulus
from remote_bench import CountingBackend, connected, serving

from hxtrain.backends import DeviceError
from hxtrain.backends.remote import KeyFileError, LinkSettings, RemoteBackend, ServerSettings, ask_status, make_keys

BRIEF = {"timeout": 0.5, "patience": 1.0}


def test_key_files_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files = make_keys(tmp_path / "keys")
    finally:
        os.umask(before)
    assert sorted(str(file.relative_to(tmp_path / "keys")) for file in files) == [
        "authorised/client.key",
        "client.key",
        "client.key_secret",
        "server.key",
        "server.key_secret",
    ]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert {f.stat().st_mode & 0o777 for f in (tmp_path / "keys", tmp_path / "keys/authorised")} == {0o700}
    with pytest.raises(KeyFileError, match="is there already; name another client"):
        make_keys(tmp_path / "keys")
    assert len(make_keys(tmp_path / "keys", "second")) == 3, "the server's keys stay"
    with pytest.raises(KeyFileError, match=r"client name '../x' must consist of letters"):
        make_keys(tmp_path / "keys", "../x")


def test_with_its_key_a_client_is_served(tmp_path: Path) -> None:
    make_keys(tmp_path)
    keys = str(tmp_path)
    with serving(CountingBackend(), keys=keys) as server, connected(server, keys=keys) as there:
        there.configure(CIRCUIT)
        assert there.run(WEIGHTS, stimulus(clock=5)).traces["hidden"].max() == 5
        holder = ask_status(LinkSettings(server.address, keys)).holder
        assert holder is not None
        assert holder.label.startswith("client (")


def test_without_the_right_keys_nothing_is_served(tmp_path: Path) -> None:
    for name in ("own", "foreign"):
        make_keys(tmp_path / name)
    device = CountingBackend()
    with serving(device, keys=str(tmp_path / "own")) as server:
        with pytest.raises(DeviceError, match="do server and client both use keys"):
            RemoteBackend(server.address, **BRIEF).open()
        mixed = tmp_path / "mixed"
        mixed.mkdir()
        for source, name in (("foreign", "client.key_secret"), ("own", "server.key")):
            (mixed / name).write_bytes((tmp_path / source / name).read_bytes())
            (mixed / name).chmod(0o600)
        with pytest.raises(DeviceError, match=r"does not accept this client's key. Give its operator client.key of"):
            RemoteBackend(server.address, keys=str(mixed), **BRIEF).open()
        with pytest.raises(DeviceError, match="Is it running"):
            RemoteBackend(server.address, keys=str(tmp_path / "foreign"), **BRIEF).open()
        (tmp_path / "own/authorised/guest.key").write_bytes((tmp_path / "foreign/client.key").read_bytes())
        with connected(server, keys=str(mixed)) as there:  # authorised while the server runs
            assert there.identity["chip"] == "counting"
        (tmp_path / "own/authorised/guest.key").unlink()
        with pytest.raises(DeviceError, match="does not accept this client's key"):
            RemoteBackend(server.address, keys=str(mixed), **BRIEF).open()
    assert device.clocks == []


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "client.key_secret").chmod(0o644)
    with pytest.raises(KeyFileError, match=r"client.key_secret has mode 644: others can read it; chmod 600"):
        RemoteBackend("tcp://127.0.0.1:1", keys=str(tmp_path))
    (tmp_path / "server.key_secret").write_text("no key")
    with pytest.raises(KeyFileError, match="is not a key file"), serving(CountingBackend(), keys=str(tmp_path)):
        pass
    with pytest.raises(KeyFileError, match=r"client.key_secret is missing; make keys with: hxtrain-serve keys DIR"):
        RemoteBackend("tcp://127.0.0.1:1", keys=str(tmp_path / "none"))


@pytest.mark.parametrize(
    "bind", ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://[::]:5555", "tcp://10.1.2.3:*", "tcp://eth0:1"]
)
def test_others_are_not_served_without_keys(bind: str) -> None:
    with pytest.raises(ValueError, match="Make keys with `hxtrain-serve keys DIR` and serve with keys=DIR"):
        ServerSettings(bind=bind)
    assert ServerSettings(bind=bind, insecure=True).insecure
    assert ServerSettings(bind=bind, keys="DIR").keys == "DIR"


@pytest.mark.parametrize(
    "bind", ["tcp://127.0.0.1:*", "tcp://localhost:5", "tcp://[::1]:5", "tcp://127.3.0.1:5", "ipc:///x"]
)
def test_this_machine_is_served_without_keys(bind: str) -> None:
    assert ServerSettings(bind=bind).bind == bind
