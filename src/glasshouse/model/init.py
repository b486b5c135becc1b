"""Starting weights, made for Muon: sublayers start silent, so the network starts as its embedding."""

from __future__ import annotations

import math

import torch
from torch import nn

from glasshouse.core.seeds import derive
from glasshouse.model.config import ModelConfig
from glasshouse.model.transformer import Transformer


@torch.no_grad()
def initialise(config: ModelConfig, seed: int) -> Transformer:
    """A new model; the same config and seed give the same bits.

    - o_proj, down_proj: zero, so every block is the identity at first and the first steps are calm;
    - other matrices: uniform in ±sqrt(3 / fan_in), that is variance 1 / fan_in;
    - embedding: normal, standard deviation 1, or where it is the head too, `initializer_range`: a
      state equal to a token's own large vector would predict that same token again;
    - learned positions: normal, `initializer_range`;
    - an untied head: zero, so the first loss is exactly log(vocab);
    - norms one, biases zero.
    """
    model = Transformer.empty(config)
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(derive(seed, "initialise", name))
        if name.endswith(("o_proj.weight", "down_proj.weight", "down_proj", "lm_head.weight", ".bias")):
            nn.init.zeros_(parameter)
        elif name.endswith("embed_tokens.weight"):
            spread = config.initializer_range if config.tie_word_embeddings else 1.0
            parameter.normal_(0.0, spread, generator=generator)
        elif name.endswith("embed_positions.weight"):
            parameter.normal_(0.0, config.initializer_range, generator=generator)
        elif parameter.ndim >= 2:
            bound = math.sqrt(3.0 / parameter.shape[-1])
            parameter.uniform_(-bound, bound, generator=generator)
        else:
            nn.init.ones_(parameter)
    return model
