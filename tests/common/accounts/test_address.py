from __future__ import annotations

import ipaddress

import pytest

from common.accounts.address import share_of, source_of

PROXIES = (ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("10.1.0.0/16"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["198.51.100.7, 10.1.2.3"], "198.51.100.7"),
        ("127.0.0.1", ["198.51.100.7, nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.7, 10.1.2.3, "], "127.0.0.1"),
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        ("::ffff:127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("unix", ["198.51.100.7"], "unix"),
    ],
)
def test_a_proxys_word_counts_and_no_strangers(
    peer: str, forwarded: list[str], source: str
) -> None:
    assert source_of(peer, forwarded, PROXIES) == source


def test_a_network_of_64_bits_is_one_and_mapped_addresses_are_not() -> None:
    assert share_of("2001:db8::1") == share_of("2001:db8::ffff") != share_of("2001:db8:0:1::1")
    # With `host = "::"` every IPv4 caller comes so.
    assert share_of("::ffff:192.0.2.1") == share_of("192.0.2.1") != share_of("::ffff:192.0.2.2")
