// SPDX-License-Identifier: Apache-2.0
#include "cli/plan.h"

namespace depthkv {

const std::vector<Flag>& plan_flags() {
  static const std::vector<Flag> kFlags{
      {"--model", "model", "GGUF file of the model (default: $DEPTHKV_MODEL)"},
      {"--threads", "threads", "threads, 0: one per core"},
      {"--batch", "batch", "most tokens per engine call: a prompt is prefilled in chunks of so many"},
      {"--cache", "cache", "where curves are kept for later runs: auto (in the trace set's folder), none, or a folder"},
      {"--tasks", "trace.tasks", "files of prompts: .jsonl (task samples) or .txt (a text to go on with)", true, false},
      {"--format", "trace.tasks.format", "how the task files are read, whatever their names: tasks, text or chat"},
      {"--fields", "trace.tasks.fields", "names of fields in the task files, such as context=passage,question=query",
       true, false},
      {"--defaults", "trace.tasks.defaults", "what holds where a task file says nothing, such as metric=f1,task=qa",
       true, false},
      {"--limit", "trace.limit", "samples per task file, 0: all"},
      {"--max-prompt", "trace.max_prompt", "most prompt tokens, 0: what the model's context leaves beside the answer"},
      {"--truncate", "trace.truncate", "what to do with a longer prompt: error, or cut the context's middle or end"},
      {"--max-new", "trace.max_new", "most answer tokens recorded per sample"},
      {"--preset", "trace.preset",
       "how much to record: sweep (what replay needs), study (hidden states, too) or full (every matrix and weight)"},
      {"--channels", "trace.channels", "what to record of each layer (default: the preset's)", true, true},
      {"--attention", "trace.attention", "record attention matrices: all, none, or layers such as 0,3,7"},
      {"--queries", "trace.queries",
       "record query rows: rows (the last 128 before each cut, all after the context) or all"},
      {"--softmax", "trace.softmax", "where attention comes from: recomputed (from queries and cached keys) or engine"},
      {"--codec", "trace.codec", "zstd, deflate or none"},
      {"--cut", "replay.cut", "prune after the context or after the prompt"},
      {"--scorer", "replay.scorers", "scorer, with parameters as in snapkv:window=32,kernel=5; repeat for more", true,
       false},
      {"--structure", "replay.structures", "what is kept together, such as token or chunk:length=20; repeat for more",
       true, false},
      {"--protect", "replay.protect", "first+last positions that always stay, such as 4+32; repeat for more", true,
       true},
      {"--layers", "replay.layer_allocators", "layer allocator; repeat for more", true, false},
      {"--heads", "replay.head_allocators", "head allocator; repeat for more", true, false},
      {"--keep", "replay.keep", "kept shares of the cache, such as 0.1,0.2,0.4", true, true},
      {"--observed-rows", "replay.observed_rows", "rows before the cut on which allocators measure curves"},
      {"--importance", "replay.importance",
       "what `depthkv importance` wrote: predicted_loss weights layers by it (default: the later half count)"},
      {"--device", "replay.device", "cpu, reference (slow, double precision), cuda, or auto (cuda where there is one)"},
      {"--top", "verify.top", "best policies to verify, per keep"},
      {"--controls", "verify.controls", "policies drawn from the rest of the ranking, per keep"},
      {"--verify-keep", "verify.keep", "budgets at which to verify", true, true},
      {"--rank-by", "verify.rank_by", "metric that picks the best: predicted_loss, output_error, mass or evidence"},
      {"--seed", "verify.seed", "seed of the control draw"},
      {"--generate", "verify.max_new", "most tokens generated for a task score, 0: none"},
      {"--stop-when-separate", "verify.stop_when_separate",
       "stop once so many of the best are told from the rest, 0: take every sample"},
  };
  return kFlags;
}

}  // namespace depthkv
