"""Metrics of real hidden states by numpy (tests/unit/views/reference.py) against those of a run with a study.

usage: representations.py RUN DOCUMENTS VIEWS TRACE...
RUN holds views/ and representations.csv; TRACEs are the samples that layers were measured on. Prints the largest
difference; exits 1 above 1e-5.
"""
import csv
import pathlib
import re
import sys

import h5py
import hdf5plugin  # noqa: F401: lets h5py read zstd
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "unit" / "views"))
import reference  # noqa: E402

STAGES = ("pre", "att", "res", "mlp")
SCALARS = ("curvature", "curvature_code", "entropy", "effective_rank")


def document_and_view(file):
    sample, piece, view = re.fullmatch(r"(.*)\.part(\d+)\.view(\d+)", file.stem).groups()
    return int(piece), sample, int(view)


def main():
    run, documents, views, traces = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    files = sorted((file for file in (run / "views").glob("*.part*.h5")), key=document_and_view)
    if len(files) != documents * views:
        sys.exit(f"representations: {len(files)} views, expected {documents * views}")
    worst, compared = 0.0, 0
    rows = list(csv.DictReader((run / "representations.csv").open(encoding="utf-8")))
    for layer in sorted({row["layer"] for row in rows}, key=int):
        vectors = numpy.array([h5py.File(file)[f"layers/{layer}/hidden_unit_mean"][()] for file in files], float)
        vectors = vectors.reshape(documents, views, len(STAGES), -1)
        scalars = numpy.mean([h5py.File(trace)[f"layers/{layer}/hidden_scalars"][()] for trace in traces], axis=0)
        for row in (row for row in rows if row["layer"] == layer):
            stage = STAGES.index(row["stage"])
            metric = reference.METRICS.get(row["metric"])
            expected = metric(vectors[:, :, stage]) if metric else scalars[stage, SCALARS.index(row["metric"])]
            gap = abs(float(row["value"]) - expected) / max(1, abs(expected))
            worst, compared = max(worst, gap) if gap == gap else gap, compared + 1
    print(f"{compared} values, largest difference {worst:.2e}")
    sys.exit(0 if compared > 0 and worst <= 1e-5 else 1)


if __name__ == "__main__":
    main()
