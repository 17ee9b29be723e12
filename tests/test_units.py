"""What a unit's text means, and values in other units; the expected numbers are the units' definitions."""

import math
import random
import time

import pytest

from opcod.units import convert, unit_fault


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [
        (36, "km/h", "m/s", 10),
        (1, "h", "s", 3600),
        (2.5, "cm³", "mm^3", 2500),
        (2.5, "cm3", "mm**3", 2500),
        (3, "m s⁻²", "m/s^2", 3),
        (3, "m s-2", "m/s/s", 3),
        (3, "N⋅m", "J", 3),
        (3, "N-m", "kg*m²/s²", 3),
        (1, "kWh", "MJ", 3.6),
        (5, "Newtons", "N", 5),
        (5, "meters per second", "km/h", 18),
        (1, "eV", "J", 1.602176634e-19),
        (7, "µm", "m", 7e-6),
        (7, "μm", "nm", 7000),
        (7, "\\mu m", "nm", 7000),
        (2, "kΩ", "ohm", 2000),
        (2, "k\\Omega", "Ω", 2000),
        (2, "Å", "pm", 200),
        (2, "\\textm/s", "m/s", 2),
        (2, "\\mathrm{mol}/\\mathrm{L}", "mol/m^3", 2000),
        (50, "%", "percent", 50),
        (50, "\\%", "ppm", 500_000),
        (180, "°", "rad", 3.141592653589793),
        (25, "°C", "K", 298.15),
        (25, "degrees Celsius", "K", 298.15),
        (25, "℃", "K", 298.15),
        (25, "^\\circ C", "K", 298.15),
        (212, "°F", "°C", 100),
        (0, "K", "°C", -273.15),
        (4186, "J/(kg °C)", "J/(kg K)", 4186),
        (4186, "J/kg K", "J/(kg K)", 4186),
        (4186, "J/kg·K", "J/(kg K)", 4186),
        (20, "dBm", "mW", 100),
        (3, "/s", "Hz", 3),
        (60, "rpm", "Hz", 1),
        (2 * math.pi, "rad/s", "Hz", 1),
        (720, "°/s", "Hz", 2),
        (0.5, "kHz", "rad/s", 1000 * math.pi),
        (3, "1/s", "rad/s", 3),
        (3, "1/min", "1/h", 180),
    ],
)
def test_a_value_is_converted(value, unit, wanted, expected):
    assert unit_fault(wanted) is None
    assert convert(value, unit, wanted) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("m", "s"),
        ("J", "N"),
        ("%", "m"),
        ("C", "°C"),  # a charge
        ("Mw", "MW"),
        ("upward", "m"),
        ("m upward", "m"),
        ("m/", "m"),
        ("((m)", "m"),
        ("degC", "delta_degC"),
        ("dBm/s", "mW/s"),
        ("9**9**9", "m"),
        ("m^9^9^9", "m"),
        ("m" * 61, "m"),
    ],
)
def test_what_measures_something_else_or_is_no_unit_is_not_converted(unit, wanted):
    assert convert(1.0, unit, wanted) is None


def test_a_value_beyond_all_numbers_is_not_converted():
    assert convert(1e300, "km", "nm") is None
    assert convert(0.0, "mW", "dBm") is None


def test_case_tells_apart_symbols_and_not_names():
    assert convert(1.0, "mW", "W") == pytest.approx(1e-3)
    assert convert(1.0, "MW", "W") == pytest.approx(1e6)
    assert convert(1.0, "KILOGRAM", "kg") == 1.0


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ("", "'' is no unit: expected names"),
        ("m/s 3", "is no unit: expected names"),
        ("__import__('os')", "is no unit: expected names"),
        ("9**9**9", "is no unit: expected names"),
        ("metrez", "is no unit that pint knows ('metrez' is not defined"),
        ("m" * 61, "has 61 characters, expected at most 60"),
        ("W/m^2 K", "can be read in two ways: put what is below the line in parentheses, W/(m^2 K)"),
    ],
)
def test_a_faulty_unit_is_refused_with_its_reason(unit, reason):
    assert reason in (unit_fault(unit) or "")


def test_no_text_raises_or_takes_long():
    pieces = [
        "m",
        "s",
        "degC",
        "dB",
        "dBm",
        "%",
        "°",
        "9",
        "^",
        "**",
        "-1",
        "/",
        "*",
        "(",
        ")",
        " ",
        "\\",
        "{",
        "per",
        "²",
    ]
    rng = random.Random(0)
    unit_fault("m")  # the registry is loaded
    begun = time.process_time()
    for _ in range(1500):
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(0, 12)))
        usable = unit_fault(text) is None
        assert (convert(1.0, text, text) is not None) if usable else (convert(1.0, text, "mol/lx") is None)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("unit", ["m", "km/h", "°F", "eV", "g/cm^3", "mmHg", "dBm"])
def test_there_and_back_is_the_same(unit):
    base = {"m": "ft", "km/h": "m/s", "°F": "K", "eV": "J", "g/cm^3": "kg/L", "mmHg": "Pa", "dBm": "W"}[unit]
    there = convert(12.5, unit, base)
    assert there is not None
    assert convert(there, base, unit) == pytest.approx(12.5, rel=1e-9)
