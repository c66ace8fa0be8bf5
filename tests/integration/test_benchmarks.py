"""Every benchmark runs, with sizes at which its figures mean nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from benchmarks import detection, gpu, lissa, pbrf, published, schulz, schulz_warm, synthetic
from benchmarks.__main__ import BENCHMARKS, STUDIES, run, run_study
from benchmarks.cells import Cell, cell
from benchmarks.detection_data import DATA_VARIABLE, DATASETS, Dataset, noisy_corpus
from benchmarks.detection_methods import DEFAULT, METHODS
from benchmarks.result import Row, machine, save
from benchmarks.subject import QUICK, Subject
from tests.support.tiny import make_checkpoint, make_rows, write_rows
from worker.operators import Damped, RowsOperator
from worker.solvers.datainf import DataInf


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    root = tmp_path_factory.mktemp("data")
    make_checkpoint(root)
    write_rows(root / "sentences.jsonl", make_rows(20))
    return Subject(root, "base", "adapter", "sentences.jsonl")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_gives_rows(name: str, subject: Subject) -> None:
    rows = run([name], subject, replace(QUICK, seconds=0.6))
    assert rows
    assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
    assert all(row.ours and row.beside and row.sizes for row in rows)


def test_rows_are_as_long_as_asked_and_the_same_each_time(subject: Subject) -> None:
    rows = list(subject.long_rows("some", 5, 12))
    assert all(len(row["text"].split()) >= 10 for row in rows), "two of the tokens are [CLS] and [SEP]"
    assert rows == list(subject.long_rows("some", 5, 12))
    assert rows != list(subject.long_rows("other", 5, 12))


def test_a_goal_has_a_side() -> None:
    row = Row("speed", 0.7, "x", "1 s", "0.7 s", "N = 1", goal=0.6)
    assert row.reached is True
    assert replace(row, value=0.5).reached is False
    assert replace(row, at_least=False).reached is False
    assert replace(row, goal=None).reached is None


def test_a_run_is_kept_with_the_machine_it_was_seen_on(tmp_path: Path) -> None:
    row = Row("speed", 0.7, "x", "1 s", "0.7 s", "N = 1", goal=0.6)
    document = json.loads(save([row], machine(), tmp_path / "bench").read_text())
    assert document["rows"][0]["reached"] is True
    assert {"date", "processor", "threads", "torch"} <= document["machine"].keys()


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SST-2 and CoLA in their own formats, of few words; one row is in train and dev."""
    folder = tmp_path / "bench-data"
    for index, (part, count) in enumerate((("train", 60), ("dev", 30))):
        texts = [f"{row['text']} {part} {number}" for number, row in enumerate(make_rows(count, seed=index))]
        texts[0] = "in both"
        labels = [number % 2 for number in range(count)]
        pairs = list(zip(texts, labels, strict=True))
        lines = {
            "sst2": [f"{text}\t{label}" for text, label in pairs],
            "cola": [f"gj04\t{label}\t{'' if label else '*'}\t{text}" for text, label in pairs],
        }
        for name, rows in lines.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{part}.tsv").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv(DATA_VARIABLE, str(folder))
    return folder


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.usefixtures("data_folder")
def test_study_prints_tables_and_then_only_reads(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(name, tmp_path, quick=True)
    computed = capsys.readouterr().out
    assert "threads 1" in computed
    assert "nan" not in computed
    monkeypatch.setattr(synthetic, "make_problem", _refuse)
    monkeypatch.setattr(detection, "fine_tune", _refuse)
    monkeypatch.setattr(detection, "run", _refuse)
    monkeypatch.setattr(gpu, "timed", _refuse)
    for module in (schulz, schulz_warm):
        monkeypatch.setattr(module, "make_system", _refuse)
    for module in (schulz, lissa):
        monkeypatch.setattr(module, "make_pair", _refuse)
    monkeypatch.setattr(lissa, "solve", _refuse)
    monkeypatch.setattr(pbrf, "gauss_newton_rows", _refuse)
    run_study(name, tmp_path, quick=True)
    assert capsys.readouterr().out == "".join(
        line for line in computed.splitlines(keepends=True) if not line.endswith(": done\n")
    )


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("computed what there was already")


def test_an_interrupted_cell_is_no_cell(tmp_path: Path) -> None:
    def interrupted() -> Cell:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cell(tmp_path / "one.json", interrupted)
    assert cell(tmp_path / "one.json", lambda: {"value": 3})["value"] == 3
    assert cell(tmp_path / "one.json", lambda: {"value": 4})["value"] == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it does without a card")
def test_without_a_card_nothing_is_claimed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_study("gpu", tmp_path, quick=False)
    assert capsys.readouterr().out == "No CUDA card is at hand: nothing was measured, and nothing is claimed.\n"
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.folder)
@pytest.mark.usefixtures("data_folder")
def test_a_fifth_of_the_train_labels_is_wrong_and_no_text_is_there_twice(dataset: Dataset) -> None:
    corpus = noisy_corpus(dataset, 0, train=60, validation=25)
    assert sum(row.flipped for row in corpus.train) == 12
    assert not any(row.flipped for row in corpus.validation)
    texts = [row.text for row in (*corpus.train, *corpus.validation)]
    assert len(set(texts)) == len(texts) == 85
    number = {row.text: int(row.text.split()[-1]) for row in corpus.validation}
    assert all(row.true_label == dataset.labels[number[row.text] % 2] for row in corpus.validation)
    assert corpus == noisy_corpus(dataset, 0, train=60, validation=25)
    assert corpus != noisy_corpus(dataset, 1, train=60, validation=25)


def test_benchmark_data_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(SystemExit, match=DATA_VARIABLE):
        noisy_corpus(DATASETS[0], 0, train=1, validation=1)


def test_methods_have_names_of_their_own_and_the_default_is_one() -> None:
    assert len({method.name for method in METHODS}) == len(METHODS)
    assert DEFAULT in METHODS
    assert sum(method.published for method in METHODS) == 2


def _problem() -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``[30, 6]``, their second moment with eigenvalues up to 1, and a right-hand side."""
    generator = Generator().manual_seed(0)
    grad_NP = torch.randn(30, 6, generator=generator, dtype=torch.float64) * torch.logspace(-0.3, -1, 6).double()
    return grad_NP, grad_NP.T @ grad_NP / 30, torch.randn(6, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("steps", [15, 20, 30])
def test_published_schulz_is_the_geometric_series_that_its_start_cuts_short(steps: int) -> None:
    """``X_k = (I - (I - c A)^(2^k)) A^-1``, which at an eigenvalue of 0.01 misses 0.6 of the inverse at 20 steps."""
    _, matrix_PP, _ = _problem()
    value_P, vector_PP = torch.linalg.eigh(matrix_PP + 0.01 * torch.eye(6, dtype=torch.float64))
    left_P = (1 - 5e-5 * value_P) ** (2**steps)
    expected_PP = vector_PP @ torch.diag((1 - left_P) / value_P) @ vector_PP.T
    inverse_PP = published.schulz(vector_PP @ torch.diag(value_P) @ vector_PP.T, steps)
    torch.testing.assert_close(inverse_PP, expected_PP, rtol=1e-6, atol=1e-6)


def test_lissa_as_shipped_solves_with_the_damping_subtracted() -> None:
    _, matrix_PP, rhs_PK = _problem()
    identity_PP = torch.eye(6, dtype=torch.float64)
    matrix_PP = matrix_PP + 0.2 * identity_PP  # or the damping would leave it indefinite
    shipped_PK = published.lissa_as_shipped(matrix_PP.matmul, 0.1, rhs_PK, 2000)
    torch.testing.assert_close(shipped_PK, torch.linalg.solve(matrix_PP - 0.1 * identity_PP, rhs_PK))
    largest = float(torch.linalg.eigvalsh(matrix_PP)[-1])
    corrected_PK = published.lissa_corrected(matrix_PP.matmul, 0.1, largest, rhs_PK, 2000)
    torch.testing.assert_close(corrected_PK, torch.linalg.solve(matrix_PP + 0.1 * identity_PP, rhs_PK))


def test_datainf_an_example_at_a_time_is_ours() -> None:
    grad_NP, _, rhs_PK = _problem()
    solver, damped = DataInf(), Damped(RowsOperator([grad_NP]), 0.05)
    ours_PK, _, _ = solver.compute(solver.init(damped), rhs_PK)
    torch.testing.assert_close(ours_PK[:, 0], published.datainf(grad_NP, 0.05, rhs_PK[:, 0]))
