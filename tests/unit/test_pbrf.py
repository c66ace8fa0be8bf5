"""The PBRF check against minima found by Newton's method and against explicit matrices, all in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from typer.testing import CliRunner

from ascribe.client.agreement import correlation, ranked
from ascribe.errors import LimitExceeded, UnsupportedModel
from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import RelativeDamping
from tests.support.jobs import TRAIN, VALIDATION, Workshop, make_spec, make_workshop
from worker.data import Batch
from worker.local import run_locally
from worker.pbrf.__main__ import app
from worker.pbrf.agreement import agreement, mean_and_minimum
from worker.pbrf.check import LINEAR, Pbrf, pbrf
from worker.pbrf.compare import compare, method_specs
from worker.pbrf.curvature import gauss_newton_rows
from worker.pbrf.objective import Objective
from worker.pbrf.optimise import minimise

N, Q, FEATURES, CLASSES = 30, 4, 5, 3
DAMPING = 0.02


class Model(nn.Module):
    """Called as a classifier of transformers is."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.net(x))


def linear() -> Model:
    return _seeded(nn.Linear(FEATURES, CLASSES))


def network() -> Model:
    """One weight wider than it is high, one the other way round."""
    return _seeded(nn.Linear(FEATURES, 7), nn.Tanh(), nn.Linear(7, CLASSES))


def _seeded(*layers: nn.Module) -> Model:
    model = Model(nn.Sequential(*layers)).double()
    generator = Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.7
    return model


def blocks_of(model: nn.Module) -> list[BlockShape]:
    return [BlockShape.of(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]


def batches(rows: int, seed: int) -> list[Batch]:
    """Two batches, neither in the order of the rows."""
    generator = Generator().manual_seed(seed)
    x_NF = torch.randn(rows, FEATURES, generator=generator, dtype=torch.float64)
    y_N = torch.randint(0, CLASSES, (rows,), generator=generator)
    order = torch.randperm(rows, generator=generator).tolist()
    return [Batch(tuple(part), {"x": x_NF[part]}, y_N[part]) for part in (order[: rows // 3], order[rows // 3 :])]


TRAIN_BATCHES, VALIDATION_BATCHES = batches(N, seed=1), batches(Q, seed=2)


def whole(parts: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """Inputs and labels in the order of the rows."""
    order = torch.tensor([position for batch in parts for position in batch.positions]).argsort()
    return torch.cat([batch.inputs["x"] for batch in parts])[order], torch.cat([b.labels_M for b in parts])[order]


class Dense:
    """The same model as a function of one vector, its parameters as the model has them, and the objective's formula."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.start_P = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        self.x_NF, self.y_N = whole(TRAIN_BATCHES)

    def logits(self, theta_P: Tensor, x_NF: Tensor) -> Tensor:
        pieces = torch.split(theta_P, [shape.numel() for shape in self._shapes.values()])
        named = {name: piece.view(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}
        logits_NC: Tensor = torch.func.functional_call(self._model, named, (x_NF,)).logits
        return logits_NC

    def objective(self, row: int, weight: float) -> Callable[[Tensor], Tensor]:
        start_NC = log_softmax(self.logits(self.start_P, self.x_NF), 1).detach()

        def value(theta_P: Tensor) -> Tensor:
            logits_NC = self.logits(theta_P, self.x_NF)
            divergence = kl_div(log_softmax(logits_NC, 1), start_NC, log_target=True, reduction="batchmean")
            loss = cross_entropy(logits_NC[row], self.y_N[row])
            return divergence + weight * loss + DAMPING / 2 * (theta_P - self.start_P).square().sum()

        return value

    def minimum(self, row: int, weight: float) -> Tensor:
        """By Newton's method with the exact Hessian, until a step changes nothing."""
        theta_P, value = self.start_P, self.objective(row, weight)
        for _ in range(30):
            gradient = torch.func.grad(value)
            step_P = torch.linalg.solve(torch.func.jacrev(gradient)(theta_P), gradient(theta_P))
            theta_P = theta_P - step_P
        assert float(step_P.norm()) < 1e-14
        return theta_P

    def losses(self, theta_P: Tensor) -> Tensor:
        x_QF, y_Q = whole(VALIDATION_BATCHES)
        return cross_entropy(self.logits(theta_P, x_QF), y_Q, reduction="none")

    def predicted(self, row: int) -> Tensor:
        """``g_q (G + damping I)^-1 g_z``, ``[Q]``, from the logits' Jacobian."""
        jacobian_NCP = torch.func.jacrev(lambda theta_P: self.logits(theta_P, self.x_NF))(self.start_P)
        p_NC = self.logits(self.start_P, self.x_NF).softmax(1)
        weight_NCC = torch.diag_embed(p_NC) - p_NC[:, :, None] * p_NC[:, None, :]
        matrix_PP = torch.einsum("ncp,ncd,ndq->pq", jacobian_NCP, weight_NCC, jacobian_NCP) / N
        matrix_PP = matrix_PP + DAMPING * torch.eye(len(matrix_PP), dtype=torch.float64)
        residual_C = p_NC[row] - nn.functional.one_hot(self.y_N[row], CLASSES)
        gradient_QP = torch.func.jacrev(self.losses)(self.start_P)
        x_P: Tensor = torch.linalg.solve(matrix_PP, jacobian_NCP[row].T @ residual_C)
        score_Q: Tensor = gradient_QP @ x_P
        return score_Q


def check(model: Model, row: int, **options: Any) -> Any:
    prepared = Pbrf(model, blocks_of(model), TRAIN_BATCHES, VALIDATION_BATCHES, damping=DAMPING)
    return prepared.respond(row, **options)


@pytest.mark.parametrize("build", [linear, network])
@pytest.mark.parametrize("epsilon", [1e-3, 5e-3])
def test_differences_are_those_of_the_exact_minima(build: Callable[[], Model], epsilon: float) -> None:
    dense = Dense(build())
    up, down = (dense.losses(dense.minimum(3, sign * epsilon)) for sign in (1, -1))
    response = check(build(), 3, epsilon=epsilon)
    assert response.converged
    expected_Q = (down - up) / (2 * epsilon)
    assert float((response.difference_Q - expected_Q).norm() / expected_Q.norm()) < 1e-7
    start_Q = dense.losses(dense.start_P)
    nonlinearity = (up + down - 2 * start_Q).norm() / (up - down).norm()
    assert response.nonlinearity == pytest.approx(float(nonlinearity), rel=1e-4)


@pytest.mark.parametrize("build", [linear, network])
@pytest.mark.parametrize("row", [0, 17])
def test_a_small_weight_has_the_response_of_the_damped_gauss_newton_solve(build: Callable[[], Model], row: int) -> None:
    expected_Q = Dense(build()).predicted(row)
    response = check(build(), row, epsilon=1e-5)
    assert float((response.difference_Q - expected_Q).norm() / expected_Q.norm()) < 1e-4
    chosen = check(build(), row)
    assert chosen.trusted
    assert float((chosen.difference_Q - expected_Q).norm() / expected_Q.norm()) < 10 * LINEAR**2


@pytest.mark.parametrize("build", [linear, network])
def test_the_gradient_is_that_of_the_formula(build: Callable[[], Model]) -> None:
    dense, objective = Dense(build()), Objective(build(), blocks_of(build()), TRAIN_BATCHES, damping=DAMPING)
    moved_P = torch.randn(len(dense.start_P), generator=Generator().manual_seed(3), dtype=torch.float64)
    # The layouts differ by a permutation, and the entries are distinct: each says where it went.
    place_P = (dense.start_P[:, None] == objective.start_P).double().argmax(0)
    for row, weight in ((5, 0.3), (20, -0.3)):
        expected_P = torch.func.grad(dense.objective(row, weight))(dense.start_P + moved_P)
        found_P = objective.gradient(objective.start_P + moved_P[place_P], row, weight)
        torch.testing.assert_close(found_P, expected_P[place_P])


def test_up_weighting_a_row_lowers_its_own_loss() -> None:
    prepared = Pbrf(network(), blocks_of(network()), TRAIN_BATCHES, TRAIN_BATCHES, damping=DAMPING)
    for row in (0, 8, 29):
        assert prepared.respond(row).difference_Q[row] > 0


def test_only_the_named_parameters_move() -> None:
    model = network()
    last = blocks_of(model)[2:]
    response = Pbrf(model, last, TRAIN_BATCHES, VALIDATION_BATCHES, damping=DAMPING).respond(0)
    hidden = Model(nn.Sequential(*list(model.net)[2:]))  # the same function of the frozen layers' outputs

    def frozen(parts: Sequence[Batch]) -> list[Batch]:
        with torch.no_grad():
            return [Batch(b.positions, {"x": model.net[:2](b.inputs["x"])}, b.labels_M) for b in parts]

    alone = Pbrf(hidden, blocks_of(hidden), frozen(TRAIN_BATCHES), frozen(VALIDATION_BATCHES), damping=DAMPING)
    torch.testing.assert_close(response.difference_Q, alone.respond(0).difference_Q, rtol=1e-6, atol=1e-12)


def test_a_model_in_single_precision_is_checked_in_double() -> None:
    model = network().float()
    objective = Objective(model, blocks_of(model), TRAIN_BATCHES, damping=DAMPING)
    assert objective.start_P.dtype == torch.float64
    assert next(model.parameters()).dtype == torch.float32
    assert float(objective.gradient(objective.start_P, 0, 0.0).norm()) == 0.0


def test_the_same_bits_twice() -> None:
    first, second = (
        pbrf(network(), blocks_of(network()), TRAIN_BATCHES, [1, 2], VALIDATION_BATCHES, damping=DAMPING)
        for _ in range(2)
    )
    assert torch.equal(first.differences, second.differences)
    assert first.differences.shape == (2, Q)
    assert first.differences.dtype == torch.float64
    assert not first.doubtful


def test_a_model_is_left_as_it_was() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pbrf(model, blocks_of(model), TRAIN_BATCHES, [1], VALIDATION_BATCHES, damping=DAMPING)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_did_not_converge_says_so() -> None:
    result = pbrf(
        network(), blocks_of(network()), TRAIN_BATCHES, [1, 2], VALIDATION_BATCHES, damping=DAMPING, tolerance=1e-30
    )
    assert [response.row for response in result.doubtful] == [1, 2]
    assert not any(response.converged for response in result.responses)
    assert all(response.relative_gradient > 1e-30 for response in result.responses)


def test_a_response_that_is_not_linear_says_so() -> None:
    response = check(network(), 1, epsilon=2.0)
    assert response.nonlinearity > LINEAR
    assert not response.trusted


@pytest.mark.parametrize("damping", [0.0, -1.0, math.nan, math.inf])
def test_damping_must_be_positive(damping: float) -> None:
    with pytest.raises(ValueError, match="damping must be finite and positive"):
        pbrf(linear(), blocks_of(linear()), TRAIN_BATCHES, [0], VALIDATION_BATCHES, damping=damping)


@pytest.mark.parametrize("row", [-1, N])
def test_a_row_that_is_not_there(row: int) -> None:
    with pytest.raises(ValueError, match=f"no train row {row}: rows are numbered from 0 to {N - 1}"):
        check(linear(), row)


@pytest.mark.parametrize("epsilon", [0.0, -0.1, math.nan])
def test_epsilon_must_be_positive(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon must be positive"):
        check(linear(), 0, epsilon=epsilon)


def test_no_rows() -> None:
    with pytest.raises(ValueError, match="at least one train row"):
        pbrf(linear(), blocks_of(linear()), TRAIN_BATCHES, [], VALIDATION_BATCHES, damping=DAMPING)


@pytest.mark.parametrize("parts", [[], TRAIN_BATCHES[:1], [*TRAIN_BATCHES, TRAIN_BATCHES[0]]])
def test_a_dataset_must_be_whole(parts: list[Batch]) -> None:
    with pytest.raises(ValueError, match="each of its rows once"):
        pbrf(linear(), blocks_of(linear()), parts, [0], VALIDATION_BATCHES, damping=DAMPING)
    with pytest.raises(ValueError, match="each of its rows once"):
        pbrf(linear(), blocks_of(linear()), TRAIN_BATCHES, [0], parts, damping=DAMPING)


def test_a_parameter_that_is_not_there() -> None:
    with pytest.raises(UnsupportedModel, match=r"no parameter other\.weight"):
        Objective(linear(), [BlockShape("other.weight", 3, 5)], TRAIN_BATCHES, damping=DAMPING)


def test_more_than_can_be_factored_is_refused_before_a_gradient_is_computed() -> None:
    wide = Model(nn.Sequential(nn.Linear(20_000, 2))).double()
    first = Batch((0,), {"x": torch.zeros(1, 20_000).double()}, torch.zeros(1, dtype=torch.long))
    rest = Batch(tuple(range(1, 17_000)), {}, torch.zeros(0))  # never looked at
    with pytest.raises(LimitExceeded, match="17000 x 17000"):
        gauss_newton_rows(wide, blocks_of(wide), [first, rest])


def test_minimise_needs_no_good_inverse() -> None:
    scale_P = torch.logspace(0, -1, 8, dtype=torch.float64)
    target_P = torch.arange(8, dtype=torch.float64)
    found = minimise(
        lambda x_P: scale_P * (x_P - target_P), torch.zeros_like(target_P), lambda v_P: v_P, tolerance=1e-9
    )
    assert found.converged
    torch.testing.assert_close(found.point_P, target_P, rtol=0, atol=1e-5)


def test_minimise_takes_one_step_where_the_inverse_is_exact() -> None:
    scale_P = torch.logspace(0, -6, 8, dtype=torch.float64)
    found = minimise(
        lambda x_P: scale_P * (x_P - 1), torch.zeros(8).double(), lambda v_P: v_P / scale_P, tolerance=1e-9
    )
    assert (found.iterations, found.converged) == (1, True)


def test_minimise_shortens_a_step_that_goes_too_far() -> None:
    # Newton's step from 0 for cosh(x - 3) is tanh(3), a tenth of the way; a hundredfold overshoots by far.
    found = minimise(lambda x_P: torch.sinh(x_P - 3), torch.zeros(1).double(), lambda v_P: 100 * v_P, tolerance=1e-10)
    assert found.converged
    assert float(found.point_P) == pytest.approx(3.0, abs=1e-8)


def test_minimise_gives_up_where_no_step_is_finite() -> None:
    start_P = torch.zeros(2).double()
    found = minimise(
        lambda x_P: torch.where(x_P == 0, 1.0, torch.nan).double(), start_P, lambda v_P: v_P, tolerance=1e-10
    )
    assert not found.converged
    assert torch.equal(found.point_P, start_P)


def test_minimise_has_nothing_to_do_at_a_minimum() -> None:
    found = minimise(lambda x_P: x_P, torch.zeros(2).double(), lambda v_P: v_P, tolerance=1e-10)
    assert (found.iterations, found.converged) == (0, True)


def test_agreement_is_pearson_and_spearman_of_each_column() -> None:
    generator = Generator().manual_seed(4)
    first_ZQ = torch.randint(0, 6, (9, 3), generator=generator).double()  # with ties
    second_ZQ = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    second_ZQ[:, 2] = 1.0
    found = agreement(first_ZQ, {"a": second_ZQ, "b": -first_ZQ})
    for q in range(2):
        a, b = first_ZQ[:, q].tolist(), second_ZQ[:, q].tolist()
        assert float(found["a"].pearson_Q[q]) == pytest.approx(correlation(a, b), abs=1e-12)
        assert float(found["a"].spearman_Q[q]) == pytest.approx(correlation(ranked(a), ranked(b)), abs=1e-12)
    every = [value.flatten().tolist() for value in (first_ZQ, second_ZQ)]
    assert found["a"].pearson == pytest.approx(correlation(*every), abs=1e-12)
    assert found["a"].spearman == pytest.approx(correlation(*map(ranked, every)), abs=1e-12)
    assert math.isnan(found["a"].spearman_Q[2])
    assert found["b"].spearman_Q.tolist() == pytest.approx([-1.0] * 3)
    mean, lowest = mean_and_minimum(found["a"].pearson_Q)
    assert mean == pytest.approx(float(found["a"].pearson_Q[:2].mean()))
    assert lowest == pytest.approx(float(found["a"].pearson_Q[:2].min()))


def test_agreement_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="at least three train rows"):
        agreement(torch.ones(2, 5), {})
    with pytest.raises(ValueError, match="scores of a are not"):
        agreement(torch.ones(3, 5), {"a": torch.ones(5, 3)})
    assert all(math.isnan(value) for value in mean_and_minimum(torch.full((2,), math.nan)))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("pbrf"))


def test_a_job_run_here_has_the_vectors_of_the_pipeline(workshop: Workshop) -> None:
    manifest, shelf = workshop.run(make_spec())
    result = run_locally(make_spec(), workshop.bench)
    assert result.manifest.vectors == manifest.vectors
    assert all(torch.equal(result.vectors[name], shelf.vector(name)) for name in manifest.vectors)
    assert result.scores().shape == (VALIDATION, TRAIN)


def test_an_adapter_is_checked_through_its_own_names_and_layout(workshop: Workshop) -> None:
    spec = make_spec("empirical_fisher", "cholesky", parameters={"select": "adapter_and_head"})
    found = compare(spec, workshop.bench, lambda _: range(0, TRAIN, 8), ["identity"], damping=1e-3)
    assert not found.result.doubtful
    assert found.row_ids == tuple(f"r{row}" for row in range(0, TRAIN, 8))
    # A handful of iterations for each sign: the metric of float32 rows fits the objective in float64, name by name.
    assert max(response.iterations for response in found.result.responses) <= 10
    assert found.agreements is not None
    assert set(found.agreements) == {"empirical_fisher+cholesky", "none+identity"}
    assert found.result.damping == 1e-3


def test_a_relative_damping_is_of_all_parameters_at_once(workshop: Workshop) -> None:
    found = compare(make_spec("gfim", "cholesky", damping={"relative": 1e5}), workshop.bench, lambda _: [0, 1, 2])
    blocks = found.diagnostics["gfim+cholesky"].blocks
    mean = sum(block.damping or 0.0 for block in blocks) / len(blocks)  # the blocks are of one size
    assert found.result.damping == pytest.approx(mean, rel=1e-4)


def test_method_names() -> None:
    spec = make_spec("gfim", "schulz", damping={"relative": 0.5})
    specs = method_specs(spec, ["cholesky", "empirical_fisher+cholesky", "datainf", "identity"], None)
    assert list(specs) == [
        "gfim+schulz", "gfim+cholesky", "empirical_fisher+cholesky", "empirical_fisher+datainf", "none+identity",
    ]  # fmt: skip
    assert specs["empirical_fisher+datainf"].damping == RelativeDamping(relative=0.5)
    assert specs["none+identity"].damping is None
    for name in ("nothing", "gfim+datainf", "gfim+", "+"):
        with pytest.raises(ValueError, match="is not one method"):
            method_specs(spec, [name], None)
    with pytest.raises(ValueError, match="cholesky is not one method"):
        method_specs(make_spec("none", "identity"), ["cholesky"], None)


@pytest.fixture
def command(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("ASCRIBE_DATA_ROOT", str(workshop.root))
    monkeypatch.setenv("ASCRIBE_CACHE_DIR", str(workshop.bench.settings.cache_dir))
    path = tmp_path / "spec.json"

    def run(*arguments: str, spec: str | None = None) -> Any:
        path.write_text(
            make_spec("gfim", "cholesky", damping={"absolute": 1e-3}).model_dump_json() if spec is None else spec
        )
        return CliRunner().invoke(app, [str(path), *arguments])

    return run


def test_the_command_prints_a_line_a_method(command: Callable[..., Any]) -> None:
    done = command("--rows", "0,5,17", "--compare", "datainf, identity")
    assert done.exit_code == 0, done.output
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0][0].startswith("# Agreement with the PBRF: 3 train rows, 6 validation rows, lambda ")
    assert [line[0] for line in lines[1:]] == ["method", "gfim+cholesky", "empirical_fisher+datainf", "none+identity"]
    assert all(len(line) == len(lines[1]) for line in lines[2:])
    assert [line[6] for line in lines[2:]] == ["converged", "approximate", "converged"]


def test_the_command_gives_json(command: Callable[..., Any]) -> None:
    done = command("--count", "4", "--seed", "1", "--json")
    document = json.loads(done.stdout)
    assert len(document["rows"]) == 4
    assert all(len(row["differences"]) == VALIDATION and row["trusted"] for row in document["rows"])
    assert len(document["methods"]["gfim+cholesky"]["spearman_by_validation_row"]) == VALIDATION
    assert json.loads(command("--count", "4", "--seed", "1", "--json").stdout)["rows"] == document["rows"]


@pytest.mark.parametrize(
    ("arguments", "spec", "message"),
    [
        (["--rows", "0,1,99"], None, "there is no train row 99: rows are numbered from 0 to 39"),
        (["--rows", "0,1"], None, "at least 3 different train rows"),
        (["--rows", "0,x"], None, "--rows takes whole numbers"),
        (["--compare", "gfim+lissa"], None, "gfim+lissa is not one method"),
        (["--damping", "0"], None, "/damping/absolute"),
        ([], make_spec("none", "identity").model_dump_json(), "has no damping to check with"),
        ([], '{"model": 1}', "/train: Field required"),
        ([], make_spec(model={"base": "nowhere", "adapter": "adapter"}).model_dump_json(), "/model/base"),
    ],
)
def test_what_is_wrong_is_said(command: Callable[..., Any], arguments: list[str], spec: str, message: str) -> None:
    done = command(*arguments, spec=spec)
    assert done.exit_code == 2
    assert message in done.stderr
