// SPDX-License-Identifier: Apache-2.0
// report.html.
#include "replay/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "depthkv/report.h"
#include "depthkv/version.h"
#include "replay/csv.h"
#include "replay/labels.h"

namespace depthkv {
namespace {

constexpr std::size_t kRowsPerKeep = 8;

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } .sub { opacity: .75; margin-top: .2rem; }
table { border-collapse: collapse; font-size: 13px; margin: .4rem 0 1.2rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #8884; } .text { text-align: left; }
svg { width: 100%; max-width: 46rem; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
svg .title { font-weight: 600; font-size: 13px; } .grid { stroke: #8884; }
pre { overflow-x: auto; font-size: 12px; } .scroll { overflow-x: auto; }
)";

// A policy's mean at every budget.
Series series_of(const ResultTable& results, std::size_t policy, Metric metric, const std::string& name, bool dashed) {
  Series series{name, {}, dashed};
  for (std::size_t k = 0; k < results.plan.keep.size(); ++k) {
    series.points.emplace_back(results.plan.keep[k], mean(results.values(policy, k, metric)));
  }
  std::sort(series.points.begin(), series.points.end());
  return series;
}

// Every scorer under one pair of allocators.
Plot scorer_plot(const ResultTable& results, Metric metric) {
  Plot plot{fmt::format("{} by scorer, budget split evenly", to_string(metric)),
            "kept share of the cache",
            std::string(to_string(metric)),
            {}};
  for (std::size_t p = 0; p < results.policies.size(); ++p) {
    const PolicyIndex index = results.policy(p);
    if (!results.is_even(index)) continue;
    const std::string& scorer = results.policies.rankers[index.ranker].scorer.name;
    plot.series.push_back(series_of(results, p, metric, ranker_label(results, index.ranker),
                                    scorer == "random" || results.is_bound(index)));
  }
  return plot;
}

std::string replay_section(const ResultTable& results) {
  std::string text = "<h2>Replay</h2>\n";
  for (const Metric metric : kShownMetrics) {
    const std::vector<Table> tables = results_tables(results, metric, kRowsPerKeep);
    if (tables.empty()) continue;
    std::string body = draw(scorer_plot(results, metric)) + draw(allocator_plot(results, metric));
    for (const Table& table : tables) body += html_table(table);
    text += html_details(results_heading(results, metric), body, metric == Metric::output_error);
  }
  return text;
}

std::string verify_section(const ResultTable& results, const Verification& verification) {
  const std::string text = "<h2>End to end</h2>\n";
  Plot plot{"what replay predicted against what the model did",
            std::string(to_string(verification.plan.rank_by)) + " (replay)",
            "KL to the full cache, nats",
            {},
            false};
  for (const char* role : {"top", "uniform", "control", kBound}) {
    Series series{role, {}};
    for (std::size_t c = 0; c < verification.candidates.size(); ++c) {
      if (verification.candidates[c].role == role)
        series.points.emplace_back(verification.candidates[c].predicted, mean_kl(verification, c));
    }
    if (!series.points.empty()) plot.series.push_back(series);
  }
  return text + draw(plot) + html_table(verify_rows(results, verification)) +
         html_table(agreement_rows(verification, true));
}

std::string skipped_section(const ResultTable& results) {
  std::string items;
  for (const SampleResult& sample : results.samples) {
    if (!sample.skipped.empty()) {
      items += fmt::format("<li>{}: {}</li>\n", escaped(sample.id), escaped(sample.skipped));
      continue;
    }
    for (std::size_t r = 0; r < sample.ranker_skipped.size(); ++r) {
      if (sample.ranker_skipped[r].empty()) continue;
      items += fmt::format("<li>{}, {}: {}</li>\n", escaped(sample.id), escaped(ranker_label(results, r)),
                           escaped(sample.ranker_skipped[r]));
    }
  }
  return items.empty() ? "" : "<h2>Not measured</h2>\n<ul>" + items + "</ul>\n";
}

std::string samples_section(const ResultTable& results) {
  Table table{"samples", {{"sample", "task", "tokens below the cut", "judged rows"}}, 2};
  for (const SampleResult& sample : results.samples) {
    table.rows.push_back(
        {sample.id, sample.task, fmt::format("{}", sample.tokens), fmt::format("{}", sample.judged_rows)});
  }
  return "<h2>Input</h2>\n" + html_table(table);
}

}  // namespace

std::string html_table(const Table& table) {
  std::string text = fmt::format("<div class=\"scroll\"><table><caption>{}</caption>\n", escaped(table.title));
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    text += "<tr>";
    for (std::size_t c = 0; c < table.rows[r].size(); ++c) {
      text += fmt::format("<{0}{1}>{2}</{0}>", r == 0 ? "th" : "td", c < table.text_columns ? " class=\"text\"" : "",
                          escaped(table.rows[r][c]));
    }
    text += "</tr>\n";
  }
  return text + "</table></div>\n";
}

std::string html_page(const std::string& title, const std::string& heading, const std::string& under,
                      const std::string& body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{}</style></head><body>\n"
      "<h1>{}</h1>\n<p class=\"sub\">{}</p>\n{}</body></html>\n",
      escaped(title), kStyle, escaped(heading), escaped(under), body);
}

std::string html_details(const std::string& summary, const std::string& body, bool open) {
  return fmt::format("<details{}><summary>{}</summary>\n{}</details>\n", open ? " open" : "", escaped(summary), body);
}

Plot allocator_plot(const ResultTable& results, Metric metric) {
  const std::vector<PolicySummary> ranking = summarise(results, 0, metric);
  const auto best = std::find_if(ranking.begin(), ranking.end(),
                                 [&](const PolicySummary& it) { return !results.is_bound(results.policy(it.policy)); });
  Plot plot{"", "kept share of the cache", std::string(to_string(metric)), {}};
  if (best == ranking.end()) return plot;
  const std::size_t ranker = results.policy(best->policy).ranker;
  plot.title = fmt::format("{} by allocation, scorer {}", to_string(metric), ranker_label(results, ranker));
  for (std::size_t p = 0; p < results.policies.size(); ++p) {
    const PolicyIndex index = results.policy(p);
    if (index.ranker != ranker) continue;
    plot.series.push_back(
        series_of(results, p, metric,
                  layer_label(results, index.layer_allocator) + " / " + head_label(results, index.head_allocator),
                  results.is_bound(index)));
  }
  return plot;
}

void write_report_html(const ResultTable& results, const std::optional<Verification>& verification,
                       const std::string& plan_yaml, const std::filesystem::path& file) {
  const std::string under =
      fmt::format("{} ({}), cut {}, depthkv {}, plan {}", results.model.name, results.model.fingerprint,
                  to_string(results.plan.cut), kBuild, results.plan_hash);
  const std::string body = (verification ? verify_section(results, *verification) : "") + replay_section(results) +
                           skipped_section(results) + samples_section(results) +
                           html_details("resolved plan", "<pre>" + escaped(plan_yaml) + "</pre>");
  write_file(file, html_page("DepthKV report",
                             fmt::format("DepthKV: {} policies on {} samples", results.policies.size(),
                                         results.samples.size()),
                             under, body));
}

}  // namespace depthkv
