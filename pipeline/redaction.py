"""Text made fit to be shown or kept: secrets masked, and nothing in it that could steer a terminal.

What a run says of itself goes through here: error messages where they are made, run.json, what is printed, tracebacks.
The tables keep `image_uri` as the catalog has it: that is the user's data, and how a row is found again.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any

_MASK = "***"
_SECRETS = re.compile(
    r"(?P<userinfo>(?<=://)[^/@\s]+(?=@))"
    r"|(?P<name>(?<=[?&;])(?:sig|hmac|policy|[^=&;\s]*(?:key|token|secret|signature|passw|credential|auth|jwt)[^=&;\s]*))"
    r"=[^&;\s'\"]*"
    r"|(?P<scheme>\b(?-i:Bearer))[ +][\w.~+/=-]{6,}"
    r"|(?P<header>\b(?:Authorization|X-Api-Key|Cookie)['\"]?\s*[:=]\s*['\"]?)(?:(?:Bearer|Basic)\s+)?[^\s'\",]+"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    re.IGNORECASE,
)
_SECRET_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 12  # a shorter value of the environment may be a word that texts have for other reasons


def redacted(text: str) -> str:
    """The text with secrets as ***: passwords and signatures in addresses, authorization headers, AWS key ids, and
    whatever the environment holds under a name like AWS_SECRET_ACCESS_KEY."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and value in text and _SECRET_NAMES.search(name):
            text = text.replace(value, _MASK)
    return _SECRETS.sub(_masked, text)


def without_secrets(value: Any) -> Any:
    """The same for every text in lists and mappings."""
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    return redacted(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Text from a catalog or a model, fit for a terminal: whatever could steer it is written out as an escape."""
    return "".join(c if c.isprintable() else "␤" if c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shown(error: BaseException) -> str:
    """What an error says, as one line for a terminal."""
    return printable(redacted(str(error)))


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For `sys.excepthook`: the traceback, without secrets and escapes."""
    lines = "".join(traceback.format_exception(kind, error, trace)).splitlines()
    print("\n".join(printable(redacted(line)) for line in lines), file=sys.stderr)


def _masked(match: re.Match[str]) -> str:
    if match["name"]:
        return f"{match['name']}={_MASK}"
    if match["scheme"]:
        return f"{match['scheme']} {_MASK}"
    return f"{match['header'] or ''}{_MASK}"
