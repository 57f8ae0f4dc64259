"""Addresses by their number: what is public, what never is, and what the user opened."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.addresses import Refused, refusal, require_allowed, socket_for

EVERYTHING = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1"])
def test_public_hosts_are_allowed(address: str) -> None:
    assert refusal(ipaddress.ip_address(address)) is None


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.255.255.255", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.1.1", "172.16.0.1",
        "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.168.0.1", "198.19.255.255", "203.0.113.9", "224.0.0.251",
        "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
        "2002:0808:0808::1", "2001::1", "2001:db8::1", "3fff::1", "fc00::1", "fdff::1", "fe80::1", "fec0::1", "ff02::1",
        "100::1", "5f00::1",
    ],
)  # fmt: skip
def test_what_is_not_a_public_host_is_refused_unless_it_is_opened(address: str) -> None:
    assert refusal(ipaddress.ip_address(address))
    assert refusal(ipaddress.ip_address(address), EVERYTHING) is None


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254",
        "::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::169.254.169.254", "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_no_setting_opens_the_metadata_services(address: str) -> None:
    assert refusal(ipaddress.ip_address(address), EVERYTHING) == "a cloud's metadata service"


@given(st.ip_addresses())
def test_what_the_standard_library_calls_private_is_never_public_here(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address.is_private or address.is_multicast or address.is_loopback or address.is_link_local:
        assert refusal(address) is not None


def test_an_opened_network_opens_itself_and_nothing_beside() -> None:
    opened = (ipaddress.ip_network("10.1.0.0/16"),)
    require_allowed("images.internal", "10.1.2.3", opened)
    for address in ("10.2.0.1", "::ffff:10.1.2.3", "fe80::1%eth0", "not an address"):
        with pytest.raises(Refused, match=r"images\.internal is at"):
            require_allowed("images.internal", address, opened)


def test_a_socket_is_only_made_for_an_address_that_is_allowed() -> None:
    make = socket_for((ipaddress.ip_network("127.0.0.1"),))
    make((2, 1, 6, "", ("127.0.0.1", 80))).close()
    with pytest.raises(Refused):
        make((2, 1, 6, "", ("127.0.0.2", 80)))
