"""The benchmark: one module per suite, with common timing (`rounds`) and a common workload."""

from .config import SUITES, BenchConfig
from .link import bench_link, link_rows
from .plot import plot_scale, plot_speed
from .pool import bench_pool, pool_rows
from .realism import bench_realism, timing_rows
from .recurrent import bench_recurrent
from .rules import bench_rules, rule_rows
from .scale import bench_scale, scale_rows
from .snapshots import bench_snapshots, snapshot_rows
from .speed import bench_speed, speed_rows

__all__ = [
    "SUITES",
    "BenchConfig",
    "bench_link",
    "bench_pool",
    "bench_realism",
    "bench_recurrent",
    "bench_rules",
    "bench_scale",
    "bench_snapshots",
    "bench_speed",
    "link_rows",
    "plot_scale",
    "plot_speed",
    "pool_rows",
    "rule_rows",
    "scale_rows",
    "snapshot_rows",
    "speed_rows",
    "timing_rows",
]
