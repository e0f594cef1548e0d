# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA/kvpress keeps of a recorded sample: its presses' formulas in numpy, written apart from our scorers.

usage: kvpress_reference.py SAMPLE.h5 KEEP,KEEP,... PRESS...

A press is a scorer such as `snapkv:window=64,kernel=5`, or one with a wrapper before it: `adakv:alpha=0.2/snapkv`. The
sample needs the queries of all its rows. Prints JSON: for each press, keep, layer and KV head two lists of positions:
those kept for certain, and those at the threshold, which are equal to float32's digits, so that any of them may fill
what is left.

`keep` is 1 - compression_ratio; a head keeps int(n * keep), taken exactly: in doubles 800 * (1 - 0.8) is 159.99... and
kvpress keeps one entry less. Maxima over a repeated context are the sample's own. Sums are double, softmax is rounded to float32 as in kvpress. Left out: FINCH's re-rotation
of keys, which changes nothing about what is kept.
"""
import fractions
import json
import sys

import h5py
import numpy as np

TIE = 1e-6  # relative to the threshold, and to how far it is above the scores below it


class Rotary:
    """Pair c of a vector turns by position * base^(-2c / d) radians."""

    def __init__(self, layout, base, d):
        first, second = {"half_split": (np.arange(d // 2), np.arange(d // 2) + d // 2),
                         "interleaved": (np.arange(0, d, 2), np.arange(1, d, 2))}[layout]
        self.first, self.second = first, second
        self.frequencies = float(base) ** (-2.0 * np.arange(d // 2) / d)

    def turned(self, x, positions):
        """x [..., n, d] by as many positions each, which may be negative."""
        angle = np.asarray(positions, np.float64)[:, None] * self.frequencies
        a, b = x[..., self.first], x[..., self.second]
        out = np.empty_like(x)
        out[..., self.first] = a * np.cos(angle) - b * np.sin(angle)
        out[..., self.second] = a * np.sin(angle) + b * np.cos(angle)
        return out

    def mean_matrix(self, begin, count):
        """The mean of the rotations by begin, ..., begin + count - 1 positions: y = matrix @ x."""
        d = 2 * len(self.first)
        positions = begin + np.arange(count)
        columns = [self.turned(np.broadcast_to(unit, (count, d)), positions).mean(axis=0) for unit in np.eye(d)]
        return np.stack(columns, axis=1)


class Layer:
    """keys, values [Hkv, n, d]; queries [H, n, d]; plain_keys, plain_queries: before rotation; norms [H, n]: L1 of v W_O;
    norms2: the same in L2; repeats: repeat_max [3, H, n]; frame, question: positions before and after the context; number,
    count: of the layer, of all; all: the layers."""

    def __init__(self, **parts):
        self.__dict__.update(parts)
        self.heads, self.n, self.d = self.keys.shape
        self.group = len(self.queries) // self.heads

    def part(self, begin, end):
        """Positions [begin, end) alone."""
        names = ("keys", "values", "queries", "plain_keys", "plain_queries")
        parts = {name: getattr(self, name)[:, begin:end] for name in names}
        return Layer(**{**self.__dict__, **parts})

    def at(self, positions):
        """Keys and values at positions [Hkv, m], for presses that read nothing else."""
        index = positions[:, :, None]
        return Layer(**{**self.__dict__, "keys": np.take_along_axis(self.keys, index, 1),
                        "values": np.take_along_axis(self.values, index, 1)})

    def per_query_head(self, x):
        return np.repeat(x, self.group, axis=0)

    def grouped(self, x):
        """Mean over the query heads of each group: [H, n] to [Hkv, n]."""
        return x.reshape(self.heads, self.group, -1).mean(axis=1)

    def attention(self, rows):
        """Causal softmax of the last `rows` queries on all keys: [H, rows, n]."""
        logits = self.queries[:, self.n - rows:] @ self.per_query_head(self.keys).transpose(0, 2, 1) / np.sqrt(self.d)
        logits[:, np.arange(self.n)[None, :] > np.arange(self.n - rows, self.n)[:, None]] = -np.inf
        return softmax(logits)


def load(file):
    model, sample = file["model"].attrs, file["sample"].attrs
    n = int(sample["prompt_end"])
    rows = file["query_rows"][()]
    assert np.array_equal(rows[:n], np.arange(n)), "the sample lacks queries"
    layers = []
    for number, (_, _, d) in enumerate(file["model/layers"][()]):
        group = file[f"layers/{number}"]
        assert np.isclose(model["attention_scale"], 1 / np.sqrt(d)), "kvpress divides by sqrt(d)"
        rotary = Rotary(model["rotary_layout"].decode(), model["rotary_base"], int(d))
        parts = {name: group[name][:n].astype(np.float64).transpose(1, 0, 2) for name in ("keys", "values", "queries")}
        plain = {f"plain_{name}": rotary.turned(parts[name], -np.arange(n)) for name in ("keys", "queries")}
        layers.append(Layer(**parts, **plain, norms=group["value_output_norms"][:n, :, 0].astype(np.float64).T,
                            norms2=group["value_output_norms"][:n, :, 1].astype(np.float64).T,
                            repeats=group["repeat_max"][()].astype(np.float64), rotary=rotary,
                            frame=int(sample["context_begin"]), question=n - int(sample["context_end"]), number=number,
                            count=len(file["model/layers"])))
    for layer in layers:
        layer.all = layers
    return layers


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32).astype(np.float64)


def average_pool(x, kernel):
    """Stride 1, zeros beyond both ends, always divided by the kernel."""
    padded = np.pad(x, ((0, 0), (kernel // 2, kernel // 2)))
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=1).mean(axis=-1)[:, :x.shape[1]]


def with_ends(scores, first=0, last=0):
    """Positions that a press never drops: one more than the layer's largest score."""
    return np.pad(scores, ((0, 0), (first, last)), constant_values=scores.max() + 1)


def z_scored(scores):
    return (scores - scores.mean()) / max(scores.std(ddof=1), 1e-6)


# Scorers: (layer, entries that each head keeps, parameters) -> [Hkv, n].


def knorm(layer, kept):
    return -np.linalg.norm(layer.keys, axis=-1)


def streaming_llm(layer, kept, sinks=4):
    scores = np.zeros((layer.heads, layer.n))
    scores[:, :sinks] = 1
    scores[:, layer.n - (kept - sinks):] = 1
    return scores


def snapkv(layer, kept, window=64, kernel=5):
    received = layer.attention(window)[:, :, :layer.n - window].mean(axis=1)
    return with_ends(layer.grouped(average_pool(received, kernel)), last=window)


def tova(layer, kept):
    """One row of scores for the layer: the mean over all query heads of the last row."""
    row = layer.attention(1)[:, 0, :-1].mean(axis=0)
    return with_ends(np.tile(row, (layer.heads, 1)), last=1)


def observed_attention(layer, kept):
    return layer.grouped(layer.attention(layer.n).sum(axis=1) / (layer.n - np.arange(layer.n)))


def finch(layer, kept):
    """The question's rows, each times its position, which is one less than the keys that it sees. No pooling."""
    window = layer.question
    rows = layer.attention(window)[:, :, :layer.n - window] * np.arange(layer.n - window, layer.n)[None, :, None]
    return with_ends(layer.grouped(rows.mean(axis=1)), last=window)


def expected_attention(layer, kept, future=512, sinks=4, skip=4, epsilon=0.0):
    """`skip`: rows left out of the queries' moments; kvpress leaves out as many as there are sinks."""
    turn = layer.rotary.mean_matrix(layer.n, future)
    queries = layer.plain_queries[:, skip:]
    mean = queries.mean(axis=1)
    centred = queries - mean[:, None]
    mean = mean @ turn.T
    covariance = turn @ (centred.transpose(0, 2, 1) @ centred / queries.shape[1]) @ turn.T
    keys = layer.per_query_head(layer.keys[:, sinks:])
    logits = np.einsum("hd,hnd->hn", mean, keys) / np.sqrt(layer.d)
    logits += np.einsum("hnd,hde,hne->hn", keys, covariance, keys) / (2 * layer.d)
    scores = (layer.grouped(softmax(logits)) + epsilon) * np.linalg.norm(layer.values[:, sinks:], axis=-1)
    return with_ends(scores, first=sinks)


def cap(layer, kept, tau=5.0, future=512, sinks=4, skip=4, epsilon=1e-6):
    anchor = layer.plain_queries[:, skip:].mean(axis=1) @ layer.rotary.mean_matrix(layer.n, future).T
    keys, values = (layer.per_query_head(x[:, sinks:]) for x in (layer.keys, layer.values))
    unit_anchor, unit_keys = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (anchor, keys))
    cosine = np.einsum("hd,hnd->hn", unit_anchor, unit_keys)
    weight = np.exp(tau * (cosine - cosine.max(axis=-1, keepdims=True)))
    capacity = np.eye(layer.d) + np.einsum("hn,hnd,hne->hde", weight + epsilon, values, values)
    leverage = np.einsum("hnd,hde,hne->hn", values, np.linalg.inv(capacity), values)
    return with_ends(layer.grouped(weight * leverage), first=sinks)


def keydiff(layer, kept):
    unit = layer.keys / np.linalg.norm(layer.keys, axis=-1, keepdims=True)
    anchor = unit.mean(axis=1)
    return -np.einsum("gnd,gd->gn", unit, anchor) / np.linalg.norm(anchor, axis=-1)[:, None]


def lagkv(layer, kept, sinks=4, lag=128, cross=False):
    parts = (layer.n - sinks) // lag
    if parts < 2:
        ramp = np.arange(layer.n - sinks) / (layer.n - sinks)
        return np.tile(np.concatenate([np.ones(sinks), ramp]), (layer.heads, 1))
    total = 0
    for x in (layer.keys, layer.values):
        x = x[:, sinks:sinks + parts * lag].reshape(layer.heads, parts, lag, layer.d)
        low, high = (bound(x[:, 1:], axis=2, keepdims=True) for bound in (np.min, np.max))
        total = total + softmax(((x[:, :-1] - low) / (high - low)).std(axis=-1, ddof=1))
    inner = total / 2 if cross else np.argsort(np.argsort(total, axis=-1), axis=-1) / lag
    scores = np.ones((layer.heads, layer.n))
    scores[:, sinks:sinks + (parts - 1) * lag] = inner.reshape(layer.heads, -1)
    return scores


def cur(layer, kept, sinks=4, window=16):
    scores = 1
    for x in (layer.keys, layer.values):
        squares = (x ** 2).sum(axis=-1)
        begins = np.arange(0, layer.n, window)
        sums = np.add.reduceat(squares, begins, axis=1)
        scores = scores * squares / np.repeat(sums, window, axis=1)[:, :layer.n]
    scores = scores / scores.sum(axis=-1, keepdims=True)
    scores[:, :sinks] = 1
    return scores


def leverage(layer, kept):
    """Without the Gaussian sketch."""
    centred = layer.plain_keys - layer.plain_keys.mean(axis=1, keepdims=True)
    gram = centred.transpose(0, 2, 1) @ centred + 1e-2 * np.eye(layer.d)
    return z_scored(np.maximum(0, np.einsum("gnd,gde,gne->gn", centred, np.linalg.inv(gram), centred)))


def noncausal(layer, kept, chunk=256, padding=1):
    """padding = 1: releases up to 0.5, where the last chunk is filled up with queries and keys whose logits are 0.
    padding = 0: later ones, where it isn't. Logits aren't scaled by 1 / sqrt(d) in either."""
    keys, sums = layer.per_query_head(layer.keys), []
    for begin in range(0, layer.n, chunk):
        logits = layer.queries[:, begin:begin + chunk] @ keys[:, begin:begin + chunk].transpose(0, 2, 1)
        real = logits.shape[1]
        if padding:
            logits = np.pad(logits, ((0, 0), (0, chunk - real), (0, chunk - real)))
        sums.append(softmax(logits).sum(axis=1)[:, :real])
    scores = layer.grouped(np.concatenate(sums, axis=1)) * np.linalg.norm(layer.values, axis=-1)
    return z_scored(average_pool(scores, 3))


def compactor(layer, kept, first=8, last=4, chunk=256, padding=1):
    """The protected ends take no part in either score, so that chunks count from `first`."""
    inner = layer.part(first, layer.n - last)
    scores = (1 - kept / layer.n) * leverage(inner, kept) + noncausal(inner, kept, chunk, padding)
    return with_ends(scores, first, last)


def kvzip(layer, kept, sinks=4, plus=0):
    """Positions before the context are 0 but for the first; the question isn't in the cache yet."""
    received = layer.repeats[1] * layer.norms2 if plus else layer.repeats[0]
    scores = received.reshape(layer.heads, layer.group, -1).max(axis=1)[:, :layer.n - layer.question]
    scores[:, :layer.frame] = 0
    scores[:, :min(sinks, layer.frame)] = 1
    return with_ends(scores, last=layer.question)


def kvcompose(layer, kept):
    scores = layer.grouped(layer.repeats[2])[:, :layer.n - layer.question]
    return with_ends(scores + scores.mean(axis=0, keepdims=True), last=layer.question)


# Selections: (layer, entries that each head keeps, scorer, parameters) -> (certain, tied) per head.


def best(scores, kept):
    threshold = np.sort(scores)[len(scores) - kept]
    slack = TIE * (abs(threshold) + threshold - np.median(scores[scores <= threshold]))
    return np.flatnonzero(scores > threshold + slack), np.flatnonzero(abs(scores - threshold) <= slack)


def top(layer, kept, scorer):
    return [best(scores, kept) for scores in scorer(layer, kept)]


def forced(scores, counts):
    """Each row's best few at one more than the largest score."""
    out = scores.copy()
    for row, count in zip(out, counts):
        row[np.argsort(-row, kind="stable")[:count]] = scores.max() + 1
    return out


def adakv(layer, kept, scorer, alpha=0.2):
    """Every head's best alpha of its share are safe, the rest compete across heads."""
    scores = forced(scorer(layer, kept), [int(kept * fractions.Fraction(str(alpha)))] * layer.heads)
    certain, tied = best(scores.ravel(), layer.heads * kept)
    return [tuple(x[x // layer.n == head] % layer.n for x in (certain, tied)) for head in range(layer.heads)]


def refined(layer, scores, counts, epsilon, first_stage):
    """The first part of each head's share goes by score, the rest by score times output norm."""
    second = (scores + epsilon) * layer.grouped(layer.norms)
    locked = [np.argsort(-row, kind="stable")[:int(count * first_stage)] for row, count in zip(scores, counts)]
    highest = second.max() + 1
    for row, at in zip(second, locked):
        row[at] = highest
    return [best(row, count) for row, count in zip(second, counts)]


def criticalkv(layer, kept, scorer, epsilon=1e-4, first_stage=0.5):
    return refined(layer, scorer(layer, kept), [kept] * layer.heads, epsilon, first_stage)


def critical_adakv(layer, kept, scorer, alpha=0.2, epsilon=1e-4, first_stage=0.5):
    """Heads' shares as in adakv, by the plain scores. Its safe entries stay whatever the second stage says: they are among
    the locked ones unless a head's share is below 2 alpha of the even one."""
    scores = scorer(layer, kept)
    safe = int(kept * fractions.Fraction(str(alpha)))
    order = np.argsort(-forced(scores, [safe] * layer.heads).ravel(), kind="stable")[:layer.heads * kept]
    counts = np.bincount(order // layer.n, minlength=layer.heads)
    assert all(int(count * first_stage) >= safe for count in counts), "shares this uneven aren't modelled"
    return refined(layer, scores, counts, epsilon, first_stage)


def pyramidkv(layer, kept, scorer, beta=20, window=64):
    """The window counts inside the budget, but bounds it from both sides; where it can't, the split is even."""
    last = kept / beta
    first = 2 * kept - last
    if first >= layer.n - window:
        first = layer.n - window
        last = 2 * kept - first
    if layer.n >= first >= last >= window:
        kept = round(first - layer.number * (first - last) / (layer.count - 1))
    return top(layer, kept, scorer)


def pooled(layer, kept, scorer):
    """One threshold over all heads of all layers."""
    scores = np.stack([scorer(other, kept) for other in layer.all])
    scores[..., layer.n - layer.question:] = np.inf
    certain, tied = (x.astype(int) for x in best(scores.ravel(), len(layer.all) * layer.heads * kept))
    first = layer.number * layer.heads * layer.n
    heads = [first + head * layer.n for head in range(layer.heads)]
    return [tuple(x[(x >= head) & (x < head + layer.n)] - head for x in (certain, tied)) for head in heads]


def composed(layer, kept, scorer):
    """Heads of a layer keep as many: what the layer has among the model's best means of heads' t-th best entries. No layer
    has more than the first."""
    composites = []
    for other in layer.all:
        scores = scorer(other, kept)
        scores[:, layer.n - layer.question:] = 1e9
        composites.append(np.sort(scores, axis=1)[:, ::-1].mean(axis=0))
    composites = np.stack(composites)
    composites[0] = composites.max(axis=0)
    order = np.argsort(-composites.ravel(), kind="stable")[:len(layer.all) * kept]
    return top(layer, max(1, int((order // layer.n == layer.number).sum())), scorer)


def per_layer(layer, kept, scorer, factors="1"):
    """Ratios given by hand: keep times a factor of each layer."""
    return top(layer, int(kept * fractions.Fraction(str(factors).split("+")[layer.number])), scorer)


def chunkkv(layer, kept, scorer, length=20):
    """Whole chunks, the same in all heads, by their mean of the scores summed over heads."""
    total = scorer(layer, kept).sum(axis=0)
    chunks = [np.arange(begin, min(layer.n, begin + length)) for begin in range(0, layer.n, length)]
    chosen = best(np.array([total[chunk].mean() for chunk in chunks]), max(1, len(chunks) * kept // layer.n))
    return [tuple(np.concatenate([np.array([], int)] + [chunks[c] for c in some]) for some in chosen)] * layer.heads


def chunk_press(layer, kept, scorer, length=1024):
    """Chunk by chunk, each scored alone and cut by the same share."""
    parts = [[] for _ in range(layer.heads)]
    for begin in range(0, layer.n, length):
        chunk = layer.part(begin, min(layer.n, begin + length))
        for head, sets in enumerate(top(chunk, max(1, chunk.n * kept // layer.n), scorer)):
            parts[head].append([begin + some for some in sets])
    return [tuple(np.concatenate(some) for some in zip(*sets)) for sets in parts]


def block_press(layer, kept, scorer, size=128):
    """The first entries stay until a block pushes them out; each block competes with what was kept, all scored anew."""
    at = np.tile(np.arange(kept), (layer.heads, 1))
    for begin in range(kept, layer.n, size):
        block = np.arange(begin, min(layer.n, begin + size))
        at = np.concatenate([at, np.tile(block, (layer.heads, 1))], axis=1)
        order = np.argsort(-scorer(layer.at(at), kept), axis=1, kind="stable")[:, :kept]
        at = np.sort(np.take_along_axis(at, order, 1), axis=1)
    return [(row, np.array([], int)) for row in at]


def dms(layer, kept, scorer, threshold=0.0, window=128):
    """A score below the threshold drops what has left the window. The budget is an outcome."""
    scores = scorer(layer, kept)
    slack = TIE * abs(threshold)
    scores[:, layer.n - window:] = np.inf
    return [(np.flatnonzero(row > threshold + slack), np.flatnonzero(abs(row - threshold) <= slack)) for row in scores]


SCORERS = {f.__name__: f for f in (knorm, streaming_llm, snapkv, tova, observed_attention, finch, expected_attention, cap,
                                   keydiff, lagkv, cur, leverage, noncausal, compactor, kvzip, kvcompose)}
WRAPPERS = {f.__name__: f for f in (adakv, criticalkv, critical_adakv, pyramidkv, per_layer, pooled, composed, chunkkv,
                                    chunk_press, block_press, dms)}


def parsed(text):
    """name:key=value,key=value"""
    name, _, rest = text.partition(":")
    params = dict(item.split("=") for item in rest.split(",") if item)
    for key, value in params.items():
        try:
            params[key] = json.loads(value)
        except ValueError:
            pass  # stays text
    return name, params


def selection(press):
    """The function (layer, kept) -> sets that a press stands for."""
    *outer, inner = press.split("/")
    name, params = parsed(inner)
    scorer = lambda layer, kept: SCORERS[name](layer, kept, **params)
    if not outer:
        return lambda layer, kept: top(layer, kept, scorer)
    wrapper, options = parsed(outer[0])
    return lambda layer, kept: WRAPPERS[wrapper](layer, kept, scorer, **options)


def main():
    with h5py.File(sys.argv[1], "r") as file:
        layers = load(file)
    keeps = [fractions.Fraction(keep) for keep in sys.argv[2].split(",")]
    out = {}
    for press in sys.argv[3:]:
        choose = selection(press)
        out[press] = [[[[some.tolist() for some in sets] for sets in choose(layer, int(layer.n * keep))]
                       for layer in layers] for keep in keeps]
    print(json.dumps(out))


main()
