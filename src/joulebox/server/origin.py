"""Whether a request that changes something was sent by a page of our own, as far as browsers tell.

Today's browsers say so in `Sec-Fetch-Site`, but only over HTTPS and to this machine; older ones, and all of them over
plain HTTP in a local network, name the page's `Origin`. What sends neither is no browser, and carries nobody's cookie.
"""

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from joulebox.errors import JouleboxError

OURS: Final = frozenset({"same-origin", "none"})
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def refuse_other_sites(request: Request) -> None:
    """Raises `JouleboxError("forbidden")` where another site's page pressed our buttons."""
    if request.method in SAFE:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    named = origin is None or urlsplit(origin).netloc in _names(request)
    if not (named if site is None else site in OURS):
        raise JouleboxError("forbidden", "This was sent by another site. Open the page itself and ask there.")


def _names(request: Request) -> set[str]:
    """What this server is called by whoever asks; a proxy in between may have said so. A page from elsewhere cannot set
    either header in a form."""
    return {request.headers[name] for name in ("host", "x-forwarded-host") if name in request.headers} - {""}
