"""What deploy/ and docker-compose.yml say, held against the code: it is read here and run nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ascribe.settings import ServiceSettings, WorkerSettings
from service.__main__ import STOP_SECONDS
from service.metrics.collector import LedgerCollector
from tests.support.ledger import POLICY, MemoryBench

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ServiceSettings.model_fields | WorkerSettings.model_fields
DOCUMENTS = [
    document
    for name in ("kubernetes.yaml", "keda.yaml")
    for document in yaml.safe_load_all((ROOT / "deploy" / name).read_text())
]
DEPLOYMENTS = {
    one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in DOCUMENTS if one["kind"] == "Deployment"
}


def _environment(name: str) -> dict[str, str]:
    (container,) = DEPLOYMENTS[name]["containers"]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_variable_is_one_of_ours(name: str) -> None:
    given = _environment(name)
    assert {variable.removeprefix("ASCRIBE_").lower() for variable in given} <= SETTINGS.keys()
    if "ASCRIBE_QUEUE" in given:
        plain = {key.removeprefix("ASCRIBE_").lower(): value for key, value in given.items() if value}
        assert WorkerSettings.model_validate(plain).queue == name.rpartition("-")[2]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_volume_is_mounted_and_every_mount_is_a_volume(name: str) -> None:
    (container,) = DEPLOYMENTS[name]["containers"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in DEPLOYMENTS[name]["volumes"]}


def test_a_pod_has_longer_than_the_service_takes_to_stop() -> None:
    pod = DEPLOYMENTS["ascribe-api"]
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + STOP_SECONDS
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert _seconds(compose["api"]["stop_grace_period"]) > STOP_SECONDS


def test_workers_are_scaled_by_a_figure_there_is() -> None:
    known = set(_queue_figures())
    scaled = [one for one in DOCUMENTS if one["kind"] == "ScaledObject"]
    for one in scaled:
        assert one["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS
        (trigger,) = one["spec"]["triggers"]
        figure = re.search(r'(ascribe_\w+)\{queue="(\w+)"\}', trigger["metadata"]["query"])
        assert figure is not None
        assert figure.groups() in known
    assert len(scaled) == 2


def _queue_figures() -> Iterator[tuple[str, str]]:
    for family in LedgerCollector(MemoryBench(POLICY).ledger).collect():
        sample: Any
        for sample in family.samples:
            if "queue" in sample.labels:
                yield sample.name, sample.labels["queue"]
