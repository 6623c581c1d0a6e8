"""Many chips behind one address: the broker that leases any free one that fits (docs/pool.md)."""

from .broker import Broker, PoolSettings
from .report import Berth, PoolReport, Waiter, ask_pool

__all__ = ["Berth", "Broker", "PoolReport", "PoolSettings", "Waiter", "ask_pool"]
