"""A kernel that knows how much alike two layer choices are, where WL labels are only equal or not (own).

The distance of two choices is `a * [operators differ] + b * [schemes differ] + c * |log of the rates' ratio|`, their
similarity `s = exp(-distance)`. Four terms make the kernel of two architectures x, y of L layers with traits z:

    layers     sum over l of alpha_l * s(x_l, y_l)                 every layer adds its own effect
    histogram  shared * sum over l, m of s(x_l, y_m) / L           a choice has an effect wherever it stands
    product    joint * exp(-p * mean over l of distance(x_l, y_l)) all layers interact
    trend      trend * mean over traits of z(x) * z(y)             the more capacity, the better, or the worse

Each is the covariance of a Gaussian process, hence PSD. The parameters are fitted to the targets (kernel_fit.py), so
that the layers and the differences that matter are found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.capacity import Capacity
from npas_ray.search.encoding import Encoding, IntArray

Floats = NDArray[np.float64]

#: medians of the priors of a, b, c, p, shared, joint, trend, noise; alpha's is 0.5 / L
MEDIANS = (1.0, 0.4, 0.5, 1.5, 0.3, 0.3, 0.1, 0.03)
#: how many parameters stand before alpha
SCALARS = len(MEDIANS)


@dataclass(frozen=True)
class SoftParameters:
    """What is fitted, as logarithms `[8 + L]`: a, b, c, p, shared, joint, trend, noise, then alpha of every layer.

    Variances (shared, joint, trend, noise, alpha) are in units of standardised targets.
    """

    log: Floats

    @classmethod
    def prior(cls, layers: int) -> SoftParameters:
        """The medians of the priors."""
        return cls(np.log(np.array([*MEDIANS, *[0.5 / layers] * layers])))

    @property
    def distance(self) -> Floats:
        """a, b, c."""
        return np.exp(self.log[:3])

    @property
    def stretch(self) -> float:
        """p."""
        return float(np.exp(self.log[3]))

    @property
    def shared(self) -> float:
        return float(np.exp(self.log[4]))

    @property
    def joint(self) -> float:
        return float(np.exp(self.log[5]))

    @property
    def trend(self) -> float:
        return float(np.exp(self.log[6]))

    @property
    def noise(self) -> float:
        return float(np.exp(self.log[7]))

    @property
    def alpha(self) -> Floats:
        """`[L]`."""
        return np.exp(self.log[SCALARS:])


@dataclass(frozen=True)
class Spelled:
    """Rows as the kernel reads them: words `[n, L]`, how often each word occurs `[n, V]` / sqrt(L), traits `[n, 2]`."""

    words: IntArray
    counts: Floats
    traits: Floats

    def __len__(self) -> int:
        return len(self.words)


class SoftKernel:
    """Kernel matrices over rows of an `Encoding`."""

    def __init__(self, encoding: Encoding, capacity: Capacity) -> None:
        words = list(dict.fromkeys(choice for choices in encoding.choices for choice in choices))
        index = {word: i for i, word in enumerate(words)}
        self.encoding = encoding
        self._capacity = capacity
        #: per layer: index of its choice -> word of the vocabulary
        self._words: list[IntArray] = [np.array([index[c] for c in choices]) for choices in encoding.choices]
        self._counts: Floats = np.eye(len(words))[np.concatenate(self._words)]  # K x V
        operators = np.array([list(type(w.operator)).index(w.operator) for w in words])
        schemes = np.array([list(type(w.scheme)).index(w.scheme) for w in words])
        rates = np.log([w.rate for w in words])
        #: how two words differ in operator, scheme, rate: 3 x V x V
        self.differ: Floats = np.stack(
            [
                (operators[:, None] != operators).astype(np.float64),
                (schemes[:, None] != schemes).astype(np.float64),
                np.abs(rates[:, None] - rates),
            ]
        )

    @property
    def layers(self) -> int:
        return len(self._words)

    def spell(self, rows: IntArray) -> Spelled:
        """Rows `[n, L]` as the kernel reads them."""
        words = np.stack([ids[rows[:, layer]] for layer, ids in enumerate(self._words)], axis=1)
        counts = self.encoding.sums(rows, self._counts) / np.sqrt(self.layers)
        return Spelled(words, counts, self._capacity(rows) / np.sqrt(Capacity.TRAITS))

    def table(self, parameters: SoftParameters) -> Floats:
        """Distances between words `[V, V]`."""
        return np.tensordot(parameters.distance, self.differ, axes=1)

    def gram(self, parameters: SoftParameters, left: IntArray, right: IntArray) -> Floats:
        """Kernel matrix `[n, m]` without noise of rows `[n, L]` and `[m, L]`."""
        return self.cross(parameters, right)(left)

    def cross(self, parameters: SoftParameters, right: IntArray) -> CrossKernel:
        """The kernel with rows `[m, L]` that stay the same: many rows are compared with them, some at a time."""
        table = self.table(parameters)
        similar = np.exp(-table)
        theirs, m = self.spell(right), len(right)
        of_a_word = (parameters.shared / np.sqrt(self.layers)) * (similar @ theirs.counts.T)  # V x m
        of_traits = (parameters.trend / np.sqrt(Capacity.TRAITS)) * (self._capacity.table @ theirs.traits.T)  # K x m
        sums = np.concatenate([of_traits, np.empty_like(of_traits)], axis=1)  # K x 2m
        start = 0
        for layer, (words, alpha) in enumerate(zip(self._words, parameters.alpha, strict=True)):
            here = slice(start, start := start + len(words))
            same_layer = theirs.words[:, layer]
            sums[here, :m] += of_a_word[words]
            sums[here, :m] += (alpha * similar[words]).take(same_layer, axis=1)
            sums[here, m:] = (-parameters.stretch / self.layers * table[words]).take(same_layer, axis=1)
        return CrossKernel(self, parameters, similar, sums)


class CrossKernel:
    """The kernel with `m` rows that stay the same; made by `SoftKernel.cross`.

    All terms but the product are sums over layers of a row, and so is the product's exponent: what each choice of each
    layer adds to them is looked up.
    """

    def __init__(self, kernel: SoftKernel, parameters: SoftParameters, similar: Floats, sums: Floats) -> None:
        self._kernel, self._parameters, self._similar = kernel, parameters, similar
        self._sums = sums  # K x 2m

    def __call__(self, left: IntArray) -> Floats:
        """Kernel matrix `[n, m]` without noise of rows `[n, L]` and those."""
        m = self._sums.shape[1] // 2
        summed = self._kernel.encoding.sums(left, self._sums)  # n x 2m
        gram = np.exp(summed[:, m:])
        gram *= self._parameters.joint
        gram += summed[:, :m]
        return gram

    def diagonal(self, rows: IntArray) -> Floats:
        """Kernel `[n]` of every row with itself."""
        spelled, parameters = self._kernel.spell(rows), self._parameters
        shared = np.einsum("nv,nv->n", spelled.counts @ self._similar, spelled.counts)
        trend = np.einsum("nt,nt->n", spelled.traits, spelled.traits)
        same = parameters.alpha.sum() + parameters.joint
        return np.asarray(same + parameters.shared * shared + parameters.trend * trend)
