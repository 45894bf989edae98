import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ray():
    """Ray on two cores, whose workers find the tests' modules; skipped where there is none."""
    module = pytest.importorskip("ray", reason="Ray is not installed (vaeaug[ray])")
    # Known to Ray's own workers, which start anew.
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Not one that somebody else began on this machine.
        module.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield module
        module.shutdown()
