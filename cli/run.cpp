// SPDX-License-Identifier: Apache-2.0
// trace, replay, verify, report and run: the stages of a plan, one by one or all.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "cli/commands.h"
#include "depthkv/error.h"

namespace depthkv {
namespace {

// What the commands below take from the command line.
struct RunOptions {
  std::filesystem::path input;
  std::filesystem::path out;
  Overrides overrides;
  bool dry_run = false;
  DumpFiles dump;
};

CLI::App* add_command(CLI::App& app, const char* name, const char* help, const char* examples) {
  CLI::App* command = app.add_subcommand(name, help);
  command->footer(std::string("Examples:\n") + examples);
  return command;
}

// The model is named by flag, plan or environment, in this order.
Plan load(const std::filesystem::path& file, const Overrides& overrides, bool expect_files = false) {
  PlanSetting setting{.expect_files = expect_files};
  if (const char* model = std::getenv("DEPTHKV_MODEL")) setting.model = model;
  return load_plan(file, overrides, builtin_policies(), setting);
}

ExitCode finish(Pipeline& pipeline) {
  pipeline.report();
  return pipeline.outcome();
}

std::filesystem::path plan_of_run(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "plan.yaml";
  if (!std::filesystem::exists(file)) {
    throw InputError(fmt::format(
        "{}: holds no plan.yaml; expected a folder that `depthkv replay --out` or `depthkv run --out` wrote",
        run.string()));
  }
  return file;
}

}  // namespace

void add_plan_flags(CLI::App& command, Overrides& overrides, std::initializer_list<std::string_view> prefixes) {
  for (const Flag& flag : plan_flags()) {
    const std::string_view key = flag.key;
    if (std::none_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return key.starts_with(prefix); }))
      continue;
    CLI::Option* option = command.add_option_function<std::vector<std::string>>(
        flag.flag, [&overrides, key](const std::vector<std::string>& values) { overrides[std::string(key)] = values; },
        flag.help);
    option->type_name("");
    if (!flag.list) option->expected(1);
    if (flag.split) option->delimiter(',');
  }
}

void add_trace_command(CLI::App& app, Action& action) {
  const auto given = std::make_shared<RunOptions>();
  CLI::App* command = add_command(app, "trace", "Record what a model does on task samples",
                                  "  depthkv trace --model model.gguf --tasks needle.jsonl --limit 4 --out traces\n"
                                  "  depthkv trace --tasks a.jsonl b.jsonl --attention 0,7 --codec none --out traces\n"
                                  "  depthkv trace --tasks needle.jsonl --preset study --dry-run --out traces");
  add_plan_flags(*command, given->overrides, {"model", "threads", "batch", "trace."});
  command->add_option("--out", given->out, "folder of the trace set; run again to go on after an interruption")
      ->required();
  command->add_flag("--dry-run", given->dry_run, "say what would be recorded, how large it gets and how long it takes");
  command->callback([given, &action] {
    action = [given] {
      given->overrides.try_emplace("trace.tasks");  // so that leaving out --tasks is an error that says so
      Pipeline pipeline(load({}, given->overrides), given->out);
      if (given->dry_run) {
        pipeline.describe();
      } else {
        pipeline.trace_into(given->out);
      }
      return ExitCode::fine;
    };
  });
}

void add_replay_command(CLI::App& app, Action& action) {
  const auto given = std::make_shared<RunOptions>();
  CLI::App* command =
      add_command(app, "replay", "Evaluate policies on recorded traces, without the model",
                  "  depthkv replay traces --out run\n"
                  "  depthkv replay traces --scorer h2o --scorer snapkv:window=32 --keep 0.2,0.4 --out run\n"
                  "  depthkv replay traces --layers pyramid --layers depthkv:importance=1,1,2,2 --out run\n"
                  "  depthkv replay traces --scorer snapkv --dump-scores scores.h5 --dump-kept kept.h5 --out run");
  command->add_option("TRACES", given->input, "folder of a trace set")->required();
  add_plan_flags(*command, given->overrides, {"threads", "cache", "replay."});
  command->add_option("--out", given->out, "run folder")->required();
  command->add_option("--dump-scores", given->dump.scores, "HDF5 file for every scorer's scores (docs/results.md)");
  command->add_option("--dump-kept", given->dump.kept, "HDF5 file for the positions that every policy keeps");
  command->callback([given, &action] {
    action = [given] {
      given->overrides["traces"] = {given->input.string()};
      Pipeline pipeline(load({}, given->overrides), given->out);
      pipeline.replay(given->dump);
      return finish(pipeline);
    };
  });
}

void add_verify_command(CLI::App& app, Action& action) {
  const auto given = std::make_shared<RunOptions>();
  CLI::App* command = add_command(app, "verify", "Check a run's best policies, and controls, end to end on the model",
                                  "  depthkv verify run --model model.gguf\n"
                                  "  depthkv verify run --top 8 --controls 8 --verify-keep 0.1,0.2\n"
                                  "  depthkv verify run --top 30 --dry-run");
  command->add_option("RUN", given->input, "folder that replay wrote; run again to go on after an interruption")
      ->required();
  add_plan_flags(*command, given->overrides, {"model", "threads", "batch", "cache", "verify."});
  command->add_flag("--dry-run", given->dry_run, "say what the model would be run on, and how large its cache gets");
  command->callback([given, &action] {
    action = [given] {
      Plan plan = load(plan_of_run(given->input), given->overrides);
      if (!plan.verify) plan.verify = VerifyPlan{};
      Pipeline pipeline(plan, given->input);
      pipeline.load_results();
      if (given->dry_run) {
        pipeline.describe_verify();
        return ExitCode::fine;
      }
      pipeline.verify();
      return finish(pipeline);
    };
  });
}

void add_importance_command(CLI::App& app, Action& action) {
  const auto given = std::make_shared<RunOptions>();
  CLI::App* command =
      add_command(app, "importance", "Measure how much each layer matters: prune one at a time, on the model",
                  "  depthkv importance traces --model model.gguf --out importance\n"
                  "  depthkv importance traces --scorer h2o --keep 0.1,0.2,0.4 --out importance\n"
                  "  depthkv replay traces --importance importance/importance.json --out run");
  command->add_option("TRACES", given->input, "folder of a trace set")->required();
  add_plan_flags(*command, given->overrides,
                 {"model", "threads", "batch", "cache", "replay.cut", "replay.scorers", "replay.structures",
                  "replay.protect", "replay.head", "replay.keep", "replay.device", "study."});
  command
      ->add_option("--out", given->out,
                   "folder for importance.json and importance.csv; run again to go on after an interruption")
      ->required();
  command->add_flag("--dry-run", given->dry_run, "say what the model would be run on, and how large its cache gets");
  command->callback([given, &action] {
    action = [given] {
      given->overrides["traces"] = {given->input.string()};
      for (const auto& [key, value] : {std::pair{"replay.scorers", "snapkv"},
                                       {"replay.head_allocators", "uniform"},
                                       {"replay.keep", "0.2"},
                                       {"study.learn", "0"},
                                       {"study.max_new", "0"},
                                       {"study.documents", "0"}})
        given->overrides.try_emplace(key, std::vector<std::string>{value});
      Pipeline pipeline(load({}, given->overrides), given->out);
      if (given->dry_run) {
        pipeline.describe_importance();
      } else {
        pipeline.measure_importance();
      }
      return ExitCode::fine;
    };
  });
}

void add_report_command(CLI::App& app, Action& action) {
  const auto given = std::make_shared<RunOptions>();
  CLI::App* command = add_command(
      app, "report", "Write a run's summary.json and report.html again and print its tables", "  depthkv report run");
  command->add_option("RUN", given->input, "folder that replay or run wrote")->required();
  command->callback([given, &action] {
    action = [given] {
      Pipeline pipeline(load(plan_of_run(given->input), {}), given->input);
      pipeline.load_results();
      return finish(pipeline);
    };
  });
}

void add_run_command(CLI::App& app, Action& action) {
  const auto given = std::make_shared<RunOptions>();
  CLI::App* command = add_command(app, "run", "Carry out a whole plan: trace, replay, verify, report",
                                  "  depthkv run configs/demo.yaml --model model.gguf --out run\n"
                                  "  depthkv run configs/demo.yaml --keep 0.1,0.2 --out run --dry-run");
  command->add_option("PLAN", given->input, "plan file; configs/reference.yaml documents every key")->required();
  add_plan_flags(*command, given->overrides, {""});
  command->add_option("--out", given->out, "run folder; run again to go on after an interruption")->required();
  command->add_flag("--dry-run", given->dry_run, "check the plan and say what it would do and cost");
  command->callback([given, &action] {
    action = [given] {
      const Plan plan = load(given->input, given->overrides, true);
      Pipeline pipeline(plan, given->out);
      if (given->dry_run) {
        pipeline.describe();
        return ExitCode::fine;
      }
      pipeline.check_study();
      pipeline.trace();
      if (plan.study) pipeline.measure_importance();
      pipeline.replay();
      pipeline.verify();
      return finish(pipeline);
    };
  });
}

}  // namespace depthkv
