"""What identifies the weights of a network."""

import hashlib

import torch
from torch import nn


def weights_sha256(network: nn.Module) -> str:
    """Hash the weights of a network.

    Args:
        network: The network.

    Returns:
        Lower-case hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
