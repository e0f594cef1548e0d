# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels and reads what the compiler says about them. Run by bench/static_gpu, which says what for."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ALL_ARCHITECTURES = (80, 90, 100)
ARCHITECTURES = tuple(int(a) if a.isdigit() else a for a in sys.argv[2:]) or ALL_ARCHITECTURES
BASELINE = pathlib.Path("bench/static_gpu.json")
OCCUPANCY_BAR = 50
LOWER_IS_BETTER = ("registers", "spill_bytes", "stack_bytes", "shared_bytes")
HIGHER_IS_BETTER = ("occupancy_percent", "loop_loads_128", "loop_tensor")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?(\w+)([.\w]*)")
LOADS = ("LD", "LDG", "LDS", "LDGSTS", "LDSM")


def run(*command, **keywords):
    done = subprocess.run(command, text=True, capture_output=True, check=False, **keywords)
    if done.returncode != 0:
        sys.exit(f"static_gpu: {' '.join(command)} failed:\n{done.stderr}")
    return done.stdout + done.stderr


def loop_counts(sass):
    """Per function: loads in loops, those of 128 bits, tensor-core instructions. A loop is what a jump back leaps over."""
    counts = {}
    for part in re.split(r"^\.text\.", sass, flags=re.M)[1:]:
        name, lines = part.split(":", 1)[0], part.splitlines()
        labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
        looped = set()
        for i, line in enumerate(lines):
            jump = re.search(r"\bBRA\b.*`\((\.L\w+)\)", line)
            if jump and labels.get(jump[1], len(lines)) < i:
                looped.update(range(labels[jump[1]], i))
        instructions = [found for i in looped if (found := INSTRUCTION.search(lines[i]))]
        loads = [found[2] for found in instructions if found[1] in LOADS]
        counts[name] = {"loop_loads": len(loads), "loop_loads_128": sum(".128" in kind for kind in loads),
                        "loop_tensor": sum(found[1].endswith("MMA") for found in instructions)}
    return counts


def short(symbol):
    """The kernel's name with its template arguments, without namespaces and parameters."""
    full = run("c++filt", symbol).strip()
    return re.sub(r"\(.*", "", re.sub(r"^void ", "", full).replace("(anonymous namespace)::", "")).split("::")[-1]


def kernels_of(source, architecture, folder):
    log = run("nvcc", "-cubin", f"-arch=sm_{architecture}", "-std=c++20", "--fmad=false", "-I.", "-Iinclude", "-Xptxas=-v", "--keep",
              "--keep-dir", folder, str(source), "-o", f"{folder}/out.cubin")
    ptx = (pathlib.Path(folder) / (source.stem + ".ptx")).read_text()
    loops = loop_counts(run("nvdisasm", "-c", f"{folder}/out.cubin"))
    kernels = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        symbol = part.split("'", 1)[0]
        if not re.match(r"(void )?depthkv::", run("c++filt", symbol)):
            continue  # Thrust's own
        bounds = re.search(r"\.entry " + re.escape(symbol) + r"\(.*?\)\s*(.*?)\{", ptx, flags=re.S)[1]
        threads = re.search(r"\.maxntid (\d+)(?:, (\d+), (\d+))?", bounds)
        if not threads:
            sys.exit(f"static_gpu: {source}: {short(symbol)} has no __launch_bounds__, which say how it is launched; add them")
        stack, stores, loads = map(int, re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part).groups())
        shared = re.search(r"(\d+) bytes smem", part)
        block = 1
        for extent in threads.groups():
            block *= int(extent or 1)
        kernels[short(symbol)] = {"threads": block, "registers": int(re.search(r"Used (\d+) registers", part)[1]),
                                  "spill_bytes": stores + loads, "stack_bytes": stack,
                                  "shared_bytes": int(shared[1]) if shared else 0, **loops[symbol]}
    return kernels


def measure(sources, baseline):
    toolkit = pathlib.Path(run("bash", "-c", 'readlink -f "$(command -v nvcc)"').strip()).parent.parent
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for source in sources:
            for architecture in ARCHITECTURES:
                for name, kernel in kernels_of(source, architecture, folder).items():
                    given = {"dynamic_shared_bytes": 0, "note": ""} | baseline.get(name, {})
                    entry = found.setdefault(name, {key: given[key] for key in ("dynamic_shared_bytes", "note")})
                    entry[f"sm_{architecture}"] = kernel
        run("g++", "-w", "-x", "c++", f"-I{toolkit}/include", "bench/occupancy.cu", "-o", f"{folder}/occupancy")
        rows = [(entry, f"sm_{a}", a) for entry in found.values() for a in ARCHITECTURES]
        asked = "".join(f"{a} {e[key]['threads']} {e[key]['registers']} {e[key]['shared_bytes']} {e['dynamic_shared_bytes']}\n"
                        for e, key, a in rows)
        for (entry, key, _), percent in zip(rows, run(f"{folder}/occupancy", input=asked).split(), strict=True):
            entry[key]["occupancy_percent"] = int(percent)
    return found


def bars(found):
    for name, entry in found.items():
        for architecture in ARCHITECTURES:
            kernel = entry[f"sm_{architecture}"]
            for key in ("spill_bytes", "stack_bytes"):
                if kernel[key] != 0:
                    yield f"{name}, sm_{architecture}: {key} is {kernel[key]}, expected 0; give each thread less to hold"
            if kernel["occupancy_percent"] < OCCUPANCY_BAR and not entry["note"]:
                yield (f"{name}, sm_{architecture}: occupancy is {kernel['occupancy_percent']} %, expected {OCCUPANCY_BAR} or a note "
                       f"in {BASELINE} why less is faster")


def regressions(found, baseline):
    for name in sorted(found.keys() | baseline.keys()):
        if name not in baseline or name not in found:
            yield f"{name}: is {'not in the baseline' if name in found else 'gone'}; run bench/static_gpu --update"
            continue
        for architecture in ARCHITECTURES:
            now, before = found[name][f"sm_{architecture}"], baseline[name][f"sm_{architecture}"]
            worse = [key for key in LOWER_IS_BETTER if now[key] > before[key]]
            worse += [key for key in HIGHER_IS_BETTER if now[key] < before[key]]
            for key in worse:
                yield (f"{name}, sm_{architecture}: {key} was {before[key]}, is {now[key]}; if that is meant, run "
                       "bench/static_gpu --update and say why in the commit")


def show(found):
    columns = ("threads", "registers", "spill_bytes", "stack_bytes", "shared_bytes", "occupancy_percent", "loop_loads",
               "loop_loads_128", "loop_tensor")
    print(f"{'kernel':32} {'arch':7}" + "".join(f" {column:>17}" for column in columns))
    for name, entry in sorted(found.items()):
        for architecture in ARCHITECTURES:
            kernel = entry[f"sm_{architecture}"]
            print(f"{name:32} sm_{architecture:<4}" + "".join(f" {kernel[column]:17}" for column in columns))


def main(mode):
    if mode not in ("", "--check", "--update"):
        sys.exit(f"static_gpu: unknown option {mode}; see the head of bench/static_gpu")
    if not set(ARCHITECTURES) <= set(ALL_ARCHITECTURES) or (mode == "--update" and ARCHITECTURES != ALL_ARCHITECTURES):
        sys.exit(f"static_gpu: --check takes some of {ALL_ARCHITECTURES}, --update takes none; found {ARCHITECTURES}")
    stored = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"toolkit": "", "kernels": {}}
    toolkit = re.search(r"V([\d.]+)", run("nvcc", "--version"))[1]
    found = measure(sorted(path.parent / "cuda.cu" for path in pathlib.Path("kernels").glob("*/device.cuh")), stored["kernels"])
    show(found)
    if mode == "--update":
        BASELINE.write_text(json.dumps({"toolkit": toolkit, "kernels": found}, indent=1, sort_keys=True) + "\n")
    if mode != "--check":
        return
    planted = measure([pathlib.Path("bench/static_gpu_planted.cu")], {})
    if len([problem for problem in bars(planted) if "bytes" in problem]) != 2 * len(ARCHITECTURES):
        sys.exit("static_gpu: the kernel planted in bench/static_gpu_planted.cu spills, and that wasn't noticed; mend the check")
    problems = list(bars(found))
    if toolkit == stored["toolkit"]:
        problems += regressions(found, stored["kernels"])
    else:
        print(f"static_gpu: nvcc is {toolkit}, the baseline {stored['toolkit']}'s: compared with the bars only")
    for problem in problems:
        print("static_gpu:", problem)
    print("static_gpu: " + (f"{len(problems)} problems" if problems else "all bars are met, nothing is worse"))
    sys.exit(1 if problems else 0)


main(sys.argv[1] if len(sys.argv) > 1 else "")
