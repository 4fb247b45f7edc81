"""The mapping of payload formats."""

import pytest

from sens_common.errors import RejectedMessageError, SettingsError
from sens_telemetry_worker.decoders import DECODERS, decoder, native


class TestDecoder:
    def test_finds_the_native_format(self) -> None:
        assert decoder("native").decode is native.decode

    def test_refuses_an_unknown_name_and_lists_the_known_ones(self) -> None:
        with pytest.raises(SettingsError, match=r"no decoder 'cayenne'; the decoders are: .*native"):
            decoder("cayenne")

    @pytest.mark.parametrize("name", DECODERS)
    def test_every_format_decodes_nothing_from_an_empty_payload(self, name: str) -> None:
        with pytest.raises(RejectedMessageError):
            decoder(name).decode(b"", 0)
