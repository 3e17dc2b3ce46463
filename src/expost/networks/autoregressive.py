"""Decoders that read their own output: p(x | z) = prod_t p(x_t | x_1, ..., x_(t-1), z).

A decoder that computes all positions from the code alone draws them independently: where a code leaves open whether a
ring closes here or two symbols later, it may close twice or not at all. A decoder that reads the preceding symbols
decides once. In training it reads the true symbols (teacher forcing), so all positions are computed in one pass.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expost.errors import UsageError
from expost.grammar.stepwise import Stepwise, Walk
from expost.networks.layers import glorot
from expost.networks.sequence import GRU, check_sequence_shape

#: Standard deviation of fresh embeddings.
_SPREAD = 0.3
#: Logit of the padding after the end, where nothing else can follow: its cross-entropy is exactly 0.
_CERTAIN = 100.0


class AutoregressiveDecoder(nn.Module):
    """A decoder of rows of L symbols out of V that reads the code and the preceding symbols.

    It is also given the group of symbols that may come next (in a grammar, the non-terminal to rewrite), which follows
    from the preceding ones.

    Attributes:
        shape: (L, V).
        groups: Which symbols compete at one step, as equal numbers from 0, shape (V,).
    """

    groups: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = check_sequence_shape(shape)
        self.register_buffer("groups", torch.zeros(self.shape[1], dtype=torch.int64), persistent=False)

    def compete(self, groups: Sequence[int] | None) -> None:
        """Set which symbols compete, from `Codec.groups`; None lets all compete.

        Raises:
            UsageError: if there are not V of them, from 0 to V - 1.
        """
        numbers = list(groups) if groups is not None else [0] * self.shape[1]
        if len(numbers) != self.shape[1] or not all(0 <= number < self.shape[1] for number in numbers):
            raise UsageError(
                f"{len(numbers)} groups of competing symbols for {self.shape[1]} symbols; give each a number from 0"
            )
        self.groups = torch.tensor(numbers, device=self.groups.device)

    @abstractmethod
    def forward(self, z: Tensor, symbols: Tensor) -> Tensor:
        """Return the logits of each symbol given the code and the true symbols before it (teacher forcing).

        Args:
            z: Codes, shape (B, d).
            symbols: The true symbols, integer, shape (B, L).

        Returns:
            float32, shape (B, L, V).
        """

    @abstractmethod
    def begin(self, z: Tensor) -> Tensor:
        """Return the state before the first symbol, float32, shape (B, S)."""

    @abstractmethod
    def step(self, z: Tensor, state: Tensor, previous: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next symbols' logits, float32, shape (B, V), and the state after them.

        Args:
            z: Codes, shape (B, d).
            state: From `begin` or the step before.
            previous: The last symbols, int64, shape (B,); V before the first.
            groups: Group of the symbols that may come next, int64, shape (B,).
        """

    def stepwise(self, z: Tensor) -> Stepwise:
        """Return the logits for codes (B, d) step by step, on the CPU, for a codec to walk through."""
        return _Decoding(self, z)


class TeacherForced(nn.Module):
    """An autoregressive decoder bound to the true symbols: a function from codes to logits, like other decoders.

    Args:
        decoder: The decoder.
        symbols: The true symbols, shape (B, L).
    """

    def __init__(self, decoder: AutoregressiveDecoder, symbols: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.symbols = symbols
        self.training = decoder.training

    def forward(self, z: Tensor) -> Tensor:
        """Map codes of the first examples (B, d) to logits (B, L, V)."""
        return self.decoder(z, self.symbols[: len(z)])


class _Decoding(Stepwise):
    def __init__(self, decoder: AutoregressiveDecoder, z: Tensor) -> None:
        self._decoder, self._z = decoder, z
        self.shape = (len(z), *decoder.shape)
        self.device = torch.device("cpu")  # where codecs walk their stacks

    def walk(self) -> Walk:
        z, home, first = self._z, self._z.device, self.shape[2]
        with torch.inference_mode():
            state = self._decoder.begin(z)

        def following(previous: Tensor | None, groups: Tensor, kept: Tensor | None) -> Tensor:
            nonlocal z, state
            before = torch.full_like(groups, first) if previous is None else previous
            with torch.inference_mode():
                if kept is not None:
                    z, state = z.index_select(0, kept.to(home)), state.index_select(0, kept.to(home))
                logits, state = self._decoder.step(z, state, before.to(home), groups.to(home))
            return logits.to(self.device)

        return following

    def rows(self, first: int, last: int, repeats: int = 1) -> Stepwise:
        return _Decoding(self._decoder, self._z[first:last].repeat_interleave(repeats, 0))


class AutoregressiveGRU(AutoregressiveDecoder):
    """h_0 = tanh(A z); h_t = GRU(e(x_(t-1)) + g(group of x_t) + B z, h_(t-1)); logits_t = C h_t.

    (Cho et al. 2014; the code enters at every step, as in Bowman et al. 2016 and the molecular VAEs of MOSES.) The GRU
    has 4 times the width in units, and embeddings of twice the width.

    Args:
        shape: (L, V) of one example.
        latent_dim: Dimension d of the code.
        width: A quarter of the GRU's units.
    """

    def __init__(self, shape: Sequence[int], latent_dim: int, width: int) -> None:
        super().__init__(shape)
        symbols = self.shape[1]
        self.symbol = nn.Embedding(symbols + 1, 2 * width)  # the last stands before the first symbol
        self.group = nn.Embedding(symbols, 2 * width)
        for embedding in (self.symbol, self.group):
            nn.init.normal_(embedding.weight, std=_SPREAD)
        self.read = nn.Linear(latent_dim, 2 * width)
        self.start = nn.Linear(latent_dim, 4 * width)
        self.gru = GRU(2 * width, 4 * width, batch_first=True)
        for gate in dict(self.gru.named_parameters())["weight_hh_l0"].detach().chunk(3):  # a view of each gate's matrix
            nn.init.orthogonal_(gate)
        self.write = glorot(nn.Linear(4 * width, symbols))

    def forward(self, z: Tensor, symbols: Tensor) -> Tensor:
        """Map codes (B, d) and the true symbols (B, L) to logits (B, L, V), float32."""
        pad = self.shape[1] - 1
        symbols = symbols.long()
        # a padding ends a row, and only padding follows: nothing is computed beyond the longest row
        longest = symbols.shape[1]
        if symbols.numel() and symbols.device.type == "cpu":  # elsewhere the longest would have to be waited for
            longest = min(longest, int((symbols != pad).sum(1).max()) + 1)
        true = symbols[:, :longest]
        before = torch.cat([torch.full_like(true[:, :1], pad + 1), true[:, :-1]], 1)
        read = self.symbol(before) + self.group(self.groups[true]) + self.read(z).unsqueeze(1)
        logits = self._written(self.gru(read, self.begin(z).unsqueeze(0))[0], before)
        certain = self._certain(before)
        return torch.cat([logits, certain.expand(len(z), symbols.shape[1] - longest, -1)], 1)

    def begin(self, z: Tensor) -> Tensor:
        """Return the GRU's first state."""
        return self.start(z).tanh()

    def step(self, z: Tensor, state: Tensor, previous: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Advance by one symbol."""
        read = self.symbol(previous) + self.group(groups) + self.read(z)
        output, hidden = self.gru(read.unsqueeze(1), state.unsqueeze(0))
        return self._written(output[:, 0], previous), hidden[0]

    def _written(self, output: Tensor, before: Tensor) -> Tensor:
        """Return the logits, float32; after a padding, those of another."""
        ended = (before == self.shape[1] - 1).unsqueeze(-1)
        return torch.where(ended, self._certain(before), self.write(output).float())

    def _certain(self, like: Tensor) -> Tensor:
        """Return the logits of padding for certain, shape (V,)."""
        symbols = torch.arange(self.shape[1], device=like.device)
        return (symbols == self.shape[1] - 1).float() * _CERTAIN
