from __future__ import annotations

import pytest

from isochrone.outbound.urls import NotPublic, PublicUrl

OWN = "http://127.0.0.1:8080/realms/x"


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("https://login.example.com", "https://login.example.com/"),
        ("HTTPS://Login.Example.COM./keys?v=1", "https://login.example.com/keys?v=1"),
        ("https://login.example.com:8443/keys", "https://login.example.com:8443/keys"),
        (
            "https://bücher.example/schlüssel".replace("ü/", "/").replace("schlüssel", "k"),
            "https://xn--bcher-kva.example/k",
        ),
        ("https://8.8.8.8/keys", "https://8.8.8.8/keys"),
        ("https://[2606:4700:0:0::1]/keys", "https://[2606:4700::1]/keys"),
        ("https://login.example.com/a%2F..%2Fb", "https://login.example.com/a%2F..%2Fb"),
    ],
)
def test_public_url_has_one_normal_form(text: str, asked: str) -> None:
    assert PublicUrl(text).text == asked


@pytest.mark.parametrize(
    "text",
    [
        # this machine, its network, and what a cloud tells its machines
        "https://127.0.0.1/",
        "https://localhost/",
        "https://api.localhost/",
        "https://localhost./",
        "https://localhost。/",
        "https://0.0.0.0/",
        "https://10.0.0.8/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://168.63.129.16/metadata",
        "https://100.64.0.1/",
        "https://100.100.100.200/",
        "https://192.0.0.192/",
        "https://198.18.0.1/",
        "https://224.0.0.251/",
        "https://240.0.0.1/",
        "https://255.255.255.255/",
        "https://[::1]/",
        "https://[::]/",
        "https://[fe80::1]/",
        "https://[fd00:ec2::254]/",
        "https://[ff02::1]/",
        "https://[2001:db8::1]/",
        # one address inside another
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:8.8.8.8]/",
        "https://[::127.0.0.1]/",
        "https://[2002:7f00:1::]/",
        "https://[2002:a9fe:a9fe::1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[64:ff9b:1::a9fe:a9fe]/",
        "https://[2001:0:a9fe:a9fe::1]/",
        # one address in an odd dress
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://010.8.8.8/",
        "https://8.8.8.8.8/",
        "https://１２７.０.０.１/",
        "https://127。0。0。1/",
        "https://①②⑦.0.0.1/",
        "https://[fe80::1%25eth0]/",
        "https://[2606:4700::1%eth0]/",
        "https://[v1.fe80]/",
        # no full name
        "https://metadata/",
        "https://com./",
        "https://a..example.com/",
        "https://.example.com/",
        "https://example.com../",
        "https:///keys",
        "https://",
        "https://-a.example.com/",
        f"https://{'a' * 64}.example.com/",
        # not what it looks like
        "https://login.example.com@127.0.0.1/",
        "https://user:password@login.example.com/",
        "https://@login.example.com/",
        "https://login.example.com\\@127.0.0.1/",
        "https://login.example.com/#fragment",
        "https://login.example.com#@127.0.0.1/",
        " https://login.example.com/",
        "https://login.example.com/\r\nHost: other",
        "https://login.example.com/\tx",
        "https://login.exam\nple.com/",
        "https://login.example.com/\x00",
        "https://login.example.com/schlüssel",
        # another way than https at its ports
        "http://login.example.com/",
        "ftp://login.example.com/",
        "file:///etc/passwd",
        "gopher://login.example.com/",
        "//login.example.com/",
        "login.example.com",
        "",
        "https://login.example.com:22/",
        "https://login.example.com:80/",
        "https://login.example.com:6379/",
        "https://login.example.com:0/",
        "https://login.example.com:99999/",
        "https://login.example.com:443x/",
        "https://login.example.com/" + "a" * 2048,
        # and more of each
        "https://0/",
        "https://00000000177.0.0.1/",
        "https://[0:0:0:0:0:ffff:127.0.0.1]/",
        "https://[::ffff:0:127.0.0.1]/",
        "https://[2001:10::1]/",
        "https://[2001:20::1]/",
        "https://[3fff::1]/",
        "https://[5f00::1]/",
        "https://[100::1]/",
        "https://[fec0::1]/",
        "https://[fd00:ec2::23]/",
        "https://169.254.170.2/v2/credentials",
        "https://192.88.99.1/",
        "https://0.1.2.3/",
        "https://%31%32%37.0.0.1/",
        "https://local\u00adhost/",
        "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
        "https://example.com%2f@127.0.0.1/",
        "https://example.com;@127.0.0.1/",
        "https://8.8.8.8:443:80/",
        "https://[8.8.8.8]/",
        "https://[::1",
        "https://example.0x1/",
        "https://a.example.1/",
        "https:8.8.8.8",
        "https://example.com:８４４３/",
        "https://example.com:+443/",
        "https://xn--/",
        "https://\u202eexample.com/",
        "javascript://example.com/%0a",
    ],
)
def test_whatever_may_lead_elsewhere_is_no_public_url(text: str) -> None:
    with pytest.raises(NotPublic):
        PublicUrl(text)


def test_operators_own_port_may_be_asked_by_what_that_host_names() -> None:
    own = "https://sso.example.com:9443/realms/x"
    assert PublicUrl("https://sso.example.com:9443/keys", own=own).port == 9443
    with pytest.raises(NotPublic, match="port 9444"):
        PublicUrl("https://sso.example.com:9444/keys", own=own)


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:8080/keys", "https://localhost:1/keys", "http://[::1]:8080/", "http://sso.localhost/"]
)
def test_this_machine_is_asked_on_behalf_of_an_operators_url_on_this_machine(text: str) -> None:
    assert PublicUrl(text, own=OWN).is_local


@pytest.mark.parametrize("text", ["http://login.example.com/", "https://10.0.0.1/", "https://169.254.169.254/"])
def test_operators_url_on_this_machine_opens_nothing_else(text: str) -> None:
    with pytest.raises(NotPublic):
        PublicUrl(text, own=OWN)


def test_public_url_of_the_operators_does_not_open_this_machine() -> None:
    with pytest.raises(NotPublic, match="this machine"):
        PublicUrl("http://127.0.0.1/", own="https://login.example.com/")


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("::ffff:8.8.8.8", False),
        ("2002:808:808::1", False),
        ("fe80::1%2", False),
        ("2606:4700::1%2", False),
        ("not an address", False),
    ],
)
def test_public_name_may_lead_to_public_addresses_only(address: str, may: bool) -> None:
    assert PublicUrl("https://login.example.com").may_reach(address) is may


@pytest.mark.parametrize(
    ("address", "may"), [("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("8.8.8.8", False)]
)
def test_name_of_this_machine_may_lead_to_this_machine_only(address: str, may: bool) -> None:
    assert PublicUrl("http://sso.localhost", own=OWN).may_reach(address) is may
