"""Opens index.h5 with h5py and reads every dataset of every sample, as traces/FORMAT.md says they are.

usage: read_with_h5py.py TRACE_SET
hdf5plugin teaches h5py zstd. Prints the number of datasets read; exits 1 on anything that isn't as specified.
"""
import pathlib
import sys

import h5py
import hdf5plugin  # noqa: F401: lets h5py read zstd
import numpy
import xxhash


def check(condition, message):
    if not condition:
        sys.exit(f"read_with_h5py: {message}")


def text(attributes, name):
    """Text attributes are fixed-length UTF-8, which h5py hands over as bytes."""
    return attributes[name].decode("utf-8")


def read_all(group):
    datasets = []
    group.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
    for name in datasets:
        stored, computed = text(group[name].attrs, "checksum"), checksum(group[name])
        check(stored == computed, f"{name}: the values have the checksum {computed}, the attribute says {stored}")
    return datasets


def checksum(dataset):
    """XXH64 over the values, as traces/FORMAT.md orders them."""
    values = numpy.asarray(dataset[()], dataset.dtype)
    if not dataset.name.endswith("/attention"):
        return xxhash.xxh64(values.tobytes()).hexdigest()
    digest = xxhash.xxh64()
    tile = dataset.chunks[1]
    for row in range(0, values.shape[1], tile):
        for head in values:
            for column in range(0, row + 1, tile):
                digest.update(head[row:row + tile, column:column + tile].tobytes())
    return digest.hexdigest()


def softmax_rows(queries, keys, positions, scale):
    """Causal attention rows recomputed from queries [R, H, d] and keys [T, Hkv, d]: [H, R, T]."""
    group = queries.shape[1] // keys.shape[1]
    spread = numpy.repeat(keys.astype(numpy.float64), group, axis=1)
    logits = scale * numpy.einsum("rhd,thd->hrt", queries.astype(numpy.float64), spread)
    logits[:, numpy.arange(keys.shape[0])[None, :] > positions[:, None]] = -numpy.inf
    weights = numpy.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def check_rotation(model, geometry):
    """One row of frequencies per layer, of which the first half of the layer's rotated dimensions count."""
    dimensions, frequencies, magnitudes = (model[f"rotary_{name}"] for name in ("dimensions", "frequencies", "magnitudes"))
    check(dimensions.shape == magnitudes.shape == (len(geometry),), "one rotation per layer")
    check(dimensions.dtype == numpy.dtype("i8") and frequencies.dtype == magnitudes.dtype == numpy.dtype("f8"), "types of rotations")
    check(frequencies.shape == (len(geometry), max(dimensions) // 2), f"rotary_frequencies is {frequencies.shape}")
    for rotated, turns, head_dim in zip(dimensions, frequencies, geometry[:, 2]):
        check(0 <= rotated <= head_dim and rotated % 2 == 0, f"{rotated} of {head_dim} dimensions rotate")
        check((turns >= 0).all() and not turns[rotated // 2 :].any(), "frequencies are 0 or more, and 0 beyond the layer's own")
    check((magnitudes[()] > 0).all(), "magnitudes are above 0")


def check_sample(sample):
    tokens = sample["sample/tokens"][()]
    geometry = sample["model/layers"][()]
    rows = sample["query_rows"][()]
    prompt_end = sample["sample"].attrs["prompt_end"]
    embedding = sample["model"].attrs["embedding"]
    check(text(sample.attrs, "format") == "depthkv-trace", "format of a sample")
    check(len(sample["sample/text_offsets"]) == prompt_end, "one text offset per prompt token")
    sample["sample/prompt_text"][()].decode("utf-8")
    if "rotary_frequencies" in sample["model"]:
        check_rotation(sample["model"], geometry)
    for layer, (query_heads, kv_heads, head_dim) in enumerate(geometry):
        group = sample[f"layers/{layer}"]
        for name, shape, kind in (
            ("keys", (len(tokens), kv_heads, head_dim), "f2"),
            ("values", (len(tokens), kv_heads, head_dim), "f2"),
            ("queries", (len(rows), query_heads, head_dim), "f2"),
            ("column_sums", (2, query_heads, prompt_end), "f4"),
            ("hidden_mean", (4, embedding), "f4"),
            ("hidden_unit_mean", (4, embedding), "f4"),
            ("hidden_scalars", (4, 4), "f4"),
            ("attention_cosines", (prompt_end, 2), "f4"),
            ("repeat_max", (3, query_heads, prompt_end), "f4"),
            ("attention", (query_heads, len(tokens), len(tokens)), "f2"),
        ):
            if name not in group:
                continue
            check(group[name].shape == shape, f"layers/{layer}/{name} is {group[name].shape}, expected {shape}")
            check(group[name].dtype == numpy.dtype(kind), f"layers/{layer}/{name} is {group[name].dtype}")
        if "hidden_scalars" in group:
            entropy, rank = group["hidden_scalars"][:, 2], group["hidden_scalars"][:, 3]
            check(numpy.allclose(rank, numpy.exp(entropy)), f"layers/{layer}/hidden_scalars: the rank isn't exp(entropy)")
        if "attention" in group:
            recomputed = softmax_rows(group["queries"][()], group["keys"][()], rows, sample["model"].attrs["attention_scale"])
            recorded = group["attention"][()][:, rows, :].astype(numpy.float64)
            check(abs(recomputed - recorded).max() <= 2e-3, f"layers/{layer}/attention isn't the softmax of queries and keys")


def check_weights(weights):
    """What is the same for all samples: the output projection of each layer."""
    check(text(weights.attrs, "format") == "depthkv-weights", "format of weights.h5")
    for layer, (query_heads, _, head_dim) in enumerate(weights["model/layers"][()]):
        projection = weights[f"layers/{layer}/output_projection"]
        expected = (query_heads * head_dim, weights["model"].attrs["embedding"])
        check(projection.shape == expected and projection.dtype == numpy.dtype("f2"), f"output projection of layer {layer}")


def main():
    directory = pathlib.Path(sys.argv[1])
    total = 0
    with h5py.File(directory / "index.h5", "r") as index:
        check(text(index.attrs, "format") == "depthkv-index", "format of index.h5")
        samples = index["samples"]
        check(len(samples) == index.attrs["count"], f"{len(samples)} links, count says {index.attrs['count']}")
        for name in samples:
            total += len(read_all(samples[name]))
            check_sample(samples[name])
        if "weights" in index:
            total += len(read_all(index["weights"]))
            check_weights(index["weights"])
    print(total)


main()
