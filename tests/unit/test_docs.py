"""The documentation is true where a machine can tell: links, commands, snippets, generated parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from graph import PLANTED, bare, plain_texts, platform

import components.services
from components import images
from components.checks import networks
from components.estimate_table import table
from components.estimates import estimate
from components.postgres_settings import DatabaseSettings, Grant, PostgresSettings, RoleSettings
from components.problems import SettingsError
from components.service import dns_name
from components.settings import load, settings_model
from scripts import reference
from scripts.console import SetupError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "visits"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "configs").rglob("*.md"),
        *(ROOT / "images").glob("*.md"),
        *(ROOT / "toolchain").glob("*.md"),
    ]
)
_FENCE = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


def name(path: Path) -> str:
    """For the ids of tests."""
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def blocks(page: Path, *languages: str) -> Iterator[re.Match[str]]:
    """The code blocks of a page in these languages."""
    for found in _FENCE.finditer(page.read_text()):
        if found["language"] in languages:
            yield found


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "", prose(page))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', page.read_text())
    for target in targets:
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join([*re.findall(r"`([^`\n]+)`", prose(page)), *(b["text"] for b in blocks(page, "sh"))])
    assert set(re.findall(r"(?:^|[;&] )make ([a-z]+)", code, re.MULTILINE)) <= targets
    for script in re.findall(r"scripts/run (\w+)", code):
        assert (ROOT / "scripts" / f"{script}.py").is_file(), script


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_official_images_are_those_of_the_catalogue(page: Path) -> None:
    tags: dict[str, set[str]] = {}
    for entry in images.CATALOGUE.values():
        if entry.upstream:
            image, _, tag = entry.upstream.partition("@")[0].rpartition(":")
            tags.setdefault(image.split("/", 1)[1].removeprefix("library/"), set()).add(tag)
    for image, tag in re.findall(r"`([a-z0-9/-]+):([\w.-]+)`", prose(page)):
        port = tag.isdigit() and "/" not in image  # of a service
        assert port or image not in tags or tag in tags[image], f"{image}:{tag}"


def snippets() -> Iterator[Any]:
    """All pieces of stack files in the documentation."""
    for page in PAGES:
        for number, block in enumerate(blocks(page, "yaml")):
            if "millrace:" in block["text"]:
                yield pytest.param(block["text"], id=f"{name(page)}-{number}")


@pytest.mark.parametrize("text", list(snippets()))
def test_snippets_are_valid(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = yaml.safe_load(text)
    values = {key.removeprefix("millrace:"): value for key, value in document["config"].items()}
    # A snippet shows one thing; what it goes without is in the stack file it is meant for.
    values.setdefault("users", [{"name": "admin", "role": "admin"}])
    values.pop("visits", None)  # the example's; below it is there
    if "rotation" in values:
        values.setdefault("postgres", {"roles": [{"name": "loader"}]})
    if values.get("registry", {}).get("username"):
        values["registry"] = {**values["registry"], "password": "given by pulumi config set"}
    # Files that a comment in the first line lists.
    if listed := re.match(r"# files: (.+)", text):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("components.checks._files", lambda settings: [])
        monkeypatch.setattr("components.proxy.check_provided", lambda settings: [])
        for file in listed[1].split():
            Path(file).touch()
    try:
        load(values, "Pulumi.dev.yaml")
    except SettingsError as error:
        pytest.fail(str(error))


STACKS = sorted(ROOT.glob("Pulumi.*.yaml"))


def stack_values(file: Path) -> dict[str, Any]:
    """The settings in a stack file."""
    config = yaml.safe_load(file.read_text())["config"]
    return {key.removeprefix("millrace:"): value for key, value in config.items()}


@pytest.mark.parametrize("file", STACKS, ids=name)
def test_stack_files_are_valid(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=configs/settings.schema.json"
    load(stack_values(file), file.name)


def test_limits_of_the_minimal_stack_fit_its_promise() -> None:
    graph = platform(stack_values(ROOT / "Pulumi.minimal.yaml"), stack="minimal")
    assert {"postgres", "object-store", "presto", "bi", "proxy", "portal"} <= {
        container.name for container in graph.containers
    }
    assert sum(container.get("memory") for container in graph.containers) <= 3 * 1024


def test_figures_of_the_whole_stack_are_todays() -> None:
    """What the pages say of `dev` is what its estimate and its settings say."""
    settings = load(stack_values(ROOT / "Pulumi.dev.yaml"), "Pulumi.dev.yaml")
    found = estimate(settings)
    names = ("README.md", "docs/estimates.md", "docs/targets.md", "docs/troubleshooting.md")
    pages = {page: " ".join((ROOT / page).read_text().split()) for page in names}
    for page in ("README.md", "docs/troubleshooting.md"):
        assert f"add up to {found.limit_mib / 1024:.1f} GiB" in pages[page], page
    assert f"with all services has {networks(settings)} " in pages["docs/targets.md"]
    needed = found.memory_mib + found.reserve_mib
    assert f"too little for {found.memory_mib} MiB that the services" in pages["docs/estimates.md"]
    assert f"choose a host with {needed} MiB" in pages["docs/estimates.md"]
    shown = next(b["text"] for b in blocks(ROOT / "docs/estimates.md", "text") if "SERVICE" in b["text"])
    rows = [line for line in shown.splitlines() if line != "…"]
    assert len(rows) > 2 and set(rows) <= set(table(found).splitlines())


def test_shown_mistakes_are_real() -> None:
    """The error lines of README.md and docs/configuration.md are what the loader says."""
    users = [{"name": "admin", "role": "admin"}, {"name": "engineer", "role": "enginer"}]
    with pytest.raises(SettingsError) as error:
        load({"users": users, "object_stroe": {}}, "Pulumi.dev.yaml")
    shown = {
        line
        for page in PAGES
        for block in blocks(page, "text")
        for line in block["text"].splitlines()
        if line.startswith("Pulumi.dev.yaml: ")
    }
    assert shown == set(error.value.lines)


def test_one_test_command() -> None:
    """Continuous integration runs what README.md tells people to."""
    last = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    command = re.fullmatch(r"exec (make \w+) </dev/null", last)
    assert command
    section = (ROOT / "README.md").read_text().split("## Test\n")[1].split("\n## ")[0]
    assert re.search(rf"^{command[1]}\b", section, re.MULTILINE)


def test_reference_is_in_step() -> None:
    stale = [file.name for file, text in reference.wanted().items() if file.read_text() != text]
    assert not stale, "run `scripts/run reference`"


@pytest.mark.parametrize("key", ["proxy", *components.services.registry()])
def test_every_service_has_a_page_with_its_settings(key: str) -> None:
    page = ROOT / "docs" / f"{dns_name(key)}.md"
    assert page.is_file(), f"docs/{page.name} is missing"
    assert key in [found[1] for found in reference.BLOCK.finditer(page.read_text())], (
        f"docs/{page.name} lacks the lines `<!-- settings: {key} -->` and `<!-- end -->`"
    )


def test_generated_table_shows_every_key_at_every_depth() -> None:
    """Of the page with the most nested settings, told from the models themselves."""
    (shown,) = [
        found[2]
        for found in reference.BLOCK.finditer((ROOT / "docs" / "postgres.md").read_text())
        if found[1] == "postgres"
    ]
    for model in (PostgresSettings, DatabaseSettings, RoleSettings, Grant):
        for field in model.model_fields:
            assert re.search(rf"^\| `{field}` \|", shown, re.MULTILINE), field
    assert "### `millrace:postgres.roles[]`" in shown


def test_stale_page_is_found(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# A page\n\n<!-- settings: proxy -->\nold\n<!-- end -->\n\nText.\n")
    text = reference.page(file)
    assert text.startswith("# A page\n\n<!-- settings: proxy -->\n| Key |") and text.endswith(
        "\n<!-- end -->\n\nText.\n"
    )
    assert "old" not in text
    file.write_text(text)
    assert reference.page(file) == text
    quoted = "```markdown\n<!-- settings: proxy -->\n<!-- end -->\n```\n"
    file.write_text(quoted)
    assert reference.page(file) == quoted
    file.write_text("<!-- settings: proxi -->\n<!-- end -->\n")
    with pytest.raises(SetupError, match="proxi"):
        reference.page(file)


def test_readme_lists_every_page() -> None:
    linked = re.findall(r"\(docs/([^)#]+\.md)\)", (ROOT / "README.md").read_text())
    assert {file.name for file in (ROOT / "docs").glob("*.md")} <= set(linked)


def test_included_files_are_in_step() -> None:
    page = ROOT / "docs" / "add-a-service.md"
    included = {b["file"]: b["text"] for b in _FENCE.finditer(page.read_text()) if b["file"]}
    files = {
        str(f.relative_to(page.parent)): f.read_text() for f in EXAMPLE.rglob("*.*") if f.suffix != ".pyc"
    }
    files |= {str(f.relative_to(page.parent)): f.read_text() for f in EXAMPLE.rglob("Dockerfile")}
    assert included == files


@pytest.fixture
def with_example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The service of docs/add-a-service.md is there, as if its files had been copied."""
    monkeypatch.setattr(
        components.services,
        "__path__",
        [*components.services.__path__, str(EXAMPLE / "components" / "services")],
    )
    assert '    "visits": Entry(version="1"),\n' in (ROOT / "docs" / "add-a-service.md").read_text()
    monkeypatch.setitem(images.CATALOGUE, "visits", images.Entry(version="1"))
    caches = (components.services.registry, settings_model)
    for cache in caches:
        cache.cache_clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("with_example")
def test_example_service() -> None:
    graph = platform({"postgres": {}, "visits": {"greeting": "Hello"}})
    container = graph.container("visits")
    assert container.get("envs") == ["GREETING=Hello", "TZ=UTC"]
    assert PLANTED not in " ".join(plain_texts(container.inputs))
    waits = graph.waits_for(container)
    assert graph.named("postgres-setup").urn in waits
    assert graph.outputs["urls"]["visits"]["url"] == "https://visits.data.localhost/"
    assert set(bare(graph.outputs["credentials"])["visits"]) == {"reset"}


@pytest.mark.usefixtures("with_example")
def test_example_needs_postgres() -> None:
    users = [{"name": "admin", "role": "admin"}]
    with pytest.raises(SettingsError) as error:
        load({"users": users, "visits": {}}, "Pulumi.dev.yaml")
    assert "needs postgres, which is off" in str(error.value)
