"""A pool of chips: who gets which chip, and what a loss of clients, servers and broker does."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from backends_bench import CIRCUIT, WEIGHTS, stimulus
from pool_bench import HEARTBEAT, NamedBackend, await_states, brokering, leasing, pooling, report
from remote_bench import port_for_restarts, serving

from hxtrain.backends import DeviceError, create_backend
from hxtrain.backends.addresses import pool_address
from hxtrain.backends.pool import Broker, PoolSettings
from hxtrain.backends.recording import QueueTimeoutError
from hxtrain.backends.remote import LinkSettings, RemoteBackend


@contextmanager
def two_servers_of_one_chip(folder: Path) -> Iterator[tuple[Broker, dict[str, ExitStack]]]:
    """Serve the same chip twice behind a broker; yield the broker and the end of each server by its address."""
    with ExitStack() as stack:
        servers = {port_for_restarts(): stack.enter_context(ExitStack()) for _ in range(2)}
        for place, server in servers.items():
            server.enter_context(serving(NamedBackend("A"), bind=place))
        broker = stack.enter_context(brokering(list(servers), folder))
        await_states(broker, {"free": 2})
        yield broker, servers


def test_a_client_gets_a_free_chip_that_fits(tmp_path: Path) -> None:
    with pooling(tmp_path, "A", "B") as (broker, places):
        with leasing(broker, chip="B") as device:
            assert dict(device.identity) == {
                "backend": "reference", "chip": "B", "chip_hash": "hash of B", "preset": "calibrated",
                "address": places["B"],
            }  # fmt: skip
            device.configure(CIRCUIT)
            assert device.run(WEIGHTS, stimulus(clock=7)).traces["hidden"].max() == 7
            with leasing(broker, hash="hash of A", preset="calibrated", circuits=1) as second:
                assert second.identity["chip"] == "A"
                states = {berth.identity["chip"]: berth.state for berth in report(broker).chips}
                assert states == {"A": "leased", "B": "leased"}
        assert {berth.state for berth in report(broker).chips} == {"free"}


def test_wishes_that_no_chip_fulfils_are_refused(tmp_path: Path) -> None:
    with pooling(tmp_path, "A") as (broker, places):
        with pytest.raises(ValueError, match=r"no chip with preset ideal. It has: .*chip A.*preset calibrated"):
            RemoteBackend(pool_address(broker.address), preset="ideal").open()
        with pytest.raises(ValueError, match=r"no chip with at least 100000 circuits\. It has: .*512 circuits"):
            RemoteBackend(pool_address(broker.address), circuits=100_000).open()
        with pytest.raises(ValueError, match=r"is a pool of chips: write address=pool://"):
            RemoteBackend(broker.address).open()
        with pytest.raises(ValueError, match=r"a single chip: write address=tcp://"):
            RemoteBackend(pool_address(places["A"])).open()
    with pytest.raises(ValueError, match="only a pool can choose one with chip A"):
        create_backend("remote", address="tcp://127.0.0.1:1", chip="A")


def test_the_queue_tells_place_and_patience(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pooling(tmp_path, "A") as (broker, _), leasing(broker):
        with pytest.raises(QueueTimeoutError, match=r"no chip for 0.3 s \(place 1 of 1; any chip\)"):
            RemoteBackend(pool_address(broker.address), queue_patience=0.3).open()
        assert (
            "place 1 of 1 in the queue for a chip (any chip), waiting time unknown: no lease has ended yet; "
            in caplog.text
        )
        assert report(broker).queue == (), "who gives up has no place"


def test_a_vanished_client_loses_its_chip_after_two_heartbeats(tmp_path: Path) -> None:
    with pooling(tmp_path, "A") as (broker, _):
        first = RemoteBackend(pool_address(broker.address))
        assert first.capabilities.neuron_circuits
        reservation = first._reservation
        assert reservation is not None
        assert reservation._heart is not None
        reservation._heart.stop()  # as if it were killed
        start = time.monotonic()
        with leasing(broker):
            assert HEARTBEAT < time.monotonic() - start < 2 * HEARTBEAT + 2.0
        assert report(broker).expired == 1
        first.close()


def test_a_holder_from_elsewhere_is_left_alone(tmp_path: Path) -> None:
    with pooling(tmp_path, "A", "B") as (broker, places), RemoteBackend(places["A"]) as direct:
        assert direct.identity["chip"] == "A"
        await_states(broker, {"elsewhere": 1, "free": 1})
        with leasing(broker) as device:
            assert device.identity["chip"] == "B"


def test_a_dead_server_is_taken_out_and_its_client_goes_on_elsewhere(tmp_path: Path) -> None:
    with two_servers_of_one_chip(tmp_path) as (broker, servers), leasing(broker) as backend:
        first = backend.identity["address"]
        backend.configure(CIRCUIT)
        assert backend.run(WEIGHTS, stimulus(clock=1)).traces["hidden"].max() == 1
        servers[first].close()
        assert backend.run(WEIGHTS, stimulus(clock=2)).traces["hidden"].max() == 2
        assert {first, backend.identity["address"]} == {*servers}
        assert report(broker).lost == 1
        servers[first].enter_context(serving(NamedBackend("A"), bind=first))
        await_states(broker, {"free": 1, "leased": 1})


def test_a_client_that_begins_at_a_dead_server_goes_elsewhere(tmp_path: Path) -> None:
    """The server ends after the lease, before the client has greeted it."""
    with two_servers_of_one_chip(tmp_path) as (broker, servers):
        backend = RemoteBackend(pool_address(broker.address))
        backend._reserve()
        first = backend._settings.address
        servers[first].close()
        with backend:
            assert {first, backend.identity["address"]} == {*servers}


def test_a_client_waits_for_the_very_same_chip(tmp_path: Path) -> None:
    """The server of A ends; B is free, but it is another chip."""
    place = port_for_restarts()
    with serving(NamedBackend("B")) as free_server, brokering([place, free_server.address], tmp_path) as broker:
        with serving(NamedBackend("A"), bind=place):
            await_states(broker, {"free": 2})
            backend = RemoteBackend(pool_address(broker.address), chip="A")
            backend.open()
            backend.configure(CIRCUIT)
        restarted = threading.Event()

        def restart() -> None:
            await_states(broker, {"away": 1, "free": 1})
            with serving(NamedBackend("A"), bind=place):
                restarted.wait(60)

        thread = threading.Thread(target=restart)
        thread.start()
        try:
            assert backend.run(WEIGHTS, stimulus(clock=3)).traces["hidden"].max() == 3
            assert backend.identity["chip"] == "A"
            backend.close()
        finally:
            restarted.set()
            thread.join()


def test_a_chip_that_is_exchanged_ends_the_run(tmp_path: Path) -> None:
    place = port_for_restarts()
    with ExitStack() as server, brokering([place], tmp_path) as broker:
        server.enter_context(serving(NamedBackend("A"), bind=place))
        await_states(broker, {"free": 1})
        with leasing(broker) as backend:
            backend.configure(CIRCUIT)
            server.close()
            server.enter_context(serving(NamedBackend("B"), bind=place))
            # whoever notices first: the pool, or the client at the server
            text = r"gone: the pool has no chip with .*chip A, .* It has: .*chip B,|serves another device now: .*'B'"
            with pytest.raises(DeviceError, match=text):
                backend.run(WEIGHTS, stimulus(clock=1))
        assert [berth.state for berth in report(broker).chips] == ["free"]


def test_leases_and_queue_survive_a_restart_of_the_broker(tmp_path: Path) -> None:
    bind = port_for_restarts()
    with serving(NamedBackend("A")) as server:
        chips: list[str] = []
        with brokering([server.address], tmp_path, bind=bind) as broker:
            await_states(broker, {"free": 1})
            backend = RemoteBackend(pool_address(broker.address))
            backend.open()
            backend.configure(CIRCUIT)

            def wait() -> None:
                with leasing(broker) as device:
                    chips.append(device.identity["chip"])

            waiter = threading.Thread(target=wait)
            waiter.start()
            while not report(broker).queue:
                time.sleep(0.01)
        assert backend.run(WEIGHTS, stimulus(clock=4)).traces["hidden"].max() == 4, "it needs no broker"
        with brokering([server.address], tmp_path, bind=bind) as broker:
            current = report(broker)
            assert [berth.state for berth in current.chips] == ["leased"]
            assert len(current.queue) == 1
            time.sleep(3 * HEARTBEAT)
            current = report(broker)
            assert [berth.state for berth in current.chips] == ["leased"], "the client's signs of life keep it"
            assert (current.granted, current.expired, current.lost, chips) == (1, 0, 0, [])
            backend.close()
            waiter.join(30)
            assert chips == ["A"]


def test_a_lost_state_gives_a_client_its_chip_again(tmp_path: Path) -> None:
    bind = port_for_restarts()
    with serving(NamedBackend("A")) as first, serving(NamedBackend("B")) as second:
        places = [first.address, second.address]
        with brokering(places, tmp_path, bind=bind) as broker:
            await_states(broker, {"free": 2})
            backend = RemoteBackend(pool_address(broker.address))
            backend.open()
            backend.configure(CIRCUIT)
            chip = backend.identity["chip"]
        (tmp_path / "pool.json").unlink()
        with brokering(places, tmp_path, bind=bind) as broker:
            await_states(broker, {"free": 1, "elsewhere": 1})
            while backend._reservation is not None and not backend._reservation.is_lost:
                time.sleep(0.01)
            assert backend.run(WEIGHTS, stimulus(clock=5)).traces["hidden"].max() == 5
            assert backend.identity["chip"] == chip
            assert await_states(broker, {"leased": 1, "free": 1}).granted == 1
            backend.close()


def test_two_brokers_do_not_share_a_state(tmp_path: Path) -> None:
    with brokering(["tcp://127.0.0.1:1"], tmp_path), pytest.raises(ValueError, match="is another pool running"):
        brokering(["tcp://127.0.0.1:1"], tmp_path).__enter__()
    (tmp_path / "pool.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="is not the state of a pool"):
        brokering(["tcp://127.0.0.1:1"], tmp_path).__enter__()


def test_settings_are_checked() -> None:
    for address in ("pool://", "pole://lab:1", "tcp://lab", "pool://lab", "pool://::1:5554", "tcp://lab:70000"):
        with pytest.raises(ValueError, match=f"address='{address}': .*pool://lab:5554 for a pool"):
            RemoteBackend(address)
    assert LinkSettings("pool://[::1]:5554").endpoint == "tcp://[::1]:5554"
    assert LinkSettings("pool:///run/pool").endpoint == "ipc:///run/pool"
    for servers in (["tcp://lab"], ["pool://lab:1"], [], ["tcp://lab:1", "tcp://lab:1"]):
        with pytest.raises(ValueError, match="servers"):
            PoolSettings(servers=servers)
