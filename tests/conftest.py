"""For all tests: what they draw from torch's own generator is the same whatever ran before, in every worker."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
