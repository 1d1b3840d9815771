"""What is asked for a link as it came: the picture's URL, however untidy, and never an address of the user's network."""

from __future__ import annotations

import re

import pytest
from image2_cli.pictures import links

SERVICE = "https://api.image2.example/proxy"
LOCAL = "http://127.0.0.1:8080"
INNER = re.findall(r"\S+", """
127.0.0.1 127.1 2130706433 0x7f.1 0177.0.0.1 127.0.0.1. localhost. LOCALHOST api.localhost 0.0.0.0 0 [::1] [::]
[::ffff:7f00:1] [::127.0.0.1] [64:ff9b::10.1.2.3] [64:ff9b:1::7f00:1] [2002:7f00:1::] 169.254.169.254 10.255.255.255
172.31.255.255 192.168.1.1 100.64.0.1 [::ffff:10.0.0.1] 224.0.0.1 240.0.0.1 255.255.255.255 198.18.0.1 192.0.2.1
[fe80::1] [fd12::1] [fec0::1] [ff02::1] [2001:db8::1] [fe80::1%25eth0] %31%32%37.0.0.1 ①②⑦.0.0.1 127。0。0。1
[64:ff9b::8.8.8.8] [2002:808:808::1] [::ffff:8.8.8.8]
""") + ["1\u00ad27.0.0.1", "ｌocalhost"]
OUTER = ["8.8.8.8", "134744072", "[2606:4700::1111]", "intranet.corp", "localhost.example"]


def asked(link: str, base_url: str = SERVICE) -> str:
    return links.asked(link, f"{base_url}/", base_url)


def refusal(link: str, base_url: str = SERVICE) -> str:
    with pytest.raises(links.BadLink) as caught:
        asked(link, base_url)
    return str(caught.value)


@pytest.mark.parametrize(("link", "expected"), [
    (" https://cdn.example/x.png\n", "https://cdn.example/x.png"),
    ("https://cdn.example/my red fox.png", "https://cdn.example/my%20red%20fox.png"),
    ("https://cdn.example/图片/狐.png?名=a b", "https://cdn.example/%E5%9B%BE%E7%89%87/%E7%8B%90.png?%E5%90%8D=a%20b"),
    ("https://cdn.example/a%20b%2Fc.png?X-Sig=a%2Bb+c/d==&e=1", "https://cdn.example/a%20b%2Fc.png?X-Sig=a%2Bb+c/d==&e=1"),
    ("/generations/x.png", "https://api.image2.example/generations/x.png"),
    ("generations/x.png", "https://api.image2.example/proxy/generations/x.png"),
    ("//cdn.example/x.png", "https://cdn.example/x.png"),
    ("http://cdn.example:80/x.png", "https://cdn.example/x.png"),
    ("http://cdn.example:8443/x.png", "https://cdn.example:8443/x.png"),
    ("HTTPS://图片.EXAMPLE/X.png#y", "https://xn--wcsw84d.example/X.png"),
])
def test_an_untidy_link_is_asked_for_what_it_means(link, expected):
    assert expected == asked(link)


@pytest.mark.parametrize("host", INNER)
def test_an_inner_address_is_refused_in_every_spelling(host):
    for url in (f"https://{host}/a.png", f"https://{host}:8443/a.png", f"//{host}/a.png"):
        refusal(url)


@pytest.mark.parametrize("host", OUTER)
def test_a_public_address_and_any_name_may_be_asked_and_none_is_looked_up(host, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("looked up"))
    assert f"https://{host}/a.png" == asked(f"https://{host}/a.png")


@pytest.mark.parametrize("url", [
    "ftp://8.8.8.8/a.png", "file:///etc/hostname", "javascript:alert(1)", "data:image/png;base64,AAAA",
    "https:///a.png", "https://me@8.8.8.8/a.png", "https://@8.8.8.8/a.png",
    "https://8.8.8.8\\@127.0.0.1/a.png", "https://8.8.8.8:99999/a.png", "https://[::1/a.png", "https://a b/x.png",
    "https://8.8.8.8:port/a.png", "https://\ud800.example/a.png", "https://cdn.example/\ud800",
])
def test_what_is_no_plain_https_link_is_refused_without_repeating_it(url):
    message = refusal(url)
    assert "8.8" not in message and "port'" not in message


def test_a_service_on_this_machine_may_give_http_and_inner_links_but_nothing_else():
    for host in ("127.0.0.1:8080", "[::1]:8080", "10.0.0.1", "8.8.8.8"):
        assert f"http://{host}/a.png" == asked(f"http://{host}/a.png", LOCAL)
    assert f"{LOCAL}/a.png" == asked("/a.png", LOCAL)
    for url in ("ftp://127.0.0.1/a", "file:///etc/hostname", "http://me:pw@127.0.0.1/a", "http://%31.0.0.1/a"):
        refusal(url, LOCAL)


def test_a_service_that_the_user_named_by_an_inner_address_may_give_links_to_itself_only():
    for url in ("https://10.1.2.3:8443/a.png", "https://10.1.2.3/a.png", "/a.png", "http://10.1.2.3/a.png"):
        assert asked(url, "https://10.1.2.3:8443").startswith("https://10.1.2.3")
    for url in ("https://10.1.2.4:8443/a.png", "https://169.254.169.254/a", "https://127.0.0.1/a"):
        assert "private network" in refusal(url, "https://10.1.2.3:8443")


def test_a_redirect_is_joined_to_what_answered_and_its_raw_bytes_are_utf8():
    raw = links.of_header("/图片/狐.png".encode().decode("latin-1"))
    joined = links.asked(raw, "https://cdn.example/a", SERVICE)
    assert ("https://cdn.example/%E5%9B%BE%E7%89%87/%E7%8B%90.png", "café") == (joined, links.of_header("café"))
