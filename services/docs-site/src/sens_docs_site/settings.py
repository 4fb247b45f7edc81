"""Settings of the documentation's site."""

from pathlib import Path

from pydantic import Field

from sens_common.settings import Group, HttpsSettings, Port, ServiceSettings


class SiteSettings(Group):
    """What is served."""

    folder: Path = Field(Path("site"), description="Folder of the built documentation, with an index.html in it.")


class HttpSettings(Group):
    """Where it is served."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; images listen on all addresses.")
    port: Port = Field(8080, description="Port to listen on.")
    metrics_port: Port | None = Field(
        None, description="Port of `/metrics` alone, where the pages' port is public; the pages' port has it otherwise."
    )


class DocsSiteSettings(ServiceSettings):
    """Settings of the documentation's site."""

    site: SiteSettings = SiteSettings()
    http: HttpSettings = HttpSettings()
    https: HttpsSettings = HttpsSettings()
