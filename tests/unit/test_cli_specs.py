"""Spec files: JSON and YAML mean the same, ``--set`` changes them, and complaints name the line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from ascribe.cli.specs import read_spec
from ascribe.spec import JobSpec
from tests.support.fake_api import JOB_ID, SPEC, FakeApi, job, problem
from tests.unit.test_cli import run

TEXT = """\
name: topics-noise
model: {base: minilm, adapter: topics-lora}
train:
  source: &file
    kind: file
    path: topics/train.jsonl
validation:
  source:
    kind: inline
    rows:
      - {id: q1, text: undo a commit, label: coding}
curvature: {kind: gfim}
damping:
  relative: 0.1
solver:
  kind: schulz
"""


@pytest.fixture
def spec_file(tmp_path: Path) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text(TEXT)
    return str(path)


def write(folder: Path, text: str, name: str = "spec.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_yaml_and_json_are_the_same_request(spec_file: str) -> None:
    api = FakeApi(job())
    assert run(api, "submit", spec_file).stdout == JOB_ID + "\n"
    assert run(api, "submit", "-", stdin=TEXT).exit_code == 0
    assert run(api, "submit", "-", stdin=json.dumps(SPEC)).exit_code == 0
    assert api.bodies == [SPEC, SPEC, SPEC]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-6", 1e-6),
        ("-2.5", -2.5),
        ("10", 10),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("2026-01-01", "2026-01-01"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        (".inf", ".inf"),
        ("'1'", "1"),
    ],
)
def test_a_plain_scalar_is_what_it_is_in_json(tmp_path: Path, scalar: str, value: object) -> None:
    read = read_spec(write(tmp_path, f"seed: {scalar}\n")).document["seed"]
    assert read == value
    assert type(read) is type(value)


def test_set_changes_one_field_after_another(spec_file: str) -> None:
    api = FakeApi(job())
    changes = [
        "solver.kind=cholesky",
        'damping={"absolute": 1e-3}',
        "validation.source.rows.0.label=ai",
        "output.self_influence=true",
    ]
    options = [part for change in changes for part in ("--set", change)]
    assert run(api, "submit", spec_file, *options).exit_code == 0
    body = api.bodies[0]
    assert body["solver"] == {"kind": "cholesky"}
    assert body["damping"] == {"absolute": 0.001}
    assert body["validation"]["source"]["rows"][0]["label"] == "ai"
    assert body["output"] == {"self_influence": True}
    assert body["model"] == SPEC["model"]


@pytest.mark.parametrize("change", ["solver", "=1", "a..b=1", "name.x=1", "validation.source.rows.1.label=x"])
def test_a_change_that_has_no_place_is_a_wrong_command_line(spec_file: str, change: str) -> None:
    api = FakeApi(job())
    result = run(api, "submit", spec_file, "--set", change)
    assert result.exit_code == 2
    assert "--set" in result.stderr
    assert api.requests == []


@pytest.mark.parametrize("command", ["submit", "validate"])
def test_what_the_api_refuses_is_shown_with_the_files_own_lines(spec_file: str, command: str) -> None:
    result = run(FakeApi(problem(422)), command, spec_file)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Invalid input: 1 problem",
        f"  {spec_file}:16 /solver/kind: goes with schulz",
        "  request id: req_1",
    ]


def test_what_set_brought_is_blamed_on_it(spec_file: str) -> None:
    result = run(FakeApi(problem(422)), "submit", spec_file, "--set", "solver.kind=cholesky")
    assert "  --set solver.kind /solver/kind: goes with schulz" in result.stderr.splitlines()


def test_places_are_of_the_nearest_value_that_the_file_has(spec_file: str, tmp_path: Path) -> None:
    spec = read_spec(spec_file)
    assert spec.place("/validation/source/rows/0/label") == f"{spec_file}:11 /validation/source/rows/0/label"
    assert spec.place("/damping/absolute") == f"{spec_file}:14 /damping/absolute"
    assert spec.place("/curvature") == f"{spec_file}:12 /curvature"
    assert spec.place("/seed") == f"{spec_file} /seed"  # not in the file
    assert spec.place("") == f"{spec_file} /"
    assert spec.place("/header/Idempotency-Key") == "/header/Idempotency-Key"  # of the request, not the file
    indented = write(tmp_path, json.dumps(SPEC, indent=2), "spec.json")
    line = next(i for i, text in enumerate(json.dumps(SPEC, indent=2).splitlines(), 1) if '"schulz"' in text)
    assert read_spec(indented).place("/solver/kind") == f"{indented}:{line} /solver/kind"


def test_without_pyyaml_json_works_and_yaml_names_the_extra(
    spec_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "ascribe.cli.yaml_text", raising=False)
    monkeypatch.delattr("ascribe.cli.yaml_text", raising=False)
    result = run(FakeApi(job()), "submit", spec_file)
    assert result.exit_code == 2
    assert "ascribe[yaml]" in " ".join(result.stderr.split())
    plain = write(tmp_path, json.dumps(SPEC), "spec.json")
    result = run(FakeApi(problem(422)), "submit", plain)
    assert f"{plain} /solver/kind: goes with schulz" in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("spec.yaml", "solver: [1", "not YAML"),
        ("spec.yaml", "a: 1\n---\nb: 2\n", "not YAML"),
        ("spec.yaml", "- 1\n", "an object of named fields"),
        ("spec.yaml", "", "an object of named fields"),
        ("spec.yaml", "solver: 1\nseed: 2\nsolver: 3\n", "/solver is there twice, in lines 1 and 3"),
        ("spec.yaml", "a: !!python/object/apply:os.getcwd []\n", "not YAML"),
        ("spec.yaml", "a: &x [*x]\n", "no form for"),
        ("spec.yaml", "a: !!timestamp 2026-01-01\n", "no form for"),
        ("spec.yaml", "a: \x07\n", "not YAML"),
        ("spec.yaml", "[" * 100_000, "nested too deeply"),
        ("spec.json", '{"a": 1, "a": 2}', "field a is there twice"),
        ("spec.json", '{"a": Infinity}', "no form for"),
        ("spec.json", '{"a": 1e999}', "no form for"),
        ("spec.json", "{", "not JSON"),
        ("spec.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_spec_says_why_and_asks_nobody(tmp_path: Path, name: str, text: str, words: str) -> None:
    api = FakeApi(job())
    result = run(api, "submit", write(tmp_path, text, name))
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output
    assert api.requests == []


def test_other_bytes_and_no_file_are_said_too(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    for name in ("bytes.json", "missing.yaml", "."):
        assert run(FakeApi(job()), "submit", str(tmp_path / name)).exit_code == 2


def test_init_writes_a_spec_that_is_one(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    assert run(FakeApi(job()), "init", str(path)).exit_code == 0
    JobSpec.model_validate(read_spec(str(path)).document)
    JobSpec.model_validate(read_spec(str(path), ["solver.kind=cholesky"]).document)
    assert JobSpec.model_validate(yaml.safe_load(path.read_text()))
    again = run(FakeApi(job()), "init", str(path))
    assert again.exit_code == 2
    assert "there already" in again.stderr
    assert run(FakeApi(job()), "init", "-").stdout == path.read_text()
