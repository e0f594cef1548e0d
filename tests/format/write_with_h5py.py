"""Writes a sample as somebody with h5py and traces/FORMAT.md would, with the values of an existing sample.

usage: write_with_h5py.py SOURCE.h5 TARGET.h5 STYLE

  natural   what h5py does when nothing is asked for: text of variable length, lists of int64, contiguous datasets;
            and datasets, attributes and groups that the format doesn't know
  packed    text of fixed length, gzip without shuffle, chunks as h5py picks them, the newest file format
  checked   chunks of odd sizes with gzip, shuffle and a checksum; single values where lists and floats are expected
  indexed   every index of chunks that the newest file format has, and so many attributes and links that they move out
            of their object's header
"""
import itertools
import sys

import h5py
import numpy

LISTS = ("tokens", "text_offsets", "evidence")
STORAGE = {
    "natural": lambda shape: {},
    "packed": lambda shape: {"compression": "gzip"},
    "checked": lambda shape: {
        "chunks": tuple(min(n, 7) for n in shape),
        "compression": "gzip",
        "shuffle": True,
        "fletcher32": True,
    },
    "indexed": lambda shape: next(INDICES)(shape),
}


def without_index(shape):
    """Chunks one after the other, all there from the beginning."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    return {"chunks": tuple(min(n, 7) for n in shape), "dcpl": properties}


INDICES = itertools.cycle(
    make
    for filters in ({}, {"compression": "gzip"})
    for make in (
        lambda shape, f=filters: {"chunks": shape, **f},  # a single chunk
        lambda shape, f=filters: {"chunks": (1,) * (len(shape) - 1) + (min(3, shape[-1]),), **f},  # paged array
        lambda shape, f=filters: {"chunks": (1,) * len(shape), "maxshape": (None, *shape[1:]), **f},
        lambda shape, f=filters: {"chunks": tuple(min(n, 5) for n in shape), "maxshape": (*shape[:-1], None), **f},
        lambda shape, f=filters: {"chunks": tuple(min(n, 3) for n in shape), "maxshape": (None,) * len(shape), **f},
        without_index,
    )
)


def plain(value):
    """What a Python program has in its hands: str, int, float."""
    return value.decode("utf-8") if isinstance(value, bytes) else value.item()


def main():
    source_file, target_file, style = sys.argv[1:]
    fixed = (lambda text: numpy.bytes_(text.encode("utf-8"))) if style == "packed" else (lambda text: text)

    def attribute(value):
        return fixed(value) if isinstance(value, str) else value

    with h5py.File(source_file) as source, h5py.File(target_file, "w", libver="latest" if style in ("packed", "indexed") else None) as target:
        for group in ("/", "model", "sample"):
            for name, value in source[group].attrs.items():
                target.require_group(group).attrs[name] = attribute(plain(value))
        if style == "checked":
            target["model"].attrs["rotary_base"] = int(target["model"].attrs["rotary_base"])
            target["model"].attrs["attention_scale"] = [target["model"].attrs["attention_scale"]]
        target["model/layers"] = source["model/layers"][()].tolist()
        target["query_rows"] = source["query_rows"][()].tolist()
        for name, dataset in source["sample"].items():
            if name in LISTS:
                target["sample"][name] = dataset[()].tolist()
            elif name == "answers":
                target["sample"][name] = [fixed(plain(text)) for text in dataset[()]]
            else:
                target["sample"][name] = fixed(plain(dataset[()]))
        for layer, channels in source["layers"].items():
            for name, dataset in channels.items():
                target.create_dataset(f"layers/{layer}/{name}", data=dataset[()], **STORAGE[style](dataset.shape))
        if style == "natural":
            target.attrs["made_by"] = "a stranger"
            target["layers/0/keys"].attrs["unit"] = "none"
            target["layers/0/hidden_states"] = numpy.zeros((3, 4))
            target["notes/free_text"] = ["what", "ever"]
            target["shortcut"] = h5py.SoftLink("/layers/0/keys")
        if style == "indexed":
            for i in range(300):
                target["model"].attrs[f"note {i}"] = "something to say" * (i % 40)
                target[f"sample/note {i}"] = h5py.SoftLink("/layers")


main()
