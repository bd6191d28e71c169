"""A real nginx that speaks TLS in front of a server, with a certificate of its own, and cuts whoever is silent."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from joulebox.clock import SystemClock
from joulebox.units import nanoseconds

CLOCK = SystemClock()
START_S = 10.0
CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;
        {location}
    }}
}}
"""
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "expose-a-server.md"


@contextmanager
def tls_proxy(folder: Path, server: str, idle_s: int) -> Iterator[tuple[str, Path]]:
    """Its address and the file of its certificate. A stream without a word for `idle_s` is cut."""
    if missing := [tool for tool in ("nginx", "openssl") if _tool(tool) is None]:
        pytest.skip(f"a proxy needs {' and '.join(missing)}: install nginx-light and openssl")
    folder.mkdir()
    _certificate(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, location=_location(server, idle_s)))
    process = subprocess.Popen([str(_tool("nginx")), "-c", str(config), "-p", str(folder)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"https://localhost:{port}", folder / "cert.pem"
    finally:
        process.terminate()
        process.wait(5)


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


def _location(server: str, idle_s: int) -> str:
    """What people are told to write, with this server and patience in place of those that it names."""
    told = PAGE.read_text("utf-8").partition("```nginx\n")[2].partition("```")[0]
    assert "http://127.0.0.1:8080;" in told
    assert "proxy_read_timeout 1h;" in told
    return told.replace("http://127.0.0.1:8080", server).replace(
        "proxy_read_timeout 1h", f"proxy_read_timeout {idle_s}s"
    )


def _certificate(folder: Path) -> None:
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem")
    command = ("openssl", "req", "-x509", "-days", "2", *names, *key, "-out", "cert.pem")
    subprocess.run(command, check=True, cwd=folder, capture_output=True)


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    end_ns = CLOCK.now_ns() + nanoseconds(START_S)
    while CLOCK.now_ns() < end_ns and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(0.02))
        else:
            return
    raise AssertionError("nginx does not answer")
