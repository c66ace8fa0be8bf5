"""Kronecker factors against sums over rows and tokens written out, and K-FAC where it is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from ascribe.errors import NonFinite
from ascribe.settings import Settings, WorkerSettings
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.rows import Labels, Rows, read_rows
from ascribe.spec import DatasetSpec, FileSource, ModelSpec, ParametersSpec
from tests.support.linear_nets import TokenNet, blocks, gradients, make_batch, second_moment
from tests.support.tiny import LABELS, make_checkpoint, make_rows, write_rows
from worker.curvature.ekfac import ekfac
from worker.curvature.kfac import kfac
from worker.data import Batch, Place, make_batches
from worker.eigen_operators import EigenOperator
from worker.gradients.cotangents import OfGaussNewton, OfLoss, OfSampledLabel
from worker.gradients.factors import FactorSums, KroneckerFactors, collect_factors
from worker.gradients.per_example import PerExampleGradients
from worker.models import LoadedModel, load_model

LENGTHS = (3, 1, 4, 2)
BODY_WEIGHT, BODY_BIAS, HEAD_WEIGHT, HEAD_BIAS = range(4)


def _factors(batches: Sequence[Batch]) -> list[KroneckerFactors]:
    sums = FactorSums(TokenNet(), blocks(TokenNet()), [OfSampledLabel(1)])
    for batch in batches:
        sums.add(batch)
    return sums.factors()


def _close(actual: Sequence[KroneckerFactors], expected: Sequence[KroneckerFactors]) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.left_RR, other.left_RR, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(one.right_DD, other.right_DD, rtol=1e-5, atol=1e-7)


def test_factors_are_the_sums_they_are_said_to_be() -> None:
    model, batch = TokenNet(), make_batch(LENGTHS)
    logits_NC = model(**batch.inputs).logits
    cotangent_NC = OfSampledLabel(1)(logits_NC.detach(), batch.labels_M, batch.places())
    inputs, outputs, hiddens = [], [], []
    for n, length in enumerate(LENGTHS):
        x_TI = batch.inputs["x_NTI"][n, :length]
        y_TO = (x_TI @ model.body.weight.T + model.body.bias).detach()
        pulled_O = cotangent_NC[n] @ model.head.weight.detach()
        inputs.append(x_TI)
        outputs.append((1 - y_TO.tanh().square()) * pulled_O)
        hiddens.append(y_TO.tanh().sum(0))
    x_MI, g_MO, h_NO = torch.cat(inputs), torch.cat(outputs), torch.stack(hiddens)
    body_A, body_S = x_MI.T @ x_MI / sum(LENGTHS), g_MO.T @ g_MO / len(LENGTHS)
    head_A, head_S = second_moment(h_NO), second_moment(cotangent_NC)
    one = torch.ones(1, 1, dtype=torch.float64)
    expected = [
        KroneckerFactors(body_S, body_A),  # [3, 5]: outputs are the short side
        KroneckerFactors(one, body_S),
        KroneckerFactors(head_A, head_S),  # [4, 3]: turned
        KroneckerFactors(one, head_S),
    ]
    _close(_factors([batch]), expected)


def test_what_stands_in_the_padding_does_not_matter_nor_how_rows_are_batched() -> None:
    expected = _factors([make_batch(LENGTHS)])
    _close(_factors([make_batch(LENGTHS, padding=1e3)]), expected)
    _close(_factors([make_batch(LENGTHS[:1]), make_batch(LENGTHS[1:], first=1, padding=-7.0)]), expected)


class Independent:
    """Output gradients that have nothing to do with the inputs: every one of two with every row of three."""

    is_root: ClassVar[bool] = True
    key = "independent"

    def __call__(self, _logits_NC: Tensor, _labels_N: Tensor, places: Sequence[Place], /) -> Tensor:
        choice_2C = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.3, 0.4, -1.0, 2.0]], dtype=torch.float64)
        return choice_2C[[row // 3 for row, _ in places]]


def test_it_is_the_true_block_where_a_layer_sees_one_token_and_gradient_and_input_are_independent() -> None:
    three = make_batch((2, 3, 1))
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in three.inputs.items()}
    batch = Batch(tuple(range(6)), twice, torch.zeros(6, dtype=torch.long))
    model = TokenNet()
    sums = FactorSums(model, blocks(model), [Independent()])
    sums.add(batch)
    for block in (HEAD_WEIGHT, HEAD_BIAS):
        true_PP = second_moment(gradients(model, [batch], Independent())[block])
        operator = kfac("head", sums.factors()[block])
        torch.testing.assert_close(_dense(operator), true_PP, rtol=1e-5, atol=1e-6)


def test_all_components_together_have_no_label_noise() -> None:
    batch, model = make_batch(LENGTHS), TokenNet()
    sums = FactorSums(model, blocks(model), [OfGaussNewton(k) for k in range(3)])
    sums.add(batch)
    p_NC = model(**batch.inputs).logits.softmax(1).detach()
    expected_CC = torch.diag_embed(p_NC).sub(p_NC[:, :, None] * p_NC[:, None, :]).mean(0)
    torch.testing.assert_close(sums.factors()[HEAD_BIAS].right_DD, expected_CC, rtol=1e-5, atol=1e-7)


def _dense(operator: EigenOperator) -> Tensor:
    return operator.matmul(torch.eye(operator.size, dtype=torch.float64))


def _vectors(size: int, columns: int = 3) -> Tensor:
    return torch.randn(size, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("block", [BODY_WEIGHT, BODY_BIAS, HEAD_WEIGHT, HEAD_BIAS])
def test_products_and_inverses_equal_those_of_the_kronecker_product_written_out(block: int) -> None:
    factors = _factors([make_batch(LENGTHS)])[block]
    operator, dense_PP = kfac("block", factors), torch.kron(factors.left_RR, factors.right_DD)
    x_PK = _vectors(operator.size)
    damped_PP = dense_PP + 0.1 * torch.eye(operator.size)
    torch.testing.assert_close(operator.matmul(x_PK), dense_PP @ x_PK)
    torch.testing.assert_close(operator.inverse_matmul(x_PK, 0.1), torch.linalg.solve(damped_PP, x_PK))
    twice_PK = operator.inverse_root_matmul(operator.inverse_root_matmul(x_PK, 0.1), 0.1)
    torch.testing.assert_close(twice_PK, torch.linalg.solve(damped_PP, x_PK))
    assert operator.trace() == pytest.approx(float(dense_PP.trace()))
    assert operator.norm_bound() == pytest.approx(float(torch.linalg.eigvalsh(dense_PP)[-1]))
    assert operator.matmul(x_PK.float()).dtype == torch.float32
    assert operator.matmul(x_PK[:, :0]).shape == (operator.size, 0)


def test_it_comes_back_from_a_file_to_the_last_bit() -> None:
    operator = kfac("block", _factors([make_batch(LENGTHS)])[BODY_WEIGHT])
    x_PK = _vectors(operator.size)
    assert torch.equal(EigenOperator.load(operator.save()).matmul(x_PK), operator.matmul(x_PK))


def test_a_factor_that_is_not_finite_is_named() -> None:
    matrix = torch.eye(2, dtype=torch.float64)
    with pytest.raises(NonFinite, match=r"some\.weight"):
        kfac("some.weight", KroneckerFactors(matrix, matrix * torch.nan))
    with pytest.raises(ValueError, match="values"):
        EigenOperator(matrix, matrix, torch.ones(4, 1, dtype=torch.float64))


def _tiny(root: Path, count: int) -> tuple[Rows, Checkpoint, LoadedModel]:
    make_checkpoint(root)
    write_rows(root / "rows.jsonl", make_rows(count))
    dataset = DatasetSpec(source=FileSource(kind="file", path="rows.jsonl"))
    rows = read_rows(Settings(data_root=root), dataset, "/train", Labels(len(LABELS), LABELS))
    spec = ModelSpec(base="base", adapter="adapter", dtype="float64")
    checkpoint = inspect_checkpoint(root, spec, ParametersSpec(select="adapter_and_head"))
    return rows, checkpoint, load_model(checkpoint, spec, attention="eager", device="cpu")


def test_a_real_model_in_shards_and_batches(tmp_path: Path) -> None:
    rows, checkpoint, loaded = _tiny(tmp_path, 9)
    told: list[int] = []
    settings = WorkerSettings(data_root=tmp_path, token_budget=24)

    def collected(shard_rows: int) -> list[KroneckerFactors]:
        return collect_factors(
            rows,
            checkpoint,
            loaded,
            max_length=16,
            settings=settings.model_copy(update={"shard_rows": shard_rows}),
            on_rows=told.append,
            of=[OfLoss()],
        )

    whole, parts = collected(9), collected(4)
    assert sum(told) == 18
    _close(parts, whole)
    shapes = [(len(found.left_RR), len(found.right_DD)) for found in whole]
    assert shapes == [(block.rank, block.long_side) for block in checkpoint.blocks]


def test_the_last_layers_queries_are_those_of_the_first_token_alone(tmp_path: Path) -> None:
    """The others' reach no logit. With one token a row left K-FAC is close; EK-FAC is no worse on any block."""
    rows, checkpoint, loaded = _tiny(tmp_path, 60)
    batches = make_batches(rows, 0, 60, loaded.tokenizer, max_length=16, token_budget=256, device="cpu")
    sums = FactorSums(loaded.model, checkpoint.blocks, [OfSampledLabel(0)])
    for batch in batches:
        sums.add(batch)
    per_example = PerExampleGradients(loaded.model, checkpoint.blocks, OfSampledLabel(0))
    grad_NP = torch.cat([per_example(batch)[1] for batch in batches])
    sizes = [block.size for block in checkpoint.blocks]
    close = []
    for block, factors, block_NP in zip(
        checkpoint.blocks, sums.factors(), torch.split(grad_NP, sizes, dim=1), strict=True
    ):
        true_PP = second_moment(block_NP.double())
        plain = kfac(block.name, factors)
        error, corrected = (
            float((_dense(operator) - true_PP).norm() / true_PP.norm())
            for operator in (plain, ekfac(plain, [block_NP], 60))
        )
        assert corrected <= error + 1e-6
        if error < 0.05:
            close.append(block.name)
    last = "bert.encoder.layer.1.attention.self.query"
    assert close == [f"{last}.lora_A.weight", f"{last}.lora_B.weight", "classifier.bias", "classifier.weight"]


def test_the_sides_of_a_factor_are_those_of_the_cached_gradients() -> None:
    """With one row and one token ``vec(G) vec(G)^T`` is the Kronecker product, whichever side is the short one."""
    batch, model = make_batch((1,)), TokenNet()
    sums = FactorSums(model, blocks(model), [OfLoss()])
    sums.add(batch)
    for found, grad_1P in zip(sums.factors(), gradients(model, [batch], OfLoss()), strict=True):
        true_PP = second_moment(grad_1P)
        torch.testing.assert_close(torch.kron(found.left_RR, found.right_DD), true_PP, rtol=1e-5, atol=1e-8)
