"""deploy/: its seccomp profiles are Docker's default and three calls more; the rest parses, and names files
that exist. That it works is tried by hand: deploy/README.md says what was, and how."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IO_URING = {
    "names": ["io_uring_enter", "io_uring_register", "io_uring_setup"],
    "action": "SCMP_ACT_ALLOW",
}
README = (DEPLOY / "README.md").read_text()


def default_profile() -> dict[str, Any]:
    profile: dict[str, Any] = json.loads((DEPLOY / "seccomp.json").read_text())
    profile["syscalls"].remove(IO_URING)
    return profile


def made_by_script(tmp_path: Path, *arguments: str) -> str:
    (tmp_path / "default.json").write_text(json.dumps(default_profile()))
    command = [sys.executable, str(DEPLOY / "profiles.py"), *arguments, str(tmp_path / "default.json")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def documents(name: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


# The profiles


def test_the_profile_is_dockers_default_and_three_calls() -> None:
    as_docker_writes_it = json.dumps(default_profile(), indent="\t").encode()
    assert hashlib.sha256(as_docker_writes_it).hexdigest() in README


def test_the_profiles_are_what_the_script_makes(tmp_path: Path) -> None:
    assert made_by_script(tmp_path) == (DEPLOY / "seccomp.json").read_text()
    assert made_by_script(tmp_path, "--oci") == (DEPLOY / "seccomp-oci.json").read_text()


def test_the_profile_without_conditions_allows_no_call_that_takes_a_capability() -> None:
    by_capability, always = set(), set()
    for rule in default_profile()["syscalls"]:
        (by_capability if "caps" in rule.get("includes", {}) else always).update(rule["names"])
    oci = json.loads((DEPLOY / "seccomp-oci.json").read_text())
    assert not any({"includes", "excludes"} & rule.keys() for rule in oci["syscalls"])
    allowed = {
        name for rule in oci["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]
    }
    assert {"bpf", "mount", "perf_event_open", "setns"} <= by_capability - always
    assert not allowed & (by_capability - always)
    assert {*IO_URING["names"], "arch_prctl", "openat"} <= allowed
    assert (oci["defaultAction"], oci["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)


# The rest


def test_compose() -> None:
    (compose,) = documents("compose.yaml")
    service = compose["services"]["web"]
    build = service["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    profiles = [option.partition(":")[2] for option in service["security_opt"] if "seccomp:" in option]
    assert profiles == ["seccomp.json"]
    assert service["ulimits"] == {"memlock": 8388608}


def test_kubernetes() -> None:
    deployment, service = documents("kubernetes.yaml")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}  # as seccomp-oci.json takes it
    assert pod["spec"]["securityContext"]["seccompProfile"] == {
        "type": "Localhost",
        "localhostProfile": "trio-uring.json",
    }
    assert "/var/lib/kubelet/seccomp/trio-uring.json" in README
    ports = {port["name"] for port in container["ports"]}
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert all(probe == {"path": "/healthz", "port": "http"} for probe in probes)
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_image() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE)
    assert copied == ["dist/*.whl", "examples/hypercorn_app.py"]
    assert (ROOT / copied[1]).is_file()
    let_in = re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert let_in == copied
    assert "/healthz" in text


def test_unit(tmp_path: Path) -> None:
    unit = DEPLOY / "trio-uring.service"
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    service = parser["Service"]
    assert service["LimitMEMLOCK"] == "8M"
    assert {*IO_URING["names"], "@system-service"} == set(service["SystemCallFilter"].split())
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    program = service["ExecStart"].split()[0]
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(program, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
