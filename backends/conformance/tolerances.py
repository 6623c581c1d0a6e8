"""Allowed deviations of a device from the ideal, as data: one set of numbers per kind of device."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Tolerances:
    """Bounds of the checks that compare with the ideal neuron; the defaults are for a device without mismatch.

    Attributes:
        weight: Relative error of a synapse's response to its integer weight.
        crosstalk: Response to events at weight 0, as a share of the response at the largest weight.
        rest: Distance of a resting membrane from its target (trace units).
        reset: Distance of a membrane in its refractory period from its target (trace units).
        noise: Standard deviation of the codes of a resting membrane (trace units).
        shape: Relative error of the time scale of a post-synaptic potential.
        sample: Error of the time of a trace sample (trace intervals).
        stamp: Error of a spike time, noise included (trace intervals).
        refractory: Relative shortfall of an inter-spike interval against the requested refractory period.
        share: Share of neurons (or synapses) that must stay within these bounds.
        trials: Number of trials over which a response is averaged.
    """

    weight: float = 0.05
    crosstalk: float = 0.03
    rest: float = 1.0
    reset: float = 1.0
    noise: float = 0.0
    shape: float = 0.05
    sample: float = 0.1
    stamp: float = 0.3
    refractory: float = 0.02
    share: float = 1.0
    trials: int = 1

    def __post_init__(self) -> None:
        for item in fields(self):
            if not getattr(self, item.name) >= 0:
                raise ValueError(f"tolerances.{item.name}={getattr(self, item.name)} must not be negative")
        if not 0 < self.share <= 1:
            raise ValueError(f"tolerances.share={self.share} must be in 0 < x <= 1")
        if self.trials < 1:
            raise ValueError(f"tolerances.trials={self.trials} must be at least 1")


IDEAL = Tolerances()
"""A device without mismatch and noise."""
ANALOG = Tolerances(
    weight=0.5,
    crosstalk=0.1,
    rest=15.0,
    reset=15.0,
    noise=4.0,
    shape=0.35,
    sample=0.6,
    stamp=1.0,
    refractory=0.3,
    share=0.75,
    trials=16,
)
"""A calibrated analog chip."""
UNCALIBRATED = Tolerances(
    weight=1.0,
    crosstalk=0.2,
    rest=60.0,
    reset=60.0,
    noise=6.0,
    shape=0.8,
    sample=1.0,
    stamp=1.5,
    refractory=0.6,
    share=0.5,
    trials=16,
)
"""An analog chip at common parameter codes, where neurons scatter widely."""
TOLERANCES: dict[str, Tolerances] = {"ideal": IDEAL, "analog": ANALOG, "uncalibrated": UNCALIBRATED}
"""Tolerances by name, for configurations."""
