"""Takes the pictures of the documentation from a running stack, logged in as its administrator.

``scripts/run screenshots`` asks Pulumi for URLs, CA and password and drives headless Chromium. It takes the
portal, and of the demo, once it has run, what people see of it: Airflow, Spark's history, dashboards, a
notebook. What is off in the stack is left out. Nothing secret is on a command line.
"""

from __future__ import annotations

import argparse
import base64
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts import stack
from scripts.browser import Browser, server_key
from scripts.console import SetupError, main, say
from scripts.versions import ROOT

FOLDER = ROOT / "docs" / "images"
USER = "admin"
_NOTEBOOK = "demo-analyst.ipynb"
_SECONDS = 75
# When a network interface comes or goes, as with each container, Chromium breaks off all its requests.
_TRIES = 4
# Charts grow into their places.
_SETTLE_S = 2.5


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A page to take: where it is, when it is there, and what is done before."""

    name: str
    service: str
    """Its entry among the stack's URLs."""
    path: str = ""
    """Below the service's address; what starts with ``=`` is an expression to ask its first page."""
    ready: str
    """Expression in the page that is true once all is there."""
    size: tuple[int, int] = (1280, 800)
    whole: bool = False
    """All of the page, however long it is."""
    scheme: str = "light"
    before: Callable[[Browser], None] | None = None
    after: str = ""
    """Expression that tidies up."""


def _text(*words: str) -> str:
    found = " && ".join(f"document.body.innerText.includes({json.dumps(word)})" for word in words)
    return f"({found})"


# The newest run that has ended, in a page that shows its tasks.
_LAST_RUN = """=fetch('/api/v2/dags/demo_retail/dagRuns?order_by=-run_after&state=success&limit=1')
    .then(answer => answer.json())
    .then(found => '/dags/demo_retail/runs/' + encodeURIComponent(found.dag_runs[0].dag_run_id))"""

# Charts that are in sight and neither wait nor failed.
_CHARTS = """(() => {
    const charts = [...document.querySelectorAll('.chart-slice')]
        .filter(chart => chart.getBoundingClientRect().top < innerHeight);
    return charts.length > 3
        && charts.every(chart => chart.querySelector('canvas, table, .header-line'))
        && !document.querySelector('.loading, [data-test="loading-indicator"], .ant-alert-error');
})()"""

# The page is connected to a kernel of the notebook's: before that it would ask for one.
_READY = f"""fetch('/api/sessions').then(answer => answer.json()).then(found =>
    !!document.querySelector('.jp-Notebook .jp-Cell') && found.some(session =>
        session.path.endsWith('{_NOTEBOOK}') && session.kernel.connections > 0
        && session.kernel.execution_state === 'idle'))"""

_IDLE = """(() => {
    const state = document.querySelector('.jp-Notebook-ExecutionIndicator');
    return !!document.querySelector('.jp-RenderedImage img') && !!state && state.dataset.status === 'idle';
})()"""

_END_KERNELS = f"""fetch('/api/sessions').then(answer => answer.json()).then(found => Promise.all(found
    .filter(session => session.path.endsWith('{_NOTEBOOK}'))
    .map(session => fetch('/api/sessions/' + session.id, {{
        method: 'DELETE',
        headers: {{'X-XSRFToken': (document.cookie.match(/_xsrf=([^;]+)/) || [])[1] || ''}},
    }}))))"""


def _run_notebook(browser: Browser) -> None:
    """Run all cells, by the menu as a person does, and show the chart."""
    menu = "[...document.querySelectorAll('.lm-MenuBar-item')].find(item => item.innerText.trim() === 'Run')"
    _until(browser, _READY)
    browser.rest(_SETTLE_S)
    _click(browser, menu)
    _click(browser, "document.querySelector('.lm-Menu-item[data-command=\"runmenu:run-all\"]')")
    _until(browser, _IDLE)
    browser.ask("document.querySelector('.jp-RenderedImage img').scrollIntoView({block: 'center'})")


def _click(browser: Browser, element: str) -> None:
    _until(browser, f"!!({element})")
    box = browser.ask(f"(() => {{ const b = ({element}).getBoundingClientRect();"
                      "return [b.x + b.width / 2, b.y + b.height / 2]; })()")  # fmt: skip
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        browser.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], **button)


_HTTP_OK = "performance.getEntriesByType('navigation')[0].responseStatus === 200"

PICTURES = (
    Picture(name="portal-light", service="portal", ready=_HTTP_OK, size=(960, 560), whole=True),
    Picture(name="portal-dark", service="portal", ready=_HTTP_OK, size=(960, 560), whole=True, scheme="dark"),
    Picture(
        name="demo-airflow",
        service="airflow",
        path=_LAST_RUN,
        ready=_text("demo_retail", "Success", "bronze", "gold"),
    ),
    Picture(
        name="demo-spark-history",
        service="spark-history",
        ready="document.querySelectorAll('#history-summary-table tbody tr').length > 0",
        size=(1280, 640),
    ),
    *(
        Picture(
            name=f"demo-dashboard-{name}",
            service="bi",
            path=f"/superset/dashboard/{dashboard}/",
            ready=_CHARTS,
            size=(1280, 1500),
        )
        for name, dashboard in (("retail", "retail"), ("flights", "flights"), ("runs", "operations"))
    ),
    Picture(
        name="demo-notebook",
        service="jupyter",
        path=f"/lab/tree/examples/{_NOTEBOOK}",
        ready=_IDLE,
        size=(1280, 900),
        before=_run_notebook,
        after=_END_KERNELS,
    ),
)


def take(browser: Browser, picture: Picture, url: str) -> bytes:
    """The picture as PNG; ``url`` is the service's address.

    Raises:
        SetupError: when the page is not there in time.
    """
    url = url.rstrip("/")
    width, height = picture.size
    _resize(browser, width, height)
    media = [{"name": "prefers-color-scheme", "value": picture.scheme}]
    browser.call("Emulation.setEmulatedMedia", features=media)
    path = picture.path
    if path.startswith("="):
        _open(browser, url + "/")
        path = browser.ask(path[1:]) or ""
        if not path:
            raise SetupError(f"{picture.name}: nothing to be seen yet - run `make demo` first")
    try:
        _open(browser, url + path)
        if picture.before:
            picture.before(browser)
        _until(browser, picture.ready)
        if picture.ready != _HTTP_OK:
            browser.rest(_SETTLE_S)
        if picture.whole:
            found = browser.ask("Math.ceil(document.documentElement.getBoundingClientRect().height)")
            _resize(browser, width, max(height, int(found)))
        data = browser.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"]
    finally:
        if picture.after:
            browser.ask(picture.after)
    return base64.b64decode(data)


def _open(browser: Browser, url: str) -> None:
    browser.call("Page.navigate", url=url)
    browser.wait_for("Page.loadEventFired")


def _resize(browser: Browser, width: int, height: int) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
    )


def _until(browser: Browser, ready: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not browser.ask(ready):
        if time.monotonic() > deadline:
            shown = str(browser.ask("location.href + ': ' + document.body.innerText.slice(0, 300)"))
            raise SetupError(f"not there after {_SECONDS} s: {' '.join(shown.split())}")
        browser.rest(0.5)


def _all(browser: Browser, urls: Mapping[str, Any], names: list[str]) -> int:
    """Take all pictures that the stack has; how many could not be taken."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = 0
    for picture in PICTURES:
        if names and picture.name not in names:
            continue
        if picture.service not in urls:
            say("screenshots", f"{picture.name}: left out, {picture.service} is off")
            continue
        file = FOLDER / f"{picture.name}.png"
        for tries in range(1, _TRIES + 1):
            try:
                data = take(browser, picture, urls[picture.service]["url"])
            except SetupError as error:
                failed += tries == _TRIES
                say("screenshots", f"{picture.name}: {error}")
            else:
                file.write_bytes(data)
                say("screenshots", f"{file.relative_to(ROOT)} ({len(data) // 1024} KiB)")
                break
    return failed


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev", help="a stack that is up (default: dev)")
    names = [picture.name for picture in PICTURES]
    parser.add_argument("--only", action="append", choices=names, default=[], help="one picture; repeatable")
    arguments = parser.parse_args()
    outputs = stack.outputs(arguments.stack)
    if outputs is None:
        raise SetupError(f"stack {arguments.stack}: bring it up first")
    parts = urlsplit(outputs["urls"]["portal"]["url"])
    key = server_key(str(parts.hostname), parts.port or 443, outputs["ca_certificate"])
    login = (USER, outputs["credentials"]["users"][USER])
    with tempfile.TemporaryDirectory(prefix="millrace-", ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile), key, login)
        try:
            browser.call("Page.enable")
            return 1 if _all(browser, outputs["urls"], arguments.only) else 0
        finally:
            browser.close()


if __name__ == "__main__":
    main(_main)
