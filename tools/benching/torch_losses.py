"""ConOrd and RnC in PyTorch, on features x f32[B, D] and labels y f32[B]."""

import torch
from torch.nn import functional as F


def conord(x, y):
    """ConOrd's equation (weights VIII)."""
    z = F.normalize(x)
    gap = (y[:, None] - y).abs()
    others = ~torch.eye(len(y), dtype=torch.bool, device=x.device)
    similarities = (-torch.cdist(z, z).square() / 0.07).exp() * others
    attracting = (1 / (gap**2 + 1e-7) * similarities).sum(1)
    repelling = (gap**2 * similarities).sum(1)
    return -(attracting / repelling).log().mean()


def rnc(x, y):
    """RnC as a loop over the j-th other sample of every anchor, as it was published."""
    size = len(y)
    others = ~torch.eye(size, dtype=torch.bool, device=x.device)
    scores = (-(x[:, None] - x).norm(dim=-1) / 2)[others].view(size, size - 1)
    gap = (y[:, None] - y).abs()[others].view(size, size - 1)
    powers, total = scores.exp(), 0.0
    for j in range(size - 1):
        farther = (gap >= gap[:, j : j + 1]).float()
        total = total - (scores[:, j] - (farther * powers).sum(1).log()).sum()
    return total / (size * (size - 1))


# The usual batch, and the bytes that the form holds, about: pairs; for RnC a mask for each step of
# its loop, the differences of all features and, going back, two arrays as large.
BATCH = {"conord": 128, "rnc": 1024}
BYTES = {
    "conord": lambda size, width: 4 * size * size,
    "rnc": lambda size, width: 4 * size * size * (size + 3 * width),
}
