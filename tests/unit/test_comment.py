"""Comments and issues, against stand-ins for GitHub's and GitLab's REST APIs."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import access, comment, environments, forge, gitlab, results, summary
from scripts.console import SetupError

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "token-of-the-job-1234"
ME = {"github": {"login": "github-actions[bot]", "id": 7}, "gitlab": {"login": "bot", "id": 7}}
OTHER = {"login": "mallory", "id": 8}


class Server(http.server.ThreadingHTTPServer):
    """What the forge has, and which requests changed it."""

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kind = kind
        self.notes: list[dict[str, Any]] = []
        self.issues: list[dict[str, Any]] = []
        self.changes: list[tuple[str, str, dict[str, Any]]] = []
        self.tokens: set[str] = set()
        self.refuse: tuple[int, str] | None = None
        self.hiccups = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def open(self, asked: dict[str, str]) -> list[dict[str, Any]]:
        """Issues as the list's filter gives them."""
        assert asked["state"] == {"github": "open", "gitlab": "opened"}[self.kind]
        return [i for i in self.issues if i["state"] == "open" and i["label"] == asked["labels"]]

    def add(self, body: str, author: dict[str, Any]) -> None:
        """A comment that is there."""
        self.notes.append({"id": 100 + len(self.notes), "body": body, "user": author, "author": author})


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """No noise."""

    def answer(self, code: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        server, me = self.server, ME[self.server.kind]
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        server.tokens.add(self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or "")
        path, _, query = self.path.partition("?")
        if server.hiccups:
            server.hiccups -= 1
            return self.answer(502, {"message": "Bad gateway"})
        if server.refuse and self.command != "GET":
            return self.answer(server.refuse[0], {"message": server.refuse[1]})
        if path == "/user":
            refused = server.kind == "github"
            return (
                self.answer(403, {"message": "Resource not accessible"}) if refused else self.answer(200, me)
            )
        asked = dict(urllib.parse.parse_qsl(query))
        if self.command == "GET":
            assert asked["per_page"] == "100"
            items = server.notes if "/comments" in path or path.endswith("/notes") else server.open(asked)
            start = 100 * (int(asked["page"]) - 1)
            return self.answer(200, items[start : start + 100])
        server.changes.append((self.command, path, body))
        if path.endswith("/issues"):
            text = body.get("body") or body.get("description")
            number = 1 + len(server.issues)
            label = body["labels"][0] if server.kind == "github" else body["labels"]
            server.issues.append(
                {"number": number, "iid": number, "title": body["title"], "body": text, "description": text,
                 "state": "open", "label": label, "user": me, "author": me}
            )  # fmt: skip
        elif found := re.search(r"/issues/(\d+)$", path):
            issue = server.issues[int(found[1]) - 1]
            issue |= {key: value for key, value in body.items() if key in issue}
            if body.get("state") == "closed" or body.get("state_event") == "close":
                issue["state"] = "closed"
        elif re.search(r"/(issues/5/comments|merge_requests/5/notes)$", path):
            server.add(body["body"], me)
        elif found := re.search(r"/(?:comments|notes)/(\d+)$", path):
            server.notes[int(found[1]) - 100]["body"] = body["body"]
        return self.answer(200, {})

    do_GET = do_POST = do_PATCH = do_PUT = handle_any  # noqa: N815


@pytest.fixture(params=["github", "gitlab"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A stand-in, and the environment of one of its jobs."""
    made = Server(request.param)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "CI_MERGE_REQUEST_IID", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    given = {
        "github": {
            "GITHUB_ACTIONS": "true", "GITHUB_API_URL": made.url, "GITHUB_REPOSITORY": "acme/data",
            "GITHUB_TOKEN": TOKEN, "MILLRACE_PULL_REQUEST": "5",
            "GITHUB_SERVER_URL": "https://github.example", "GITHUB_RUN_ID": "99",
        },
        "gitlab": {
            "GITLAB_CI": "true", "CI_API_V4_URL": made.url, "CI_PROJECT_ID": "42",
            "MILLRACE_GITLAB_TOKEN": TOKEN, "MILLRACE_MERGE_REQUEST": "5",
            "CI_PIPELINE_URL": "https://gitlab.example/acme/data/-/pipelines/99",
        },
    }[request.param]  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    yield made
    made.shutdown()
    made.server_close()


def some(stack: str = "staging", body: str = "All of it.") -> summary.Summary:
    return summary.Summary(stack=stack, headline="1 changed", body=body)


def test_first_comment_then_the_same_one(server: Server) -> None:
    server.add("Looks good", OTHER)
    comment.post_preview(forge.here(), [some()])
    comment.post_preview(forge.here(), [some(body="Something else.")])
    methods = [method for method, _, _ in server.changes]
    assert methods == ["POST", {"github": "PATCH", "gitlab": "PUT"}[server.kind]]
    assert server.notes[0]["body"] == "Looks good"
    assert len(server.notes) == 2
    body = server.notes[1]["body"]
    assert body.startswith("<!-- millrace: preview -->\n## `staging`: 1 changed\n\nSomething else.")
    assert "/runs/99)" in body or "/pipelines/99)" in body
    assert server.tokens == {{"github": f"Bearer {TOKEN}", "gitlab": TOKEN}[server.kind]}


def test_the_comment_is_found_on_a_later_page(server: Server) -> None:
    for number in range(230):
        server.add(f"Remark {number}", OTHER)
    server.add("<!-- millrace: preview -->\nold", ME[server.kind])
    comment.post_preview(forge.here(), [some()])
    assert len(server.notes) == 231 and "All of it." in server.notes[230]["body"]


def test_nobody_elses_comment_is_changed(server: Server) -> None:
    """Whoever quotes the mark, or plants it before the first run, gets nothing changed."""
    server.add("<!-- millrace: preview -->\nplanted", OTHER)
    server.add("> <!-- millrace: preview -->\nquoted", ME[server.kind])
    comment.post_preview(forge.here(), [some()])
    assert server.notes[0]["body"].endswith("planted") and server.notes[1]["body"].endswith("quoted")
    assert len(server.notes) == 3


def test_too_long_a_comment_is_cut_where_it_matters_least(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr({"github": forge.GitHub, "gitlab": forge.GitLab}[server.kind], "limit", 5000)
    lost = summary.Summary(stack="prod", headline="1 deleted", body="> **Data would be lost**", loss=True)
    long = some(body="```text\n" + "\n".join(f"line {n}" for n in range(9999)) + "\n```")
    comment.post_preview(forge.here(), [long, lost])
    body = server.notes[0]["body"]
    assert len(body) <= 5000
    assert "**data would be lost**: 1 deleted" in body and "> **Data would be lost**" in body
    assert body.count("\n```") == 2, "the block is closed"
    assert body.rstrip().endswith("**") and "Cut here" in body and "99)" in body.splitlines()[-1]


@pytest.mark.parametrize(
    "refusal", [(403, "Resource not\naccessible by integration"), (422, "Validation failed")]
)
def test_a_refusal_is_one_line(server: Server, refusal: tuple[int, str]) -> None:
    server.refuse = refusal
    with pytest.raises(SetupError) as error:
        comment.post_preview(forge.here(), [some()])
    text = str(error.value)
    assert "\n" not in text and f"{refusal[0]} {refusal[1].split()[0]}" in text
    assert TOKEN not in text and not server.notes


def test_a_short_outage_is_waited_out(server: Server) -> None:
    server.hiccups = 2
    comment.post_preview(forge.here(), [some()])
    assert len(server.notes) == 1
    server.hiccups = 3
    with pytest.raises(SetupError, match="502 Bad gateway"):
        comment.post_preview(forge.here(), [some()])


def test_no_server_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_API_URL", "CI_API_V4_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(SetupError, match=r"^comment: GET http://127\.0\.0\.1:9/.*refused"):
        comment.post_preview(forge.here(), [some()])


def test_what_is_not_set_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv({"github": "MILLRACE_PULL_REQUEST", "gitlab": "MILLRACE_MERGE_REQUEST"}[server.kind])
    with pytest.raises(SetupError, match=r"MILLRACE_\w+ is not set"):
        comment.post_preview(forge.here(), [some()])
    token = {"github": "GITHUB_TOKEN", "gitlab": "MILLRACE_GITLAB_TOKEN"}[server.kind]
    monkeypatch.setenv(token, "")
    with pytest.raises(SetupError, match=f"{token} is not set"):
        forge.here()


def test_outside_of_both_there_is_nothing_to_post_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITLAB_CI", raising=False)
    with pytest.raises(SetupError, match="neither"):
        forge.here()


def drifted(stack: str = "staging", *, what: str = "portal is gone") -> summary.Summary:
    return summary.Summary(stack=stack, headline="drift: 1 deleted", body=what, failed=True)


def calm(stack: str = "staging") -> summary.Summary:
    return summary.Summary(stack=stack, headline="no drift", body="Nothing.")


def test_drift_opens_updates_and_closes_one_issue(server: Server) -> None:
    comment.post_drift(forge.here(), [drifted(), calm("prod")])
    comment.post_drift(forge.here(), [drifted(what="proxy is gone"), calm("prod")])
    (issue,) = server.issues
    assert issue["title"] == "staging: drift: 1 deleted" and issue["label"] == "drift"
    text = issue["body"] if server.kind == "github" else issue["description"]
    assert text.startswith("<!-- millrace: drift of staging -->\n") and "proxy is gone" in text
    comment.post_drift(forge.here(), [calm(), calm("prod")])
    assert issue["state"] == "closed"
    assert any("No drift any more." in body.get("body", "") for _, _, body in server.changes)
    comment.post_drift(forge.here(), [drifted()])
    assert len(server.issues) == 2, "what comes back is a new issue"


def test_each_environment_has_its_issue(server: Server) -> None:
    comment.post_drift(forge.here(), [drifted("prod"), drifted("staging")])
    comment.post_drift(forge.here(), [drifted("prod"), calm("staging")])
    assert [issue["state"] for issue in server.issues] == ["open", "closed"]


def test_the_command_tells_of_environments_without_a_result(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifacts of each job are in a folder of their own."""
    results.save(tmp_path / "preview-dev", some("dev"))
    monkeypatch.setattr(environments, "names", lambda: ["dev", "prod"])
    monkeypatch.setattr("sys.argv", ["comment", "preview", "--from", str(tmp_path)])
    assert comment._main() == 0
    body = server.notes[0]["body"]
    assert "| `dev` | 1 changed |" in body and "| `prod` | **not previewed** |" in body
    assert "its run ended without a result" in body


# Workflows


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(file: Path) -> dict[str, Any]:
    """A workflow's jobs."""
    return dict(yaml.safe_load(file.read_text())["jobs"])


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_may_do_little(file: Path) -> None:
    """Actions by commit, a token that reads unless a job says more, no untrusted text in a script."""
    document = yaml.safe_load(file.read_text())
    assert document["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in file.read_text()
    for name, job in document["jobs"].items():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), name
                if "/checkout@" in step["uses"]:
                    assert step["with"] == {"persist-credentials": False}
            assert "${{" not in step.get("run", ""), f"{name}: a script takes values from its environment"
        writes = {scope for scope, level in (job.get("permissions") or {}).items() if level == "write"}
        assert writes == {"comment": {"pull-requests"}, "issue": {"issues"}}.get(name, set())
        secret = "${{ secrets." in yaml.safe_dump(job)
        assert secret == ("environment" in job), f"{name}: secrets belong to an environment"
        assert not (secret and writes)


def test_one_check_stands_for_all_of_a_pull_request() -> None:
    """The job that a branch's rule requires waits for each that can find a fault, and always runs."""
    found = jobs(ROOT / ".github" / "workflows" / "pull-request.yml")
    closing = found["checked"]
    assert set(closing["needs"]) == set(found) - {"checked", "comment", "untrusted"}
    assert closing["if"] == "${{ always() }}", "a job that is skipped counts as passed"
    assert "name" not in closing and "strategy" not in closing, "its check is `checked`"
    (step,) = closing["steps"]
    assert step["env"] == {"RESULTS": "${{ join(needs.*.result, ',') }}"}
    for outcomes, passes in {
        "success,success": True,
        "success,skipped,success": True,
        "success,failure": False,
        "success,cancelled,skipped": False,
        "": False,
    }.items():
        command = ["bash", "-e", "-c", step["run"]]
        done = subprocess.run(command, env={"RESULTS": outcomes}, capture_output=True, text=True)
        assert (done.returncode == 0) is passes, outcomes
        assert done.stdout == f"{outcomes}\n"


def test_versions_of_actions_are_the_same_everywhere() -> None:
    used = {
        line.strip().split(": ", 1)[1]
        for f in WORKFLOWS
        for line in f.read_text().splitlines()
        if "uses:" in line
    }
    assert len(used) == len({entry.split("@")[0] for entry in used})
    assert all(re.search(r" # v\d+\.\d+\.\d+$", entry) for entry in used)


def test_every_variable_of_the_jobs_is_settled() -> None:
    given: set[str] = set()
    for file in WORKFLOWS:
        for job in jobs(file).values():
            if "environment" in job:
                (names,) = [set(step["env"]) - {"STACK"} for step in job["steps"] if "secrets." in str(step)]
                given |= names
                assert names == set(access._GIVEN)
    assert given


def test_workflows_call_what_the_documentation_explains() -> None:
    page = (ROOT / "docs" / "pull-requests.md").read_text()
    scripts = "\n".join(
        [
            *(file.read_text() for file in WORKFLOWS),
            (ROOT / ".gitlab-ci.yml").read_text(),
            gitlab.pipeline(["s"], ["s"], {}),
        ]
    )
    for command in set(re.findall(r"make \w+|scripts/run \w+", scripts)):
        assert command in page, command
    for name in [*access._GIVEN, "MILLRACE_GITLAB_TOKEN", "GIT_CLEAN_FLAGS"]:
        assert name in page, name


def test_a_new_environment_needs_no_change_of_the_pipeline() -> None:
    job = {
        "CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "5",
        "CI_MERGE_REQUEST_PROJECT_ID": "70", "SECRET": "s3cret",
    }  # fmt: skip
    text = gitlab.pipeline(["dev", "prod", "qa"], ["prod", "qa"], job)
    assert "s3cret" not in text
    document = yaml.safe_load(text)
    known = {name: value for name, value in document["variables"].items() if name.startswith("MILLRACE_")}
    assert known == {
        "MILLRACE_EVENT": "merge_request_event", "MILLRACE_MERGE_REQUEST": "5",
        "MILLRACE_FROM_PROJECT": "", "MILLRACE_TO_PROJECT": "70",
    }  # fmt: skip
    assert {"preview:dev", "preview:prod", "preview:qa", "up:prod", "up:qa", "drift:prod", "drift:qa"} <= set(
        document
    )
    assert "up:dev" not in document and "environment" not in document["preview:dev"]
    assert document["up:qa"]["rules"] == [{"if": '$MILLRACE_EVENT == "push"', "when": "manual"}]
    assert document["up:qa"]["environment"] == {"name": "qa"} and document["up:qa"]["resource_group"] == "qa"
    for stack in ("prod", "qa"):
        (rule,) = document[f"preview:{stack}"]["rules"]
        assert "$MILLRACE_FROM_PROJECT == $MILLRACE_TO_PROJECT" in rule["if"], "a fork's has no secrets"
    alone = yaml.safe_load(gitlab.pipeline(["dev"], [], {}))
    assert "nothing-to-deploy" in alone and "drift" not in alone
