import pytest

from client.api.middleware import host_name, is_loopback
from tests.client.serving import ServedSite, picture

OWN = "http://127.0.0.1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"origin": OWN, "sec-fetch-site": "same-origin"}, 201),
        ({"origin": OWN}, 201),
        ({"sec-fetch-site": "none"}, 201),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": OWN}, 403),
    ],
)
def test_foreign_pages_change_nothing(
    site: ServedSite, headers: dict[str, str], status: int
) -> None:
    files = {"image": ("x.png", picture())}
    answer = site.call("POST", "/cases", files=files, headers=headers)
    assert answer.status_code == status
    assert site.services.store.counts("dermoscopy").waiting == (status == 201)


def test_a_link_from_elsewhere_may_open_the_page(site: ServedSite) -> None:
    answer = site.call("GET", "/", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8500", "", "127.0.0.1.evil.example"]
)
def test_a_rebound_name_is_refused(site: ServedSite, host: str) -> None:
    answer = site.call("GET", "/cases", headers={"host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "unknown-host")


def test_names_of_this_machine() -> None:
    assert host_name("[::1]:8500") == "::1"
    assert host_name("LOCALHOST:1") == "localhost"
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("ward.example")


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/health/ready", "/no-such", "/cases"])
def test_every_answer_is_guarded(site: ServedSite, path: str) -> None:
    headers = site.call("GET", path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_pages_and_answers_are_not_kept_by_browsers(site: ServedSite) -> None:
    assert site.call("GET", "/").headers["cache-control"] == "no-store"
    assert site.call("GET", "/static/page.js").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/x", 404), ("PUT", "/cases", 405)])
def test_wrong_paths_and_methods_are_problems(
    site: ServedSite, method: str, path: str, status: int
) -> None:
    answer = site.call(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
