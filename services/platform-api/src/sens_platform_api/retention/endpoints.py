"""``/api/v1/retention``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import InvalidRequestError, LimitsContradictError, NotFoundError
from sens_platform_api.parameters import no_parameters
from sens_platform_api.problems import data_responses
from sens_platform_api.retention import schemas, service
from sens_platform_api.retention.repository import TenantRetention
from sens_platform_api.retention.rules import KINDS

router = APIRouter(prefix="/api/v1/retention", tags=["retention"])


async def _rules(database: CallersDatabase, caller: CurrentCaller) -> service.Rules:
    return TenantRetention(database, caller)


OwnRules = Annotated[service.Rules, Depends(_rules)]


@router.get(
    "",
    operation_id="get_retention",
    summary="Show how long what is kept",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(),
)
async def get_retention(rules: OwnRules) -> schemas.RetentionDocument:
    """The rules of the tenant, and how far the deletion of what is older is."""
    return schemas.RetentionDocument.of(await rules.show())


@router.put(
    "",
    operation_id="set_retention",
    summary="Say how long something is kept",
    responses=data_responses(NotFoundError, LimitsContradictError),
)
async def set_retention(rules: OwnRules, query: Annotated[schemas.RuleChange, Query()]) -> schemas.RetentionDocument:
    """What is older is deleted within hours, in short steps. It can't be undone.

    The narrowest rule counts: of a metric of a device, of the device, of the metric, of the tenant.
    """
    days = None if query.days == "forever" else int(query.days)
    _check(query)
    return schemas.RetentionDocument.of(await service.change(rules, query.rule(days)))


@router.delete(
    "",
    operation_id="delete_retention",
    summary="Remove a rule",
    responses=data_responses(NotFoundError),
)
async def delete_retention(
    rules: OwnRules, query: Annotated[schemas.RuleSelection, Query()]
) -> schemas.RetentionDocument:
    """The next wider rule counts from now on. Without one, it is kept for ever."""
    _check(query)
    return schemas.RetentionDocument.of(await service.change(rules, query.rule(None), forget=True))


def _check(query: schemas.RuleSelection) -> None:
    if query.kind == "dead_letters" and (query.device is not None or query.metric is not None):
        raise InvalidRequestError.in_query("kind", f"{KINDS[query.kind]} have one rule for the whole tenant")
