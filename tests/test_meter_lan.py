"""SNMP, Redfish and IPMI meters: against snmpsim, sushy-static and a real BMC asked by ipmitool, and spoilt answers."""

import json
import random
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from conformance import conforms, no_descriptors_left, refused
from joulebox.clock import SimulatedClock
from joulebox.model import ReadingKind, Sampling
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meters import KINDS, found, ipmi, open_meters, redfish
from joulebox.rig.lan_meters import Plug, RedfishPlug
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall
from joulebox.units import J_PER_KWH, J_PER_WH, NS_PER_S
from lan_peers import TcpPeer, UdpWire, bmc, free_port, snmpsim, sushy_static

CONFORMS = ("snmp", "redfish", "ipmi")


def opened(address: str) -> Meter:
    return open_meters([address])[0]


# --- SNMP -------------------------------------------------------------------------------------------------------------

APC, RARITAN, GUDE = "1.3.6.1.4.1.318.1.1.26", "1.3.6.1.4.1.13742.6", "1.3.6.1.4.1.28507"
INTEGER, TEXT, COUNTER32, GAUGE32, COUNTER64 = 2, 4, 65, 66, 70
OWN = "1.3.6.1.4.1.99999.1"
PDUS: dict[str, dict[str, tuple[int, int | str]]] = {
    "apc": {
        f"{APC}.4.3.1.5.1": (INTEGER, 35),
        f"{APC}.4.3.1.9.1": (INTEGER, 17_098),
        f"{APC}.9.4.3.1.7.4": (INTEGER, 88),
        f"{APC}.9.4.3.1.11.4": (INTEGER, 1_234),
    },
    "apc-small": {f"{APC}.4.3.1.5.1": (INTEGER, 35), f"{APC}.4.3.1.9.1": (INTEGER, -1)},
    "raritan": {
        f"{RARITAN}.5.2.3.1.4.1.1.5": (GAUGE32, 119),
        f"{RARITAN}.5.2.3.1.4.1.1.8": (GAUGE32, 614_000),
        f"{RARITAN}.3.3.4.1.7.1.1.5": (GAUGE32, 0),
        f"{RARITAN}.3.3.4.1.7.1.1.8": (GAUGE32, 0),
        f"{RARITAN}.5.4.3.1.4.1.3.5": (GAUGE32, 883),
        f"{RARITAN}.3.5.4.1.7.1.3.5": (GAUGE32, 1),
    },
    "gude": {f"{GUDE}.43.1.5.1.2.1.4.1": (INTEGER, 91), f"{GUDE}.43.1.5.1.2.1.3.1": (GAUGE32, 55_123)},
    "public": {
        f"{OWN}.1": (COUNTER32, 4_000_000_000),
        f"{OWN}.2": (COUNTER64, 2**40),
        f"{OWN}.3": (TEXT, "88"),
        f"{OWN}.4": (TEXT, "high"),
        f"{OWN}.5": (GAUGE32, 887),
        f"{OWN}.6": (INTEGER, -5),
    },
}


def numbers(oid: str) -> list[int]:
    return [int(part) for part in oid.split(".")]


@pytest.fixture(scope="module")
def pdus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an agent that is another PDU for each community."""
    folder = tmp_path_factory.mktemp("snmp")
    for community, objects in PDUS.items():
        lines = [f"{oid}|{kind}|{value}\n" for oid, (kind, value) in objects.items()]
        (folder / f"{community}.snmprec").write_text(
            "".join(sorted(lines, key=lambda line: numbers(line.split("|")[0])))
        )
    with snmpsim(folder) as port:
        yield port


@pytest.mark.parametrize(
    ("options", "raw", "steps", "gain"),
    [
        ("preset=apc,community=apc", (35, 17_098), (10.0, J_PER_KWH / 10), 0.03),
        ("preset=apc,community=apc,outlet=4", (88, 1_234), (1.0, J_PER_KWH / 10), 0.03),
        ("preset=apc,community=apc-small", (35,), (10.0,), 0.03),
        ("preset=apc,community=apc,version=1", (35, 17_098), (10.0, J_PER_KWH / 10), 0.03),
        ("preset=raritan,community=raritan", (119, 614_000), (1.0, J_PER_WH), 0.01),
        ("preset=raritan,community=raritan,outlet=3", (883,), (0.1,), 0.01),
        ("preset=gude,model=1202,community=gude", (91, 55_123), (1.0, J_PER_WH), 0.025),
        (f"power={OWN}.5,scale=0.1,accuracy=2", (887,), (0.1,), 0.02),
        (f"power=.{OWN}.3,energy={OWN}.1,energy_scale=0.001", (88, 4_000_000_000), (1.0, J_PER_WH), 0.03),
    ],
)
def test_pdu_is_read(pdus: int, options: str, raw: tuple[int, ...], steps: tuple[float, ...], gain: float) -> None:
    """Each preset, and objects of one's own, give the counts that the agent holds with the documented units."""
    channels = conforms(f"snmp:127.0.0.1:{pdus},{options}", raw)
    assert [channel.step for channel in channels] == pytest.approx(list(steps))
    assert {(channel.scope, channel.gain_u_ratio) for channel in channels} == {("wall", gain)}
    assert channels[0].sampling is Sampling.SNAPSHOT
    assert [channel.sampling for channel in channels[1:]] == [Sampling.COUNTER] * (len(raw) - 1)
    assert [channel.wrap_raw for channel in channels[1:]] == [2**32 if f"{OWN}.1" in options else None] * (len(raw) - 1)


def test_two_outlets_of_one_pdu(pdus: int, tmp_path: Path) -> None:
    """Inlet and outlet are two meters; the community may stand in a file, and is in no address."""
    secret = tmp_path / "community"
    secret.write_text("apc\n")
    where = f"snmp:127.0.0.1:{pdus},preset=apc,community_file={secret}"
    meters = open_meters([where, f"{where},outlet=4"])
    assert [meter.address for meter in meters] == [f"snmp:127.0.0.1:{pdus}", f"snmp:127.0.0.1:{pdus},outlet=4"]
    for meter in meters:
        meter.close()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (f"power={OWN}.9", "meter_unreadable", f"it has no {OWN}.9"),
        (f"power={OWN}.9,version=1", "meter_unreadable", f"it has no {OWN}.9"),
        (f"power={OWN}.4", "meter_unreadable", "is no number but 'high'"),
        (f"power={OWN}.6", "meter_unreadable", "shows -5, which cannot be"),
        ("preset=apc", "meter_unreadable", "it has none of"),
        (f"power={OWN}.5,community=wrong,timeout=0.1", "meter_unreadable", "did not answer within 0.1 s"),
        ("", "bad_setting", "either preset=NAME, or power=OID"),
        (f"preset=apc,power={OWN}.5", "bad_setting", "either preset=NAME, or power=OID"),
        ("power=watts", "bad_setting", "give the object's numbers"),
        ("preset=gude", "bad_setting", "1105, 1202"),
        ("preset=apc,version=3", "bad_setting", "1, 2c"),
        ("preset=apc,community_file=/nowhere", "bad_setting", "cannot be read (No such file or directory)"),
    ],
)
def test_pdu_that_cannot_be_read_is_one_sentence(pdus: int, options: str, code: str, says: str) -> None:
    """Wrong objects, communities and options are refused, each in its own words."""
    error = refused(f"snmp:127.0.0.1:{pdus}{',' if options else ''}{options}")
    assert (error.code, says in error.detail) == (code, True), error.detail


def test_no_agent_there() -> None:
    """A port where nothing listens, and a name that there is not, are refused at once."""
    closed = refused(f"snmp:127.0.0.1:{free_port(socket.SOCK_DGRAM)},preset=apc")
    assert "cannot be reached (Connection refused)" in closed.detail
    assert "no host no-such-host.invalid" in refused("snmp:no-such-host.invalid,preset=apc").detail


SPOILT: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "silence": (lambda answer: None, "did not answer within 0.5 s"),
    "noise": (lambda answer: b"\xff" * 30, "not SNMP, or cut off"),
    "empty": (lambda answer: b"", "not SNMP, or cut off"),
    "half": (lambda answer: answer[: len(answer) // 2], "not SNMP, or cut off"),
    "other object": (lambda answer: answer.replace(b"\x1a\x04\x03\x01\x05", b"\x1a\x04\x03\x01\x06"), "something else"),
    "other question": (
        lambda answer: answer[: answer.index(b"\xa2") + 5] + b"\x01" + answer[answer.index(b"\xa2") + 6 :],
        "another question|not SNMP",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_spoilt_datagrams_are_faults_and_then_it_reads_again(pdus: int, fault: str) -> None:
    """Whatever comes instead of the agent's answer is a fault of its own; the next reading is right."""
    spoil, says = SPOILT[fault]
    wire = UdpWire(pdus)
    meter = opened(f"snmp:127.0.0.1:{wire.port},preset=apc,community=apc,timeout=0.5")
    wire.spoil = spoil
    with pytest.raises(MeterFault, match=says):
        meter.read()
    wire.spoil = lambda answer: answer
    assert list(meter.read()) == [35, 17_098]
    meter.close()
    wire.close()


def test_any_datagram_is_a_fault_or_a_reading(pdus: int) -> None:
    """Two hundred answers with bytes changed at random: a fault or numbers that can be, never anything else."""
    wire = UdpWire(pdus)
    meter = opened(f"snmp:127.0.0.1:{wire.port},preset=apc,community=apc,timeout=0.5")
    source = random.Random(3)

    def spoil(answer: bytes) -> bytes:
        changed = bytearray(answer)
        for _ in range(source.randrange(1, 4)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        return bytes(changed[: source.randrange(len(changed) // 2, len(changed) + 1)])

    wire.spoil = spoil
    faults = 0
    for _ in range(200):
        try:
            assert all(count is not None and count >= 0 for count in meter.read())
        except MeterFault:
            faults += 1
    assert faults > 100
    meter.close()
    wire.close()


# --- Redfish ----------------------------------------------------------------------------------------------------------


def tree(root: Path, resources: dict[str, dict[str, Any]]) -> Path:
    """A mockup folder as DMTF lays it out: one `index.json` a resource."""
    for path, resource in resources.items():
        folder = root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").write_text(json.dumps({"@odata.id": f"/redfish/v1/{path}".rstrip("/"), **resource}))
    return root


def link(path: str) -> dict[str, str]:
    return {"@odata.id": f"/redfish/v1/{path}"}


def chassis(*names: str) -> dict[str, dict[str, Any]]:
    return {"": {"RedfishVersion": "1.15.0"}, "Chassis": {"Members": [link(f"Chassis/{name}") for name in names]}}


MODERN = {
    **chassis("1"),
    "Chassis/1": {"EnvironmentMetrics": link("Chassis/1/EnvironmentMetrics"), "Power": link("Chassis/1/Power")},
    "Chassis/1/EnvironmentMetrics": {"PowerWatts": {"Reading": 374.5}, "EnergykWh": {"Reading": 7855.25}},
    "Chassis/1/Power": {"PowerControl": [{"PowerConsumedWatts": 344}]},
}
OLD = {
    **chassis("Self"),
    "Chassis/Self": {"Power": link("Chassis/Self/Power")},
    "Chassis/Self/Power": {"PowerControl": [{"PowerConsumedWatts": 344}]},
}
SEVERAL = {
    **chassis("Blade1", "Blade2", "Rack"),
    "Chassis/Rack": {},
    **{f"Chassis/Blade{n}": {"Power": link(f"Chassis/Blade{n}/Power")} for n in (1, 2)},
    **{f"Chassis/Blade{n}/Power": {"PowerControl": [{"PowerConsumedWatts": 100 * n}]} for n in (1, 2)},
}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that the server at 127.0.0.1 signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    import ipaddress

    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return certificate_file, key_file


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path, Path]]:
    """Port, tree and certificate of sushy-static with TLS, on the modern BMC."""
    folder = tree(tmp_path_factory.mktemp("redfish"), MODERN)
    certificate_file, key_file = certificate(tmp_path_factory.mktemp("certificate"))
    with sushy_static(folder, "-c", certificate_file, "-k", key_file) as port:
        yield port, folder, certificate_file


def test_bmc_is_read_by_redfish(machines: tuple[int, Path, Path]) -> None:
    """EnvironmentMetrics comes before Power, with the energy counter; the scope is the platform until one says wall."""
    port, _, trusted = machines
    power, energy = conforms(f"redfish:https://127.0.0.1:{port},verify={trusted}", (3_745, 785_525))
    assert (power.kind, power.sampling, power.step, power.scope) == (
        ReadingKind.POWER_W,
        Sampling.SNAPSHOT,
        0.1,
        "platform",
    )
    assert (energy.kind, energy.sampling, energy.step) == (ReadingKind.ENERGY_J, Sampling.COUNTER, J_PER_KWH / 100)
    assert (power.gain_u_ratio, power.accuracy) == (0.1, "not stated by Redfish: 10 % taken")
    told = opened(f"redfish:https://127.0.0.1:{port},verify=off,scope=wall,accuracy=3")
    assert {(channel.scope, channel.gain_u_ratio) for channel in told.channels()} == {("wall", 0.03)}
    told.close()


def test_reading_follows_the_bmc(machines: tuple[int, Path, Path]) -> None:
    """New figures are read; null is no reading at this moment; what cannot be is a fault."""
    port, folder, _ = machines
    meter = opened(f"redfish:https://127.0.0.1:{port},verify=off")
    file = folder / "Chassis/1/EnvironmentMetrics/index.json"
    before = file.read_text()
    for figures, expected in (
        ({"PowerWatts": {"Reading": 380}, "EnergykWh": {"Reading": 7855.5}}, [3_800, 785_550]),
        ({"PowerWatts": {"Reading": None}, "EnergykWh": {"Reading": 7855.5}}, [None, 785_550]),
        ({"EnergykWh": {"Reading": 7855.5}}, [None, 785_550]),
    ):
        file.write_text(json.dumps(figures))
        assert list(meter.read()) == expected
    for watts in ("full", True, -3, 1e9, [1]):
        file.write_text(json.dumps({"PowerWatts": {"Reading": watts}}))
        with pytest.raises(MeterFault, match="PowerWatts"):
            meter.read()
    file.unlink()
    with pytest.raises(MeterFault, match="status 404"):
        meter.read()
    file.write_text(before)
    assert list(meter.read()) == [3_745, 785_525]
    meter.close()


def test_certificate_that_nobody_signed_is_refused(machines: tuple[int, Path, Path]) -> None:
    """Without `verify` a self-signed certificate is refused, and said."""
    error = refused(f"redfish:https://127.0.0.1:{machines[0]}")
    assert "certificate verify failed" in error.detail


def answers(resources: dict[str, dict[str, Any]]) -> Callable[[bytes], list[bytes | None]]:
    """A Redfish server's answers as bytes."""

    def answer(question: bytes) -> list[bytes | None]:
        path = question.split(b" ")[1].decode().removeprefix("/redfish/v1/").rstrip("/")
        if path not in resources:
            return [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
        body = json.dumps(resources[path]).encode()
        return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body]

    return answer


@pytest.fixture
def peer() -> Iterator[TcpPeer]:
    made = TcpPeer(answers(OLD))
    yield made
    made.close()


def test_older_bmc_and_several_chassis(peer: TcpPeer) -> None:
    """Power is read where there is no EnvironmentMetrics; of several chassis one must be named."""
    where = f"redfish:http://127.0.0.1:{peer.port}"
    conforms(where, (344,))
    peer.answer = answers(SEVERAL)
    error = refused(where)
    assert (error.code, "Blade1, Blade2 with chassis=NAME" in error.detail) == ("bad_setting", True)
    meters = open_meters([f"{where},chassis=Blade1", f"{where},chassis=Blade2"])
    assert [list(meter.read()) for meter in meters] == [[100], [200]]
    for meter in meters:
        meter.close()
    for name, says in (("Rack", "chassis 'Rack' does not tell its power"), ("Moon", "does not tell its power")):
        assert says in refused(f"{where},chassis={name}").detail


def test_user_and_password_go_with_the_question(peer: TcpPeer, tmp_path: Path) -> None:
    """User and password are sent as HTTP says and shown nowhere; a refusal names them."""
    password = tmp_path / "password"
    password.write_text("se:cret\n")
    heard: list[bytes] = []

    def guarded(question: bytes) -> list[bytes | None]:
        heard.append(question)
        if b"Authorization: Basic am91bGU6c2U6Y3JldA==" in question.replace(b"authorization", b"Authorization"):
            return answers(OLD)(question)
        return [b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"]

    peer.answer = guarded
    where = f"redfish:http://127.0.0.1:{peer.port}"
    meter = opened(f"{where},user=joule,password_file={password}")
    assert list(meter.read()) == [344]
    assert "se:cret" not in meter.address
    assert meter.address == f"{where},chassis=Self"
    meter.close()
    error = refused(f"{where},user=joule,password=wrong")
    assert "refuses user and password (401" in error.detail
    assert "wrong" not in error.detail


def http(body: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


HTTP_FAULTS: dict[str, tuple[list[bytes | None], str]] = {
    "silence": ([], "did not answer within 0.1 s"),
    "unplugged": ([None], "broke off its answer"),
    "half": ([http(b'{"PowerControl": [{"Pow', 900), None], "broke off its answer"),
    "half, then silence": ([http(b'{"PowerControl": [{"Pow', 900)], "did not answer within 0.1 s"),
    "a byte now and then": ([http(b"{", 900), *[b" "] * 200], "did not answer within 0.1 s"),
    "not HTTP": ([b"220 smtp ready\r\n\r\n"], "broke off its answer"),
    "not JSON": ([http(b"<html>login</html>")], "not JSON"),
    "deep JSON": ([http(b"[" * 100_000)], "not JSON"),
    "huge": ([http(b" " * 1_000_001)], "more than 1000000 bytes"),
    "another thing": ([http(b"[1, 2]")], "no Redfish resource"),
    "busy": ([b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"], "status 503"),
    "moved": ([b"HTTP/1.1 308 Moved\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n"], "status 308"),
    "no rights": ([b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"], "refuses user and password"),
    "text for a number": ([http(b'{"PowerControl": [{"PowerConsumedWatts": "88 W"}]}')], "PowerControl is no number"),
    "no number": ([http(b'{"PowerControl": [{"PowerConsumedWatts": NaN}]}')], "PowerControl is nan"),
}


@pytest.mark.parametrize("fault", HTTP_FAULTS)
def test_spoilt_http_is_a_fault_and_then_it_reads_again(fault: str, peer: TcpPeer) -> None:
    """Whatever the web server does is a fault with a sentence, within the limit; the next reading is right."""
    pieces, says = HTTP_FAULTS[fault]
    with no_descriptors_left():
        meter = opened(f"redfish:http://127.0.0.1:{peer.port},timeout={0.1 if '0.1' in says else 1}")
        peer.answer = lambda question: pieces
        began_s = time.monotonic()
        with pytest.raises(MeterFault, match=says):
            meter.read()
        assert time.monotonic() - began_s < 1.0
        peer.answer = answers(OLD)
        assert list(meter.read()) == [344]
        meter.close()
        peer.close()


def test_no_web_server_there() -> None:
    """A port where nothing listens is refused; so is what is no web address, before anything is sent."""
    assert "cannot be reached" in refused(f"redfish:http://127.0.0.1:{free_port()}").detail
    for address in (
        "",
        "host",
        "ftp://host",
        "https://",
        "https://u:p@host",
        "https://host/redfish/v1",
        "https://host:x",
    ):
        error = refused(f"redfish:{address}")
        assert (error.code, "redfish:https://HOST" in error.detail) == ("bad_setting", True)
    assert "write off, or a file" in refused("redfish:https://host,verify=maybe").detail


WORDS = ["PowerWatts", "EnergykWh", "Reading", "PowerControl", "PowerConsumedWatts"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_a_fault_or_plausible_numbers(resource: object) -> None:
    """Whatever the BMC sends is nothing, a fault, or figures within bounds."""
    for figures in (redfish.ENVIRONMENT, redfish.POWER):
        try:
            values = redfish.values_of(resource, figures)
        except MeterFault:
            continue
        assert all(value is None or 0 <= value <= 1e9 for value in values)


def test_rig_serves_redfish() -> None:
    """The rig's BMC shows the plug of the simulated machine, and its readings are marked as simulated."""
    clock = SimulatedClock()
    machine = Machine(5)
    plug = Plug(clock, Wall(machine))
    machine.activity(NS_PER_S, 1.0)
    clock.sleep_until(10 * NS_PER_S)
    with no_descriptors_left():
        bmc_plug = RedfishPlug(plug)
        meter = opened(bmc_plug.address)
        power, energy = meter.channels()
        assert power.simulated
        assert energy.simulated
        watts, _ = meter.read()
        assert watts is not None
        assert watts * power.step == pytest.approx(plug.power_w, abs=power.step / 2)
        assert plug.power_w > 40.0
        meter.close()
        bmc_plug.close()


# --- IPMI -------------------------------------------------------------------------------------------------------------

needs_ipmitool = pytest.mark.skipif(shutil.which("ipmitool") is None, reason="ipmitool is not installed (apt-get)")
REPORT = """
    Instantaneous power reading:                   140 Watts
    Minimum during sampling period:                 10 Watts
    Maximum during sampling period:                900 Watts
    Average power reading over sample period:      133 Watts
    IPMI timestamp:                           11/14/23 22:13:20 UTC    Sampling period:                          00000001 Seconds.
    Power reading state is:                   activated

"""  # noqa: E501 - as ipmitool 1.8.19 prints it


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of a BMC and the file that says what it says."""
    file = tmp_path_factory.mktemp("bmc") / "says.json"
    file.write_text(json.dumps({"w": 140}))
    with bmc(file) as port:
        yield port, file


def says(file: Path, **what: object) -> None:
    file.write_text(json.dumps({"w": 140, **what}))


@needs_ipmitool
def test_bmc_is_read_by_dcmi(board: tuple[int, Path], tmp_path: Path) -> None:
    """Watts come over real IPMI, a mean only where it is taken over seconds; the password is in no argument."""
    port, file = board
    password = tmp_path / "password"
    password.write_text("secret\n")
    where = f"ipmi:127.0.0.1:{port},user=joulebox,password_file={password}"
    says(file, mean_w=133, period_ms=86_400_000)
    (power,) = conforms(where, (140,))
    assert (power.kind, power.sampling, power.scope, power.step) == (
        ReadingKind.POWER_W,
        Sampling.SNAPSHOT,
        "platform",
        1.0,
    )
    says(file, mean_w=133, period_ms=2_000)
    _, mean = conforms(f"{where},scope=wall,accuracy=5", (140, 133))
    assert (mean.sampling, mean.tick_s, mean.scope, mean.gain_u_ratio) == (Sampling.MEAN, 2.0, "wall", 0.05)
    meter = ipmi.open(f"127.0.0.1:{port}", {"user": "joulebox", "password": "secret"})
    assert "secret" not in " ".join(meter.command)
    meter.close()


@needs_ipmitool
@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ({"code": 0xC1}, "ipmitool says: .*"),
        ({"code": 0xD4}, "ipmitool says: .*"),
        ({"active": False}, "power reading is deactivated"),
        ({"silent": True}, "ipmitool (says|had no answer)"),
    ],
)
def test_bmc_that_refuses_is_a_fault_and_then_it_reads_again(
    board: tuple[int, Path], what: dict[str, object], fault: str
) -> None:
    """Refusal, a meter that is off and silence are faults within the limit; the next reading is right."""
    port, file = board
    says(file)
    limit_s = 0.7 if "silent" in what else 5
    meter = opened(f"ipmi:127.0.0.1:{port},user=joulebox,password=secret,timeout={limit_s}")
    says(file, **what)
    with pytest.raises(MeterFault, match=fault):
        meter.read()
    says(file, w=150)
    assert list(meter.read()) == [150]
    meter.close()


@needs_ipmitool
def test_bmc_that_cannot_be_asked_is_refused(board: tuple[int, Path]) -> None:
    """A wrong password and a host that is not there are refused with ipmitool's own reason; options are checked."""
    port, _ = board
    error = refused(f"ipmi:127.0.0.1:{port},user=joulebox,password=wrong,timeout=3")
    assert error.code == "meter_unreadable"
    assert "ipmitool" in error.detail
    assert "wrong" not in error.detail
    silent = refused(f"ipmi:127.0.0.1:{free_port(socket.SOCK_DGRAM)},user=joulebox,password=secret,timeout=0.5")
    assert "no answer within 0.5 s" in silent.detail or "ipmitool says" in silent.detail
    assert refused("ipmi:host,level=KING").code == "bad_setting"
    assert "ipmi:HOST:PORT" in refused("ipmi:a b").detail


@needs_ipmitool
def test_a_machine_without_a_bmc_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ipmi:` on a machine without /dev/ipmi0 names the modules to load."""
    monkeypatch.setattr(ipmi, "DEVICES", ("/nowhere/ipmi0",))
    error = refused("ipmi:")
    assert (error.code, "ipmi_devintf" in error.detail) == ("meter_unreadable", True)


def test_without_ipmitool_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program the package to install is named."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install ipmitool" in refused("ipmi:127.0.0.1").detail


def test_what_ipmitool_prints_is_read() -> None:
    """Instantaneous and mean watts are told apart; a cut report is a fault."""
    assert ipmi.readings_of(REPORT, mean=True) == (140, 133)
    assert ipmi.readings_of(REPORT, mean=False) == (140,)
    assert ipmi.readings_of(REPORT.replace("00000001", "00086400"), mean=True) == (140, None)
    for cut in (REPORT[:30], REPORT[:200], "", REPORT.replace("140", "1e3"), REPORT.replace("140 Watts", "140 mW")):
        with pytest.raises(MeterFault):
            ipmi.readings_of(cut, mean=True)


@given(st.text(max_size=80), st.integers(0, len(REPORT)), st.integers(0, 80))
def test_any_print_is_a_fault_or_watts(text: str, at: int, length: int) -> None:
    """Whatever replaces a piece of the report, the reading is a fault or whole watts."""
    try:
        readings = ipmi.readings_of(REPORT[:at] + text + REPORT[at + length :], mean=True)
    except MeterFault:
        return
    assert all(reading is None or reading >= 0 for reading in readings)


def test_networks_are_never_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meters list` opens no socket for the kinds on a network."""
    opened_sockets: list[object] = []
    monkeypatch.setattr(socket, "socket", lambda *args, **kwargs: opened_sockets.append(args))
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", lambda *args, **kwargs: opened_sockets.append(args))
    found()
    assert opened_sockets == []


# --- what people read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["modbus", *CONFORMS])
def test_every_option_is_on_the_page(kind: str) -> None:
    """The page of a meter names each of its options."""
    page = (Path(__file__).parents[1] / "docs" / "reference" / "meters" / f"{kind}.md").read_text()
    options = import_module(KINDS[kind]).OPTIONS
    assert [name for name in options if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [
        ("modbus:tcp://127.0.0.1,preset=sdm120", "pymodbus.client", "joulebox[modbus]"),
        ("snmp:127.0.0.1,preset=apc", "pysnmp.proto.api", "joulebox[snmp]"),
    ],
)
def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, address: str, module: str, extra: str) -> None:
    """Without the library that a driver needs the extra to install is named."""
    monkeypatch.setitem(sys.modules, module, None)
    error = refused(address)
    assert (error.code, f"pip install '{extra}'" in error.detail) == ("meter_unreadable", True)
