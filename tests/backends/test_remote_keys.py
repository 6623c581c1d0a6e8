"""Without the right keys nothing is served."""

import os
from pathlib import Path

import pytest
from backends_bench import CIRCUIT, WEIGHTS, stimulus
from remote_bench import CountingBackend, connected, serving

from hxtrain.backends import DeviceError
from hxtrain.backends.remote import KeyFileError, LinkSettings, RemoteBackend, ServerSettings, ask_status, make_keys
from hxtrain.backends.remote.keys import load_authorised

BRIEF = {"timeout": 0.5, "patience": 1.0}


def test_key_files_are_for_their_owner_only(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        files = make_keys(tmp_path / "keys")
    finally:
        os.umask(mask)
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
    with serving(CountingBackend(), keys=keys) as server, connected(server, keys=keys) as client:
        client.configure(CIRCUIT)
        assert client.run(WEIGHTS, stimulus(clock=5)).traces["hidden"].max() == 5
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
        with connected(server, keys=str(mixed)) as client:  # authorised while the server runs
            assert client.identity["chip"] == "counting"
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
    with pytest.raises(KeyFileError, match=r"client.key_secret is missing; make keys with: hxtrain serve keys DIR"):
        RemoteBackend("tcp://127.0.0.1:1", keys=str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["-rf", "_x", "", "a" * 65, "a b", "x.key", "server"])
def test_names_that_are_no_files_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="client name"):
        make_keys(tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("place", [".", "authorised"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_folders_that_others_can_change_are_refused(place: str, mode: int, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    (tmp_path / "keys" / place).chmod(mode)
    text = rf"has mode {mode:o}: others can change it; chmod go-w .*"
    with pytest.raises(KeyFileError, match=text), serving(CountingBackend(), keys=str(tmp_path / "keys")):
        pass
    with pytest.raises(KeyFileError, match=text):
        make_keys(tmp_path / "keys", "another")
    if place != ".":
        assert load_authorised(tmp_path / "keys") == {}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("place", ["server.key_secret", ".", "authorised"])
def test_keys_of_other_users_are_refused(place: str, tmp_path: Path) -> None:
    make_keys(tmp_path)
    os.chown(tmp_path / place, 4711, -1)
    with pytest.raises(KeyFileError, match="belongs to user 4711"), serving(CountingBackend(), keys=str(tmp_path)):
        pass


def test_a_public_key_that_others_can_change_is_not_trusted(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "authorised/client.key").chmod(0o666)
    assert load_authorised(tmp_path) == {}
    (tmp_path / "authorised/client.key").chmod(0o644)
    assert list(load_authorised(tmp_path).values()) == ["client"]
    (tmp_path / "server.key").chmod(0o666)
    with pytest.raises(KeyFileError, match=r"server.key has mode 666: others can change it; chmod go-w"):
        RemoteBackend("tcp://127.0.0.1:1", keys=str(tmp_path))


@pytest.mark.parametrize("files", range(5))
def test_keys_whose_making_was_interrupted_are_completed(
    files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of files; what a client has already is not made anew."""
    left = [files]
    replace = os.replace

    def interrupted(source: str, target: Path) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_keys(tmp_path / "keys")
    contents = {file: file.read_text() for file in (tmp_path / "keys").glob("*.key_secret")}
    make_keys(tmp_path / "keys")
    assert {file: file.read_text() for file in contents} == contents
    assert not list((tmp_path / "keys").rglob("*.part"))
    keys = str(tmp_path / "keys")
    with serving(CountingBackend(), keys=keys) as server, connected(server, keys=keys) as client:
        assert client.identity["chip"] == "counting"


@pytest.mark.parametrize(
    "bind", ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://[::]:5555", "tcp://10.1.2.3:*", "tcp://eth0:1"]
)
def test_others_are_not_served_without_keys(bind: str) -> None:
    with pytest.raises(ValueError, match="Make keys with `hxtrain serve keys DIR` and serve with keys=DIR"):
        ServerSettings(bind=bind)
    assert ServerSettings(bind=bind, insecure=True).insecure
    assert ServerSettings(bind=bind, keys="DIR").keys == "DIR"


@pytest.mark.parametrize(
    "bind", ["tcp://127.0.0.1:*", "tcp://localhost:5", "tcp://[::1]:5", "tcp://127.3.0.1:5", "ipc:///x"]
)
def test_this_machine_is_served_without_keys(bind: str) -> None:
    assert ServerSettings(bind=bind).bind == bind
