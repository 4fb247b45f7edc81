"""Settings of whoever runs tenants' codecs."""

from pydantic import Field

from sens_common.settings import Group


class CodecSettings(Group):
    """The processes in which tenants' codecs run."""

    max_processes: int = Field(
        4, ge=1, le=256, description="Codecs of so many tenants run at the same time; each takes 16 to some 200 MB."
    )
    allow_without_seccomp: bool = Field(
        False,
        description="Run codecs also where system calls can't be filtered, as on macOS. Only for codecs that are all your own.",
    )
