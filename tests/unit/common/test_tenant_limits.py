"""The limits that ingestion workers read."""

import pytest

from sens_common import tenant_limits
from sens_common.tenant_limits import TenantLimits


class TestLimits:
    def test_come_back_as_they_were(self) -> None:
        limits = TenantLimits(messages_per_second=100)
        assert tenant_limits.decode(tenant_limits.encode(limits)) == limits

    def test_of_a_newer_writer_are_understood(self) -> None:
        assert tenant_limits.decode(b'{"messages_per_second": null, "later": 1}') == TenantLimits()

    @pytest.mark.parametrize("value", [b"", b"[]", b'{"messages_per_second": "many"}', b"\xff"])
    def test_that_are_none_are_refused(self, value: bytes) -> None:
        with pytest.raises(ValueError, match="not the limits of a tenant"):
            tenant_limits.decode(value)


class TestKey:
    def test_holds_only_characters_that_a_bucket_allows(self) -> None:
        assert tenant_limits.key("a.b_c-d.") == "a=2Eb_c-d=2E"
