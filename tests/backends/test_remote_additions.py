"""Servers and clients from before an addition to the protocol work with those that know it."""

from dataclasses import fields, make_dataclass, replace
from typing import Any, get_type_hints

import pytest
import torch
from backends_bench import CASES, CIRCUIT, WEIGHTS, configured, stimulus
from remote_bench import connected, serving
from test_remote_protocol import HELLO, Raw, head

from hxtrain.backends import Capabilities, Circuit, Record, create_backend
from hxtrain.backends.circuit import ADDITION
from hxtrain.backends.remote import Server
from hxtrain.backends.remote.protocol import ADDITIONS, PREFIX, Configure, Hello, Welcome, read_body
from hxtrain.backends.remote.wire import WireError, pack, unpack


def first_form(kind: Any, **types: Any) -> Any:
    """Return a message of version 2 as it was before any addition, with other types for some fields."""
    hints = {**get_type_hints(kind), **types}
    names = [part.name for part in fields(kind) if ADDITION not in part.metadata]
    return make_dataclass(kind.__name__, [(name, hints[name]) for name in names], frozen=True)


OldHello = first_form(Hello)
OldWelcome = first_form(Welcome, capabilities=first_form(Capabilities))
OldConfigure = first_form(Configure, circuit=first_form(Circuit))


class OldServer(Server):
    """Takes and gives messages as they were before any addition."""

    def _carry_out(self, request: Any, origin: Any, peer: Any, arrival: Any) -> None:
        if request.head.op == "hello":
            read_body(OldHello, request)
        super()._carry_out(request, origin, peer, arrival)

    def _work(self, request: Any, lease: Any) -> Any:
        if request.head.op == "configure":
            read_body(OldConfigure, request)
        return super()._work(request, lease)


def test_an_old_client_gets_the_welcome_that_it_knows() -> None:
    with serving(create_backend("emulator", preset="ideal")) as server, Raw(server) as raw:
        old = unpack(OldWelcome, raw.ask(PREFIX, head(), pack(OldHello("old")))[2])
        assert old.capabilities.name == "emulator"
        body = raw.ask(PREFIX, head(), pack(Hello("new", ADDITIONS), ADDITIONS))[2]
        with pytest.raises(WireError, match="unknown fields: 'additions'"):
            unpack(OldWelcome, body)
        welcome = unpack(Welcome, body)
    assert welcome.additions == ADDITIONS
    assert welcome.capabilities.selective
    assert welcome.capabilities.calibration


def test_an_old_client_may_not_know_of_requests_and_gets_everything() -> None:
    assert unpack(Configure, pack(Configure(CIRCUIT))).circuit == CIRCUIT
    assert unpack(OldConfigure, pack(Configure(CIRCUIT)))
    assert unpack(Hello, HELLO).additions == ()


def test_an_unknown_addition_of_a_newer_side_is_ignored() -> None:
    with serving(create_backend("reference")) as server, Raw(server) as raw:
        body = raw.ask(PREFIX, head(), pack(Hello("newer", (*ADDITIONS, "telepathy")), ADDITIONS))[2]
        assert unpack(Welcome, body).additions == ADDITIONS


@pytest.mark.parametrize("kind", [Server, OldServer])
def test_a_new_client_gets_what_it_requests_of_any_server(kind: type[Server], mocker: Any) -> None:
    mocker.patch("remote_bench.Server", kind)
    requested = replace(CIRCUIT, record=Record(traces=("readout",)))
    device = create_backend("reference")
    configure = mocker.spy(device, "configure")
    with serving(device) as server, connected(server) as client:
        assert client.capabilities.selective == (kind is Server)
        assert client.capabilities.batching
        assert not client.capabilities.calibration
        client.configure(requested)
        recording = client.run(WEIGHTS, stimulus(3))
    assert configure.call_args.args[0] == (requested if kind is Server else CIRCUIT)
    expected = configured(CASES["reference"]).run(WEIGHTS, stimulus(3))
    assert torch.equal(recording.traces["readout"], expected.traces["readout"])
    assert torch.equal(recording.spikes["hidden"].time, expected.spikes["hidden"].time)
    assert list(recording.traces) == (["readout"] if kind is Server else ["hidden", "readout"])
