// SPDX-License-Identifier: Apache-2.0
#include "cli/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "depthkv/error.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

class PlanTest : public testing::Test {
 protected:
  Plan load(const std::string& yaml, const Overrides& overrides = {}) {
    return load_plan(write_text(scratch_ / "plan.yaml", yaml), overrides, registry_);
  }
  std::string error(const std::string& yaml, const Overrides& overrides = {}) {
    try {
      load(yaml, overrides);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }

  ScratchDirectory scratch_;
  Registry registry_ = builtin_policies();
};

TEST_F(PlanTest, ReferenceYamlHoldsEveryKeyWithItsDefault) {
  const std::filesystem::path reference = kSource / "configs/reference.yaml";
  const Plan defaults = load_plan(reference.parent_path() / "reference.yaml", {}, registry_);
  const std::string task = (reference.parent_path() / "tasks/needle.jsonl").string();
  EXPECT_EQ(to_yaml(defaults, registry_),
            to_yaml(load("trace: {tasks: [" + task + "]}\nverify: {}\nstudy: {}\n"), registry_));
  // Every key that the code writes or reads is in the file.
  const std::string text = read_text(reference);
  for (const Flag& flag : plan_flags()) {
    const std::string key = std::string(flag.key).substr(std::string(flag.key).rfind('.') + 1);
    EXPECT_THAT(text, HasSubstr(key + ":")) << flag.key;
  }
}

TEST_F(PlanTest, LayersAreMeasuredWhereIsVerifiedUnlessToldOtherwise) {
  using testing::ElementsAre;
  EXPECT_THAT(load("replay: {keep: [0.1, 0.3]}\nstudy: {}\n").study->keep, ElementsAre(0.1, 0.3));
  EXPECT_THAT(load("replay: {keep: [0.1, 0.3]}\nverify: {keep: [0.3]}\nstudy: {}\n").study->keep, ElementsAre(0.3));
  EXPECT_THAT(load("verify: {}\nstudy: {keep: [0.4, 0.5]}\n").study->keep, ElementsAre(0.4, 0.5));
}

TEST_F(PlanTest, ResolvedPlanReadsBackEqual) {
  const Plan plan = load(
      "model: m.gguf\nthreads: 2\ntrace: {tasks: [a.jsonl, notes.txt, {path: b.log, format: chat, "
      "fields: {messages: turns.all}, defaults: {metric: f1, source: 'a \"b\" \\ c'}}, {path: d.txt, defaults: "
      "{question: \"Who?\\n\\tWhy?\"}}], truncate: middle, max_prompt: 900, attention: [0, 3], queries: all, softmax: "
      "engine, codec: "
      "deflate}\n"
      "replay: {cut: context, scorers: [\"snapkv:window=16\", h2o], protect: [4+32, 0+0], keep: [0.3, 1], "
      "layer_allocators: [\"depthkv:importance=1,2.5\"]}\n"
      "verify: {top: 2, keep: [0.3], rank_by: mass}\n");
  const std::string yaml = to_yaml(plan, registry_);
  EXPECT_EQ(to_yaml(load(yaml), registry_), yaml);
  EXPECT_EQ(plan_hash(load(yaml).replay, registry_), plan_hash(plan.replay, registry_));
  EXPECT_EQ(plan.trace->attention, "0,3");
  EXPECT_TRUE(plan.trace->engine_softmax);
  EXPECT_EQ(load(yaml).trace->tasks[3].defaults.question, "Who?\n\tWhy?");
}

TEST_F(PlanTest, ParametersOfEveryTypeReadBackEqual) {
  const std::vector<std::string> texts{"a b", "7", "true", "null", "", "say \"x=1\" \\ {y: z}, # no", "two\nlines"};
  std::vector<std::string> seen;
  registry_.add(Entry<Scorer>{"typed", "", "", [&](Params& params) {
                                seen.push_back(params.take<std::string>("text", "none"));
                                params.take("flag", false);
                                params.take("share", 0.5);
                                params.take("list", std::vector<double>{});
                                params.take_in("most", 1.0, 0.0, std::numeric_limits<double>::infinity());
                                Scorer scorer;
                                scorer.group = "none";
                                return scorer;
                              }});
  for (const std::string& text : texts) {
    Plan plan = load("replay: {scorers: [{name: typed, flag: true, share: 2, list: [1, 2.5], most: .inf}]}");
    plan.replay.scorers[0].params["text"] = text;
    const std::string yaml = to_yaml(plan, registry_);
    const Plan again = load(yaml);
    EXPECT_EQ(to_yaml(again, registry_), yaml);
    EXPECT_EQ(seen.back(), text);
    EXPECT_EQ(again.replay.scorers[0].params.at("text"), Value(text));
    EXPECT_EQ(again.replay.scorers[0].params.at("flag"), Value(true));
  }
  const auto resolved = [&](const std::string& text) {
    return registry_.make_scorer({"typed", {{"text", text}}, ""}).params;
  };
  EXPECT_EQ(resolved("plain"), "flag=false list=[] most=1 share=0.5 text=plain");
  EXPECT_NE(resolved("a text=b"), resolved("a"));
  EXPECT_THAT(resolved("a b"), HasSubstr("text=\"a b\""));
}

TEST_F(PlanTest, PresetsSayHowMuchIsRecordedUnlessAKeyDoes) {
  const auto trace = [&](const std::string& keys) { return *load("trace: {tasks: [a.jsonl], " + keys + "}").trace; };
  const std::set<Channel> states{Channel::hidden_mean, Channel::hidden_unit_mean, Channel::hidden_scalars,
                                 Channel::attention_cosines};
  const TracePlan sweep = trace("preset: sweep");
  EXPECT_EQ(sweep.channels, TracePlan{}.channels);
  EXPECT_EQ(trace("limit: 0").channels, sweep.channels);
  std::set<Channel> more = sweep.channels;
  more.insert(states.begin(), states.end());
  EXPECT_EQ(more.size(), sweep.channels.size() + states.size());
  const TracePlan study = trace("preset: study");
  EXPECT_EQ(study.channels, more);
  EXPECT_EQ(study.attention + study.queries, "nonerows");
  more.insert({Channel::output_projection, Channel::repeat_max});
  const TracePlan full = trace("preset: full");
  EXPECT_EQ(full.channels, more);
  EXPECT_EQ(full.attention + full.queries, "allall");
  const TracePlan mixed = trace("attention: [1], preset: full, queries: rows, channels: [keys, output_projection]");
  EXPECT_EQ(mixed.channels, (std::set<Channel>{Channel::keys, Channel::output_projection}));
  EXPECT_EQ(mixed.attention + mixed.queries, "1rows");
  EXPECT_THAT(error("trace: {tasks: [a.jsonl], preset: stdy}"), HasSubstr("study"));
  EXPECT_THAT(error("trace: {tasks: [a.jsonl], channels: [attention]}"), HasSubstr("no channel \"attention\""));
}

TEST_F(PlanTest, HashTellsResultsApartButNotThreads) {
  const std::string one = plan_hash(load("threads: 1").replay, registry_);
  EXPECT_EQ(plan_hash(load("threads: 2").replay, registry_), one);
  EXPECT_NE(plan_hash(load("replay: {observed_rows: 32}").replay, registry_), one);
  EXPECT_NE(plan_hash(load("replay: {scorers: [\"snapkv:window=8\"]}").replay, registry_),
            plan_hash(load("replay: {scorers: [snapkv]}").replay, registry_));
}

TEST_F(PlanTest, AllStandsForWhateverNeedsNoFile) {
  const Plan plan = load("replay: {scorers: [all, \"snapkv:window=8\"], structures: all, head_allocators: [all]}");
  const Plan defaults = load("");
  EXPECT_GT(plan.replay.scorers.size(), defaults.replay.scorers.size() + 1);  // finch needs a question
  EXPECT_EQ(plan.replay.scorers.size(), registry_.scorers().size());          // one more, and without explicit
  EXPECT_EQ(plan.replay.structures.size(), registry_.structures().size());
  EXPECT_GE(plan.replay.head_allocators.size(), 2U);
  EXPECT_EQ(load("", {{"replay.layer_allocators", {"all"}}}).replay.layer_allocators.size(),
            registry_.layer_allocators().size() - 3);  // without explicit
  EXPECT_THAT(error("replay: {scorers: [{name: all, window: 3}]}"), HasSubstr("takes no parameters"));
}

TEST_F(PlanTest, HashFollowsTheFilesThatThePlanNames) {
  const auto hash = [&](const char* shares) {
    write_text(scratch_ / "shares.txt", shares);
    const Plan plan = load("replay: {layer_allocators: [{name: explicit, file: shares.txt}]}");
    return plan_hash(plan.replay, registry_);
  };
  const std::string first = hash("1\n2\n");
  EXPECT_NE(hash("2\n1\n"), first);
  EXPECT_EQ(hash("1\n2\n"), first);
}

TEST_F(PlanTest, BoundsAreAlwaysThere) {
  const Plan plan = load("replay: {scorers: [h2o], layer_allocators: [pyramid], head_allocators: [adakv]}");
  const auto names = [](const std::vector<PolicySpec>& specs) {
    std::vector<std::string> found;
    for (const PolicySpec& spec : specs) found.push_back(spec.name);
    return found;
  };
  EXPECT_THAT(names(with_bounds(plan.replay).scorers), testing::ElementsAre("h2o", "random", "oracle"));
  EXPECT_THAT(names(with_bounds(plan.replay).layer_allocators), testing::ElementsAre("pyramid", "uniform", "oracle"));
  EXPECT_THAT(names(with_bounds(plan.replay).head_allocators), testing::ElementsAre("adakv", "uniform"));
}

TEST_F(PlanTest, FlagsWinOverTheFile) {
  const Plan plan = load("replay: {keep: [0.5], scorers: [knorm]}",
                         {{"replay.keep", {"0.2", "0.4"}}, {"replay.scorers", {"snapkv:window=8,kernel=3"}}});
  EXPECT_EQ(plan.replay.keep, (std::vector<double>{0.2, 0.4}));
  EXPECT_EQ(plan.replay.scorers[0].name, "snapkv");
  EXPECT_EQ(std::get<std::int64_t>(plan.replay.scorers[0].params.at("window")), 8);
}

TEST_F(PlanTest, PathsAreRelativeToTheFile) {
  const Plan plan = load("trace: {tasks: [tasks/a.jsonl, ../b.jsonl]}");
  EXPECT_EQ(plan.trace->tasks[0].file, scratch_ / "tasks/a.jsonl");
  EXPECT_EQ(plan.trace->tasks[1].file, (scratch_ / "../b.jsonl").lexically_normal());
}

TEST_F(PlanTest, FilesOfPoliciesAreRelativeToTheFileOrTheWorkingDirectory) {
  registry_.add(Entry<Scorer>{"filed", "", "", [](Params& params) {
                                params.take<std::string>("file", "");
                                Scorer scorer;
                                scorer.group = "none";
                                return scorer;
                              }});
  const auto file = [](const Plan& plan) { return std::get<std::string>(plan.replay.scorers[0].params.at("file")); };
  EXPECT_EQ(file(load("replay: {scorers: [{name: filed, file: ../my s.h5}]}")),
            (scratch_.path().parent_path() / "my s.h5").string());
  EXPECT_EQ(file(load("replay: {scorers: [\"filed:file=s.h5\"]}")), (scratch_ / "s.h5").string());
  EXPECT_EQ(file(load("", {{"replay.scorers", {"filed:file=s.h5"}}})), std::filesystem::absolute("s.h5").string());
  EXPECT_EQ(file(load("replay: {scorers: [{name: filed, file: \"\"}]}")), "");
}

// Set for as long as it lives.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

TEST_F(PlanTest, VariablesStandInPathsOnly) {
  const Environment data("DEPTHKV_TEST_DATA", "/data");
  const Environment empty("DEPTHKV_TEST_EMPTY", "");
  write_text(scratch_ / "shares.txt", "1\n");
  const std::string yaml =
      "model: ${DEPTHKV_TEST_DATA}/m.gguf\n"
      "cache: ${DEPTHKV_TEST_EMPTY:-none}\n"
      "trace:\n"
      "  tasks: [\"${DEPTHKV_TEST_DATA}/a.jsonl\", {path: \"${NO_SUCH_VARIABLE:-b}.jsonl\", defaults: {source: "
      "\"${DEPTHKV_TEST_DATA}\"}}]\n"
      "replay:\n"
      "  layer_allocators: [\"explicit:file=${HERE}/shares.txt\", {name: explicit, file: \"${HERE}/shares.txt\"}]\n";
  const std::filesystem::path file = write_text(scratch_ / "plan.yaml", yaml);
  const Plan plan = load_plan(file, {}, registry_, {.variables = {{"HERE", scratch_.path().string()}}});
  EXPECT_EQ(plan.model, "/data/m.gguf");
  EXPECT_EQ(plan.cache, "none");
  EXPECT_EQ(plan.trace->tasks[0].file, "/data/a.jsonl");
  EXPECT_EQ(plan.trace->tasks[1].file, scratch_ / "b.jsonl");
  EXPECT_EQ(plan.trace->tasks[1].defaults.source, "${DEPTHKV_TEST_DATA}");
  for (const PolicySpec& spec : plan.replay.layer_allocators)
    EXPECT_EQ(std::get<std::string>(spec.params.at("file")), (scratch_ / "shares.txt").string());
  // What a run keeps has the values, whatever the variables are then.
  const std::string resolved = to_yaml(plan, registry_);
  EXPECT_EQ(to_yaml(load(resolved), registry_), resolved);
  EXPECT_THAT(resolved, HasSubstr("model: \"/data/m.gguf\""));
  // The map comes before the environment; a shell has replaced what the command line gives.
  const Plan given =
      load_plan(write_text(scratch_ / "p.yaml", "traces: ${DEPTHKV_TEST_DATA}"), {{"model", {"/x/${HERE}.gguf"}}},
                registry_, {.variables = {{"DEPTHKV_TEST_DATA", "/mine"}}});
  EXPECT_EQ(given.traces, "/mine");
  EXPECT_EQ(given.model, "/x/${HERE}.gguf");
  EXPECT_EQ(load(to_yaml(given, registry_)).model, "/x/${HERE}.gguf");
}

TEST_F(PlanTest, VariablesThatAreNotSetAreErrorsThatSayWhatToDo) {
  EXPECT_THAT(error("threads: 1\nmodel: ${NO_SUCH_VARIABLE}/m.gguf\n"),
              AllOf(HasSubstr("plan.yaml:2: model: "), HasSubstr("NO_SUCH_VARIABLE is not set"),
                    HasSubstr("${NO_SUCH_VARIABLE:-default}")));
  EXPECT_THAT(error("trace:\n  tasks:\n    - a.jsonl\n    - ${NO_SUCH_VARIABLE}/b.jsonl\n"),
              AllOf(HasSubstr("plan.yaml:4: trace.tasks.path: "), HasSubstr("NO_SUCH_VARIABLE")));
  EXPECT_THAT(error("replay:\n  importance: ${NO_SUCH_VARIABLE}\n"), HasSubstr("plan.yaml:2: replay.importance: "));
  EXPECT_THAT(error("replay:\n  scorers:\n    - h2o\n    - explicit:file=${NO_SUCH_VARIABLE}\n"),
              HasSubstr("plan.yaml:4: replay.scorers.file: "));
  EXPECT_THAT(error("model: ${HOME"), HasSubstr("without its }"));
  EXPECT_THAT(error("model: ${1}"), HasSubstr("\"${1}\" is not ${NAME}"));
  EXPECT_THAT(error("model: ${}"), HasSubstr("is not ${NAME}"));
  EXPECT_EQ(load("model: /a$b/$${c}$").model, "/a$b/${c}$");
}

TEST_F(PlanTest, AllMissingFilesAreNamedAtOnce) {
  write_text(scratch_ / "there.jsonl", "");
  const auto missing = [&](const std::string& yaml, const PlanSetting& setting) -> std::string {
    try {
      load_plan(write_text(scratch_ / "plan.yaml", yaml), {}, registry_, setting);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  const std::string yaml =
      "model: m.gguf\n"
      "trace:\n  tasks:\n    - there.jsonl\n    - b.jsonl\n"
      "replay:\n  importance: i.json\n  layer_allocators:\n    - uniform\n    - {name: explicit, file: s.txt}\n";
  const std::string message = missing(yaml, {.expect_files = true});
  for (const std::string& part : {"plan.yaml:1: model: " + (scratch_ / "m.gguf").string(),
                                  "plan.yaml:5: trace.tasks.path: " + (scratch_ / "b.jsonl").string(),
                                  "plan.yaml:7: replay.importance: " + (scratch_ / "i.json").string(),
                                  "plan.yaml:10: replay.layer_allocators.file: " + (scratch_ / "s.txt").string()})
    EXPECT_THAT(message, HasSubstr(part));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 4) << message;
  EXPECT_THAT(missing("trace: {tasks: [there.jsonl]}", {.expect_files = true}), HasSubstr("model: none is given"));
  EXPECT_THAT(missing("trace: {tasks: [there.jsonl]}", {.model = "/no/m.gguf", .expect_files = true}),
              HasSubstr("DEPTHKV_MODEL: model: /no/m.gguf"));
  EXPECT_EQ(missing("model: m.gguf\ntraces: .", {.expect_files = true}), "") << "the model isn't run";
  EXPECT_EQ(missing("model: m.gguf\ntrace: {tasks: [b.jsonl]}", {}), "") << "reading it back needs no files";
}

TEST_F(PlanTest, BatchHasBounds) {
  EXPECT_EQ(load("batch: 1024").batch, 1024);
  EXPECT_THAT(error("batch: 0"), HasSubstr("1 to"));
}

TEST_F(PlanTest, TaskFilesSayHowTheyAreRead) {
  const Plan plan = load(
      "trace:\n  truncate: end\n  max_prompt: 500\n  tasks:\n    - a.jsonl\n    - b.txt\n    - path: c.json\n      "
      "format: tasks\n"
      "      fields: {context: passage, id: meta.key}\n      defaults: {metric: f1, max_new_tokens: 32, task: qa}\n");
  EXPECT_EQ(plan.trace->truncate, Truncate::end);
  EXPECT_EQ(plan.trace->max_prompt, 500);
  const std::vector<TaskSource>& tasks = plan.trace->tasks;
  ASSERT_EQ(tasks.size(), 3U);
  EXPECT_EQ(tasks[0].format, TaskFormat::tasks);
  EXPECT_EQ(tasks[1].format, TaskFormat::text);
  EXPECT_EQ(tasks[2].file, scratch_ / "c.json");
  EXPECT_EQ(tasks[2].fields, (std::map<std::string, std::string>{{"context", "passage"}, {"id", "meta.key"}}));
  EXPECT_EQ(tasks[2].defaults.metric, "f1");
  EXPECT_EQ(tasks[2].defaults.max_new_tokens, 32);
  EXPECT_EQ(tasks[2].defaults.task, "qa");
}

TEST_F(PlanTest, FlagsForTaskFilesHoldForEachOfThem) {
  const Plan plan = load("trace: {tasks: [a.jsonl, {path: b.jsonl, defaults: {task: mine}}]}",
                         {{"trace.tasks.fields", {"context=passage,question=query"}},
                          {"trace.tasks.defaults", {"metric=f1,question=Why, then?", "max_new_tokens=8"}},
                          {"trace.truncate", {"middle"}}});
  EXPECT_EQ(plan.trace->truncate, Truncate::middle);
  for (const TaskSource& source : plan.trace->tasks) {
    EXPECT_EQ(source.fields.at("question"), "query");
    EXPECT_EQ(source.defaults.question, "Why, then?");
    EXPECT_EQ(source.defaults.max_new_tokens, 8);
    EXPECT_EQ(source.defaults.task, "");
  }
  EXPECT_EQ(plan.trace->tasks[1].file, scratch_ / "b.jsonl");
  const Plan given = load("", {{"trace.tasks", {"x.log"}}, {"trace.tasks.format", {"chat"}}});
  EXPECT_EQ(given.trace->tasks[0].file, std::filesystem::absolute("x.log"));
  EXPECT_EQ(given.trace->tasks[0].format, TaskFormat::chat);
}

TEST_F(PlanTest, ErrorsAboutTaskFilesNameLineKeyAndWhatToDo) {
  EXPECT_THAT(error("trace:\n  tasks:\n    - a.jsonl\n    - b.pdf\n"),
              AllOf(HasSubstr("plan.yaml:4"), HasSubstr("b.pdf"), HasSubstr("tasks, text, chat")));
  EXPECT_THAT(error("trace:\n  tasks:\n    - {path: a.jsonl,\n       feilds: {}}\n"),
              AllOf(HasSubstr("plan.yaml:4"), HasSubstr("\"feilds\""), HasSubstr("\"fields\"")));
  EXPECT_THAT(error("trace:\n  tasks:\n    - {path: a.jsonl, fields: {contxt: c}}\n"),
              AllOf(HasSubstr("plan.yaml:3"), HasSubstr("\"contxt\""), HasSubstr("\"context\"")));
  EXPECT_THAT(error("trace: {tasks: [{path: a.jsonl, defaults: {metric: f2}}]}"),
              AllOf(HasSubstr("trace.tasks.defaults.metric"), HasSubstr("\"f2\""), HasSubstr("\"f1\"")));
  EXPECT_THAT(error("trace: {tasks: [{path: a.jsonl, defaults: {max_new_tokens: -1}}]}"), HasSubstr("0 to 1000000"));
  EXPECT_THAT(error("trace: {tasks: [{path: a, format: chats}]}"), HasSubstr("\"chat\""));
  EXPECT_THAT(error("trace: {tasks: [{path: a, format: chat, fields: {context: c}}]}"), HasSubstr("\"context\""));
  EXPECT_THAT(error("trace: {tasks: [{path: a.txt, fields: {context: c}}]}"), HasSubstr("no fields"));
  EXPECT_THAT(error("trace: {tasks: [{format: chat}]}"), HasSubstr("without a path"));
  EXPECT_THAT(error("trace: {tasks: [[a.jsonl]]}"), HasSubstr("a list"));
  EXPECT_THAT(error("trace: {tasks: [a.jsonl], truncate: midle}"), HasSubstr("\"middle\""));
  EXPECT_THAT(error("trace: {tasks: [a.jsonl], max_prompt: -1}"), HasSubstr("trace.max_prompt"));
  EXPECT_THAT(error("trace: {tasks: [a.jsonl]}", {{"trace.tasks.fields", {"context"}}}),
              AllOf(HasSubstr("--fields"), HasSubstr("name=value")));
  EXPECT_THAT(error("trace: {tasks: [a.jsonl]}", {{"trace.tasks.fields", {"contxt=c"}}}),
              AllOf(HasSubstr("--fields"), HasSubstr("\"context\"")));
  EXPECT_THAT(error("trace: {tasks: [a.jsonl]}", {{"trace.tasks.defaults", {"metric=f1,metric=f1"}}}),
              HasSubstr("twice"));
  EXPECT_THAT(error("", {{"trace.tasks", {"a.pdf"}}}), AllOf(HasSubstr("--tasks"), HasSubstr("a.pdf")));
  EXPECT_THAT(error("", {{"trace.tasks.format", {"chat"}}}), HasSubstr("names no task file"));
  EXPECT_THAT(error("trace: 3", {{"trace.limit", {"1"}}}), HasSubstr("a single value"));
}

TEST_F(PlanTest, ErrorsNameLineKeyAndWhatToDo) {
  EXPECT_THAT(error("replay:\n  keep: [0.1]\n  scorrers: [h2o]\n"),
              AllOf(HasSubstr("plan.yaml:3"), HasSubstr("\"scorrers\" in replay"), HasSubstr("\"scorers\"")));
  EXPECT_THAT(error("replai: {}\n"), AllOf(HasSubstr("plan.yaml:1"), HasSubstr("\"replay\"")));
  EXPECT_THAT(error("replay:\n  scorers:\n    - h2o\n    - snapvk\n"),
              AllOf(HasSubstr("plan.yaml:4"), HasSubstr("snapvk"), HasSubstr("\"snapkv\"")));
  EXPECT_THAT(error("replay:\n  scorers:\n    - {name: snapkv, widnow: 3}\n"),
              AllOf(HasSubstr("plan.yaml:3"), HasSubstr("widnow"), HasSubstr("\"window\"")));
  EXPECT_THAT(error("replay: {keep: [0.5, 1.5]}"),
              AllOf(HasSubstr("plan.yaml:1"), HasSubstr("1.5"), HasSubstr("at most 1")));
  EXPECT_THAT(error("replay: {keep: [0]}"), HasSubstr("more than 0"));
  EXPECT_THAT(error("replay: {keep: [.nan]}"), HasSubstr("more than 0"));
  EXPECT_THAT(error("replay: {keep: []}"), HasSubstr("empty"));
  EXPECT_THAT(error("replay: {keep: [0.2, 0.2]}"), HasSubstr("twice"));
  EXPECT_THAT(error("replay: {cut: promt}"), AllOf(HasSubstr("\"promt\""), HasSubstr("\"prompt\"")));
  EXPECT_THAT(error("replay: {protect: [4-32]}"), HasSubstr("4+32"));
  EXPECT_THAT(error("threads: many"), HasSubstr("a whole number"));
  EXPECT_THAT(error("threads: -1"), HasSubstr("0 to"));
  EXPECT_THAT(error("trace: {limit: 1}"), HasSubstr("trace.tasks"));
  EXPECT_THAT(error("traces: x\ntrace: {tasks: [a.txt]}"), HasSubstr("keep one"));
  EXPECT_THAT(error("verify: {keep: [0.33]}"), HasSubstr("0.33"));
  EXPECT_THAT(error("replay: {cut: prompt}\nreplay: {cut: context}"), HasSubstr("twice"));
  EXPECT_THAT(error("replay: [1, 2]"), HasSubstr("a list"));
  EXPECT_THAT(error("replay: {keep: [0.2"), AllOf(HasSubstr("plan.yaml:1"), HasSubstr("not valid YAML")));
  EXPECT_THAT(error("", {{"replay.keep", {"2"}}}), HasSubstr("--keep"));
  EXPECT_THAT(error("", {{"replay.scorers", {"h20"}}}), AllOf(HasSubstr("--scorer"), HasSubstr("\"h2o\"")));
}

TEST_F(PlanTest, HostileFilesAreErrorsNotCrashes) {
  for (const std::string& yaml :
       {std::string(100'000, '['), std::string("\0\1\2\xff\xfe", 5), std::string("a: &a [*a]"),
        std::string("{? {a: 1} : 2}"), std::string("- 1\n- 2"), std::string("replay: {scorers: [[h2o]]}"),
        std::string("replay: {scorers: [{window: 3}]}"), std::string("replay: {scorers: [{name: [a]}]}"),
        std::string("1")}) {
    EXPECT_THROW(load(yaml), InputError) << yaml.substr(0, 40);
  }
}

}  // namespace
}  // namespace depthkv
