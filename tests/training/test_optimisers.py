import subprocess
import sys

import pytest
import torch

from vaeaug.training import optimisers


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_steps_are_those_of_torch(name):
    results = []
    for module in (torch.optim, optimisers):
        torch.manual_seed(0)
        layer, x = torch.nn.Linear(5, 3), torch.randn(20, 5)
        optimiser = getattr(module, name)(layer.parameters(), lr=1e-2, weight_decay=0.1)
        for step in range(6):
            if step == 3:  # what a checkpoint holds is enough to go on
                state = optimiser.state_dict()
                optimiser = getattr(module, name)(layer.parameters(), lr=1.0)
                optimiser.load_state_dict(state)
            optimiser.zero_grad()
            layer(x).square().mean().backward()
            optimiser.step()
        results.append([p.detach().clone() for p in layer.parameters()])
    for theirs, ours in zip(*results, strict=True):
        assert torch.equal(theirs, ours)


def test_nothing_imports_the_compiler(tmp_path):
    code = (
        "import sys, numpy as np, vaeaug;"
        "rng = np.random.default_rng(0); images = rng.integers(0, 256, (60, 8, 8, 1), np.uint8);"
        "data = vaeaug.read((images, np.repeat([0, 1], [40, 20])));"
        "keys = {'model.width': 8, 'training.steps': 3, 'restoration.steps': 2};"
        "generator = vaeaug.fit(data, keys, device='cpu');"
        "generator.save(sys.argv[1]); vaeaug.load(sys.argv[1]).sample(0, 2, seed=0);"
        "vaeaug.VAEOverSampler(device='cpu', config={'training.steps': 3}).fit_resample("
        "images[:, :4, 0, 0] / 255, data.labels);"
        "print('torch._dynamo' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
