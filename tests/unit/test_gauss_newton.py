"""Both forms of the Gauss-Newton Hessian against the dense one, from the Jacobian by reverse mode in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, jacrev

from ascribe.settings import Settings
from ascribe.sources.checkpoints import BlockShape, inspect_checkpoint
from ascribe.sources.rows import Labels, read_rows
from ascribe.spec import DatasetSpec, FileSource, ModelSpec, ParametersSpec
from tests.support.softmax import HEAD, Softmax, softmax_batches
from tests.support.tiny import LABELS, TARGETS, make_checkpoint, make_rows, write_rows
from worker.curvature.gauss_newton import GaussNewtonProducts, gauss_newton_rows
from worker.curvature.rebatch import Rebatch
from worker.data import Batch, make_batches
from worker.gradients.cotangents import OfGaussNewton
from worker.gradients.per_example import PerExampleGradients
from worker.models import load_model

ROWS = 7


class Subject(NamedTuple):
    model: nn.Module
    batches: list[Batch]
    blocks: tuple[BlockShape, ...]

    def dense(self) -> Tensor:
        """``[P, P]``, by its definition."""
        parameters = _by_block(self.model, self.blocks)
        size = sum(block.size for block in self.blocks)
        total_PP = torch.zeros(size, size, dtype=torch.float64)
        for batch in self.batches:
            jacobian = jacrev(lambda value, inputs: functional_call(self.model, value, kwargs=dict(inputs)).logits)(
                parameters, batch.inputs
            )
            jacobian_NCP = torch.cat([_short_side_first(jacobian[name]) for name in parameters], dim=2)
            p_NC = self.model(**batch.inputs).logits.softmax(1)
            middle_NCC = torch.diag_embed(p_NC) - p_NC[:, :, None] * p_NC[:, None, :]
            total_PP += torch.einsum("ncp,ncd,ndq->pq", jacobian_NCP, middle_NCC, jacobian_NCP).detach()
        return total_PP / ROWS

    def components(self) -> list[list[Tensor]]:
        """Rows in two uneven chunks for each cotangent."""
        found = []
        for k in range(len(LABELS) - 1):
            gradients = PerExampleGradients(self.model, self.blocks, OfGaussNewton(k))
            grad_NP = torch.cat([gradients(batch)[1] for batch in self.batches])
            found.append([grad_NP[:2], grad_NP[2:]])
        return found


def _by_block(model: nn.Module, blocks: Sequence[BlockShape]) -> dict[str, Tensor]:
    plain = {
        name.removeprefix("base_model.model.").replace("modules_to_save.", "").replace("default.", ""): name
        for name, _ in model.named_parameters()
    }
    named = dict(model.named_parameters())
    return {plain[block.name]: named[plain[block.name]].detach() for block in blocks}


def _short_side_first(jacobian_NCx: Tensor) -> Tensor:
    turned = jacobian_NCx.ndim == 4 and jacobian_NCx.shape[2] > jacobian_NCx.shape[3]
    return (jacobian_NCx.mT if turned else jacobian_NCx).flatten(2)


def _subject(
    root: Path, model_type: str = "bert", select: Any = "adapter", dtype: Any = "float64", attention: str = "eager"
) -> Subject:
    make_checkpoint(root, model_type)
    write_rows(root / "rows.jsonl", make_rows(ROWS))
    dataset = DatasetSpec(source=FileSource(kind="file", path="rows.jsonl"))
    rows = read_rows(Settings(data_root=root), dataset, "/train", Labels(len(LABELS), LABELS))
    spec = ModelSpec(base="base", adapter="adapter", dtype=dtype)
    checkpoint = inspect_checkpoint(root, spec, ParametersSpec(select=select))
    loaded = load_model(checkpoint, spec, attention=attention, device="cpu")
    batches = make_batches(rows, 0, ROWS, loaded.tokenizer, max_length=16, token_budget=24, device="cpu")
    assert len(batches) > 2
    return Subject(loaded.model, batches, checkpoint.blocks)


def _vectors(size: int, columns: int = 11) -> Tensor:
    return torch.randn(size, columns, dtype=torch.float64, generator=Generator().manual_seed(5))


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("model_type", "select"),
    [("bert", "adapter"), ("distilbert", "adapter"), *((model_type, "adapter_and_head") for model_type in TARGETS)],
)
def test_products_and_rows_are_the_dense_matrix(tmp_path: Path, model_type: str, select: str) -> None:
    subject = _subject(tmp_path, model_type, select)
    dense_PP = subject.dense()
    products = GaussNewtonProducts(*subject)
    x_PK = _vectors(products.size)
    assert products.notes == ()
    assert _relative(products.matmul(x_PK), dense_PP @ x_PK) < 1e-10
    assert _relative(gauss_newton_rows(subject.components()).matmul(x_PK), dense_PP @ x_PK) < 1e-5


def test_a_model_with_fused_attention_has_products_too(tmp_path: Path) -> None:
    """The fused kernel has no forward mode; it is stepped around, and no fallback is said to have been taken."""
    eager, fused = (_subject(tmp_path / name, attention=name) for name in ("eager", "sdpa"))
    products = GaussNewtonProducts(*fused)
    x_PK = _vectors(products.size, 2)
    assert products.notes == ()
    assert _relative(products.matmul(x_PK), eager.dense() @ x_PK) < 1e-10


def test_products_in_float32(tmp_path: Path) -> None:
    subject = _subject(tmp_path, dtype="float32")
    products = GaussNewtonProducts(*subject)
    x_PK = _vectors(products.size, 3)
    y_PK = products.matmul(x_PK)
    assert y_PK.dtype == torch.float64
    assert products.matmul(x_PK.float()).dtype == torch.float32
    subject.model.double()
    assert _relative(y_PK, subject.dense() @ x_PK) < 1e-5


def test_all_that_both_forms_say_of_the_matrix_is_so(tmp_path: Path) -> None:
    subject = _subject(tmp_path)
    dense_PP = subject.dense()
    rows, products = gauss_newton_rows(subject.components()), GaussNewtonProducts(*subject)
    assert rows.count == ROWS * (len(LABELS) - 1)
    assert products.count == ROWS
    for operator in (rows, products):
        assert operator.trace() == pytest.approx(float(dense_PP.trace()), rel=1e-5)
        assert operator.norm_bound() >= float(torch.linalg.eigvalsh(dense_PP)[-1])
        assert operator.squared_norms().shape == (operator.count,)
    slabs_NP = torch.cat(list(rows.slabs()))
    columns_NP = torch.cat(list(rows.columns()), dim=1)
    torch.testing.assert_close(slabs_NP, columns_NP)
    assert _relative(slabs_NP.T @ slabs_NP / rows.count, dense_PP) < 1e-5
    torch.testing.assert_close(rows.squared_norms(), slabs_NP.square().sum(dim=1))


@pytest.mark.parametrize("form", ["rows", "products"])
def test_a_drawn_example_is_unbiased(tmp_path: Path, form: str) -> None:
    """The mean over single draws, with their probabilities, is the matrix; a batch is the mean of its draws."""
    subject = _subject(tmp_path)
    operator = GaussNewtonProducts(*subject) if form == "products" else gauss_newton_rows(subject.components())
    x_PK = _vectors(operator.size, 2)
    share_N = operator.squared_norms() / operator.squared_norms().sum()
    single = [operator.matmul_sampled(x_PK, torch.tensor([n])) for n in range(operator.count)]
    expected_PK = torch.stack([share * y_PK for share, y_PK in zip(share_N, single, strict=True)]).sum(dim=0)
    assert _relative(expected_PK, subject.dense() @ x_PK) < 1e-5
    batch_PK = operator.matmul_sampled(x_PK, torch.tensor([4, 0, 4, 1, 4]))
    assert _relative(batch_PK, (3 * single[4] + single[0] + single[1]) / 5) < 1e-10
    drawn = operator.draw(50, Generator().manual_seed(0))
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < operator.count


class _Backwards(torch.autograd.Function):
    """``tanh`` as an extension might write it: backward and nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        return gradients[0] * (1 - x.tanh().square())


def test_a_layer_without_forward_mode_is_told_and_differenced_in_float64() -> None:
    batches = softmax_batches(4, 1, 2)
    blocks = (BlockShape("inner.weight", 8, 8), BlockShape("outer.weight", 3, 8), BlockShape("outer.bias", 1, 3))
    fallen = GaussNewtonProducts(Softmax(_Backwards.apply), batches, blocks)
    exact_PP = Subject(Softmax().double(), batches, blocks).dense()
    x_PK = _vectors(fallen.size)
    assert "central differences" in fallen.notes[0]
    assert "float64" in fallen.notes[0]
    assert _relative(fallen.matmul(x_PK), exact_PP @ x_PK) < 1e-8
    assert not fallen.matmul(torch.zeros(fallen.size, 1)).any()
    assert fallen.trace() == pytest.approx(float(exact_PP.trace()), rel=1e-5)


def test_a_broken_model_does_not_pass_for_one_without_forward_mode() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        GaussNewtonProducts(Softmax(broken), softmax_batches(2), HEAD)


def test_picked_rows_are_the_rows(tmp_path: Path) -> None:
    subject = _subject(tmp_path)
    rows = Rebatch(subject.batches, pad_token=0)
    logits_NC = torch.cat([subject.model(**batch.inputs).logits for batch in subject.batches])
    picked = rows.pick([6, 2, 3, 0])
    assert sorted(index for batch in picked for index in batch.positions) == [0, 2, 3, 6]
    for batch in picked:
        torch.testing.assert_close(subject.model(**batch.inputs).logits, logits_NC[list(batch.positions)])
        assert batch.inputs["attention_mask"].any(dim=0).all()
    all_labels = torch.cat([batch.labels_M for batch in subject.batches])
    assert all(torch.equal(batch.labels_M, all_labels[list(batch.positions)]) for batch in picked)


def test_refuses_what_has_no_rows() -> None:
    with pytest.raises(ValueError, match="two classes"):
        gauss_newton_rows([])
    with pytest.raises(ValueError, match="no rows"):
        Rebatch([], pad_token=0)
