"""Optimisers that do not import the compiler of torch.

The methods of `torch.optim` import it when they are first called, which takes more than a second of
processor time, and several seconds from a slow disk; nothing here is compiled. The methods behind
those are the same.
"""

import inspect

import torch
from torch.optim import Optimizer


class _Plain(Optimizer):
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class AdamW(_Plain, torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Adam(_Plain, torch.optim.Adam):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
