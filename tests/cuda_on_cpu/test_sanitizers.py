"""The kernels neither race nor leave their arrays."""

import build_module
import pytest
import sanitize


@pytest.mark.parametrize(("sanitizer", "seeds"), [("address", [1, 2, 3]), ("thread", [1])])
def test_the_sanitizers_report_nothing(sanitizer, seeds):
    folder = build_module.build(sanitizer)
    done = sanitize.run(sanitizer, folder, *seeds)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "all values are right\n"
