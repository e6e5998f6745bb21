"""GET /livez and GET /readyz: what an orchestrator asks."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from modeguard.service.api.dependencies import EngineOfApp
from modeguard.service.api.schemas import NOT_READY, problem_responses

router = APIRouter(tags=["probes"])


class Health(BaseModel):
    """The answer of a probe."""

    status: str = Field(examples=["ok"])


@router.get("/livez", summary="Whether the process answers")
async def livez() -> Health:
    """Always ok: that it is answered is the answer."""
    return Health(status="ok")


@router.get("/readyz", summary="Whether images can be sent", responses=problem_responses(NOT_READY))
async def readyz(engine: EngineOfApp) -> Health:
    """Ok once the bundle is loaded and verified."""
    _ = engine.current
    return Health(status="ok")
