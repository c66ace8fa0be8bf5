"""HTTP of methods."""

from __future__ import annotations

from fastapi import APIRouter

from service.documentation import problems
from service.methods.operations import describe
from service.methods.schemas import Methods

router = APIRouter(prefix="/v1", tags=["methods"])


@router.get("/methods", operation_id="list_methods", responses=problems(401))
async def list_methods() -> Methods:
    """Curvatures, solvers, which go together, and the JSON Schema of their options."""
    return describe()
