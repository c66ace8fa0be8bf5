"""HTTP of datasets."""

from __future__ import annotations

import email.message
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response, status

from ascribe.spec import DATASET_ID_PATTERN
from service.datasets import operations
from service.datasets.schemas import MEDIA_TYPES, Dataset
from service.dependencies import SettingsDep
from service.documentation import header, problems
from service.errors import UnsupportedMediaType

router = APIRouter(prefix="/v1", tags=["datasets"])

DatasetId = Annotated[str, Path(pattern=DATASET_ID_PATTERN, description="The dataset's id, as uploading it answered.")]
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_EXAMPLES = {
    "application/x-ndjson": '{"text": "undo a commit", "label": "coding"}\n',
    "text/csv": "text,label\nundo a commit,coding\n",
    "text/tab-separated-values": "text\tlabel\nundo a commit\tcoding\n",
}
_BODIES = {name: _BINARY | ({"example": _EXAMPLES[name]} if name in _EXAMPLES else {}) for name in MEDIA_TYPES}
_LOCATION = header("Location", "Where the dataset is.")


@router.post(
    "/datasets",
    operation_id="upload_dataset",
    status_code=status.HTTP_201_CREATED,
    openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
    responses={
        201: {"description": "The dataset is kept.", "headers": _LOCATION},
        200: {"model": Dataset, "description": "These bytes were there already.", "headers": _LOCATION},
        **problems(400, 401, 409, 413, 415, 422, 503),
    },
)
async def upload_dataset(request: Request, response: Response, settings: SettingsDep) -> Dataset:
    """Upload a file of rows, to be named in a job as `{"kind": "dataset", "id": "ds_..."}`.

    The body is the file as it is: JSON lines, CSV or TSV with a header line (each may be gzip), or Parquet. It is read
    through once; a file that is broken is refused and leaves nothing behind. What the columns mean is said in the job.
    """
    message = email.message.Message()
    message["content-type"] = request.headers.get("content-type", "")
    format_ = MEDIA_TYPES.get(message.get_content_type())
    if format_ is None:
        raise UnsupportedMediaType(f"Send the file with 'Content-Type:' one of {', '.join(MEDIA_TYPES)}.")
    dataset, created = await operations.receive(request.stream(), format_, settings)
    if not created:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return dataset


@router.get("/datasets/{dataset_id}", operation_id="get_dataset", responses=problems(401, 404, 503))
def get_dataset(dataset_id: DatasetId, settings: SettingsDep) -> Dataset:
    """What is in an uploaded dataset: rows, bytes, columns."""
    return operations.get(dataset_id, settings)


@router.delete(
    "/datasets/{dataset_id}",
    operation_id="delete_dataset",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(401, 404, 503),
)
def delete_dataset(dataset_id: DatasetId, settings: SettingsDep) -> None:
    """Remove an uploaded dataset. A job that still waits to read it will fail; one that has read it goes on."""
    operations.delete(dataset_id, settings)
