"""One function a parser: bytes in; what it raises beyond its declared errors is a find. The same for all fuzzers.

The seeds are made here, from the protocols' own writers: no corpus lies in the repository.
"""

import atexit
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from zipfile import ZipFile

import httpx2
from pydantic import TypeAdapter

from fuzz import people
from gguf_files import gguf_bytes
from hostile import STEERS
from joulebox.accounting import account
from joulebox.client import Client
from joulebox.clock import SimulatedClock
from joulebox.errors import JouleboxError
from joulebox.evidence import decode_trace, encode_trace
from joulebox.model import Channel, Prompt, ReadingKind
from joulebox.node.agent import _read_lease
from joulebox.node.calibration import FILE, Calibration, ChannelCalibration, calibrated, fingerprint, load_calibration
from joulebox.node.engine_http import events
from joulebox.node.gguf import read_header
from joulebox.node.meter import MeterFault
from joulebox.node.meters import feed, ipmi, mcp39f511n, modbus, redfish, remote, shelly, snmp, tasmota
from joulebox.node.models import Registry
from joulebox.protocol import Batch, Finish, Lease, LeaseRequest, NodeEvent, to_json
from joulebox.server.node_api import _read
from traces import PLACEMENT, channel, factors, series, trace, work

Run = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, what it may raise, and inputs to begin with. `coverage`: worth a fuzzer that watches the paths."""

    run: Run
    errors: tuple[type[Exception], ...]
    seeds: Sequence[bytes]
    coverage: bool = False

    def __call__(self, data: bytes) -> None:
        """Feed it. Declared errors must say something."""
        try:
            self.run(data)
        except self.errors as error:
            assert str(error)


def json_of(data: bytes) -> Any:
    """JSON as `JsonHttp` decodes it. Raises `MeterFault`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MeterFault("not JSON") from error


class Canned:
    """Where a driver would ask over the network: always the same answer."""

    url = name = "http://peer"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def get(self, path: str, says: str) -> Any:
        return json_of(self._data)

    def ask(self, command: str, argument: str = "") -> Any:
        return json_of(self._data)

    def told(self) -> Any:
        return json_of(self._data)

    def close(self) -> None:
        return


# --- meters -----------------------------------------------------------------------------------------------------------


def run_mcp39f511n(data: bytes) -> object:
    return mcp39f511n.answered(data[1:], data[0] % 36) if data else None


def _frame(payload: bytes) -> bytes:
    frame = bytes([0x06, len(payload) + 3]) + payload
    return bytes([len(payload)]) + frame + bytes([sum(frame) % 256])


def run_feed(data: bytes) -> object:
    return feed.parse(data)


def run_ipmi(data: bytes) -> object:
    report = data.decode(errors="replace")
    return ipmi._period_s(report), ipmi.readings_of(report, mean=True)


IPMI_REPORT = b"""
    Instantaneous power reading:                   105 Watts
    Minimum during sampling period:                 95 Watts
    Average power reading over sample period:      104 Watts
    IPMI timestamp:                           Mon Nov 23 08:00:00 2026    Sampling period:  00000005 Seconds.
    Power reading state is:                   activated

"""


def run_shelly(data: bytes) -> object:
    meter = shelly.ShellyMeter.__new__(shelly.ShellyMeter)
    meter._http = Canned(data)  # type: ignore[assignment]
    meter._switch, meter._component, meter._with_energy = 0, "switch", True
    meter._generation = 1
    try:
        meter.read()
    except MeterFault:
        meter._generation = shelly._generation(json_of(data))
    meter._generation = 2
    return meter.read()


def run_tasmota(data: bytes) -> object:
    return tasmota.TasmotaMeter(Canned(data), asks=True).read()


def run_modbus(data: bytes) -> object:
    if len(data) < 12:
        return None
    words = list(struct.unpack(">5H", data[2:12]))
    form = list(modbus._FORMATS.values())[data[0] % len(modbus._FORMATS)]
    kind = (ReadingKind.POWER_W, ReadingKind.ENERGY_J)[data[1] % 2]
    exponent = 4 if data[1] & 2 else None
    register = modbus.Register(kind, 0, form, 1.0, 0.1, "little" if data[1] & 4 else "big", exponent)
    value = modbus.value_of(words, register)
    assert 0 <= value <= 1e18
    return value


def run_snmp(data: bytes) -> object:
    agent = _agent()
    agent._ask = lambda wire, request: data  # type: ignore[method-assign]
    return agent.get(["1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"])


@cache
def _agent() -> snmp._Agent:
    return snmp._Agent("127.0.0.1", 9, "public", "2c", 1.0)


def _snmp_seed() -> bytes:
    agent = _agent()
    return bytes(agent._ber[0].encode(agent._request(["1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"])))


def run_redfish(data: bytes) -> object:
    meter = redfish.RedfishMeter.__new__(redfish.RedfishMeter)
    meter._get = lambda path: json_of(data)  # type: ignore[method-assign]
    try:
        meter._find("http://peer", None)
    except JouleboxError as error:
        assert error.code == "bad_setting"
    return [redfish.values_of(json_of(data), figures) for figures in (redfish.ENVIRONMENT, redfish.POWER)]


def run_remote(data: bytes) -> object:
    first, _, second = data.partition(b"\0")
    meter = remote.RemoteMeter.__new__(remote.RemoteMeter)
    meter._clock, meter._http, meter._path, meter._lag_s = SimulatedClock(), Canned(second), "", 1.0  # type: ignore[assignment]
    meter._offset, meter._mark, meter._channels = remote.Offset(), None, (_REMOTE_CHANNEL,)
    try:
        meter.read()
    except MeterFault as fault:
        assert str(fault)
    _, served = remote._chosen(json_of(first), None, "http://peer")
    return [remote._channel(one) for one in served["channels"][:64]]


_REMOTE_CHANNEL = channel()
_SERVED = {"address": "m", "missing": [], "channels": [asdict(_REMOTE_CHANNEL)], "mark": "x"}


# --- evidence, files, protocol ----------------------------------------------------------------------------------------


def run_trace(data: bytes) -> object:
    return decode_trace(data)


def run_evidence(data: bytes) -> object:
    """A header and readings that are well packed: what the server reckons with, whatever it says."""
    size = int.from_bytes(data[:2], "big")
    head, body = data[2 : 2 + size], data[2 + size :]
    found = decode_trace(b"JBT1" + len(head).to_bytes(4, "big") + head + zlib.compress(body, 1))
    return account(found, factors(), receipt_id="r", placement=PLACEMENT)


def _evidence_seed() -> bytes:
    blob = encode_trace(TRACE)
    size = int.from_bytes(blob[4:8], "big")
    return size.to_bytes(2, "big") + blob[8 : 8 + size] + zlib.decompress(blob[8 + size :])


@cache
def _folder() -> Path:
    folder = mkdtemp(prefix="joulebox-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    atexit.register(rmtree, folder, ignore_errors=True)
    return Path(folder)


def run_gguf(data: bytes) -> object:
    path = _folder() / "m.gguf"
    path.write_bytes(data)
    return read_header(path)


def run_models(data: bytes) -> object:
    registry = Registry(_folder())
    (_folder() / "models.json").write_bytes(data)
    return registry.list(), registry.troubles()


class _Bare:
    """A meter that a calibration may be of."""

    address: str = _REMOTE_CHANNEL.meter
    missing: Sequence[str] = ()

    def channels(self) -> Sequence[Channel]:
        return (_REMOTE_CHANNEL,)

    def read(self) -> Sequence[int | None]:
        return (0,)

    def close(self) -> None:
        return


def run_calibration(data: bytes) -> object:
    path = _folder() / FILE
    path.write_bytes(data)
    meters, ref = calibrated([_Bare()], load_calibration(path))
    for meter in meters:
        assert all(one.tick_s > 0 for one in meter.channels())
    return ref(datetime(2026, 11, 23, tzinfo=UTC))


def run_lease(data: bytes) -> object:
    found = json_of(data)
    return _read_lease(found)


def run_node_words(data: bytes) -> object:
    for read in (
        lambda: _read(TypeAdapter(LeaseRequest), data),
        lambda: _read(TypeAdapter(Batch), data),
        lambda: _read(TypeAdapter(Finish), data),
    ):
        try:
            read()
        except JouleboxError as error:
            assert error.code == "bad_request"
    return None


def _client(data: bytes) -> Client:
    client = Client("http://peer")
    client._http = httpx2.Client(
        base_url="http://peer", transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=data))
    )
    return client


def run_client(data: bytes) -> object:
    client = _client(data)
    for found in client.lines("/x"):
        assert isinstance(found, dict)
    for event in client._events("p", None):
        assert isinstance(event.data, dict)
    return None


class _Stream(httpx2.SyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return (self._data[at : at + 7] for at in range(0, len(self._data), 7))


def run_engine(data: bytes) -> object:
    response = httpx2.Response(200, stream=_Stream(data))
    for _, piece in events(response, SimulatedClock()):
        assert isinstance(piece, dict)
    return None


_CALIBRATION = Calibration(
    id="c",
    at="2026-11-22T08:00:00+00:00",
    marks={meter.address: mark for meter, mark in ((_Bare(), fingerprint(_Bare())),)},
    channels=(
        ChannelCalibration(
            meter=_Bare.address, name="package-0", idle_w=1.0, noise_w=0.1, tick_s=0.001, lag_s=0.0, read_s=1e-5
        ),
    ),
)


def _models_seed() -> bytes:
    path = _folder() / "seed.gguf"
    path.write_bytes(gguf_bytes())
    registry = Registry(_folder())
    registry.add(path)
    return (_folder() / "models.json").read_bytes()


_LEASE = Lease(
    token="t", job_id="j", attempt=1, prompt=Prompt(model="m", messages=()), queued_s=0.0, placement_reason=""
)


_BATCH = Batch(events=(NodeEvent(seq=0, kind="token", data={}),))
TRACE = trace(series(channel(tick_s=0.1), work(10, 50, 3, 4), 6.0), start_s=3.0, end_s=4.0, leased_ns=0)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _backup_seed() -> bytes:
    path = _folder() / "seed.zip"
    told = {"format": 1, "joulebox": "1", "method_version": "1", "schema": "r0001", "source": "sqlite", "rows": {}}
    told |= {"created": "2026-11-23T00:00:00Z", "size_bytes": 0, "sha256": "0" * 64, "models": [], "left_out": []}
    with ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(told))
        archive.writestr("joulebox.db", b"")
    return path.read_bytes()


TARGETS: Mapping[str, Target] = {
    "mcp39f511n": Target(run_mcp39f511n, (MeterFault,), [_frame(bytes(28)), b"\x04\x15", b"\x04\x51"], coverage=True),
    "feed": Target(
        run_feed, (ValueError,), [b"pdu power_w 231.5\npdu energy_j 1e3", b'{"name": "p", "power_w": 2}'], coverage=True
    ),
    "ipmi": Target(run_ipmi, (MeterFault,), [IPMI_REPORT], coverage=True),
    "trace": Target(
        run_trace, (ValueError,), [encode_trace(trace(series(channel(), work(1, 9, 3, 4), 5.0)))], coverage=True
    ),
    "evidence": Target(run_evidence, (ValueError,), [_evidence_seed()], coverage=True),
    "gguf": Target(run_gguf, (JouleboxError,), [gguf_bytes()], coverage=True),
    "shelly": Target(
        run_shelly,
        (MeterFault,),
        [_json({"gen": 2, "apower": 12.5, "aenergy": {"total": 1.5}, "meters": [{"power": 3.0, "total": 5}]})],
        coverage=True,
    ),
    "tasmota": Target(
        run_tasmota,
        (MeterFault, JouleboxError),
        [_json({"WattRes": 1, "EnergyRes": 3, "StatusSNS": {"ENERGY": {"Power": 12.5, "Total": 1.5}}})],
    ),
    "modbus": Target(run_modbus, (MeterFault,), [bytes(range(12)), struct.pack(">BBf6x", 0, 0, 230.0)], coverage=True),
    "snmp": Target(run_snmp, (MeterFault,), [_snmp_seed()]),
    "redfish": Target(
        run_redfish,
        (MeterFault,),
        [
            _json({"PowerWatts": {"Reading": 2.5}, "EnergykWh": {"Reading": 1.5}}),
            _json(
                {
                    "Members": [{"@odata.id": "/redfish/v1/Chassis/1"}],
                    "Power": {"@odata.id": "/redfish/v1/P"},
                    "PowerControl": [{"PowerConsumedWatts": 5}],
                }
            ),
        ],
        coverage=True,
    ),
    "remote": Target(
        run_remote,
        (MeterFault, JouleboxError, KeyError, TypeError, ValueError),
        [_json({"version": 1, "meters": [_SERVED]}) + b"\0" + _json({"raw": [5], "before_ns": 0, "after_ns": 0})],
        coverage=True,
    ),
    "models.json": Target(run_models, (JouleboxError,), [_models_seed()]),
    "calibration.json": Target(run_calibration, (JouleboxError,), [_json(asdict(_CALIBRATION))]),
    "lease": Target(run_lease, (MeterFault, JouleboxError), [to_json(_LEASE)]),
    "node's words": Target(
        run_node_words,
        (),
        [to_json(Batch(events=(NodeEvent(seq=0, kind="token", data={}),))), to_json(Finish(outcome="done"))],
    ),
    "client": Target(run_client, (JouleboxError,), [b'{"say": "hello"}\n', b'id: 1\nevent: token\ndata: {"n": 1}\n\n']),
    "engine": Target(run_engine, (ValueError,), [b'data: {"choices": []}\n\n', b'error: {"code": 1}\n']),
    **{
        f"{name} body": Target(people.foreign(kind), people.REFUSALS, [_json(example)])
        for name, (kind, example) in people.FOREIGN.items()
    },
    "prompt body": Target(people.run_prompt, people.REFUSALS, [_json(people.PROMPT)]),
    "campaign body": Target(people.run_campaign, people.REFUSALS, [_json({"id": "c", "title": "t", "cells": []})]),
    "settings": Target(people.run_settings, (JouleboxError,), [people.SETTINGS], coverage=True),
    "addresses": Target(people.run_addresses, (), people.ADDRESSES, coverage=True),
    "place in a stream": Target(people.run_place, (), [b"1.2", b"3.end"]),
    "markdown": Target(people.run_markdown, (), [people.MARKDOWN], coverage=True),
    "terminal": Target(people.run_terminal, (), [STEERS.encode("utf-8", "surrogatepass"), b"=1+1"], coverage=True),
    "refusal": Target(people.run_refusal, (), [people.PROBLEM], coverage=True),
    "backup": Target(people.run_backup(_folder), (JouleboxError,), [_backup_seed()], coverage=True),
    "campaign file": Target(people.run_record(_folder), (JouleboxError,), [b'{"kind": "begun"}\n'], coverage=True),
}
