"""``/api/v1/presets``."""

from fastapi import APIRouter, Depends

from sens_payloads.formats.presets import PRESETS
from sens_platform_api.current_caller import CurrentCaller
from sens_platform_api.parameters import no_parameters
from sens_platform_api.presets.schemas import PresetDocument, PresetList
from sens_platform_api.problems import data_responses

router = APIRouter(prefix="/api/v1/presets", tags=["sources"])


@router.get(
    "",
    operation_id="list_presets",
    summary="List presets for sources",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(),
)
async def list_presets(_caller: CurrentCaller) -> PresetList:
    """A source that is made with `preset` reads the messages of a well-known program as they are: Tasmota, Shelly, Zigbee2MQTT and others."""
    return PresetList(presets=[PresetDocument.of(PRESETS[name]) for name in sorted(PRESETS)])
