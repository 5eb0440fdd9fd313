"""Static rules for every Dockerfile below images/; each failure names the file, the line and the fix."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGES = Path(__file__).resolve().parents[2] / "images"
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))

BUILD_ONLY = {"fetch", "go-build"}
"""Images that are only ever a stage of others: they may stay root and hold a toolchain."""

MOUNTS = {
    "apt": {"/var/cache/apt", "/var/lib/apt/lists"},
    "pip": {"/root/.cache/pip"},
    "go": {"/go/mod", "/go/cache"},
}
USES = {
    "apt": re.compile(r"\bapt-install\b|\bapt(-get)? (\S+ )*install\b"),
    "pip": re.compile(r"\bpip3? (install|download)\b"),
    "go": re.compile(r"\bgo (build|install|mod download)\b|/src/build\b"),
}
BUILD_TOOLS = re.compile(
    r"^(build-essential|gcc.*|g\+\+.*|clang.*|make|cmake|golang.*|python3-pip|git|.*-dev)$"
)
SECRET = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|API_?KEY|PRIVATE", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    """One instruction with its continuation lines joined and the stage that it belongs to."""

    line: int
    stage: int
    word: str
    text: str

    @property
    def where(self) -> str:
        command = re.sub(r"--mount=\S+\s+", "", self.text)
        return f"line {self.line}: {self.word} {command[:60]}"

    def mounts(self, kind: str) -> list[dict[str, str]]:
        found = [
            dict(item.partition("=")[::2] for item in mount.split(","))
            for mount in re.findall(r"--mount=(\S+)", self.text)
        ]
        return [mount for mount in found if mount["type"] == kind]


def parse(path: Path) -> list[Instruction]:
    instructions: list[Instruction] = []
    stage, pending, start = -1, "", 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start if pending else number
        pending += line.rstrip().removesuffix("\\").strip() + " "
        if line.rstrip().endswith("\\"):
            continue
        word, _, text = pending.strip().partition(" ")
        stage += word.upper() == "FROM"
        instructions.append(Instruction(start, stage, word.upper(), text.strip()))
        pending = ""
    return instructions


@dataclass(frozen=True)
class Image:
    path: Path

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def all(self) -> list[Instruction]:
        return parse(self.path)

    def named(self, *words: str) -> list[Instruction]:
        return [item for item in self.all if item.word in words]

    def final(self, *words: str) -> list[Instruction]:
        last = max(item.stage for item in self.all)
        return [item for item in self.named(*words) if item.stage == last]

    def label(self, name: str) -> str | None:
        for item in self.final("LABEL"):
            found = re.search(rf'{re.escape(name)}="([^"]*)"', item.text)
            if found:
                return found.group(1)
        return None


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
def image(request: pytest.FixtureRequest) -> Image:
    return Image(request.param)


def check(image: Image, problems: list[str]) -> None:
    if problems:
        pytest.fail(
            f"{image.path.relative_to(IMAGES.parent)}:\n" + "\n".join(f"  {p}" for p in problems),
            pytrace=False,
        )


def test_there_are_images() -> None:
    assert {"base", "postgres", "nginx", "minio"} <= {path.parent.name for path in DOCKERFILES}


def test_no_frontend_is_fetched_from_a_registry(image: Image) -> None:
    lines = image.path.read_text().splitlines()
    check(
        image,
        [
            f"line {n}: a syntax line makes BuildKit fetch a frontend from a registry: remove it"
            for n, line in enumerate(lines, 1)
            if re.match(r"#\s*syntax\s*=", line)
        ],
    )


def test_runs_as_a_number_other_than_zero(image: Image) -> None:
    if image.name in BUILD_ONLY:
        pytest.skip("build-only")
    users = image.final("USER")
    last = users[-1].text if users else "(none)"
    if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", last):
        check(
            image, [f"the final stage ends as USER {last}: give a number other than 0, as in USER 1000:1000"]
        )


def test_bases_are_pinned(image: Image) -> None:
    problems = []
    stages: set[str] = set()
    defaults = dict(item.text.partition("=")[::2] for item in image.named("ARG") if item.stage == -1)
    for item in image.named("FROM"):
        source, _, rest = item.text.partition(" ")
        argument = re.fullmatch(r"\$\{(\w+)\}", source)
        if argument:
            source = defaults.get(argument.group(1), "")
        tag = source.rpartition("/")[2].partition(":")[2]
        if source not in stages and (not tag or tag.startswith("latest")):
            problems.append(f"{item.where}: {source or 'no default'} has no exact tag")
        stages.add(rest.split()[-1] if rest else "")
    problems += [f"{i.where}: 'latest' is no version" for i in image.all if ":latest" in i.text]
    check(image, problems)


def test_nothing_is_downloaded_past_a_package_client(image: Image) -> None:
    problems = [
        f"{i.where}: take it from a package registry, with its checksum"
        for i in image.named("RUN")
        if re.search(r"\b(curl|wget)\b.*\bhttps?:|\b(curl|wget)\b[^&;]*\|\s*(ba|da)?sh\b", i.text)
    ]
    problems += [f"{i.where}: ADD fetches and unpacks silently; use COPY" for i in image.named("ADD")]
    check(image, problems)


@pytest.mark.parametrize("tool", sorted(USES))
def test_package_caches_are_mounts_and_trust_the_extra_ca(image: Image, tool: str) -> None:
    problems = []
    for item in image.named("RUN"):
        if not USES[tool].search(item.text):
            continue
        caches = item.mounts("cache")
        for target in sorted(MOUNTS[tool] - {mount.get("target", "") for mount in caches}):
            problems.append(f"{item.where}: {tool} needs --mount=type=cache,id=...,target={target}")
        problems += [
            f"{item.where}: cache mount {mount.get('target')} needs an id, else each image has its own"
            for mount in caches
            if not mount.get("id", "").startswith("millrace-")
        ]
        binds = {(mount.get("source"), mount.get("target")) for mount in item.mounts("bind")}
        for source in ("ca", "common"):
            if (source, f"/run/{source}") not in binds:
                problems.append(f"{item.where}: needs --mount=type=bind,source={source},target=/run/{source}")
        helper = "apt-install" if tool == "apt" else "with-ca"
        if f"/run/common/{helper}" not in item.text:
            problems.append(f"{item.where}: run it through /run/common/{helper}")
    check(image, problems)


def test_downloads_are_pinned_and_verified(image: Image) -> None:
    problems = [
        f"{i.where}: pip needs --require-hashes and -r FILE"
        for i in image.named("RUN")
        if USES["pip"].search(i.text) and not ("--require-hashes" in i.text and " -r " in i.text)
    ]
    for module in sorted(image.path.parent.rglob("go.mod")):
        folder = module.parent.relative_to(IMAGES)
        required = re.findall(r"^\s*(?:require )?(\S+) (v\S+)", module.read_text(), re.MULTILINE)
        sums_file = module.with_name("go.sum")
        sums = sums_file.read_text() if sums_file.exists() else ""
        replaced = set(re.findall(r"^\s*(\S+) => ", module.read_text(), re.MULTILINE))
        problems += [
            f"{folder}/go.sum lacks {name} {version}: run 'go mod tidy' there"
            for name, version in required
            if name not in replaced and f"{name} {version}/go.mod h1:" not in sums
        ]
    check(image, problems)


def test_label_tells_the_version_that_is_built(image: Image) -> None:
    problems = [
        f"the final stage needs LABEL org.opencontainers.image.{name}"
        for name in ("title", "description", "version")
        if not image.label(f"org.opencontainers.image.{name}")
    ]
    module = image.path.parent / "go.mod"
    tool = (
        re.search(r"^\s*tool \(?\s*(\S+?)/cmd/", module.read_text(), re.MULTILINE)
        if module.exists()
        else None
    )
    if tool:
        pinned = re.search(rf"{re.escape(tool.group(1))} v(\S+)", module.read_text())
        version = image.label("org.opencontainers.image.version")
        if pinned is None or pinned.group(1) != version:
            problems.append(f"version label {version} differs from go.mod's {pinned and pinned.group(1)}")
    check(image, problems)


def test_final_stage_has_no_build_tools(image: Image) -> None:
    if image.name in BUILD_ONLY:
        pytest.skip("build-only")
    problems = []
    for item in image.final("RUN"):
        for packages in re.findall(r"/run/common/apt-install ([^&;|]*)", item.text):
            problems += [
                f"{item.where}: {package} belongs in an earlier stage"
                for package in packages.split()
                if BUILD_TOOLS.match(package)
            ]
    check(image, problems)


def test_leaves_health_and_data_to_the_program(image: Image) -> None:
    reasons = {
        "HEALTHCHECK": "the program sets the probe",
        "VOLUME": "it makes an anonymous volume that outlives the stack; the program mounts named ones",
        "ONBUILD": "it hides build steps from the images on top",
        "ENTRYPOINT": "start commands are explicit",
    }
    check(image, [f"{item.where}: remove it: {reasons[item.word]}" for item in image.named(*reasons)])


def test_no_secret_in_arguments_or_environment(image: Image) -> None:
    def names() -> Iterator[tuple[Instruction, str]]:
        for item in image.named("ARG", "ENV", "LABEL"):
            for name in re.findall(r"([\w.]+)(?==|$)", item.text):
                yield item, name

    problems = [
        f"{item.where}: {name} would stay in the image" for item, name in names() if SECRET.search(name)
    ]
    check(image, problems)


@pytest.mark.parametrize("script", sorted((IMAGES / "common").iterdir()), ids=lambda path: path.name)
def test_shared_scripts_are_posix_shell(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    result = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_extra_ca_bundle_is_never_committed() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "images/ca"], cwd=IMAGES.parent, capture_output=True, text=True, check=True
    )
    assert tracked.stdout.split() in ([], ["images/ca/.gitkeep"])
