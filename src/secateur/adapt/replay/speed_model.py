"""A roofline model of speed: the time to read or the time to compute, whichever is longer."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.device.bandwidth import measure_machine
from secateur.device.profile import LOCAL, load_profile
from secateur_runtime.errors import UsageError
from secateur_runtime.ladder_costs import Choices, Mask
from secateur_runtime.sensors.system_memory import system_memory


@dataclass(frozen=True, slots=True)
class Roofline:
    """The two rates of a machine.

    bytes: bytes read per second. operations: operations per second. source: the machine they belong to.
    """

    bytes: float
    operations: float
    source: str

    def decode(self, choices: Choices, gone: Mask, batch: int, tokens: int) -> float:
        """Return the seconds of one step in which each sequence gets a token.

        Weights and the caches of all sequences are read once.
        """
        weights, cache, flops = held(choices, gone)
        return max((weights + cache * batch * tokens) / self.bytes, flops * batch / self.operations)

    def prefill(self, choices: Choices, gone: Mask, batch: int, tokens: int) -> float:
        """Return the seconds until every sequence has read `tokens` tokens.

        The products within attention are not counted.
        """
        weights, _, flops = held(choices, gone)
        return max(weights / self.bytes, flops * batch * tokens / self.operations)


def held(choices: Choices, gone: Mask) -> tuple[float, float, float]:
    """Return bytes of weights, bytes of cache per position and operations per token.

    gone: mask of the removed steps, `[n]`.
    """
    weights = choices.weights[0] - choices.freed_weights @ gone
    cache = choices.cache[0] - choices.freed_cache @ gone
    return float(weights), float(cache), float(choices.flops[0] - choices.freed_flops @ gone)


def speed_of(device: str) -> Roofline:
    """Return the rates of a device; `local` is measured now, in about a second.

    Raises UsageError for a profile without rates.
    """
    if device == LOCAL:
        measured = measure_machine(1, memory=system_memory().total)
        return Roofline(measured.read, measured.matrix, "this machine, one thread, measured now")
    profile = load_profile(device)
    figures = {name: figure.value for name, figure in profile.figures.items()}
    read = figures.get("stream") or figures.get("bandwidth")
    matrix = figures.get("matrix")
    if read is None or matrix is None:
        raise UsageError(
            f"profile {profile.name} has no measured speed of reading and computing: use --device local, or a"
            " profile that `secateur device -o` wrote"
        )
    return Roofline(read, matrix, profile.name)
