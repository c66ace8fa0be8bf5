"""Arguments that several commands take."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ascribe.result import MEAN, PLAIN_PRODUCT, SELF_INFLUENCE, TOP_REMOVED, TRAIN_LOSS

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as submit printed it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


class Vector(StrEnum):
    MEAN = MEAN
    SELF_INFLUENCE = SELF_INFLUENCE
    TRAIN_LOSS = TRAIN_LOSS
    PLAIN_PRODUCT = PLAIN_PRODUCT
    TOP_REMOVED = TOP_REMOVED
    ALL = "all"


VectorName = Annotated[Vector, typer.Option("--vector", help="Which numbers; all: a matrix, for download.")]
ValidationId = Annotated[str | None, typer.Option(help="Scores for this one validation row in place of the mean.")]
DampingValue = Annotated[
    float | None, typer.Option("--damping", help="Which value of a damping path. Left out: the first.")
]
Relative = Annotated[
    bool,
    typer.Option(
        "--relative", help="Scores over the root of the row's self-influence, which large gradients no longer lead."
    ),
]
Token = Annotated[
    int | None, typer.Option(min=0, help="With --validation-id: scores for this token of its completion, from 0.")
]
TrainId = Annotated[
    str | None,
    typer.Option(
        help="Scores of this one train row for every validation row; with --validation-id for every token of its "
        "completion."
    ),
]
