"""What the application hands to its APIs, as FastAPI's dependencies."""

from typing import Annotated

from fastapi import Depends, Request

from modeguard.service.inference import Engine
from modeguard.service.settings import Settings


def _engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _settings_of(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


EngineOfApp = Annotated[Engine, Depends(_engine_of)]
SettingsOfApp = Annotated[Settings, Depends(_settings_of)]
