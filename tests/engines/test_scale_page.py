"""What docs/scale.md gives to copy can be read by what it is for."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    return found


def test_the_cluster_is_one_of_rays_schema():
    pytest.importorskip("ray", reason="Ray is not installed (vaeaug[ray])")
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(block("yaml"))
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="head_node"):
        validate_config({**config, "head_node_types": "head"})


def test_the_script_is_one_of_bash():
    script = block("bash")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "--engine ray --address" in script
