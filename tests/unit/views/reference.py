"""Metrics of views in plain numpy, straight from their definitions (docs/representations.md), and cases.json: random
vectors with what they give. The library works on dot products only; this works on the vectors.

usage: python tests/unit/views/reference.py > tests/unit/views/cases.json
"""
import json
import sys

import numpy

TEMPERATURE, RIDGE, PERMUTATIONS, SEED = 0.1, 1e-4, 10, 1


def entropy(matrix):
    eigenvalues = numpy.linalg.eigvalsh(matrix)
    shares = eigenvalues[eigenvalues > 0] / numpy.clip(eigenvalues, 0, None).sum()
    return float(max(0, -(shares * numpy.log(shares)).sum()))


def infonce(vectors):
    """vectors: [document, view, D]; pairs of views (0, 1), (2, 3), ..."""
    documents, views, _ = vectors.shape
    losses = []
    for v in range(0, views, 2):
        both = numpy.concatenate([vectors[:, v], vectors[:, v + 1]])
        similarity = numpy.exp(both @ both.T / TEMPERATURE)
        for i in range(2 * documents):
            partner = (i + documents) % (2 * documents)
            others = [j for j in range(2 * documents) if j not in (i, partner)]
            losses.append(-numpy.log(similarity[i, partner] / (similarity[i, partner] + similarity[i, others].sum())))
    return float(numpy.mean(losses))


class SplitMix:
    """The library's random numbers, for its permutations."""

    def __init__(self, seed):
        self.state = seed

    def below(self, count):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return (((x ^ (x >> 31)) >> 32) * count) >> 32

    def shuffle(self, order):
        for i in range(len(order), 1, -1):
            j = self.below(i)
            order[i - 1], order[j] = order[j], order[i - 1]


def dime(vectors):
    documents, views, _ = vectors.shape
    random, order, found = SplitMix(SEED), list(range(documents)), []
    for v in range(0, views, 2):
        a, b = vectors[:, v] @ vectors[:, v].T, vectors[:, v + 1] @ vectors[:, v + 1].T
        permuted = []
        for _ in range(PERMUTATIONS):
            random.shuffle(order)
            permuted.append(entropy(a * b[numpy.ix_(order, order)]))
        found.append(numpy.mean(permuted) - entropy(a * b))
    return float(numpy.mean(found))


def lidar(vectors):
    documents, views, width = vectors.shape
    means = vectors.mean(1)
    around = means - means.mean(0)
    between = around.T @ around / documents
    deviations = (vectors - means[:, None]).reshape(-1, width)
    within = deviations.T @ deviations / len(deviations) + RIDGE * numpy.eye(width)
    values, basis = numpy.linalg.eigh(within)
    root = basis @ numpy.diag(values**-0.5) @ basis.T
    return entropy(root @ between @ root)


METRICS = {"infonce": infonce, "dime": dime, "lidar": lidar}


def main():
    random = numpy.random.default_rng(7)
    cases = []
    for documents, views, width in ((2, 2, 3), (3, 2, 16), (5, 4, 8), (4, 6, 40), (9, 8, 24), (12, 4, 64)):
        content = random.normal(size=(documents, 1, width))
        vectors = (content + 0.4 * random.normal(size=(documents, views, width))).astype(numpy.float32)
        vectors *= numpy.float32(0.3) / numpy.linalg.norm(vectors, axis=2, keepdims=True)
        exact = vectors.astype(float)
        cases.append({"documents": documents, "views": views, "vectors": [float(x) for x in vectors.ravel()],
                      **{name: metric(exact) for name, metric in METRICS.items()}})
    json.dump(cases, sys.stdout)
    print()


if __name__ == "__main__":
    main()
