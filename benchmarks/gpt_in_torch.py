"""The GPT-2 architecture in PyTorch: the peer that `benchmarks/train_step.py` measures Lathe beside.

Written as PyTorch's own examples write it: modules, one product for queries, keys and values, fused
attention and a fused optimizer. Needs `torch`, which Lathe itself does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional as F

from model.families import ModelConfig


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, epsilon = config.embed_dim, config.norm_epsilon
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(width, epsilon)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, epsilon)
        self.up = nn.Linear(width, config.mlp_dim)
        self.down = nn.Linear(config.mlp_dim, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the new residual stream [batch, length, width]."""
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.num_heads, -1).transpose(1, 2) for part in qkv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate='tanh'))


class GPT(nn.Module):
    """Tokens and targets in, mean cross-entropy out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        self.position_embedding = nn.Embedding(config.max_length, config.embed_dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.embed_dim, config.norm_epsilon)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns a float32 scalar."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.final_norm(x), self.token_embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def copy_weights(params: dict, model: GPT) -> None:
    """Gives the PyTorch model the weights of Lathe's parameter tree."""
    params = jax.tree.map(np.array, params)

    def copy(module: Any, leaves: dict[str, np.ndarray], name: str = 'scale') -> None:
        weight = leaves[name]
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(weight.T if name == 'kernel' else weight))
            if 'bias' in leaves:
                module.bias.copy_(torch.from_numpy(leaves['bias']))

    for name in ('token_embedding', 'position_embedding'):
        copy(getattr(model, name), params[name], 'embedding')
    copy(model.final_norm, params['final_norm'])
    for index, block in enumerate(model.blocks):
        layer = jax.tree.map(lambda leaf: leaf[index], params['blocks'])  # noqa: B023
        attention, width = layer['attention'], model.final_norm.weight.shape[0]
        qkv = [attention[name] for name in ('query', 'key', 'value')]
        kernel = np.concatenate([part['kernel'].reshape(width, -1) for part in qkv], axis=1)
        copy(block.attention_norm, layer['attention_norm'])
        bias = np.concatenate([part['bias'].ravel() for part in qkv])
        copy(block.qkv, {'kernel': kernel, 'bias': bias}, 'kernel')
        out = attention['out']
        copy(block.out, {'kernel': out['kernel'].reshape(-1, width), 'bias': out['bias']}, 'kernel')
        copy(block.mlp_norm, layer['mlp_norm'])
        copy(block.up, layer['mlp']['up'], 'kernel')
        copy(block.down, layer['mlp']['down'], 'kernel')


def make_step(
    config: ConfigDict, model_config: ModelConfig, params: dict, batch: dict, *, compiled: bool, device: str
) -> Callable[[], torch.Tensor]:
    """Returns a function that makes one AdamW step on `batch` and returns the loss before it.

    Weights start as `params`, as float32; `model_config.compute_dtype` 'bfloat16' computes under autocast.
    Optimizer and clipping are those of `config`, at a constant learning rate.
    """
    model = GPT(model_config).to(device)
    copy_weights(params, model)
    forward = torch.compile(model) if compiled else model
    options = config.optimizer
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and 'embedding' not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or 'embedding' in name]
    groups = [
        {'params': matrices, 'weight_decay': options.weight_decay},
        {'params': others, 'weight_decay': 0.0},
    ]
    betas = (options.b1, options.b2)
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, betas=betas, eps=options.eps, fused=True)
    tokens, targets = (torch.tensor(batch[name]).long().to(device) for name in ('tokens_BL', 'targets_BL'))
    mixed = model_config.compute_dtype == 'bfloat16'

    def step() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16) if mixed else contextlib.nullcontext():
            loss = forward(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        optimizer.step()
        return loss.detach()

    return step
