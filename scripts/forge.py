"""GitHub and GitLab, as far as a comment and an issue go: their REST APIs.

By the standard library alone: the job that may write runs nothing that has to be installed first.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from scripts.console import SetupError

_TIMEOUT_SECONDS = 30
_PAGE = 100
"""Items on a page, the most that both APIs give."""
_PAGES = 30
"""An answer that never ends is not followed for ever."""
_RETRIED = (429, 502, 503, 504)
_TRIES = 3

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Note:
    """A comment or an issue that is there."""

    id: int
    body: str
    mine: bool
    """Whether the account that runs this wrote it: nobody else's text is changed."""
    title: str = ""


class Forge(Protocol):
    """What both have."""

    limit: int
    """Characters of a body."""

    def comments(self) -> Iterator[Note]:
        """Comments of the pull request."""

    def write_comment(self, body: str, id: int | None) -> None:
        """Write a new comment, or change one."""

    def issues(self, label: str) -> Iterator[Note]:
        """Open issues with a label."""

    def write_issue(self, title: str, body: str, label: str, id: int | None) -> None:
        """Open an issue, or change one."""

    def close_issue(self, id: int, comment: str) -> None:
        """Close an issue with a last word."""

    def run_url(self) -> str:
        """Address of the run that this is part of; empty when unknown."""


class _Api:
    """One API's address and login."""

    def __init__(self, base: str, headers: Mapping[str, str]) -> None:
        if urllib.parse.urlsplit(base).scheme not in ("https", "http"):
            raise SetupError(f"comment: {base!r} is no address of an API")
        self.base = base.rstrip("/")
        self._headers = {"User-Agent": "millrace", "Accept": "application/json", **headers}

    def call(self, method: str, path: str, body: Json | None = None) -> Any:
        """One request; what it answers.

        Raises:
            SetupError: it is refused or there is no answer; the message is one line without the token.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if data else {})
        url = f"{self.base}{path}"
        for attempt in range(_TRIES):
            # The address is the platform's own, from the job's environment, and checked above.
            request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
                    text = answer.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code in _RETRIED and attempt + 1 < _TRIES and method == "GET":
                    continue
                raise SetupError(f"comment: {method} {url}: {error.code} {_reason(error)}") from None
            except (urllib.error.URLError, OSError) as error:
                reason = getattr(error, "reason", error)
                raise SetupError(f"comment: {method} {url}: {reason}") from None
            except ValueError:
                raise SetupError(f"comment: {method} {url}: the answer is no JSON") from None
        raise AssertionError("unreachable")

    def pages(self, path: str) -> Iterator[Json]:
        """The items of all pages."""
        mark = "&" if "?" in path else "?"
        for page in range(1, _PAGES + 1):
            items = self.call("GET", f"{path}{mark}per_page={_PAGE}&page={page}")
            yield from items
            if len(items) < _PAGE:
                return


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        found = json.loads(error.read())
        message = found.get("message") or found.get("error") or error.reason
    except (ValueError, AttributeError, OSError):
        message = error.reason
    return " ".join(str(message).split())[:200]


def _need(name: str, why: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise SetupError(f"comment: {name} is not set: {why}")
    return value


class GitHub:
    """A pull request and the issues of a repository on GitHub."""

    limit = 65536

    def __init__(self) -> None:
        token = _need("GITHUB_TOKEN", "give the step `GITHUB_TOKEN: ${{ github.token }}`")
        self._repository = _need("GITHUB_REPOSITORY", "run it in a workflow, or set owner/name")
        base = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
        headers = {"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": "2022-11-28"}
        self._api = _Api(base, headers)
        self._me: str | None = None

    def _login(self) -> str:
        if self._me is None:
            try:
                self._me = str(self._api.call("GET", "/user")["login"])
            except SetupError:
                # A workflow's own token may not ask who it is.
                self._me = "github-actions[bot]"
        return self._me

    def _request(self) -> str:
        return _need("MILLRACE_PULL_REQUEST", "the number of the pull request")

    def comments(self) -> Iterator[Note]:
        """Comments of the pull request."""
        for item in self._api.pages(f"/repos/{self._repository}/issues/{self._request()}/comments"):
            yield self._note(item, item["id"])

    def _note(self, item: Json, id: int) -> Note:
        mine = (item.get("user") or {}).get("login") == self._login()
        return Note(id=id, body=item.get("body") or "", mine=mine, title=item.get("title") or "")

    def write_comment(self, body: str, id: int | None) -> None:
        """Write a new comment, or change one."""
        if id is None:
            path = f"/repos/{self._repository}/issues/{self._request()}/comments"
            self._api.call("POST", path, {"body": body})
        else:
            self._api.call("PATCH", f"/repos/{self._repository}/issues/comments/{id}", {"body": body})

    def issues(self, label: str) -> Iterator[Note]:
        """Open issues with a label."""
        query = urllib.parse.urlencode({"state": "open", "labels": label})
        for item in self._api.pages(f"/repos/{self._repository}/issues?{query}"):
            if "pull_request" not in item:
                yield self._note(item, item["number"])

    def write_issue(self, title: str, body: str, label: str, id: int | None) -> None:
        """Open an issue, or change one."""
        if id is None:
            wanted = {"title": title, "body": body, "labels": [label]}
            self._api.call("POST", f"/repos/{self._repository}/issues", wanted)
        else:
            self._api.call("PATCH", f"/repos/{self._repository}/issues/{id}", {"title": title, "body": body})

    def close_issue(self, id: int, comment: str) -> None:
        """Close an issue with a last word."""
        self._api.call("POST", f"/repos/{self._repository}/issues/{id}/comments", {"body": comment})
        self._api.call("PATCH", f"/repos/{self._repository}/issues/{id}", {"state": "closed"})

    def run_url(self) -> str:
        """Address of the workflow run."""
        server, run = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_RUN_ID")
        return f"{server}/{self._repository}/actions/runs/{run}" if server and run else ""


class GitLab:
    """A merge request and the issues of a project on GitLab."""

    limit = 1_000_000

    def __init__(self) -> None:
        # A job's own token may not write notes.
        token = _need("MILLRACE_GITLAB_TOKEN", "a project access token with the scope `api`, masked")
        base = _need("CI_API_V4_URL", "run it in a pipeline, or set the address of the API")
        self._project = urllib.parse.quote(_need("CI_PROJECT_ID", "run it in a pipeline"), safe="")
        self._api = _Api(base, {"PRIVATE-TOKEN": token})
        self._me: int | None = None

    def _id(self) -> int:
        if self._me is None:
            self._me = int(self._api.call("GET", "/user")["id"])
        return self._me

    def _notes(self) -> str:
        number = os.environ.get("MILLRACE_MERGE_REQUEST") or os.environ.get("CI_MERGE_REQUEST_IID")
        if not number:
            raise SetupError("comment: MILLRACE_MERGE_REQUEST is not set: the number of the merge request")
        return f"/projects/{self._project}/merge_requests/{number}/notes"

    def _note(self, item: Json, id: int, body: str) -> Note:
        mine = (item.get("author") or {}).get("id") == self._id()
        return Note(id=id, body=body, mine=mine, title=item.get("title") or "")

    def comments(self) -> Iterator[Note]:
        """Notes of the merge request."""
        for item in self._api.pages(f"{self._notes()}?sort=asc"):
            yield self._note(item, item["id"], item.get("body") or "")

    def write_comment(self, body: str, id: int | None) -> None:
        """Write a new note, or change one."""
        if id is None:
            self._api.call("POST", self._notes(), {"body": body})
        else:
            self._api.call("PUT", f"{self._notes()}/{id}", {"body": body})

    def issues(self, label: str) -> Iterator[Note]:
        """Open issues with a label."""
        query = urllib.parse.urlencode({"state": "opened", "labels": label})
        for item in self._api.pages(f"/projects/{self._project}/issues?{query}"):
            yield self._note(item, item["iid"], item.get("description") or "")

    def write_issue(self, title: str, body: str, label: str, id: int | None) -> None:
        """Open an issue, or change one."""
        wanted: Json = {"title": title, "description": body}
        if id is None:
            self._api.call("POST", f"/projects/{self._project}/issues", {**wanted, "labels": label})
        else:
            self._api.call("PUT", f"/projects/{self._project}/issues/{id}", wanted)

    def close_issue(self, id: int, comment: str) -> None:
        """Close an issue with a last word."""
        self._api.call("POST", f"/projects/{self._project}/issues/{id}/notes", {"body": comment})
        self._api.call("PUT", f"/projects/{self._project}/issues/{id}", {"state_event": "close"})

    def run_url(self) -> str:
        """Address of the pipeline."""
        return os.environ.get("CI_PIPELINE_URL", "")


def here() -> Forge:
    """The forge whose job runs this.

    Raises:
        SetupError: it runs in neither, or something it needs is not set.
    """
    if os.environ.get("GITLAB_CI") == "true":
        return GitLab()
    if os.environ.get("GITHUB_ACTIONS") == "true":
        return GitHub()
    raise SetupError("comment: this is neither a GitHub workflow nor a GitLab pipeline: nothing to post to")
