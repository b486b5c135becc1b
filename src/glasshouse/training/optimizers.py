"""Muon for the matrices inside the blocks, AdamW for embeddings, head and scalars.

Written on tensors rather than on `torch.optim.Optimizer`: that class loads the whole compiler stack at
its first use (about a second), and one stacked state per shape is what makes Muon cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.adamw import adamw

POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
"""Coefficients of x -> a·x + b·x³ + c·x⁵, one triple an iteration, that bring singular values in
[0.001, 1] as close to 1 as five such steps can (Amsel et al. 2025, "The Polar Express",
arXiv:2505.16932, algorithm 1)."""

SAFETY = 1.01
"""The paper's factor against rounding in bfloat16: each polynomial is applied to x / 1.01."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix of each matrix in (n, rows, columns), about: U·Vᵀ of U·S·Vᵀ.

    Works in the dtype it is given; bfloat16 is enough. Needs rows <= columns for its speed.
    """
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) * SAFETY + 1e-7)
    for i, (a, b, c) in enumerate(POLAR_EXPRESS):
        scale = SAFETY if i + 1 < len(POLAR_EXPRESS) else 1.0
        gram = x @ x.mT  # (n, rows, rows)
        poly = torch.baddbmm(gram, gram, gram, beta=b / scale**3, alpha=c / scale**5)
        x = torch.baddbmm(x, poly, x, beta=a / scale)
    return x


class Muon:
    """Momentum, orthogonalised (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Matrices of one shape, or of that shape transposed, are stacked and orthogonalised together; a
    parameter of three axes, as a layer's experts are, is a stack of matrices itself. The step is
    lr · sqrt(max(1, rows / columns)) · U·Vᵀ with Nesterov momentum; weight decay is decoupled.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._parameters = dict(parameters)
        self._stacks: dict[tuple[int, int], list[str]] = {}
        for name, parameter in self._parameters.items():
            rows, columns = sorted(parameter.shape[-2:])
            self._stacks.setdefault((rows, columns), []).append(name)
        self.state: dict[str, Tensor] = {}
        for (rows, columns), names in self._stacks.items():
            count = sum(self._parameters[name].numel() for name in names) // (rows * columns)
            device = self._parameters[names[0]].device
            self.state[f"muon.{rows}x{columns}"] = torch.zeros(count, rows, columns, device=device)

    @torch.no_grad()
    def step(self, lr: float, momentum: float, weight_decay: float) -> None:
        for (rows, columns), names in self._stacks.items():
            parameters = [_matrices(self._parameters[name]) for name in names]  # (matrices, ., .) each
            wide = [p.shape[1] <= p.shape[2] for p in parameters]
            slopes = [_matrices(_gradient(self._parameters[name])) for name in names]
            gradients = torch.cat([g if w else g.mT for g, w in zip(slopes, wide, strict=True)])
            velocity = self.state[f"muon.{rows}x{columns}"]  # (n, rows, columns)
            velocity.lerp_(gradients, 1.0 - momentum)
            update = orthogonalise(gradients.lerp_(velocity, momentum).to(self.dtype)).float()
            tall_lr = lr * (columns / rows) ** 0.5
            deltas = update.split([len(p) for p in parameters])
            for parameter, delta, is_wide in zip(parameters, deltas, wide, strict=True):
                if weight_decay:
                    parameter.mul_(1.0 - lr * weight_decay)
                parameter.add_(delta if is_wide else delta.mT, alpha=-lr if is_wide else -tall_lr)


def _matrices(tensor: Tensor) -> Tensor:
    """A view (matrices, rows, columns) of a matrix, or of a stack of them."""
    return tensor.view(-1, *tensor.shape[-2:])


class AdamW:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) over named parameters, each with its learning rate."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        lrs: Mapping[str, float],
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        self.betas, self.eps = betas, eps
        self._groups: dict[float, list[str]] = {}
        for name in parameters:
            self._groups.setdefault(lrs[name], []).append(name)
        self._parameters = dict(parameters)
        self.state: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            self.state[f"adamw.first.{name}"] = torch.zeros_like(parameter)
            self.state[f"adamw.second.{name}"] = torch.zeros_like(parameter)
            self.state[f"adamw.step.{name}"] = torch.zeros((), device=parameter.device)

    @torch.no_grad()
    def step(self, factor: float, weight_decay: float) -> None:
        """`factor` scales every learning rate; `weight_decay` touches matrices only, not norms or biases."""
        for lr, names in self._groups.items():
            for decay, chosen in (
                (weight_decay, [n for n in names if self._parameters[n].ndim >= 2]),
                (0.0, [n for n in names if self._parameters[n].ndim < 2]),
            ):
                if not chosen:
                    continue
                adamw(
                    [self._parameters[n] for n in chosen],
                    [_gradient(self._parameters[n]) for n in chosen],
                    [self.state[f"adamw.first.{n}"] for n in chosen],
                    [self.state[f"adamw.second.{n}"] for n in chosen],
                    [],
                    [self.state[f"adamw.step.{n}"] for n in chosen],
                    fused=True,
                    amsgrad=False,
                    beta1=self.betas[0],
                    beta2=self.betas[1],
                    lr=lr * factor,
                    weight_decay=decay,
                    eps=self.eps,
                    maximize=False,
                )


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "every trained parameter must take part in the loss"
    return parameter.grad


def split_parameters(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Names of each kind of trained parameter: "muon", "embed", "head", "scalar", "adapter".

    Embedding and head matrices are lookups of separate rows, for which Muon's whole-matrix view makes
    no sense; norms and biases are no matrices. Of an adapter's two matrices only the product matters,
    and LoRA's authors and everybody since train them with Adam.
    """
    kinds: dict[str, dict[str, nn.Parameter]] = {
        "muon": {},
        "embed": {},
        "head": {},
        "scalar": {},
        "adapter": {},
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if ".adapters." in name:
            kind = "adapter"
        elif parameter.ndim < 2:
            kind = "scalar"
        elif "embed" in name:
            kind = "embed"
        elif "layers." in name:
            kind = "muon"
        else:
            kind = "head"
        kinds[kind][name] = parameter
    return kinds


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `limit` (0: never); returns the norm before."""
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    if limit > 0:
        clip_grads_with_norm_(parameters, limit, norm, foreach=True)
    return norm
