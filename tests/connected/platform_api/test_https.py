"""The API behind a proxy that tells how it was asked."""

from pathlib import Path

import httpx2

from support.api import RunningApi, running_api

PLAIN = {"X-Forwarded-Proto": "http"}
SAFE = {"X-Forwarded-Proto": "https"}


class TestTheApi:
    def test_serves_nothing_that_came_over_plain_http(self, api: RunningApi, tmp_path: Path) -> None:
        settings = {"SENS_HTTPS__ONLY": "true", "SENS_HTTPS__HSTS_SECONDS": "600"}
        with running_api(tmp_path, api.database, api.nats, settings) as own:  # on the servers of the shared one
            _tenant, key = own.new_tenant()
            with own.client(key) as with_key, own.client() as without:
                refused = with_key.get("/api/v1/devices", headers=PLAIN)
                redirected = without.get("/api/v1/devices?limit=1", headers=PLAIN)
                served = with_key.get("/api/v1/devices", headers=SAFE)
                inside = with_key.get("/api/v1/devices")
                metrics = without.get("/metrics").text

        assert (refused.status_code, refused.json()["code"]) == (403, "plain_http")
        assert key not in refused.text
        assert redirected.status_code == 308
        assert httpx2.URL(redirected.headers["Location"]).scheme == "https"
        assert redirected.headers["Location"].endswith("/api/v1/devices?limit=1")
        assert (served.status_code, served.headers["Strict-Transport-Security"]) == (200, "max-age=600")
        assert inside.status_code == 200
        for outcome in ("redirected", "key_exposed"):
            assert f'sens_api_plain_http_requests_total{{outcome="{outcome}"}} 1.0' in metrics
