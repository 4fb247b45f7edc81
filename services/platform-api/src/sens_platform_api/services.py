"""What the composition root gives to the endpoints."""

from typing import Annotated, NamedTuple

from fastapi import Depends
from starlette.requests import Request

from sens_common.operations import Heartbeat
from sens_platform_api.database import Pool
from sens_platform_api.dead_letters.jetstream import ReplayLog
from sens_platform_api.keys.service import Authenticator
from sens_platform_api.live.service import LiveHub
from sens_platform_api.operations.service import ApiReadiness
from sens_platform_api.settings import LimitSettings
from sens_platform_api.streaming import Answers


class Services(NamedTuple):
    """Everything that an endpoint may need."""

    limits: LimitSettings
    pool: Pool
    authenticator: Authenticator
    replay_log: ReplayLog
    live: LiveHub
    heartbeat: Heartbeat
    readiness: ApiReadiness
    answers: Answers


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(_services)]
