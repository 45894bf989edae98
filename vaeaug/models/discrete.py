"""Discrete latents: a codebook, and an autoregressive prior over grids of its codes.

The codebook follows its codes by exponential moving averages (van den Oord et al. 2017,
arXiv:1711.00937, appendix A.1). Codes that are hardly used are restarted at outputs of the encoder
(Dhariwal et al. 2020, arXiv:2005.00341).

The prior is one transformer for all classes, autoregressive in any order: a token says which cell
it has seen and which one comes next (Pannatier et al. 2024, arXiv:2404.09562). So the cells that
are known can come first, whichever they are, and one pass draws the others; and the likelihood of a
grid is exact.
"""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.ranks import row_by_row

# Decay of the moving averages, and the part of the average use below which a code is dead.
DECAY, DEAD = 0.99, 0.05
# Width of a head of attention.
HEAD = 32


class Codebook(nn.Module):
    """Codes, and the moving averages that they are the quotients of.

    Args:
        n_codes: Number of codes.
        length: Numbers in a code.

    Attributes:
        codes: The codes, (k, d).
        uses: Moving average of how often a code is used in a step, (k,).
        sums: Moving average of the sum of the features that use it, (k, d).
    """

    codes: Tensor
    uses: Tensor
    sums: Tensor

    def __init__(self, n_codes: int, length: int) -> None:
        super().__init__()
        codes = torch.empty(n_codes, length)
        nn.init.normal_(codes, std=0.1)
        self.register_buffer("codes", codes)
        self.register_buffer("uses", torch.ones(n_codes))
        self.register_buffer("sums", codes.clone())

    @property
    def n_codes(self) -> int:
        """Number of codes."""
        return self.codes.shape[0]

    def nearest(self, features: Float[Tensor, "m d"]) -> Int[Tensor, " m"]:
        """Find the nearest code of each feature.

        Args:
            features: Features of cells.

        Returns:
            Indices of codes.
        """
        device = features.device.type
        if torch.is_autocast_enabled(
            device
        ):  # codes are nearer to each other than bfloat16 can tell
            with torch.autocast(device, enabled=False):
                return self.nearest(features)
        codes = self.codes
        score = torch.addmm(codes.square().sum(dim=1), features.to(codes.dtype), codes.T, alpha=-2)
        return score.argmin(dim=1)

    @torch.no_grad()
    def start(self, features: Float[Tensor, "m d"], picks: Float[Tensor, " k"]) -> None:
        """Place the codes at features.

        Args:
            features: Features of cells.
            picks: In [0, 1): which ones.
        """
        self.codes.copy_(features[(picks * len(features)).long()])
        self.uses.fill_(len(features) / self.n_codes)
        self.sums.copy_(self.codes * self.uses[:, None])

    @torch.no_grad()
    def update(
        self,
        features: Float[Tensor, "m d"],
        index: Int[Tensor, " m"],
        picks: Float[Tensor, " k"],
    ) -> None:
        """Move the codes towards the mean of the features that use them, and restart dead ones.

        Nothing is changed by features that are not finite.

        Args:
            features: Features of cells of one step.
            index: Their nearest codes.
            picks: In [0, 1): the feature at which a code is restarted if it is dead.
        """
        features = features.to(self.codes.dtype)
        uses = torch.zeros_like(self.uses).index_add_(0, index, torch.ones_like(features[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, index, features)
        uses = torch.lerp(uses, self.uses, DECAY)
        sums = torch.lerp(sums, self.sums, DECAY)
        average = len(features) / self.n_codes
        dead = uses < DEAD * average
        fresh = features[(picks * len(features)).long()]
        uses = torch.where(dead, average, uses)
        sums = torch.where(dead[:, None], average * fresh, sums)
        is_finite = features.isfinite().all()
        for old, new in ((self.uses, uses), (self.sums, sums), (self.codes, sums / uses[:, None])):
            old.copy_(torch.where(is_finite, new, old))

    @torch.no_grad()
    def follow(self, other: "Codebook") -> None:
        """Take over the codes of another codebook.

        Args:
            other: A codebook of the same size.
        """
        for mine, others in zip(self.buffers(), other.buffers(), strict=True):
            mine.copy_(others)


def perplexity(uses: Shaped[Tensor, " k"]) -> float:
    """Compute the number of codes that, used equally often, would be as hard to guess.

    Args:
        uses: How often each code is used.

    Returns:
        From 1 to the number of codes.
    """
    share = uses.double() / uses.double().sum()
    return float(torch.exp(torch.special.entr(share).sum()))


class CodePrior(nn.Module):
    """p(codes|y) over the cells of a grid, in any order of the cells.

    Until it is trained, every code is equally likely.

    Args:
        n_cells: Cells of the grid.
        n_codes: Codes in the codebook.
        n_classes: Number of classes.
        width: Units of a token, a multiple of `HEAD`.
        depth: Blocks.

    Attributes:
        is_trained: Whether training has begun.
    """

    is_trained: Tensor

    def __init__(
        self, n_cells: int, n_codes: int, n_classes: int, *, width: int, depth: int
    ) -> None:
        super().__init__()
        if width % HEAD:
            raise ValueError(f"prior: expected a width that is a multiple of {HEAD}, got {width}")
        self.n_cells = n_cells
        self.register_buffer("is_trained", torch.zeros((), dtype=torch.bool))
        # The last row of each stands for "none yet".
        self.code = nn.Embedding(n_codes + 1, width)
        self.seen = nn.Embedding(n_cells + 1, width)
        self.next = nn.Embedding(n_cells, width)
        self.label = nn.Embedding(n_classes, width)
        for table in (self.code, self.seen, self.next, self.label):
            nn.init.normal_(table.weight, std=0.5)  # 0.02 was measured to learn far more slowly
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, n_codes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @row_by_row
    def log_prob(
        self,
        codes: Int[Tensor, "n cells"],
        y: Int[Tensor, " n"],
        order: Int[Tensor, "n cells"],
    ) -> Float[Tensor, "n cells"]:
        """Compute the log probability of each code given the class and the codes before it.

        Args:
            codes: Codes by cell.
            y: Class indices.
            order: The cells in the order in which they are seen.

        Returns:
            Log probabilities in that order, nats; their sum is that of the grid, exactly.
        """
        codes = codes.gather(1, order)
        h = self._tokens(codes, y, order, slice(0, self.n_cells))
        for block in self.blocks:
            h, _ = block(h)
        logits = self.out(self.norm(h)).float()
        return -F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")

    def draw(
        self,
        uniform: Float[Tensor, "n cells"],
        y: Int[Tensor, " n"],
        order: Int[Tensor, "n cells"],
        *,
        codes: Int[Tensor, "n cells"] | None = None,
        n_known: int = 0,
        temperature: float = 1.0,
    ) -> Int[Tensor, "n cells"]:
        """Draw codes by the inverse of their cumulative distribution.

        Args:
            uniform: In [0, 1), by cell.
            y: Class indices.
            order: The cells in the order in which they are drawn, those that are known first.
            codes: Codes by cell; those that are known are kept. None: none are known.
            n_known: How many are known.
            temperature: Divides the logits; 0 takes the likeliest code.

        Returns:
            Codes by cell.
        """
        drawn = torch.zeros_like(order) if codes is None else codes.gather(1, order)
        uniform = uniform.gather(1, order)
        caches: list[_Cache | None] = [None for _ in self.blocks]
        for place in range(n_known, self.n_cells):
            # The known cells go through in one pass, then each cell as it is drawn.
            first = 0 if place == n_known else place
            h = self._tokens(drawn, y, order, slice(first, place + 1))
            for number, block in enumerate(self.blocks):
                h, caches[number] = block(h, caches[number])
            logits = self.out(self.norm(h[:, -1])).double()
            if temperature == 0:
                drawn[:, place] = logits.argmax(dim=1)
                continue
            cumulative = torch.softmax(logits / temperature, dim=1).cumsum(dim=1)
            reached = uniform[:, place, None] * cumulative[:, -1:] >= cumulative
            drawn[:, place] = reached.sum(dim=1).clamp(max=logits.shape[1] - 1)
        return torch.empty_like(drawn).scatter_(1, order, drawn)

    def _tokens(
        self, codes: Tensor, y: Tensor, order: Tensor, places: slice
    ) -> Float[Tensor, "n t w"]:
        """Tokens of places in the order: what was seen just before, and where one is to look."""
        n = len(order)
        none = order.new_full((n, 1), -1)
        before = slice(max(0, places.start - 1), places.stop - 1)
        seen, code = order[:, before], codes[:, before]
        if places.start == 0:
            seen, code = torch.cat([none, seen], dim=1), torch.cat([none, code], dim=1)
        seen = torch.where(seen < 0, self.n_cells, seen)
        code = torch.where(code < 0, self.code.num_embeddings - 1, code)
        h = self.code(code) + self.seen(seen) + self.next(order[:, places])
        return h + self.label(y)[:, None]


# Keys and values of the tokens so far.
_Cache = tuple[Tensor, Tensor]


class _Block(nn.Module):
    """Causal attention, then a perceptron; each adds to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, 3 * width)
        self.leave = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor, cache: _Cache | None = None) -> tuple[Tensor, _Cache]:
        n, t, width = h.shape
        parts = self.enter(self.norm(h)).view(n, t, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind()
        if cache is not None:  # one token, which sees all
            key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        h = h + self.leave(seen.transpose(1, 2).reshape(n, t, width))
        return h + self.perceptron(h), (key, value)


def random_order(uniform: Float[Tensor, "n cells"]) -> Int[Tensor, "n cells"]:
    """Order cells at random.

    Args:
        uniform: In [0, 1), by cell.

    Returns:
        The cells in order.
    """
    return uniform.argsort(dim=1)


def in_order(like: Shaped[Tensor, "n cells"]) -> Int[Tensor, "n cells"]:
    """Order cells as they lie in the grid, row by row.

    Args:
        like: One value per cell.

    Returns:
        The cells in order.
    """
    return torch.arange(like.shape[1], device=like.device).expand_as(like)
