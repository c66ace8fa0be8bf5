"""The spec's own rules: what the fields alone can prove wrong, and what is filled in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from ascribe.lissa_bound import minimum_steps
from ascribe.result import MEAN, PLAIN_PRODUCT, SELF_INFLUENCE, TOP_REMOVED, TRAIN_LOSS, BlockDiagnostics, vector_names
from ascribe.spec import PAIRS, JobSpec, OutputSpec, RoleOfInverse
from ascribe.status import SolveStatus
from tests.support.handmade import spec_body
from worker.solvers.cholesky import Cholesky

SOLVERS = sorted({solver for solvers in PAIRS.values() for solver in solvers})


def parse(**fields: Any) -> JobSpec:
    return JobSpec.model_validate(spec_body(**fields))


def code(**fields: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        parse(**fields)
    return str(raised.value.errors()[0]["type"])


@pytest.mark.parametrize("curvature", PAIRS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_pairs(curvature: str, solver: str) -> None:
    fields = {"curvature": {"kind": curvature}, "solver": {"kind": solver}}
    if solver in PAIRS[curvature]:
        assert parse(**fields).solver.kind == solver
    else:
        assert code(**fields) == "solver_curvature_mismatch"


@pytest.mark.parametrize(
    ("curvature", "solver", "damping"),
    [
        ("gfim", "schulz", {"relative": 1.0}),
        ("empirical_fisher", "datainf", {"relative": 0.1}),
        ("empirical_fisher", "lissa", {"relative_to_largest": 0.005}),
        ("gauss_newton", "cg", {"relative_to_largest": 0.005}),
        ("gauss_newton", "astra", {"relative_to_largest": 0.02}),
        ("ekfac", "eigenbasis", {"relative": 0.1}),
        ("none", "identity", None),
    ],
)
def test_default_damping_is_stored(curvature: str, solver: str, damping: dict[str, float] | None) -> None:
    spec = parse(curvature={"kind": curvature}, solver={"kind": solver})
    assert spec.model_dump(mode="json")["damping"] == damping


@pytest.mark.parametrize("form", ["relative", "relative_to_largest", "absolute"])
def test_every_form_of_damping_survives_json(form: str) -> None:
    spec = parse(damping={form: 0.25})
    again = JobSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.model_dump(mode="json")["damping"] == {form: 0.25}


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), 1e-320])
def test_damping_is_a_positive_number(value: float) -> None:
    assert code(damping={"relative": value}) in {"greater_than_equal", "finite_number"}


@pytest.mark.parametrize("form", ["relative", "relative_to_largest", "absolute"])
def test_a_damping_path_survives_json_in_its_order(form: str) -> None:
    spec = parse(damping={form: [0.5, 0.25, 1.0]})
    assert spec.damping is not None
    assert (spec.damping.form, spec.damping.factors, spec.damping_count) == (form, (0.5, 0.25, 1.0), 3)
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(("path", "expected"), [([], "too_short"), ([0.1, 0.1], "duplicate_damping")])
def test_a_damping_path_has_values_and_each_once(path: list[float], expected: str) -> None:
    with pytest.raises(ValidationError) as raised:
        parse(damping={"relative": path})
    assert expected in {error["type"] for error in raised.value.errors()}


def test_every_value_of_a_path_is_checked_against_the_steps() -> None:
    lissa = {"curvature": {"kind": "empirical_fisher"}, "solver": {"kind": "lissa"}}
    assert code(**lissa, damping={"relative_to_largest": [0.1, 1e-9]}) == "plan_exceeds_steps"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"output": {"role_of_inverse": {}}, "curvature": {"kind": "none"}, "solver": {"kind": "identity"}},
         "role_without_inverse"),
        ({"output": {"self_influence": True}, "solver": {"kind": "cg"}}, "self_influence_with_iteration"),
        ({"solver": {"kind": "schulz", "start": "published", "warm_start": "0" * 64}}, "published_as_it_is"),
        ({"solver": {"kind": "schulz", "start": "published", "precision": "float32"}}, "published_as_it_is"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(fields: dict[str, Any], expected: str) -> None:
    assert code(**fields) == expected


def test_auto_promises_no_residual_below_what_cholesky_is_judged_by() -> None:
    parse(solver={"kind": "auto", "tolerance": Cholesky().tolerance})
    assert code(solver={"kind": "auto", "tolerance": 1e-9}) == "greater_than_equal"


def test_frozen_all_the_way() -> None:
    spec = parse()
    with pytest.raises(ValidationError):
        spec.model.base = "other"


@pytest.mark.parametrize("path", ["/etc/passwd", "~/x", "a/../b", "..", "a\\b", "a\0b"])
def test_paths_out_of_the_root(path: str) -> None:
    assert code(train={"source": {"kind": "file", "path": path}}) == "path_outside_root"


@pytest.mark.parametrize("path", ["a/b.jsonl", "..a/b..", "a b"])
def test_paths_below_the_root(path: str) -> None:
    parse(train={"source": {"kind": "file", "path": path}})


ALONE = {"base": "minilm"}
BOTH = {"base": "minilm", "adapter": "topics-lora"}


@pytest.mark.parametrize("modules", [["classifier"], ["a.*", "b"]])
def test_a_base_alone_and_its_modules(modules: list[str]) -> None:
    spec = parse(model=ALONE, parameters={"select": "modules", "modules": modules})
    assert spec.model.adapter is None
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("model", "parameters", "expected"),
    [
        (ALONE, {}, "selection_without_adapter"),
        (ALONE | {"adapter": None}, {"select": "adapter_and_head"}, "selection_without_adapter"),
        (BOTH, {"select": "modules", "modules": ["classifier"]}, "modules_with_adapter"),
        (BOTH, {"select": "adapter", "modules": ["classifier"]}, "modules_and_select"),
        (ALONE, {"select": "modules"}, "modules_and_select"),
        (ALONE, {"select": "modules", "modules": [""]}, "string_too_short"),
        (ALONE, {"select": "modules", "modules": ["x"] * 65}, "too_long"),
    ],
)
def test_selections_go_with_their_models(model: Any, parameters: Any, expected: str) -> None:
    assert code(model=model, parameters=parameters) == expected


@pytest.mark.parametrize("label", [True, 1.0, None])
def test_a_label_is_an_integer_or_a_name(label: object) -> None:
    source = {"kind": "inline", "rows": [{"text": "t", "label": label}]}
    assert code(train={"source": source}) == "int_type"


@pytest.mark.parametrize("tolerance", [1e-8, 1e-2, 0.9])
@pytest.mark.parametrize("max_steps", [1, 30, 5000])
def test_the_damping_that_a_refused_plan_names_is_accepted(tolerance: float, max_steps: int) -> None:
    lissa = {"kind": "lissa", "tolerance": tolerance, "max_steps": max_steps}
    fields = {"curvature": {"kind": "empirical_fisher"}, "solver": lissa}
    with pytest.raises(ValidationError) as raised:
        parse(**fields, damping={"relative_to_largest": 1e-9})
    message = str(raised.value.errors()[0]["msg"])
    assert str(minimum_steps(1e-9, tolerance)) in message
    if "no damping is large enough" in message:
        assert code(**fields, damping={"relative_to_largest": 1e30}) == "plan_exceeds_steps"
    else:
        named = float(message.split("raise it to ")[1].split()[0])
        parse(**fields, damping={"relative_to_largest": named})


def test_given_steps_are_the_callers_own() -> None:
    solver = {"kind": "lissa", "steps": 10}
    parse(curvature={"kind": "empirical_fisher"}, solver=solver, damping={"relative_to_largest": 1e-9})


def test_schema_is_good_enough_for_a_form() -> None:
    schema = JobSpec.model_json_schema()
    solver = schema["properties"]["solver"]
    assert solver["discriminator"]["propertyName"] == "kind"
    assert set(solver["discriminator"]["mapping"]) == set(SOLVERS)
    assert all(part.get("additionalProperties") is False for part in schema["$defs"].values() if "properties" in part)
    json.dumps(schema, allow_nan=False)


def test_vector_names() -> None:
    both = OutputSpec(per_validation_row=True, self_influence=True)
    assert vector_names(both, 2) == (MEAN, "validation:0", "validation:1", SELF_INFLUENCE, TRAIN_LOSS)
    assert vector_names(OutputSpec(per_validation_row=False), 2) == (MEAN, TRAIN_LOSS)
    path = vector_names(OutputSpec(role_of_inverse=RoleOfInverse()), 1, dampings=2)
    assert path[:4] == (MEAN, "validation:0", "mean@1", "validation:0@1")
    assert set(path[4:]) == {PLAIN_PRODUCT, TOP_REMOVED, TRAIN_LOSS}


def block(**fields: Any) -> BlockDiagnostics:
    given = {"condition_bound": 2.0, "relative_residual": 1e-7, **fields}
    return BlockDiagnostics(
        name="b",
        rank=1,
        long_side=1,
        status=SolveStatus.CONVERGED,
        damping=1,
        iterations=1,
        products=1,
        precision="float64",
        **given,
    )


@pytest.mark.parametrize("bound", [float("inf"), float("nan"), 2.0, None])
def test_a_bound_that_is_infinite_is_none(bound: float | None) -> None:
    stored = block(condition_bound=bound)
    assert BlockDiagnostics.model_validate_json(stored.model_dump_json()) == stored
    assert stored.condition_bound == (2.0 if bound == 2.0 else None)


def test_a_residual_is_a_number() -> None:
    # As JSON it would be null, which no reader could tell from a residual that was not measured.
    with pytest.raises(ValidationError):
        block(relative_residual=float("nan"))
