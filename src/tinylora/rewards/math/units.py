"""Units of measurement: which words are units, and how they convert into each other."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

# By dimension: the size of a unit in the first one, and its spellings.
_TABLE: dict[str, tuple[tuple[str, str], ...]] = {
    "length": (
        ("1", "m meter meters metre metres"), ("1/10", "dm decimeter decimeters"),
        ("1/100", "cm cms centimeter centimeters centimetre centimetres"),
        ("1/1000", "mm millimeter millimeters millimetre millimetres"),
        ("1000", "km kms kilometer kilometers kilometre kilometres"), ("1e-9", "nm nanometers"),
        ("0.0254", "in inch inches"), ("0.3048", "ft foot feet"), ("0.9144", "yd yard yards"),
        ("1609.344", "mi mile miles"),
    ),
    "mass": (
        ("1", "g gram grams gm"), ("1000", "kg kgs kilogram kilograms kilo kilos"),
        ("1/1000", "mg milligram milligrams"), ("453.59237", "lb lbs pound pounds"),
        ("28.349523125", "oz ounce ounces"),
    ),
    "time": (
        ("1", "s second seconds sec secs"), ("60", "min mins minute minutes"),
        ("3600", "h hr hrs hour hours"), ("86400", "day days"), ("604800", "week weeks"),
        ("1/1000", "ms millisecond milliseconds"),
    ),
    "month": (("1", "month months"), ("12", "year years yr yrs")),
    "money": (("1", "dollar dollars usd USD"), ("1/100", "cent cents")),
    "angle": (("1", "degree degrees deg"),), "radian": (("1", "radian radians rad"),),
    "euro": (("1", "euro euros"),), "rupee": (("1", "rupee rupees"),),
    "liter": (("1", "l liter liters litre litres L"),
              ("1/1000", "ml mL milliliter milliliters millilitre millilitres")),
    "gallon": (("1", "gallon gallons"), ("1/4", "quart quarts")),
    "unit": (("1", "unit units"),), "acre": (("1", "acre acres"),),
    "hectare": (("1", "ha hectare hectares"),),
    "force": (("1", "N newton newtons"), ("1000", "kN")),
    "energy": (("1", "J joule joules"), ("1000", "kJ"), ("1e-7", "erg ergs"),
               ("3600000", "kWh")),
    "calorie": (("1", "cal calorie calories"), ("1000", "kcal")),
    "electronvolt": (("1", "eV"), ("1000", "keV"), ("1000000", "MeV"), ("1e9", "GeV")),
    "power": (("1", "W watt watts"), ("1000", "kW"), ("1000000", "MW")),
    "pressure": (("1", "Pa pascal pascals"), ("1000", "kPa"), ("101325", "atm")),
    "frequency": (("1", "Hz hertz"), ("1000", "kHz"), ("1000000", "MHz"), ("1e9", "GHz")),
    "voltage": (("1", "V volt volts"), ("1000", "kV"), ("1/1000", "mV")),
    "resistance": (("1", "Omega ohm ohms"),), "current": (("1", "A amp amps"), ("1/1000", "mA")),
    "temperature": (("1", "K kelvin"),), "celsius": (("1", "C celsius Celsius"),),
    "fahrenheit": (("1", "F fahrenheit Fahrenheit"),), "field": (("1", "T tesla"),),
    "amount": (("1", "mol mole moles"), ("1/1000", "mmol")), "angstrom": (("1", "AA"),),
    "byte": (("1", "byte bytes B"), ("1000", "kB KB"), ("1000000", "MB"), ("1e9", "GB"),
             ("1e12", "TB")),
    "bit": (("1", "bit bits"),), "decibel": (("1", "dB"),), "pixel": (("1", "px pixels"),),
}  # fmt: skip
_UNITS = {
    name: (Fraction(size), dimension)
    for dimension, rows in _TABLE.items()
    for size, names in rows
    for name in names.split()
}
_SPELLED = (
    (re.compile(r"\bmph\b"), "miles/hour"),
    (re.compile(r"\b(?:kph|kmh|kmph)\b"), "km/h"),
    (re.compile(r"\bmiles an hour\b"), "miles/hour"),
    (re.compile(r"\\degree\s*([CF])\b"), r"\1"),
    (re.compile(r"\b(?:sq|square)\b\.?\s*([A-Za-z]+)"), r"\1^2"),
    (re.compile(r"\b(?:cu|cubic)\b\.?\s*([A-Za-z]+)"), r"\1^3"),
    (re.compile(r"([A-Za-z]+)\s+squared\b"), r"\1^2"),
    (re.compile(r"([A-Za-z]+)\s+cubed\b"), r"\1^3"),
    (re.compile(r"\bper\b"), "/"),
)
_FACTOR = re.compile(
    r"\s*(/|\\cdot(?![A-Za-z]))?\s*\\?([A-Za-z]+)\.?(?:\s*\^\s*(?:(-?\d)|\{\s*(-?\d+)\s*\}))?\s*"
)
# Two letters that are a product of two common variables as often as a unit.
_PRODUCTS = frozenset({"mg", "nm", "ms"})


@dataclass(frozen=True)
class Unit:
    """A product of units: its size in base units, and the power of each dimension in it."""

    size: Fraction
    dimensions: tuple[tuple[str, int], ...]
    is_lettered: bool  # single letters alone, which are variables where nothing says otherwise

    def is_one(self, dimension: str) -> bool:
        """Whether this is a unit of that dimension and nothing else."""
        return self.dimensions == ((dimension, 1),)


@lru_cache(maxsize=1024)
def unit(text: str) -> Unit | None:
    r"""`cm^2`, `square miles`, `m/s^2`, `\degree`: a product of known units, else None."""
    for pattern, spelling in _SPELLED:
        text = pattern.sub(spelling, text)
    size, powers, position, lettered = Fraction(1), dict[str, int](), 0, True
    while position < len(text):
        factor = _FACTOR.match(text, position)
        known = _UNITS.get(factor[2]) if factor else None
        if factor is None or known is None:
            return None
        power = int(factor[3] or factor[4] or 1) * (-1 if factor[1] == "/" else 1)
        if abs(power) > 9:
            return None
        size *= known[0] ** power
        powers[known[1]] = powers.get(known[1], 0) + power
        lettered = lettered and (len(factor[2]) == 1 or factor[2] in _PRODUCTS)
        position = factor.end()
    dimensions = tuple(sorted((name, power) for name, power in powers.items() if power))
    speed = dimensions[:1] == (("length", 1),) and dimensions[1:] in (
        (("time", -1),), (("time", -2),)
    )  # fmt: skip
    return Unit(size, dimensions, lettered and not speed) if dimensions else None
