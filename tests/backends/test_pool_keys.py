"""A pool with keys: clients, broker and servers authenticate each other."""

from pathlib import Path

import pytest
from backends_bench import CIRCUIT, WEIGHTS, stimulus
from pool_bench import NamedBackend, await_states, brokering, leasing, pooling, report
from remote_bench import serving

from hxtrain.backends import DeviceError
from hxtrain.backends.addresses import pool_address
from hxtrain.backends.remote import RemoteBackend, make_keys

BRIEF = {"timeout": 0.5, "patience": 1.0}


def copied(folder: Path, *files: tuple[Path, str]) -> str:
    """Make a folder of keys from those of others: paths, each with its new name."""
    (folder / "authorised").mkdir(parents=True)
    for source, name in files:
        (folder / name).write_bytes(source.read_bytes())
        (folder / name).chmod(0o600)
    return str(folder)


def test_only_known_keys_get_a_chip(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    for name in ("client", "alice"):
        make_keys(lab, name)
    make_keys(tmp_path / "foreign")
    server = (lab / "server.key", "server.key")
    alice = copied(tmp_path / "alice", server, (lab / "alice.key_secret", "client.key_secret"))
    eve = copied(tmp_path / "eve", server, (tmp_path / "foreign/client.key_secret", "client.key_secret"))
    with pooling(tmp_path, "A", keys=str(lab)) as (broker, _):
        address = pool_address(broker.address)
        for keys, text in ((None, "do server and client both use keys"), (eve, "does not accept this client's key")):
            with pytest.raises(DeviceError, match=f"^pool {address}: .*{text}"):
                RemoteBackend(address, keys=keys, **BRIEF).open()
        with leasing(broker, keys=alice) as device:
            device.configure(CIRCUIT)
            assert device.run(WEIGHTS, stimulus(clock=5)).traces["hidden"].max() == 5
            (chip,) = report(broker).chips
            assert chip.holder.startswith("alice (")
            with pytest.raises(DeviceError, match=f"no chip for .* keys={lab}; wait longer"):
                RemoteBackend(address, keys=str(lab), queue_patience=0.2).open()
        assert (report(broker).queue, report(broker).granted) == ((), 1)


def test_servers_that_refuse_the_broker_or_the_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lab = tmp_path / "lab"
    make_keys(lab)
    pair = [(lab / f"server.{kind}", f"server.{kind}") for kind in ("key", "key_secret")]
    closed = copied(tmp_path / "closed", *pair)
    with (
        serving(NamedBackend("A"), keys=closed) as server,
        brokering([server.address], tmp_path, keys=str(lab)) as broker,
    ):
        with pytest.raises(DeviceError, match=f"servers that have not answered yet: {server.address}"):
            RemoteBackend(pool_address(broker.address), keys=str(lab), queue_patience=0.5).open()
        assert "does not accept this client's key" in caplog.text, "the broker's key"
        (tmp_path / "closed/authorised/broker.key").write_bytes((lab / "client.key").read_bytes())
        await_states(broker, {"free": 1})
        make_keys(lab, "alice")
        alice = copied(tmp_path / "alice", pair[0], (lab / "alice.key_secret", "client.key_secret"))
        with pytest.raises(DeviceError, match=f"^chip server {server.address}: .*Give its operator client.key"):
            RemoteBackend(pool_address(broker.address), keys=alice, **BRIEF).open()
        await_states(broker, {"free": 1})
