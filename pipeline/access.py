"""What a catalog's addresses may reach: schemes, hosts, buckets, folders, networks. The rest is refused."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urljoin

from . import store
from .addresses import Network, Refused, require_allowed
from .decoding import ImageError

WEB = ("https", "http")
_PORTS = {"https": 443, "http": 80}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER_LAST = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{0,5}))?")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029]")
_KEPT_IN_TARGET = "!$%&'()*+,/:;=?@[]~"  # as written, so that what was signed stays what was signed


class WebAddress(NamedTuple):
    """An http or https address in its one canonical spelling. `host`: a lower-case name, or a number."""

    scheme: str
    host: str
    port: int
    target: str  # path and query, percent-encoded

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.target}"

    @property
    def site(self) -> tuple[str, int]:
        return self.host, self.port


@dataclass(frozen=True)
class Access:
    """Beyond the catalog's own root: see the settings `allow_scheme`, `allow_host`, `allow_bucket`, `allow_root`,
    `allow_address`. No hosts named: any public one."""

    schemes: tuple[str, ...] = ("https",)
    hosts: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()

    @property
    def opened(self) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(text) for text in self.networks)

    def place(self, uri: str, root: str) -> str | WebAddress:
        """The path, s3:// address or web address that an image's address means, if it may be read.

        Relative ones start at `root`. ImageError, stage fetch, when it may not.
        """
        scheme = store.scheme(uri)
        if scheme in WEB:
            return self.web(uri)
        if scheme not in ("", "s3"):
            raise ImageError("fetch", "unsupported_scheme", f"can't read {scheme}:// addresses: {uri}")
        where = store.join(root, uri)
        return self._object(where, root) if store.is_s3(where) else self._inside(where, root)

    def web(self, uri: str) -> WebAddress:
        """The web address that a text means, if it may be read as far as its spelling tells."""
        address = parse_web(uri)
        if address.scheme not in self.schemes:
            raise ImageError(
                "fetch",
                "unsupported_scheme",
                f"{address.scheme}:// addresses are not allowed (--allow-scheme {address.scheme} would): {uri}",
            )
        if self.hosts and not any(_is_host(address.host, allowed) for allowed in self.hosts):
            raise ImageError("fetch", "refused_host", f"{address.host} is none of the hosts that --allow-host names")
        try:
            ipaddress.ip_address(address.host)
        except ValueError:
            return address  # a name: judged when it is resolved
        try:
            require_allowed(address.host, address.host, self.opened)
        except Refused as error:
            raise ImageError("fetch", "refused_address", str(error)) from None
        return address

    def redirected(self, address: WebAddress, location: str) -> WebAddress:
        """Where a redirect leads, judged like any other address."""
        try:
            where = urljoin(address.url, location)
        except ValueError:  # a bracket without its fellow
            where = location
        if store.scheme(where) not in WEB:
            raise ImageError("fetch", "unsupported_scheme", f"{address.host} redirects to {where[:200]}")
        return self.web(where)

    def _object(self, uri: str, root: str) -> str:
        bucket = uri.removeprefix(store.S3).partition("/")[0]
        own = root.removeprefix(store.S3).partition("/")[0] if store.is_s3(root) else None
        if bucket and bucket != own and bucket not in self.buckets:
            raise ImageError(
                "fetch", "refused_bucket", f"{uri} is in another bucket than the catalog's (--allow-bucket opens it)"
            )
        return uri

    def _inside(self, path: str, root: str) -> str:
        """The path with its links followed, if it lies inside a root; else it is refused, whatever it is."""
        roots = [own for own in (root, *self.roots) if not store.is_s3(own)]
        if not roots:
            raise ImageError("fetch", "outside_root", f"{path} is a local path; this catalog's images start at {root}")
        try:
            resolved, allowed = Path(path).resolve(), [Path(own).expanduser().resolve() for own in roots]
        except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a loop of links
            raise ImageError("fetch", "unreadable", f"not a usable path: {path!r}: {error}") from None
        if not any(resolved.is_relative_to(own) for own in allowed):
            where = f"{path} lies outside {', '.join(roots)}"
            raise ImageError("fetch", "outside_root", f"{where} (--image-root and --allow-root name other folders)")
        return str(resolved)


def parse_web(uri: str) -> WebAddress:
    """A web address, read strictly. ImageError, kind bad_address, for what different readers read differently: user
    names, backslashes, control characters, percent or Unicode in the host, numbers that are not four decimals."""
    scheme, _, rest = uri.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise _bad("it holds a user name or password", uri)
    if _UNSAFE.search(uri.replace(" ", "")) or " " in authority:
        raise _bad("it holds a backslash, a space or a control character", uri)
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _bad("its host and port can't be told apart", uri)
    port = int(match["port"] or _PORTS[scheme.lower()])
    if not 0 < port < 65536:
        raise _bad(f"there is no port {port}", uri)
    target = rest[len(authority) :].partition("#")[0]
    target = quote(target if target.startswith("/") else f"/{target}", _KEPT_IN_TARGET, errors="surrogateescape")
    return WebAddress(scheme.lower(), _host(match["host"], uri), port, target)


def _host(text: str, uri: str) -> str:
    try:
        if text.startswith("["):
            if "%" in text:
                raise ValueError("a zone")
            return str(ipaddress.IPv6Address(text[1:-1]))
        name = text.lower().removesuffix(".")
        if _NUMBER_LAST.fullmatch(name):
            return str(ipaddress.IPv4Address(name))  # four decimal numbers without leading zeros, nothing else
    except ValueError:
        raise _bad(f"{text} is not how an address of numbers is written", uri) from None
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise _bad(f"{text!r} is no host name (other scripts are written as xn--…)", uri)
    return name


def _is_host(host: str, allowed: str) -> bool:
    """`.example.org` allows the domain and all below it; without the dot, that host alone."""
    allowed = allowed.lower().rstrip(".")
    return host == allowed.lstrip(".") or (allowed.startswith(".") and host.endswith(allowed))


def _bad(why: str, uri: str) -> ImageError:
    return ImageError("fetch", "bad_address", f"not an address that may be read: {why}: {uri[:500]!r}")
