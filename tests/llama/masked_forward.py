# SPDX-License-Identifier: Apache-2.0
"""A transformer's forward pass in numpy, without the engine: what it predicts when entries are gone from its cache.

usage: masked_forward.py MODEL.gguf REQUEST.json OUT
REQUEST: {"prefix": tokens, "tokens": tokens, "branches": [[[positions per KV head] per layer] per branch], "changing": [per branch null or
[per token, as a branch]], "half": whether the cache holds half precision}. The prefix is computed with the whole cache; then each branch
deletes its entries and continues with the tokens, one by one where each of them doesn't see other entries.
OUT: logits after each of them, float64 [branch][token][vocabulary]. Knows llama, qwen2, qwen3, gemma, gemma2 and gemma3 with float32 weights; formulas as in the models' papers
and the engine's description of its file format.

All in double, but for what the engine holds in half precision: its table of GELU and, where its cache does, cached keys and values and
the queries and attention weights that it multiplies them by.
"""
import json
import struct
import sys

import numpy as np

NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, LIST, F32 = 8, 9, 0


class Gguf:
    """Metadata and tensors of a GGUF file, version 3."""

    def __init__(self, path):
        self.data = open(path, "rb").read()
        self.at = 4
        assert self.data[:4] == b"GGUF" and self.take("<I") == 3
        tensors, pairs = self.take("<Q"), self.take("<Q")
        self.values = {}
        for _ in range(pairs):
            name = self.text()
            self.values[name] = self.value(self.take("<I"))
        places = []
        for _ in range(tensors):
            name = self.text()
            shape = [self.take("<Q") for _ in range(self.take("<I"))]
            assert self.take("<I") == F32, name
            places.append((name, shape[::-1], self.take("<Q")))
        step = self.values.get("general.alignment", 32)
        start = (self.at + step - 1) // step * step
        self.tensors = {name: np.frombuffer(self.data, "<f4", int(np.prod(shape)), start + offset).reshape(shape).astype(float)
                        for name, shape, offset in places}

    def take(self, form):
        (number,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return number

    def text(self):
        size = self.take("<Q")
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def value(self, kind):
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            inner, count = self.take("<I"), self.take("<Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(NUMBERS[kind])


def half(x):
    return x.astype(np.float16).astype(float)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    """The tanh approximation; between -10 and 10 the engine looks it up by half-precision numbers."""
    near = half(x)
    table = half(0.5 * near * (1 + np.tanh(np.sqrt(2 / np.pi) * near * (1 + 0.044715 * near * near))))
    return np.where(x <= -10, 0, np.where(x >= 10, x, table))


class Model:
    def __init__(self, path, half_cache):
        self.cached = half if half_cache else lambda x: x
        file = Gguf(path)
        self.weights = file.tensors
        self.name = file.values["general.architecture"]
        number = lambda key, default=None: file.values.get(f"{self.name}.{key}", default)
        self.gemma = self.name.startswith("gemma")
        self.layers = number("block_count")
        self.heads, self.kv_heads = number("attention.head_count"), number("attention.head_count_kv")
        self.size = number("attention.key_length")
        self.epsilon = number("attention.layer_norm_rms_epsilon")
        self.base = number("rope.freq_base")
        self.window = number("attention.sliding_window", 0)
        self.softcap = number("attn_logit_softcapping", 0)
        self.final_cap = 30 if self.name == "gemma2" else 0

    def slides(self, layer):
        """Whether the layer sees a window only: every other one of Gemma 2, five of six of Gemma 3."""
        return {"gemma2": layer % 2 == 0, "gemma3": layer % 6 < 5}.get(self.name, False)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.weights[name + ".weight"]

    def project(self, x, name):
        y = x @ self.weights[name + ".weight"].T
        return y + self.weights[name + ".bias"] if name + ".bias" in self.weights else y

    def rotate(self, x, positions, layer):
        """x: [token, head, size]. Llama's file format has pairs side by side, the others' half a head apart."""
        base = 10000 if self.name == "gemma3" and self.slides(layer) else self.base
        angles = positions[:, None, None] * base ** (-np.arange(0, self.size, 2) / self.size)
        if self.name == "llama":
            one, two = x[..., 0::2], x[..., 1::2]
        else:
            one, two = x[..., : self.size // 2], x[..., self.size // 2:]
        turned = one * np.cos(angles) - two * np.sin(angles), one * np.sin(angles) + two * np.cos(angles)
        return np.stack(turned, -1).reshape(x.shape) if self.name == "llama" else np.concatenate(turned, -1)

    def attend(self, x, positions, layer, cache, unseen):
        """cache: per KV head (positions, keys, values), to which the rows are added. unseen: None or per KV head positions that stay there."""
        name = f"blk.{layer}."
        vectors = lambda what, heads: self.project(x, name + what).reshape(len(x), heads, self.size)
        queries, keys, values = vectors("attn_q", self.heads), vectors("attn_k", self.kv_heads), vectors("attn_v", self.kv_heads)
        if name + "attn_q_norm.weight" in self.weights:
            queries, keys = self.norm(queries, name + "attn_q_norm"), self.norm(keys, name + "attn_k_norm")
        queries, keys = self.rotate(queries, positions, layer), self.rotate(keys, positions, layer)
        scale = 1 / np.sqrt(self.size)
        if self.gemma:
            queries, scale = queries * scale, 1
        out = np.zeros_like(queries)
        for head in range(self.kv_heads):
            held = cache[layer][head]
            held = (np.concatenate([held[0], positions]), np.concatenate([held[1], self.cached(keys[:, head])]),
                    np.concatenate([held[2], self.cached(values[:, head])]))
            cache[layer][head] = held
            distance = positions[:, None] - held[0]
            hidden = distance < 0
            if self.slides(layer):
                hidden |= distance >= self.window
            if unseen:
                hidden |= np.isin(held[0], unseen[head])
            for query in range(head * self.heads // self.kv_heads, (head + 1) * self.heads // self.kv_heads):
                logits = self.cached(queries[:, query]) @ held[1].T
                if self.softcap:
                    logits = self.softcap * np.tanh(logits / self.softcap)
                logits = np.where(hidden, -np.inf, logits * scale)
                weights = np.exp(logits - logits.max(-1, keepdims=True))
                out[:, query] = self.cached(weights / weights.sum(-1, keepdims=True)) @ held[2]
        return self.project(out.reshape(len(x), -1), name + "attn_output")

    def run(self, tokens, first, cache, unseen=None):
        """Logits [token, vocabulary] of tokens at the positions from `first` on. unseen: None or positions per KV head per layer."""
        positions = first + np.arange(len(tokens))
        x = self.weights["token_embd.weight"][tokens] * (np.sqrt(self.weights["token_embd.weight"].shape[1]) if self.gemma else 1)
        after = lambda y, name: self.norm(y, name) if name + ".weight" in self.weights else y
        for layer in range(self.layers):
            name = f"blk.{layer}."
            x = x + after(self.attend(self.norm(x, name + "attn_norm"), positions, layer, cache, unseen and unseen[layer]), name + "post_attention_norm")
            y = self.norm(x, name + "ffn_norm")
            gate = (gelu if self.gemma else silu)(self.project(y, name + "ffn_gate"))
            y = self.project(gate * self.project(y, name + "ffn_up"), name + "ffn_down")
            x = x + after(y, name + "post_ffw_norm")
        output = self.weights["token_embd.weight" if self.gemma else "output.weight"]
        logits = self.norm(x, "output_norm") @ output.T
        return self.final_cap * np.tanh(logits / self.final_cap) if self.final_cap else logits


def main(path, request, out):
    with open(request) as file:
        asked = json.load(file)
    model = Model(path, asked["half"])
    nothing = lambda: (np.zeros(0, int), np.zeros((0, model.size)), np.zeros((0, model.size)))
    whole = [[nothing() for _ in range(model.kv_heads)] for _ in range(model.layers)]
    model.run(asked["prefix"], 0, whole)
    logits = []
    for pruned, changing in zip(asked["branches"], asked["changing"], strict=True):
        cache = [[tuple(np.delete(part, pruned[layer][head], axis=0) for part in whole[layer][head])
                  for head in range(model.kv_heads)] for layer in range(model.layers)]
        first = len(asked["prefix"])
        if changing is None:
            logits.append(model.run(asked["tokens"], first, cache))
        else:
            logits.append(np.concatenate([model.run([token], first + i, cache, unseen)
                                          for i, (token, unseen) in enumerate(zip(asked["tokens"], changing, strict=True))]))
    np.stack(logits).tofile(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
