"""HTTP/1.1 as senders speak it (RFC 9112), parsed by httptools; knows nothing of tenants."""

from sens_http_ingestion_worker.http.server import serve_http

__all__ = ["serve_http"]
