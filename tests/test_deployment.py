"""The container files agree with each other and with the program: settings, paths, ports, commands, versions, waits."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from sqlalchemy import make_url
from typer.main import get_command

from app.api.routes import health
from app.cli import app as command_line
from app.install import CPU_TORCH
from app.serve import END_SECONDS
from app.settings import Settings
from tests.dockerfile import read_dockerfile
from tests.import_rule import ROOT

IMAGE = read_dockerfile(ROOT / "Dockerfile")
COMPOSITION: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSITION["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("selfspec")}
APIS = {name: service for name, service in OURS.items() if service.get("command") == ["api"]}
WORKERS = {name: service for name, service in OURS.items() if service.get("command") == ["worker"]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    """What a container of ours sees: the image's environment, then its own, with every ``${NAME:-default}`` unset."""
    own = {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in service["environment"].items()}
    return {**IMAGE.environment, **own}


def seconds(text: str) -> float:
    """``1m30s`` → 90."""
    return sum(
        float(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"([\d.]+)([smh])", text)
    )


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_is_a_setting_and_its_value_is_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {key: value for key, value in settings_of(OURS[name]).items() if key.startswith("SELFSPEC_")}
    assert {key.removeprefix("SELFSPEC_").lower() for key in ours} <= set(Settings.model_fields)
    for key, value in ours.items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert str(settings.data_dir) == "/data"
    assert str(settings.resolved_models_dir) == "/models"
    assert settings.host == "0.0.0.0"  # a container that listens on its loopback answers nobody


def test_what_is_kept_lies_in_volumes_that_the_image_prepares() -> None:
    """A folder that is no volume is lost with the container; one that the image has not made belongs to root."""
    prepared = set(IMAGE.last("VOLUME").split())
    assert prepared == {"/data", "/models"}
    [folders] = [line for rest in IMAGE.all("RUN") for line in rest.split("&&") if "install --directory" in line]
    assert prepared <= set(folders.split())
    assert "--owner selfspec" in folders
    assert any(IMAGE.environment["HF_HOME"].startswith(f"{folder}/") for folder in prepared)
    for service in OURS.values():
        mounted = dict(volume.split(":") for volume in service["volumes"])
        assert set(mounted.values()) == prepared
        assert set(mounted) <= set(COMPOSITION["volumes"])


def test_postgres_and_redis_keep_what_they_have_in_volumes() -> None:
    kept = {volume.split(":")[0] for name in ("postgres", "redis") for volume in SERVICES[name]["volumes"]}
    assert len(kept) == 2
    assert kept <= set(COMPOSITION["volumes"])
    assert "--appendonly" in SERVICES["redis"]["command"]


def test_the_urls_name_the_services_and_their_accounts() -> None:
    for service in OURS.values():
        database, broker = (make_url(settings_of(service)[f"SELFSPEC_{name}_URL"]) for name in ("DATABASE", "BROKER"))
        account = SERVICES["postgres"]["environment"]
        assert (database.host, database.port, broker.host, broker.port) == ("postgres", 5432, "redis", 6379)
        assert (database.username, database.password) == (account["POSTGRES_USER"], account["POSTGRES_PASSWORD"])
        assert database.database == account.get("POSTGRES_DB", account["POSTGRES_USER"])


def test_the_image_has_the_drivers_of_the_urls() -> None:
    """It installs the lock, all of it; the extras are what the URLs of the composition need."""
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert any("--requirement /src/requirements.lock" in line for _, line in read_all("RUN"))
    for extra in ("postgres", "redis"):
        for text in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(text)
            for name in (requirement.name, *(f"{requirement.name}-{part}" for part in requirement.extras)):
                assert re.search(rf"^{re.escape(name)}==", locked, re.MULTILINE), name


def read_all(word: str) -> list[tuple[str, str]]:
    """Every such instruction of every stage."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return re.findall(rf"^({word}) (.*)$", text, re.MULTILINE)


def test_what_is_copied_is_sent_to_the_builder() -> None:
    """.dockerignore lets through what the wheel is made of, and neither data nor secrets."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    def is_sent(path: str) -> bool:
        sent = True
        for rule in rules:
            if fnmatch.fnmatch(path, rule.removeprefix("!")):
                sent = rule.startswith("!")
        return sent

    needed = {"pyproject.toml", "requirements.lock", "app", "migrations", "worker", PROJECT["readme"]}
    assert {path for path in needed if not is_sent(path)} == set()
    assert all(is_sent(path) for path in PROJECT["license-files"])
    assert not any(is_sent(path) for path in (".git", ".env", ".venv", "var", "tests"))


def test_every_command_is_one_of_the_command_line() -> None:
    assert IMAGE.command("ENTRYPOINT") == ["selfspec"]
    assert PROJECT["scripts"] == {"selfspec": "app.cli:main"}
    given = [IMAGE.command("CMD"), *(service["command"] for service in OURS.values() if "command" in service)]
    checks = [service["healthcheck"]["test"] for service in WORKERS.values()]
    given += [words[2:] for words in checks if words[:2] == ["CMD", "selfspec"]]
    given += [words.split() for words in re.findall(r"selfspec ([a-z -]+)", SERVICES["prepare"]["entrypoint"][-1])]
    assert ["migrate"] in given
    for words in given:
        assert is_command(words), words


def is_command(words: list[str]) -> bool:
    """Whether the command line knows these words and options."""
    command: Any = get_command(command_line)
    for word in words:
        if word.startswith("--"):
            if not any(word in option.opts for option in command.params):
                return False
        elif word not in getattr(command, "commands", {}):
            return False
        else:
            command = command.commands[word]
    return not hasattr(command, "commands")


def test_each_profile_is_a_whole_service() -> None:
    for profile in ("cpu", "gpu"):
        started = [service["command"] for service in OURS.values() if service.get("profiles") == [profile]]
        assert sorted(started) == [["api"], ["worker"]]
    always = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert always == {"prepare", "postgres", "redis"}
    for name, service in OURS.items():
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert [device["driver"] for device in devices] == (["nvidia"] if name.endswith("-gpu") else [])


def test_nobody_starts_before_what_he_needs() -> None:
    for service in (*APIS.values(), *WORKERS.values()):
        assert service["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
    needed = SERVICES["prepare"]["depends_on"]
    assert needed == {name: {"condition": "service_healthy"} for name in ("postgres", "redis")}
    assert SERVICES["prepare"]["restart"] == "no"


def test_ports_agree() -> None:
    port = IMAGE.environment["SELFSPEC_PORT"]
    assert IMAGE.all("EXPOSE") == [port]
    for service in APIS.values():
        assert settings_of(service)["SELFSPEC_PORT"] == port
        [published] = service["ports"]
        assert published.startswith("127.0.0.1:")  # it has no login
        assert published.endswith(f":{port}")
    assert not any("ports" in service for name, service in SERVICES.items() if name not in APIS)


def test_health_checks_ask_what_there_is_and_give_it_time() -> None:
    routes = {route.path for route in health.router.routes}  # type: ignore[attr-defined]
    assert {name for name in SERVICES if "healthcheck" in SERVICES[name]} == SERVICES.keys() - {"prepare"}
    for service in APIS.values():
        port, path, timeout = re.findall(
            r"127\.0\.0\.1:(\d+)(/\w+)', timeout=(\d+)", service["healthcheck"]["test"][-1]
        )[0]
        assert (port, path) == (IMAGE.environment["SELFSPEC_PORT"], "/ready")
        assert path in routes
        assert float(timeout) < seconds(service["healthcheck"]["timeout"])


def test_containers_are_given_the_time_that_their_end_takes() -> None:
    for service in APIS.values():
        assert seconds(service["stop_grace_period"]) >= Settings.model_fields["drain_s"].default + END_SECONDS
    for service in WORKERS.values():
        assert seconds(service["stop_grace_period"]) >= END_SECONDS
        assert service["init"] is True


def test_the_image_is_made_in_stages_and_runs_as_nobody_special() -> None:
    assert IMAGE.num_stages >= 2
    user = IMAGE.last("USER")
    assert user not in ("root", "0")
    assert any(f"useradd --create-home --uid 10001 {user}" in line for line in IMAGE.all("RUN"))


def test_the_versions_are_those_of_the_project() -> None:
    python = IMAGE.arguments["PYTHON"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    assert IMAGE.arguments["TORCH"] == CPU_TORCH


def test_docker_reads_the_composition() -> None:
    """Where Docker and its Compose are here; it needs no daemon for this."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("docker compose is not installed")
    done = subprocess.run(
        ["docker", "compose", "--profile", "cpu", "--profile", "gpu", "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
