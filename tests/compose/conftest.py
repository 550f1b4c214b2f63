"""torch.compile forgets the tests before: it gives up on code that it compiled too often."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch.compiler.reset()
    yield
    torch.compiler.reset()
