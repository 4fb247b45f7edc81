"""Sources, profiles and codecs as the database has them, compiled for use."""

from collections.abc import Mapping
from typing import Final

import asyncpg
import structlog

from sens_common.database import Connection
from sens_common.dead_letters import Reason
from sens_common.errors import SettingsError
from sens_payloads.profiles import Profile
from sens_payloads.stored import stored_profile, stored_source
from sens_telemetry_worker.tenants import Refusal, SourceOfTenant, Tenant

log = structlog.get_logger()

_PROFILES: Final = """
    SELECT p.id, p.tenant_id, p.name, p.builtin_codec, c.name AS codec, v.number, v.sha256, v.source, p.metrics
    FROM sens.profiles p
    LEFT JOIN sens.codec_versions v ON v.codec_id = p.codec_id AND v.number = p.codec_version
    LEFT JOIN sens.codecs c ON c.id = p.codec_id
"""
_SOURCES: Final = """
    SELECT id, tenant_id, name, format, settings, registers_devices, radio, default_profile, profile_rules, keep_frames FROM sens.sources
"""
_ASSIGNED: Final = """
    SELECT d.tenant_id, d.name, a.profile_id FROM sens.device_profiles a JOIN sens.devices d ON d.id = a.device_id
"""


async def read_sources(
    connection: Connection, tenants: Mapping[str, Tenant]
) -> dict[tuple[str, str], SourceOfTenant | Refusal]:
    """Return all sources by tenant's name and their own; in the place of one that can't be used, why."""
    by_id = {tenant.id: tenant for tenant in tenants.values()}
    profiles = {row["id"]: stored_profile(row) for row in await connection.fetch(_PROFILES)}
    assigned: dict[int, dict[str, Profile]] = {}
    for tenant_id, device, profile_id in await connection.fetch(_ASSIGNED):
        assigned.setdefault(tenant_id, {})[device] = profiles[profile_id]
    found: dict[tuple[str, str], SourceOfTenant | Refusal] = {}
    for row in await connection.fetch(_SOURCES):
        tenant = by_id.get(row["tenant_id"])
        if tenant is None:  # made since the tenants were read
            continue
        found[tenant.name, row["name"]] = _sender(row, tenant, profiles, assigned.get(tenant.id, {}))
    return found


def _sender(
    row: asyncpg.Record, tenant: Tenant, profiles: Mapping[int, Profile], assigned: Mapping[str, Profile]
) -> SourceOfTenant | Refusal:
    try:
        source = stored_source(row, profiles)
    except SettingsError as error:
        log.warning("a source can't be used", tenant=tenant.name, source=row["name"], error=str(error))
        return Refusal(
            Reason.UNKNOWN_SOURCE,
            f"source {row['name']} of tenant {tenant.name} can't be used: {error}; change it, then replay",
        )
    return SourceOfTenant(tenant, source, assigned, row["id"], row["keep_frames"])
