# Where scripts/setup puts things and every other script finds them. Sourced, not run.
DEPTHKV_CACHE=${DEPTHKV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/depthkv}

DEPTHKV_PYTHON_PACKAGES=(h5py==3.14.0 numpy==2.2.6 hdf5plugin==6.0.0 xxhash==3.6.0 nvidia-cuda-cccl==13.0.85)
DEPTHKV_PYTHON_ENV=$DEPTHKV_CACHE/python
DEPTHKV_PYTHON=$DEPTHKV_PYTHON_ENV/bin/python

# The engine is built for the processor at hand, so a cache that travels to another machine must not be mistaken for its own.
DEPTHKV_LLAMA_VERSION=0.3.36
depthkv_cpu=$(grep -m1 '^flags' /proc/cpuinfo 2>/dev/null | sha256sum | cut -c1-8)
DEPTHKV_LLAMA_DEFAULT=$DEPTHKV_CACHE/llama-cpp-python-$DEPTHKV_LLAMA_VERSION-$depthkv_cpu
LLAMA_PREFIX=${LLAMA_PREFIX:-$DEPTHKV_LLAMA_DEFAULT}

DEPTHKV_MODEL_VERSION=0.1.2
DEPTHKV_MODEL_DEFAULT=$DEPTHKV_CACHE/SmolLM2-135M-Instruct.Q4_1.gguf
DEPTHKV_MODEL=${DEPTHKV_MODEL:-$DEPTHKV_MODEL_DEFAULT}

export DEPTHKV_CACHE DEPTHKV_PYTHON LLAMA_PREFIX DEPTHKV_MODEL
