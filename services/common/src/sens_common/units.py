"""Units of measure: UCUM codes (The Unified Code for Units of Measure, case sensitive), and how people write them."""

import re
from typing import Final

UNIT_PATTERN: Final = r"^[!-~]{1,40}$"
"""UCUM codes are visible ASCII characters (UCUM, section 2.2)."""

_TEXTS: Final = {
    "1": "",
    "Cel": "°C",
    "[degF]": "°F",
    "deg": "°",
    "um": "µm",
    "us": "µs",
    "uA": "µA",
    "uV": "µV",
    "uT": "µT",
    "Ohm": "Ω",
    "kOhm": "kΩ",
    "[ppm]": "ppm",
    "[ppb]": "ppb",
    "10*-6": "ppm",
    "10*-9": "ppb",
    "dB[mW]": "dBm",
    "B[mW]": "Bm",
    "V.A": "VA",
    "kV.A": "kVA",
    "W.h": "Wh",
    "kW.h": "kWh",
    "MW.h": "MWh",
    "var": "var",
    "A.h": "Ah",
    "mA.h": "mAh",
    "[pH]": "pH",
    "[in_i]": "in",
    "[ft_i]": "ft",
    "[mi_i]": "mi",
    "[mi_i]/h": "mph",
    "[kn_i]": "kn",
    "[psi]": "psi",
    "{count}": "",
    "/min": "1/min",
    "/h": "1/h",
    "/s": "1/s",
}
_POWERS: Final = {"0": "⁰", "1": "¹", "2": "²", "3": "³", "4": "⁴"}
_TERM: Final = re.compile(r"(?P<unit>[A-Za-z]+)(?P<power>[0-4]?)")


def unit_text(code: str) -> str:
    """Return a unit as people write it; a code that is not known stays as it is.

    >>> [unit_text(code) for code in ("Cel", "ug/m3", "%", "W/m2", "kW.h", "m/s", "{drops}", "nonsense[x]")]
    ['°C', 'µg/m³', '%', 'W/m²', 'kWh', 'm/s', 'drops', 'nonsense[x]']
    """
    if code in _TEXTS:
        return _TEXTS[code]
    if code.startswith("{") and code.endswith("}"):
        return code[1:-1]
    above, slash, below = code.partition("/")
    terms = [_TERM.fullmatch(term) for term in ((above, below) if slash else (above,))]
    if any(term is None for term in terms):
        return code
    return slash.join(_term_text(term["unit"], term["power"]) for term in terms if term is not None)


def _term_text(unit: str, power: str) -> str:
    text = _TEXTS.get(unit, "µ" + unit[1:] if unit in {"ug", "ul", "uL", "umol", "uS"} else unit)
    return text + _POWERS.get(power, "")
