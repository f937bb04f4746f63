"""Random numbers without a state: each is a pure function of a seed and of what it is drawn for."""

import torch
from torch import Tensor

# splitmix64 (Steele, Lea and Flood, 2014), its unsigned constants written as the signed numbers that torch wraps to.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def uniform(seed: int, *counters: Tensor) -> Tensor:
    """Draw float32 numbers, uniform in [0, 1) in steps of 2**-24.

    A number depends on the seed and on the counters at its own place alone, so it is the same in any batch, order,
    process and on any device.

    Args:
        seed: Any 64-bit number.
        counters: int64, of shapes that broadcast to the result's, on one device; their order matters.
    """
    state = _mix(torch.full((), seed, dtype=torch.int64, device=counters[0].device))
    for counter in counters:
        state = _mix(state ^ counter)
    return _shift_right(state, 40).to(torch.float32) * 2.0**-24


def _mix(state: Tensor) -> Tensor:
    state = state + _GAMMA
    state = (state ^ _shift_right(state, 30)) * _FIRST
    state = (state ^ _shift_right(state, 27)) * _SECOND
    return state ^ _shift_right(state, 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    # torch's own shift repeats the sign bit
    return (state >> bits) & ((1 << (64 - bits)) - 1)
