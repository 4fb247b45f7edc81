"""Calibrations in requests and answers."""

from datetime import UTC, datetime
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sens_common.times import TIME_FORMS
from sens_platform_api.calibrations.repository import Calibration, NewCalibration
from sens_platform_api.errors import InvalidRequestError
from sens_platform_api.fields import CalibrationChoice, DeviceName, MetricName, Time, json_of
from sens_platform_api.parameters import METRIC_PATTERN, METRIC_WORDS, Parameters, in_words, parse_time, time_text

_LEAST_SCALE: Final = 1e-9
_MOST_SCALE: Final = 1e9
_MOST_OFFSET: Final = 1e15
_MOST_REASON: Final = 500


def _scale(number: float) -> float:
    if not _LEAST_SCALE <= abs(number) <= _MOST_SCALE:
        raise ValueError("a scale is from 1e-9 to 1e9, or the same below zero; 1 leaves values as they are")
    return number


class CalibrationParameters(Parameters):
    """Says which calibrations values are read with."""

    calibration: CalibrationChoice = None
    calibration_as_of: Annotated[
        str | None,
        Field(
            description=f"With the calibrations that were known at this time: {TIME_FORMS}. Without it, with those that hold now.",
            max_length=40,
            examples=["2026-11-24T00:00:00Z"],
        ),
    ] = None

    def calibration_setting(self, now: datetime) -> str:
        """Return the setting `sens.calibration` of the database that the parameters stand for, empty for the calibrations that hold.

        Raises:
            InvalidRequestError: They exclude each other, or the time is none.
        """
        if self.calibration_as_of is None:
            return self.calibration or ""
        if self.calibration is not None:
            raise InvalidRequestError.in_query("calibration_as_of", "it and calibration=none exclude each other")
        return parse_time("calibration_as_of", self.calibration_as_of, now).astimezone(UTC).isoformat()


class CalibrationListParameters(Parameters):
    """Selects calibrations."""

    removed: Annotated[bool, Field(description="With those that were removed or replaced.", examples=[True])] = False


class CalibrationChange(BaseModel):
    """A calibration as it should be."""

    model_config = ConfigDict(extra="forbid")

    metric: Annotated[str, Field(max_length=255, examples=["temperature"]), in_words(METRIC_PATTERN, METRIC_WORDS)]
    valid_from: Annotated[
        str,
        Field(
            description=f"From when on values are calibrated, until the next calibration: {TIME_FORMS}.",
            max_length=40,
            examples=["2026-11-24T00:00:00Z"],
        ),
    ]
    scale: Annotated[
        float,
        Field(description="By which what is stored is multiplied.", strict=True, allow_inf_nan=False, examples=[1.02]),
        AfterValidator(_scale),
    ] = 1.0
    offset: Annotated[
        float,
        Field(
            description="Added after that, in the unit of the metric. Scale 1 and offset 0 end a calibration.",
            strict=True,
            allow_inf_nan=False,
            ge=-_MOST_OFFSET,
            le=_MOST_OFFSET,
            examples=[-0.3],
        ),
    ] = 0.0
    reason: Annotated[
        str,
        Field(description="Why, for people.", max_length=_MOST_REASON, examples=["compared with the reference"]),
        json_of(2000),
    ] = ""

    def calibration(self, now: datetime) -> NewCalibration:
        """Return what the document says.

        Raises:
            InvalidRequestError: The time is none.
        """
        try:
            valid_from = parse_time("valid_from", self.valid_from, now)
        except InvalidRequestError as error:
            raise InvalidRequestError.in_body("valid_from", error.parameters[0].detail) from None
        return NewCalibration(self.metric, valid_from, self.scale, self.offset, self.reason)


class CalibrationDocument(BaseModel):
    """A calibration of a metric of a device."""

    model_config = ConfigDict(extra="forbid")

    calibration: Annotated[int, Field(description="Its id.", examples=[7])]
    metric: MetricName
    valid_from: Annotated[Time, Field(description="From when on values are calibrated, until the next calibration.")]
    scale: Annotated[float, Field(description="By which what is stored is multiplied.", examples=[1.02])]
    offset: Annotated[float, Field(description="What is added after that.", examples=[-0.3])]
    reason: Annotated[str, Field(description="Why.", examples=["compared with the reference"])]
    added_at: Annotated[Time, Field(description="When it was added.")]
    added_by: Annotated[str, Field(description="By whom.", examples=["key 3 (laboratory)"])]
    removed_at: Annotated[
        str | None,
        Field(
            description="When it was removed or replaced, null while it holds.",
            json_schema_extra={"format": "date-time"},
            examples=[None],
        ),
    ]
    removed_by: Annotated[str | None, Field(description="By whom.", examples=[None])]

    @classmethod
    def of(cls, calibration: Calibration) -> Self:
        """Return the document of a calibration."""
        _, what, added_at, added_by, removed_at, removed_by = calibration
        return cls(
            calibration=calibration.id,
            metric=what.metric,
            valid_from=time_text(what.valid_from),
            scale=what.scale,
            offset=what.offset,
            reason=what.reason,
            added_at=time_text(added_at),
            added_by=added_by,
            removed_at=None if removed_at is None else time_text(removed_at),
            removed_by=removed_by,
        )


class CalibrationList(BaseModel):
    """The calibrations of a device, by metric and time."""

    model_config = ConfigDict(extra="forbid")

    device: DeviceName
    calibrations: list[CalibrationDocument]
