"""The portal as a person sees it: in a browser, through the proxy, after the browser's own login."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.browser import Browser, server_key
from scripts.packages import BROWSERS
from tests.integration.stack import DOMAIN, Stack, wait_until
from tests.integration.web import Web, local_names

SHOTS = os.environ.get("MILLRACE_SHOTS")
"""A folder to leave pictures of the page in, for a look at it."""

pytestmark = pytest.mark.skipif(
    not any(shutil.which(name) for name in BROWSERS),
    reason="no Chromium on PATH (Debian: apt-get install chromium)",
)

# Every element with text of its own, its colour, the first opaque colour behind it, and the size.
TEXTS = """
(() => {
  const parse = c => { const p = c.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
  const found = [];
  for (const e of document.body.querySelectorAll('*')) {
    const own = [...e.childNodes].filter(n => n.nodeType === 3 && n.textContent.trim());
    const box = e.getBoundingClientRect();
    if (!own.length || box.width <= 1) continue;
    let back = e;
    while (back && parse(getComputedStyle(back).backgroundColor)[3] < 1) back = back.parentElement;
    const behind = back ? getComputedStyle(back).backgroundColor : 'rgb(255, 255, 255)';
    found.push({text: own[0].textContent.trim(), color: parse(getComputedStyle(e).color),
                back: parse(behind), right: box.right});
  }
  return JSON.stringify(found);
})()
"""

CARDS = """
JSON.stringify([...document.querySelectorAll('main li')].map(li => {
  const a = li.querySelector('a'), box = li.getBoundingClientRect();
  return {url: a.href, title: a.innerText, text: li.innerText, badge: li.querySelector('.badge').innerText,
          x: box.x + box.width / 2, y: box.y + box.height - 12};
}))
"""


_FAILED = "Network.loadingFailed"


class Person(Browser):
    """A browser whose user types a login where one is asked for; it remembers what happened."""

    def __init__(self, profile: Path, trusted_key: str, login: tuple[str, str]) -> None:
        self.events: list[dict[str, Any]] = []
        super().__init__(profile, trusted_key, login)
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def _receive(self) -> dict[str, Any]:
        message = super()._receive()
        self.events.append(message)
        return message

    def open(self, url: str, *, width: int = 1100, scheme: str = "light") -> None:
        """Go to an address and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=760, deviceScaleFactor=1, mobile=False
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

        def visit() -> None:
            self.call("Page.navigate", url=url)
            self.wait_for("Page.loadEventFired")

        self.undisturbed(visit)

    def undisturbed(self, act: Callable[[], Any]) -> None:
        """Do something that makes requests, until none of them was broken off; what was is forgotten.

        Chromium breaks off all its requests when a network interface comes or goes, as with each container
        of other tests.
        """
        for _ in range(20):
            start = len(self.events)
            act()
            if not self.broken_off(start):
                return
            del self.events[start:]
        pytest.fail("the machine's networks never stayed the same")

    def broken_off(self, start: int = 0) -> bool:
        """Whether that has happened, among the events from ``start`` on."""
        errors = (e["params"]["errorText"] for e in self.events[start:] if e.get("method") == _FAILED)
        return "net::ERR_NETWORK_CHANGED" in errors

    def of(self, event: str) -> list[dict[str, Any]]:
        """Parameters of all events of this name."""
        return [message["params"] for message in self.events if message.get("method") == event]

    def picture(self, name: str) -> bytes:
        """What is to be seen now."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        data = base64.b64decode(answer["data"])
        if SHOTS:
            (Path(SHOTS) / f"{name}.png").write_bytes(data)
        return data


@pytest.fixture(scope="module")
def web(platform: Stack) -> Iterator[Web]:
    """The shared platform's sites."""
    with local_names():
        yield Web(platform)


@contextmanager
def person_of(web: Web, profile: Path, login: tuple[str, str]) -> Iterator[Person]:
    key = server_key(DOMAIN, web.https_port, web.stack.outputs_once["ca_certificate"])
    person = Person(profile, key, login)
    try:
        yield person
    finally:
        person.close()


@pytest.fixture(scope="module")
def person(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Erin with her own login, before the portal."""
    profile = tmp_path_factory.mktemp("profile")
    with person_of(web, profile, ("erin", web.password("erin"))) as person:
        person.open(web.url(""))
        yield person


def test_one_login_opens_the_page(web: Web, person: Person) -> None:
    assert person.asked == [web.url("")]
    assert person.ask("document.title") == DOMAIN
    assert person.ask("performance.getEntriesByType('navigation')[0].responseStatus") == 200
    assert person.ask("document.styleSheets.length") == 1


def test_wrong_password_opens_nothing(web: Web, tmp_path: Path) -> None:
    with person_of(web, tmp_path, ("erin", "wrong")) as person:
        person.open(web.url(""))
        assert person.ask("document.querySelectorAll('a').length") == 0
        (answer,) = (e for e in person.of("Network.responseReceived") if e["type"] == "Document")
        assert answer["response"]["status"] == 401


def test_every_service_is_there(web: Web, person: Person) -> None:
    person.open(web.url(""))
    cards = {card["url"]: card for card in json.loads(person.ask(CARDS))}
    urls = {name: entry for name, entry in web.stack.outputs_once["urls"].items() if name != "portal"}
    assert set(urls) >= {"object-store", "s3"}
    assert set(cards) == {entry["url"] for entry in urls.values()}
    for name, entry in urls.items():
        card = cards[entry["url"]]
        assert card["title"] == entry["title"]
        assert entry["purpose"] in card["text"]
        level = "own login" if name == "s3" else entry["access"]
        assert card["badge"].endswith(level)
    headings = "JSON.stringify([...document.querySelectorAll('section > h2')].map(h => h.innerText))"
    assert json.loads(person.ask(headings)) == ["Data"]
    # What the levels mean is said below.
    for badge in {card["badge"].split()[-1] for card in cards.values()}:
        assert badge in person.ask("document.querySelector('footer').innerText")


def test_page_is_self_contained_and_silent(web: Web, person: Person) -> None:
    person.events.clear()
    person.open(web.url(""))
    asked = [event["request"]["url"] for event in person.of("Network.requestWillBeSent")]
    assert asked
    assert [url for url in asked if not url.startswith((web.url(""), "data:"))] == []
    assert person.of("Log.entryAdded") == []
    assert person.of("Runtime.consoleAPICalled") == []
    assert person.of("Runtime.exceptionThrown") == []
    assert all(event["response"]["status"] < 400 for event in person.of("Network.responseReceived"))


def luminance(color: list[float]) -> float:
    """Relative luminance as WCAG 2 defines it."""
    red, green, blue = (
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: list[float], other: list[float]) -> float:
    """Contrast ratio as WCAG 2 defines it, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_readable(web: Web, person: Person, scheme: str) -> None:
    person.open(web.url(""), scheme=scheme)
    person.picture(f"portal-{scheme}")
    texts = json.loads(person.ask(TEXTS))
    assert len(texts) > 8
    # 4.5 is what WCAG asks of text of any size at level AA.
    low = [(t["text"], round(contrast(t["color"], t["back"]), 2)) for t in texts]
    assert [entry for entry in low if entry[1] < 4.5] == []


def test_light_and_dark_differ(web: Web, person: Person) -> None:
    page = {}
    for scheme in ("light", "dark"):
        person.open(web.url(""), scheme=scheme)
        (heading,) = (t for t in json.loads(person.ask(TEXTS)) if t["text"] == DOMAIN)
        page[scheme] = luminance(heading["back"])
    assert page["light"] > 0.8
    assert page["dark"] < 0.05


@pytest.mark.parametrize("width", [320, 375, 768])
def test_narrow_screens_need_no_scrolling_sideways(web: Web, person: Person, width: int) -> None:
    person.open(web.url(""), width=width)
    person.picture(f"portal-{width}")
    assert person.ask("innerWidth") == width
    assert person.ask("document.documentElement.scrollWidth") <= width
    assert max(text["right"] for text in json.loads(person.ask(TEXTS))) <= width


def test_a_click_anywhere_on_a_card_opens_the_service(web: Web, person: Person) -> None:
    console = web.url("object-store")

    def click() -> None:
        person.open(web.url(""))
        (card,) = (card for card in json.loads(person.ask(CARDS)) if card["url"] == console)
        for kind in ("mousePressed", "mouseReleased"):
            person.call(
                "Input.dispatchMouseEvent", type=kind, x=card["x"], y=card["y"], button="left", clickCount=1
            )
        person.wait_for("Page.loadEventFired")

    person.undisturbed(click)
    assert str(person.ask("location.href")).startswith(console)
    documents = [e for e in person.of("Network.responseReceived") if e["type"] == "Document"]
    assert documents[-1]["response"]["status"] == 200
    assert wait_until(lambda: person.ask("document.title") == "MinIO Console")


def test_every_link_leads_somewhere(web: Web, person: Person) -> None:
    person.open(web.url(""))
    for card in json.loads(person.ask(CARDS)):
        host = card["url"].removeprefix("https://").partition(".")[0]
        if host == "s3":
            # It takes browsers, which have no keys, to the console.
            answer = web.get(host, headers={"User-Agent": "Mozilla/5.0"})
            assert answer.status_code == 307
            assert answer.headers["location"].startswith(web.url("object-store").rstrip("/"))
        else:
            assert web.get(host, user="erin").status_code == 200
