"""What endpoints ask for, as types that read like prose."""

from __future__ import annotations

import email.message
from typing import Annotated

from fastapi import Depends, Path, Request

from ascribe.job import JOB_ID_PATTERN
from ascribe.ledger.base import Ledger
from ascribe.ledger.upkeep import Upkeep
from ascribe.settings import ServiceSettings
from ascribe.store.remote import Remote
from service.errors import UnsupportedMediaType
from service.results.ranking import Rankings
from service.watch import Watch


async def _ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


async def _settings(request: Request) -> ServiceSettings:
    settings: ServiceSettings = request.app.state.settings
    return settings


async def _upkeep(request: Request) -> Upkeep:
    upkeep: Upkeep = request.app.state.upkeep
    return upkeep


async def json_body(request: Request) -> None:
    """Refuse a body that does not call itself JSON: a web page's form can send such a one across origins."""
    message = email.message.Message()
    message["content-type"] = request.headers.get("content-type", "")
    if message.get_content_type() != "application/json":
        raise UnsupportedMediaType("Send the body with 'Content-Type: application/json'.")


async def _rankings(request: Request) -> Rankings:
    rankings: Rankings = request.app.state.rankings
    return rankings


async def _files(request: Request) -> Remote:
    files: Remote = request.app.state.files
    return files


async def _watch(request: Request) -> Watch:
    watch: Watch = request.app.state.watch
    return watch


LedgerDep = Annotated[Ledger, Depends(_ledger)]
SettingsDep = Annotated[ServiceSettings, Depends(_settings)]
UpkeepDep = Annotated[Upkeep, Depends(_upkeep)]
FilesDep = Annotated[Remote, Depends(_files)]
RankingsDep = Annotated[Rankings, Depends(_rankings)]
WatchDep = Annotated[Watch, Depends(_watch)]
JobId = Annotated[str, Path(pattern=JOB_ID_PATTERN, description="The job's id, as submitting it answered.")]
