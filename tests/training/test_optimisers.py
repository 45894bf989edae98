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


def test_training_does_not_import_the_compiler():
    code = (
        "import sys, numpy as np; from vaeaug import VAEOverSampler;"
        "rng = np.random.default_rng(0);"
        "VAEOverSampler(device='cpu', config={'training.steps': 3}).fit_resample("
        "rng.random((60, 4)), np.repeat([0, 1], [40, 20]));"
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
