"""HTTP of limits."""

from __future__ import annotations

from fastapi import APIRouter

from service.dependencies import SettingsDep
from service.documentation import problems
from service.limits import operations
from service.limits.schemas import Limits

router = APIRouter(prefix="/v1", tags=["methods"])


@router.get("/limits", operation_id="list_limits", responses=problems(401))
async def list_limits(settings: SettingsDep) -> Limits:
    """What this server takes at most. An error that a limit causes names it as it is named here."""
    return operations.list_limits(settings)
