"""The portal's page and the stack output ``urls``."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_proxy import publish, settings

from components.proxy import portal, sites
from components.proxy.edge import urls
from components.workload import Access, Group, Route

EVIL = '"><script>alert(1)</script>&'


def page(*routes: Route, **more: Any) -> str:
    platform = settings(**more)
    found = [publish("service", given) for given in routes]
    return portal.page(sites.sites([*found, portal.published(platform)], platform), platform)


def route(host: str, access: Access = Access.USER, **more: Any) -> Route:
    return Route(**{"host": host, "access": access, "title": host.title(), "purpose": f"For {host}"} | more)


class Reader(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def links(self) -> list[str | None]:
        return [value for name, value in self.attributes if name == "href"]


def test_page_lists_services_with_link_level_and_purpose() -> None:
    read = Reader(page(route("notebooks", Access.ENGINEER), proxy={"https_port": 8443}))
    assert "https://notebooks.data.localhost:8443/" in read.links
    assert "notebooks.data.localhost:8443" in read.text
    assert "For notebooks" in read.text
    assert re.search(r"Access:\s*engineer", read.text)
    assert "engineers and administrators" in read.text


def test_services_stand_in_their_groups() -> None:
    """In the order of the groups, those of a group in the order they come in; empty groups are left out."""
    text = page(
        route("last", group=Group.OPERATIONS),
        route("first", group=Group.DATA),
        route("middle", group=Group.ANALYTICS),
        route("second", group=Group.DATA),
    )
    sections = re.findall(r"<section.*?</section>", text, re.DOTALL)
    found = {re.findall(r"<h2.*?>(.*?)</h2>", s)[0]: re.findall(r"<a .*?>(.*?)</a>", s) for s in sections}
    assert list(found.items()) == [
        ("Data", ["First", "Second"]),
        ("Analytics", ["Middle"]),
        ("Operations", ["Last"]),
    ]


def test_every_group_has_its_place() -> None:
    text = page(*(route(f"in-{group}", group=group) for group in Group))
    assert [text.index(f">In-{group.capitalize()}<") for group in Group] == sorted(
        text.index(f">In-{group.capitalize()}<") for group in Group
    )


def test_page_escapes_what_services_say() -> None:
    read = Reader(page(route("x", title=EVIL, purpose=EVIL)))
    assert "script" not in read.tags
    assert read.text.count(EVIL) == 2


def test_unlisted_routes_stay_off() -> None:
    text = page(route("hidden", listed=False), route("shown"))
    assert "hidden" not in text
    assert "shown" in text


def test_page_without_services_says_so() -> None:
    text = page()
    assert "No service" in text
    assert "Who may open what" not in text


def test_own_login_is_not_called_public() -> None:
    read = Reader(page(route("s3", Access.PUBLIC, own_login=True)))
    assert re.search(r"Access:\s*own login", read.text)
    assert "everyone, without a password" not in read.text


def test_page_loads_nothing_from_elsewhere_and_runs_nothing() -> None:
    read = Reader(page(route("x")))
    assert not {"script", "img", "iframe"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name == "style" or name.startswith("on")]
    assert [link for link in read.links if link and not link.startswith("https://x.")] == [
        "data:,",
        "/portal.css",
    ]
    files = {file.path: str(file.content) for file in portal.workload([], settings()).files}
    (config,) = (content for path, content in files.items() if path.endswith("nginx.conf"))
    assert "default-src 'none'; style-src 'self'" in config
    assert not re.search(r"@import|url\(", Path("configs/portal/portal.css").read_text())


def test_urls() -> None:
    platform = settings(proxy={"https_port": 8443})
    found = [publish("a", route("shown", Access.ADMIN)), publish("a", route("hidden", listed=False))]
    assert urls(sites.sites([*found, portal.published(platform)], platform)) == {
        "shown": {
            "url": "https://shown.data.localhost:8443/",
            "access": "admin",
            "title": "Shown",
            "purpose": "For shown",
            "group": "operations",
        },
        "portal": {
            "url": "https://data.localhost:8443/",
            "access": "user",
            "title": "Portal",
            "purpose": "All services of this platform at a glance",
            "group": "operations",
        },
    }


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for text."""
    light, dark = Path("configs/portal/portal.css").read_text().split("@media (prefers-color-scheme: dark)")
    known = colours(light if scheme == "light" else dark.split("\n}\n")[0])
    pairs = [(text, back) for text in ("text", "muted", "accent") for back in ("page", "card")]
    pairs += [(level, f"{level}-back") for level in ("public", "user", "engineer", "admin", "own")]
    for text, back in pairs:
        low, high = sorted((luminance(known[text]), luminance(known[back])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, back)
