"""What a first visit of each page costs in a browser (`make bench PART=pages`)."""

import shutil
from statistics import median

from playwright.sync_api import Browser, CDPSession

from bench_page import Json, Part, Row, spread, table
from page_list import ASK_MAX_BYTES, PAGE_MAX_BYTES, PAGES, REQUESTS_MAX
from screenshots import chromium, stage
from test_drive import READY_MAX_MS, SLOW_CPU, SLOW_LINE

VISITS = 3
SHOWN = ("ask", "receipt", "compare", "table", "nodes", "report")
READY = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
OTHERS = "Open WebUI 2,676 kB in 217 requests, ML.ENERGY 220 kB in 8"


def visit(browser: Browser, address: str, *, slow: bool) -> tuple[float, int, float]:
    """Bytes on the wire with all headers, requests, and milliseconds until the page can be used; nothing cached."""
    page = browser.new_context().new_page()
    session: CDPSession = page.context.new_cdp_session(page)
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    if slow:
        session.send("Network.emulateNetworkConditions", dict(SLOW_LINE))
        session.send("Emulation.setCPUThrottlingRate", {"rate": SLOW_CPU})
    page.goto(address, wait_until="networkidle")
    ready_ms = float(page.evaluate(READY))
    page.context.close()
    return sum(sizes), len(sizes), ready_ms


def part(_: int) -> Part:
    """Each page several times, quick and slow."""
    if shutil.which("chromium") is None:
        return Part(rows=[Row(what="pages", figure="Chromium is not installed here")], text="## Pages\n\nNot measured: "
                    "Chromium is not installed here.", raw={})  # fmt: skip
    found: Json = {}
    with stage() as address, chromium() as browser:
        visit(browser, address, slow=False)
        for listed in PAGES:
            if listed.name in SHOWN:
                quick = [visit(browser, address + listed.path, slow=False) for _ in range(VISITS)]
                slow = [visit(browser, address + listed.path, slow=True) for _ in range(VISITS)]
                found[listed.name] = {"path": listed.path, "quick": quick, "slow": slow}
                print(listed.name, quick[-1], slow[-1], flush=True)
    lines = [
        (
            name,
            f"{median(one[0] for one in seen['quick']) / 1e3:.1f}",
            f"{max(one[1] for one in seen['quick'])}",
            *(spread([one[2] for one in seen[way]], "{:.0f}") for way in ("quick", "slow")),
        )
        for name, seen in found.items()
    ]
    head = ("Page", "kB on the wire", "Requests", "Ready here, ms", "Ready on a slow phone, ms")
    ask = found["ask"]
    kilobytes, asked = median(one[0] for one in ask["quick"]) / 1e3, max(one[1] for one in ask["quick"])
    ready = [one[2] for one in ask["slow"]]
    rows = [
        Row(
            what="page of asking: bytes, requests",
            figure=f"{kilobytes:.1f} kB, {asked} requests",
            beside=OTHERS,
            target=f"<= {ASK_MAX_BYTES / 1e3:.0f} kB (other pages {PAGE_MAX_BYTES / 1e3:.0f} kB) without headers and "
            f"data (`make test` holds each to it), <= {REQUESTS_MAX} requests",
            reached=asked <= REQUESTS_MAX and kilobytes * 1e3 <= ASK_MAX_BYTES + asked * 1_000,
        ),
        Row(
            what="the same on a slow phone: time to interactive",
            figure=f"{spread(ready, '{:.0f}')} ms",
            target=f"<= {READY_MAX_MS:,} ms",
            reached=median(ready) <= READY_MAX_MS,
        ),
    ]
    return Part(rows=rows, text=f"{TEXT}\n{table(head, lines)}", raw=found)


TEXT = f"""## Pages

Headless Chromium, a first visit with nothing cached, {VISITS} times each. Bytes are those on the wire with all headers,
icon and data included. Ready is when the page and its script can be used. The slow phone has a quarter of the processor
and a line of 1.6 Mbit/s with 150 ms of latency. Measured in the same way before, on another day, and not again here:
{OTHERS}.
"""
