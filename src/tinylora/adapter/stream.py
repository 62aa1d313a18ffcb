"""Random numbers that are the same bits on every platform and version, for ever.

Bits come from SHA-256 in counter mode over a key; normals from 32 of them through an inverse
normal whose every step (+, -, *, /, sqrt, frexp) is exactly defined by IEEE 754, in a fixed order,
and which is then put on a grid, so that even a last-bit difference would not show. No torch or
numpy generator, no libm `log`, and no module index: a key names what the numbers are for.

This does **not** replace a seeded generator where only one machine needs to agree with itself.
"""

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Wichura, algorithm AS 241 (PPND16), Applied Statistics 37 (1988): numerators and denominators of
# the centre |p - 1/2| <= 0.425 and of the tail; highest power first. With 32-bit uniforms p never
# comes near its third region, p < e^-25.
# fmt: off
_CENTRE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
     4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
     1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
     2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
     4.2313330701600911252e1, 1.0),
)
_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
     1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
     4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
     1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
     2.05319162663775882187e0, 1.0),
)
# fmt: on
_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_LOG_SERIES = tuple(2.0 / k for k in range(23, 0, -2))


def keyed_words(key: str, count: int) -> npt.NDArray[np.uint32]:
    """The first `count` words of the key's stream: SHA-256(SHA-256(key) | 64-bit counter)."""
    root = hashlib.sha256(key.encode()).digest()
    counters = range(-(-count // 8))
    blocks = (hashlib.sha256(root + counter.to_bytes(8, "big")).digest() for counter in counters)
    return np.frombuffer(b"".join(blocks), dtype=">u4")[:count].astype(np.uint32)


def keyed_normals(key: str, count: int) -> npt.NDArray[np.int64]:
    """Standard normals in units of 2^-21: odd integers (midpoints of a grid), never zero."""
    uniforms = (keyed_words(key, count).astype(np.float64) + 0.5) * 2.0**-32
    return 2 * np.floor(inverse_normal(uniforms) * 2.0**20).astype(np.int64) + 1


def inverse_normal(p: Floats) -> Floats:
    """The standard normal quantile of p in (1e-11, 1 - 1e-11), to 1e-15 relative."""
    q = p - 0.5
    r = 0.180625 - q * q
    centre = q * _ratio(_CENTRE, r)
    depth = np.sqrt(-_log(np.minimum(p, 1.0 - p))) - 1.6
    tail = np.where(q < 0, -1.0, 1.0) * _ratio(_TAIL, depth)
    return np.where(np.abs(q) <= 0.425, centre, tail)


@lru_cache(maxsize=64)
def keyed_signs(key: str, num_rows: int, num_columns: int) -> Floats:
    """A (num_rows, num_columns) matrix of +1 and -1; column j does not depend on the others."""
    columns = [_signs(f"{key}/{j}", num_rows) for j in range(num_columns)]
    return np.stack(columns, axis=1)


def _signs(key: str, count: int) -> Floats:
    bits = np.unpackbits(keyed_words(key, -(-count // 32)).astype(">u4").view(np.uint8))
    return 1.0 - 2.0 * bits[:count].astype(np.float64)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Floats) -> Floats:
    numerator, denominator = coefficients
    return _polynomial(numerator, x) / _polynomial(denominator, x)


def _polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    """Horner's rule, in this order and no other."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def _log(x: Floats) -> Floats:
    """The natural logarithm by its atanh series: libm's differs from platform to platform."""
    mantissa, exponent = np.frexp(x)  # 0.5 <= mantissa < 1
    is_low = mantissa < _SQRT_HALF
    mantissa = np.where(is_low, 2.0 * mantissa, mantissa)
    z = (mantissa - 1.0) / (mantissa + 1.0)
    return (exponent - is_low) * _LN2 + z * _polynomial(_LOG_SERIES, z * z)
