"""The inputs of a job in its spec: the model, the parameters meant, the two datasets and where their rows are."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError


class Part(BaseModel):
    """Base of every part of the spec: immutable, and an unknown field is an error, not a surprise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
RowId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
DATASET_ID_PATTERN = r"^ds_[0-9a-f]{64}$"


def _check_path(value: str) -> str:
    if value.startswith(("/", "~")) or "\\" in value or "\0" in value or ".." in value.split("/"):
        raise PydanticCustomError(
            "path_outside_root", "must be a path below the data root, relative to it, with no '..' in it"
        )
    return value


def _check_optional_path(value: str | None) -> str | None:
    return None if value is None else _check_path(value)


Task = Literal["sequence-classification", "causal-lm"]


class ModelSpec(Part):
    """The checkpoint: a base alone, or with a LoRA adapter; folders of safetensors below the data root."""

    task: Task = Field(
        default="sequence-classification",
        description="What a row's loss is: of its label, or the mean over the tokens of its completion.",
    )
    base: ShortText = Field(
        description="Folder of the base checkpoint, relative to the data root.", examples=["minilm"]
    )
    adapter: ShortText | None = Field(
        default=None,
        description="Folder of the LoRA adapter, relative to the data root. With null the base is scored as it is: it "
        "must bring its own trained head, and `parameters` must say which of its weights are meant.",
        examples=["topics-lora"],
    )
    dtype: Literal["float32", "bfloat16", "float64"] = Field(
        default="float32",
        description="Precision the model runs in. Curvature is accumulated in float64 whatever this is.",
    )
    max_length: StrictInt = Field(default=128, ge=1, le=8192, description="Tokens a row is truncated to.")
    cut_completions: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="Rows of which max_length leaves no token of the completion: refuse the job, or leave them out and "
        "say so. For task 'causal-lm'.",
    )

    _paths = field_validator("base", "adapter")(_check_optional_path)


class Columns(Part):
    """Which field of a row holds what."""

    id: ColumnName | None = Field(
        default="id",
        description="Row id. Where no row of the file has this field, or with null, rows are numbered from 0.",
    )
    text: ColumnName = "text"
    text_pair: ColumnName | None = Field(default=None, description="Second text of a pair, for pair tasks.")
    label: ColumnName = Field(default="label", description="An integer class or one of the model's label names.")
    prompt: ColumnName = Field(
        default="prompt", description="What the model is given, for task 'causal-lm'; may be empty."
    )
    completion: ColumnName = Field(
        default="completion", description="What it is to say, and what its loss is of, for task 'causal-lm'."
    )


class FileSource(Part):
    """A file of rows below the data root. JSON lines, CSV and TSV may be gzip."""

    kind: Literal["file"]
    path: ShortText = Field(examples=["topics/train.jsonl"])
    format: Literal["jsonl", "csv", "tsv", "parquet"] | None = Field(
        default=None,
        description="With null, by the ending of the path: .jsonl .ndjson .json .csv .tsv .parquet, or .gz.",
    )

    _paths = field_validator("path")(_check_path)


class DatasetSource(Part):
    """Rows uploaded before with `POST /v1/datasets`."""

    kind: Literal["dataset"]
    id: Annotated[str, StringConstraints(pattern=DATASET_ID_PATTERN)] = Field(description="As the upload answered.")


class InlineRow(Part):
    id: RowId | None = None
    text: str
    text_pair: str | None = None
    label: StrictInt | str


class InlineCompletion(Part):
    """A row of a language model. Nothing is put between or around the two texts: they bring their own markers."""

    id: RowId | None = None
    prompt: str
    completion: str


def _row_form(value: Any) -> str:
    fields = value if isinstance(value, dict) else dir(value)
    return "completing" if "prompt" in fields or "completion" in fields else "labelled"


AnyInlineRow = Annotated[
    Annotated[InlineRow, Tag("labelled")] | Annotated[InlineCompletion, Tag("completing")], Discriminator(_row_form)
]


class InlineSource(Part):
    """Rows carried in the request itself, up to 10 000, all of one form."""

    kind: Literal["inline"]
    rows: tuple[AnyInlineRow, ...] = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _all_or_no_ids(self) -> Self:
        ids = [row.id for row in self.rows if row.id is not None]
        if ids and len(ids) != len(self.rows):
            raise PydanticCustomError("missing_id", "give every row an id, or none")
        if len(set(ids)) != len(ids):
            raise PydanticCustomError("duplicate_id", "row ids must be unique")
        return self


Source = Annotated[FileSource | DatasetSource | InlineSource, Field(discriminator="kind")]


class DatasetSpec(Part):
    source: Source
    columns: Columns = Columns()
    limit: StrictInt | None = Field(default=None, ge=1, description="Use the first so many rows only.")


class Projection(Part):
    """Gradients made smaller, on both sides of every matrix, by seeded random matrices that keep products on average.

    As LoGra does (Choe et al. 2024, arXiv:2405.13954): for train sets whose whole gradients do not fit the disk.
    """

    long_side: StrictInt = Field(
        default=64, ge=1, description="Of the projected matrix; a shorter side stays as it is."
    )
    short_side: StrictInt | None = Field(
        default=None, ge=1, description="The same of its other side. Null: it stays as it is, as a LoRA rank should."
    )
    seed: StrictInt = Field(default=0, ge=0, lt=2**31, description="Of the random matrices.")


ModulePattern = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ParametersSpec(Part):
    """The parameters whose gradients are compared."""

    select: Literal["adapter", "adapter_and_head", "modules"] = Field(
        default="adapter",
        description="'adapter': the LoRA matrices alone. 'adapter_and_head': those and the weights saved with the "
        "adapter, as the papers' code does. 'modules': weights of a base without an adapter, named by `modules`.",
    )
    modules: tuple[ModulePattern, ...] = Field(
        default=(),
        max_length=64,
        description="Names of modules or of their tensors; `*` stands for any characters, dots too. A module brings "
        "all of its Linear layers. For select 'modules' alone.",
        examples=[["classifier", "bert.encoder.layer.5.*.weight"]],
    )
    projection: Projection | None = Field(
        default=None,
        description="Cache and solve for projected gradients; how far rankings then agree is measured and reported. "
        "Biases stay as they are.",
    )

    @model_validator(mode="after")
    def _modules_belong_to_their_selection(self) -> Self:
        if (self.select == "modules") != bool(self.modules):
            raise PydanticCustomError(
                "modules_and_select",
                "name modules with select 'modules', and with no other",
                {"pointer": "/parameters/modules"},
            )
        return self
