"""Everything that can be wrong with a request: each is a problem that says where, and none repeats what was sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Api, StartService, problem
from tests.support.handmade import LABELS, adapter_shapes, spec_body, write_safetensors

MARK = "s3cr3t"


def inline(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"source": {"kind": "inline", "rows": list(rows)}}


def file(path: str) -> dict[str, Any]:
    return {"source": {"kind": "file", "path": path}}


ROW = {"text": "undo a commit", "label": "coding"}
FISHER = {"kind": "empirical_fisher"}
LISSA = {"kind": "lissa", "tolerance": 1e-2, "max_steps": 100}

MODULES = {"select": "modules", "modules": ["encoder.layer.0.*"]}

WRONG_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"sead": 1}, "unknown_field", "/sead"),
    ({"solver": {"kind": "schulz", "tolerence": MARK}}, "unknown_field", "/solver/tolerence"),
    ({"solver": {"kind": "schulz", "tolerance": MARK}}, "float_type", "/solver/tolerance"),
    ({"solver": {"kind": MARK}}, "union_tag_invalid", "/solver"),
    ({"solver": {}}, "union_tag_not_found", "/solver"),
    ({"solver": MARK}, "model_attributes_type", "/solver"),
    ({"solver": {"kind": "lissa", "step_size": MARK}, "curvature": FISHER}, "literal_error", "/solver/step_size"),
    ({"solver": {"kind": "datainf"}}, "solver_curvature_mismatch", "/solver/kind"),
    ({"curvature": {"kind": "none"}}, "solver_curvature_mismatch", "/solver/kind"),
    ({"curvature": {"kind": "none"}, "solver": {"kind": "identity"}, "damping": {"relative": 1}},
     "damping_without_curvature", "/damping"),
    ({"damping": {"relative": 0}}, "greater_than_equal", "/damping/relative"),
    ({"damping": {"relative": 1, "absolute": 1}}, "damping_form", "/damping"),
    ({"damping": {"relative": 1, "extra": MARK}}, "unknown_field", "/damping/extra"),
    ({"curvature": FISHER, "solver": LISSA, "damping": {"relative_to_largest": 0.01}},
     "plan_exceeds_steps", "/damping/relative_to_largest"),
    ({"curvature": FISHER, "solver": LISSA, "output": {"self_influence": True}},
     "self_influence_with_iteration", "/output/self_influence"),
    ({"labels": {MARK + " ": "x"}}, "string_pattern_mismatch", f"/labels/{MARK} "),
    ({"seed": MARK}, "int_type", "/seed"),
    ({"name": ""}, "string_too_short", "/name"),
    ({"train": inline()}, "too_short", "/train/source/rows"),
    ({"validation": inline()}, "too_short", "/validation/source/rows"),
    ({"train": inline({"text": "no label"})}, "missing", "/train/source/rows/0/label"),
    ({"train": inline({"label": 1})}, "missing", "/train/source/rows/0/text"),
    ({"train": inline({"text": "t", "label": [MARK]})}, "int_type", "/train/source/rows/0/label"),
    ({"train": inline({"text": "t", "label": True})}, "int_type", "/train/source/rows/0/label"),
    ({"train": inline({**ROW, "id": "a"}, {**ROW, "id": "a"})}, "duplicate_id", "/train/source"),
    ({"train": inline({**ROW, "label": 3})}, "label_out_of_range", "/train/source/rows/0/label"),
    ({"train": inline(ROW, {**ROW, "label": MARK})}, "label_out_of_range", "/train/source/rows/1/label"),
    ({"train": inline({**ROW, "text": "  "})}, "missing_text", "/train/source/rows/0/text"),
    ({"train": inline({**ROW, "text": "\ud800"})}, "bad_text", "/train/source/rows/0/text"),
    ({"train": file(f"{MARK}/../../etc/passwd")}, "path_outside_root", "/train/source/path"),
    ({"train": file(f"/etc/{MARK}")}, "path_outside_root", "/train/source/path"),
    ({"train": file(f"{MARK}.jsonl")}, "not_found", "/train/source/path"),
    ({"train": file("topics")}, "not_a_file", "/train/source/path"),
    ({"model": {"base": MARK, "adapter": "topics-lora"}}, "not_found", "/model/base"),
    ({"model": {"base": "../minilm", "adapter": "topics-lora"}}, "path_outside_root", "/model/base"),
    ({"model": {"base": "minilm", "adapter": "topics"}}, "missing_file", "/model/adapter"),
    ({"model": {"base": "minilm"}}, "selection_without_adapter", "/parameters/select"),
    ({"parameters": MODULES}, "modules_with_adapter", "/parameters/select"),
    ({"parameters": {"select": "adapter", "modules": [MARK]}}, "modules_and_select", "/parameters/modules"),
    ({"model": {"base": "minilm"}, "parameters": {"select": "modules", "modules": [MARK]}},
     "no_such_module", "/parameters/modules/0"),
    ({"model": {"base": "minilm"}, "parameters": MODULES}, "no_trained_head", "/model/base"),
    ({"train": {"source": {"kind": "file", "path": "minilm/config.xml"}}}, "not_found", "/train/source/path"),
    ({"train": {"source": {"kind": "file", "path": "minilm/model.safetensors"}}},
     "unknown_format", "/train/source/format"),
    ({"train": {"source": {"kind": "file", "path": "topics/train.jsonl", "format": MARK}}},
     "literal_error", "/train/source/format"),
    ({"train": {"source": {"kind": "dataset", "id": MARK}}}, "string_pattern_mismatch", "/train/source/id"),
    ({"train": {"source": {"kind": "dataset", "id": "ds_" + "0" * 64}}}, "not_found", "/train/source/id"),
]  # fmt: skip


def test_a_bad_row_is_not_said_to_be_no_row(api: Api) -> None:
    rows = {"source": {"kind": "inline", "rows": [{"text": "x"}]}}
    errors = api.client.post("/v1/jobs", json=spec_body(train=rows)).json()["errors"]
    assert [(error["pointer"], error["code"]) for error in errors] == [("/train/source/rows/0/label", "missing")]


@pytest.mark.parametrize(("fields", "code", "pointer"), WRONG_FIELDS, ids=[f"{c}-{p}" for _, c, p in WRONG_FIELDS])
def test_wrong_field(api: Api, fields: dict[str, Any], code: str, pointer: str) -> None:
    response = api.post(**fields)
    problem(response, 422, code, pointer)
    # A field's own name may be in a pointer; a value is nowhere.
    assert MARK not in response.text.replace(pointer, "")
    dry = api.client.post("/v1/jobs:validate", content=json.dumps(spec_body(**fields)), headers=JSON)
    assert dry.json()["errors"] == response.json()["errors"]


def test_no_value_is_echoed(api: Api) -> None:
    """A marker in every value of the spec, at whatever depth, one at a time."""
    full = api.client.post("/v1/jobs:validate", json=spec_body()).json()
    assert full["valid"]
    body = spec_body(
        damping={"relative": 0.1},
        parameters={"select": "adapter"},
        output={"per_validation_row": True, "self_influence": True},
        seed=0,
    )
    body["solver"] |= {"tolerance": 1e-6, "start": "chebyshev"}
    refused = 0
    for path in _leaves(body):
        for value in (MARK, [MARK], {MARK: MARK}, f"../{MARK}"):
            changed = json.loads(json.dumps(body))
            _put(changed, path, value)
            response = api.client.post("/v1/jobs", json=changed)
            if response.status_code != 202:
                refused += 1
                assert response.status_code == 422
                assert MARK not in response.json()["detail"]
                assert not any(MARK in item["message"] for item in response.json()["errors"])
    assert refused > 50


def test_symlink_out_of_the_root(api: Api, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_text('{"text": "t", "label": 0}\n')
    (api.root / "link.jsonl").symlink_to(outside)
    problem(api.post(train=file("link.jsonl")), 422, "path_outside_root", "/train/source/path")


@pytest.mark.parametrize("folder", ["minilm", "topics-lora"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.pkl", "model.pt"])
def test_pickle_checkpoint(api: Api, folder: str, name: str) -> None:
    (api.root / folder / name).write_bytes(b"\x80\x04.")
    pointer = "/model/base" if folder == "minilm" else "/model/adapter"
    body = problem(api.post(), 422, "unsafe_checkpoint", pointer)
    assert body["code"] == "unsafe_checkpoint"


def test_adapter_that_does_not_fit(api: Api) -> None:
    write_safetensors(api.root / "topics-lora" / "adapter_model.safetensors", adapter_shapes(hidden=16))
    problem(api.post(), 422, "adapter_does_not_fit", "/model/adapter")


def test_no_trained_head(api: Api) -> None:
    shapes = {name: shape for name, shape in adapter_shapes().items() if "classifier" not in name}
    write_safetensors(api.root / "topics-lora" / "adapter_model.safetensors", shapes)
    problem(api.post(), 422, "no_trained_head", "/model/adapter")


@pytest.mark.parametrize("labels", [(0, 2), LABELS])
def test_labels_may_be_numbers_or_names(api: Api, labels: tuple[int | str, ...]) -> None:
    rows = [{"text": "t", "label": label} for label in labels]
    assert api.post(train=inline(*rows)).status_code == 202


def test_labels_are_not_both(api: Api) -> None:
    rows = [{"text": "t", "label": label} for label in (0, *LABELS)]
    problem(api.post(train=inline(*rows)), 422, "mixed_label_types", "/train/source/rows/1/label")


def test_too_many_cells_where_the_counts_are_known(start: StartService) -> None:
    client = start(max_cells=11)
    rows = inline(*[ROW] * 4)
    body = problem(client.post("/v1/jobs", json=spec_body(train=rows)), 422, "limit_exceeded")
    assert body["code"] == "limit_exceeded"
    fits = spec_body(train=rows, output={"per_validation_row": False})
    assert client.post("/v1/jobs", json=fits).status_code == 202
    # The rows of a file are not counted at submit; the dry run counts them.
    assert client.post("/v1/jobs", json=spec_body()).status_code == 202
    problem(client.post("/v1/jobs:validate", json=spec_body()), 422, "limit_exceeded")


def test_a_condition_that_float64_cannot_hold_ends_auto_and_no_named_solver(api: Api) -> None:
    fields = {"damping": {"relative_to_largest": 1e-12}, "solver": {"kind": "schulz"}}
    named = api.client.post("/v1/jobs:validate", json=spec_body(**fields))
    assert named.status_code == 200
    assert named.json()["plan"]["choice"] is None
    body = spec_body(**fields | {"solver": {"kind": "auto"}})
    assert "rounding" in problem(api.client.post("/v1/jobs:validate", json=body), 422, "limit_exceeded")["detail"]


def test_too_many_rows(start: StartService) -> None:
    client = start(max_rows=3)
    problem(client.post("/v1/jobs", json=spec_body(train=inline(*[ROW] * 4))), 422, "limit_exceeded", "/train/limit")


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"s3cr3t"', 422),
        (b'{"name": "\xff"}', 400),
        (b"\xff\xfe\x00", 400),
        (b"[" * 200_000, 400),
        (b'{"seed": NaN}', 422),
        (b'{"damping": {"relative": Infinity}}', 422),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400),
        (b'{"\\ud800": 1}', 422),
        (b'{"name": "\\ud800"}', 422),
        (b'{"' + b"a" * 10_000 + b'": 1}', 422),
    ],
)
def test_bodies_that_are_no_spec(api: Api, body: bytes, status: int) -> None:
    response = api.client.post("/v1/jobs", content=body, headers=JSON)
    problem(response, status, "bad_request" if status == 400 else "invalid_input")
    assert MARK not in response.text
    assert len(response.content) < 4000


@pytest.mark.parametrize(
    ("damping", "solver"),
    [({"relative": float("inf")}, {}), ({"relative": float("nan")}, {}), ({"relative": 1e-320}, {}),
     (None, {"tolerance": float("nan")}), (None, {"tolerance": 1e-320})],
)  # fmt: skip
def test_numbers_that_are_none(api: Api, damping: dict[str, float] | None, solver: dict[str, float]) -> None:
    body = json.dumps(spec_body(damping=damping, solver={"kind": "schulz", **solver}))
    problem(api.client.post("/v1/jobs", content=body, headers=JSON), 422, "invalid_input")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_only_json_is_taken(api: Api, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    response = api.client.post("/v1/jobs", content=json.dumps(spec_body()).encode(), headers=headers)
    problem(response, 415, "unsupported_media_type")


def test_charset_does_not_matter(api: Api) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert api.client.post("/v1/jobs", content=json.dumps(spec_body()), headers=headers).status_code == 202


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit(start: StartService, chunked: bool) -> None:
    client = start(max_body_bytes=2000)
    body = json.dumps(spec_body(name="x" * 3000)).encode()
    content = iter([body[:1000], body[1000:]]) if chunked else body
    problem(client.post("/v1/jobs", content=content, headers=JSON), 413, "body_too_large")


@pytest.mark.parametrize("key", ["", "x" * 256, "two words"])
def test_idempotency_keys_have_a_form(api: Api, key: str) -> None:
    response = api.client.post("/v1/jobs", json=spec_body(), headers={"Idempotency-Key": key})
    problem(response, 422, "invalid_input", "/header/Idempotency-Key")


def test_unknown_address_and_method(api: Api) -> None:
    problem(api.client.get(f"/v1/{MARK}"), 404, "not_found")
    response = api.client.put("/v1/jobs")
    problem(response, 405, "method_not_allowed")
    assert "POST" in response.headers["allow"]


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [leaf for key, child in items for leaf in _leaves(child, (*path, key))] if items else [path]


def _put(value: Any, path: tuple[str | int, ...], leaf: Any) -> None:
    *parents, last = path
    for key in parents:
        value = value[key]
    value[last] = leaf
