"""The built-in page: memory, level and tokens over time, and a chat box.

It loads nothing from other servers.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from html import escape
from importlib.resources import files


def page(model: str) -> tuple[str, dict[str, str]]:
    """Return the page of a served model and its HTTP headers.

    The headers allow the script and style of the page and nothing else.
    """
    style = _part("page.css")
    script = _part("page.js")
    body = _part("page.html").replace("{model}", escape(model))
    text = "".join(
        [
            (
                '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
                ' content="width=device-width, initial-scale=1">'
            ),
            (
                f'<link rel="icon" href="data:,"><title>{escape(model)}:'
                f" Secateur</title><style>{style}</style></head><body>"
            ),
            f'{body}<script type="module">{script}</script></body></html>\n',
        ]
    )
    allowed = {
        "img-src": "data:",
        "connect-src": "'self'",
        "style-src": f"'{_digest(style)}'",
        "script-src": f"'{_digest(script)}'",
    }
    nothing = ("default-src", "base-uri", "form-action", "frame-ancestors")
    policy = "; ".join(
        [*(f"{name} 'none'" for name in nothing), *(f"{name} {source}" for name, source in allowed.items())]
    )
    return text, {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


@cache
def _part(name: str) -> str:
    return files("secateur_runtime.server.page").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
