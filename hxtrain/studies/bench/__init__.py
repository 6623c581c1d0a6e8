"""The benchmark: one module per suite, on common turns (`rounds`) and a common workload."""

from .config import SUITES, BenchConfig
from .link import bench_link, link_rows
from .realism import bench_realism, timing_rows

__all__ = ["SUITES", "BenchConfig", "bench_link", "bench_realism", "link_rows", "timing_rows"]
