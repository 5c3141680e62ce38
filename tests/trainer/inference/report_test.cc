// The report: one document that is complete, harmless, and says the same as the measures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/trainer/pictures/temp_folder.h"
#include "trainer/inference/evaluation_report.h"
#include "trainer/inference/thumbnail.h"

namespace lockstep::trainer {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

EvaluationReport Classifier(size_t classes) {
  EvaluationReport report;
  report.run = "demo";
  report.model = "resnet18";
  report.checkpoint = "/runs/demo/checkpoints/step-000000010";
  report.step = 10;
  report.split = "held-out";
  report.measures.samples = 100;
  report.measures.loss = 0.75;
  report.measures.scores = {{"top1", 0.9}, {"macro_f1", 0.8}};
  report.measures.confusion.assign(classes * classes, 0);
  for (size_t i = 0; i < classes; ++i) {
    report.card.classes.push_back("class<" + std::to_string(i) + ">");
    report.measures.classes.push_back({10, 9, 8, 0.9, 0.8, 0.85});
    report.measures.confusion[i * classes + i] = 8;
  }
  report.measures.confusion[1] = 7;  // Class 0 taken for class 1.
  report.worst.push_back({"a<b>.jpg", 9.5, "cat", "dog 99.0%", "JPEG"});
  return report;
}

EvaluationReport Regression() {
  EvaluationReport report;
  report.run = "demo";
  report.card.loss = config::LossKind::kMse;
  report.card.targets = {{"price", 100, 20}};
  report.measures.samples = 3;
  report.measures.scores = {{"mae", 4.5}, {"mse", 30}, {"r2", 0.5}};
  report.measures.numbers = {{30, 4.5, 0.5}};
  report.scatter = {{{100, 104}, {90, 95}, {120, 110}}};
  return report;
}

TEST(ReportTest, JsonHoldsEveryMeasure) {
  const json j = json::parse(ToJson(Classifier(3)));
  EXPECT_EQ(j["scores"]["top1"], 0.9);
  EXPECT_EQ(j["classes"][2]["name"], "class<2>");
  EXPECT_EQ(j["classes"][2]["f1"], 0.85);
  EXPECT_EQ(j["confusion"], json::parse("[[8,7,0],[0,8,0],[0,0,8]]"));
  EXPECT_EQ(j["worst"][0]["predicted"], "dog 99.0%");
  const json regression = json::parse(ToJson(Regression()));
  EXPECT_EQ(regression["targets"][0],
            json::parse(R"({"name":"price","mse":30.0,"mae":4.5,"r2":0.5})"));
}

TEST(ReportTest, ALossThatIsNoNumberIsNullInJson) {
  EvaluationReport report = Classifier(3);
  report.measures.loss = std::nan("");
  report.worst[0].loss = HUGE_VAL;
  const json j = json::parse(ToJson(report));
  EXPECT_TRUE(j["loss"].is_null());
  EXPECT_TRUE(j["worst"][0]["loss"].is_null());
}

TEST(ReportTest, ThePageNeedsNothingFromOutsideAndRunsNothing) {
  for (const EvaluationReport& report : {Classifier(3), Classifier(40), Regression()}) {
    const std::string page = ToHtml(report);
    EXPECT_THAT(page, AllOf(Not(HasSubstr("http")), Not(HasSubstr("<script")),
                            Not(HasSubstr("<link")), Not(HasSubstr("url("))));
    EXPECT_THAT(page, Not(HasSubstr("class<0>")));
  }
  EXPECT_THAT(ToHtml(Classifier(3)), AllOf(HasSubstr("a&lt;b&gt;.jpg"), HasSubstr("SlBFRw==")));
}

TEST(ReportTest, ManyClassesAreListedByTheirWorstPairs) {
  EXPECT_THAT(ToHtml(Classifier(30)), HasSubstr("class=\"matrix\""));
  const std::string page = ToHtml(Classifier(31));
  EXPECT_THAT(page, AllOf(Not(HasSubstr("class=\"matrix\"")), HasSubstr("Most confused")));
  const auto pairs = MostConfused(Classifier(31).measures, 31, 5);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].truth, 0u);
  EXPECT_EQ(pairs[0].predicted, 1u);
  EXPECT_EQ(pairs[0].count, 7);
}

TEST(ReportTest, ARegressionShowsItsScatterAndItsUnits) {
  EXPECT_THAT(ToHtml(Regression()), AllOf(HasSubstr("predicted price"), HasSubstr("<circle")));
  EXPECT_THAT(ToText(Regression()), AllOf(HasSubstr("mae"), HasSubstr("4.5"), Not(HasSubstr("%"))));
  EXPECT_THAT(ToText(Classifier(3)), AllOf(HasSubstr("90.00%"), HasSubstr("class<2>")));
}

TEST(ReportTest, CurvesComeFromTheRunsRowsAndStayShort) {
  const TempFolder folder;
  std::ofstream rows(folder.path() / "metrics.jsonl");
  for (int step = 1; step <= 5000; ++step) {
    rows << json{{"kind", "step"}, {"step", step}, {"loss", 1.0 / step}, {"lr", 0.1}}.dump()
         << '\n';
  }
  rows << R"({"kind": "eval", "step": 5000, "loss": 0.5, "top1": 0.75})"
       << "\n{\"kind\": \"st";
  rows.close();
  const std::vector<Curve> curves = ReadCurves(folder.path());
  ASSERT_EQ(curves.size(), 3u);
  EXPECT_EQ(curves[0].name, "training loss");
  EXPECT_LE(curves[0].points.size(), 400u);
  EXPECT_NEAR(curves[0].points.back().first, 5000, 20);
  EXPECT_EQ(curves[1].name, "held-out loss");
  EXPECT_EQ(curves[2].points, (std::vector<std::pair<double, double>>{{5000, 0.75}}));
  EXPECT_TRUE(ReadCurves(folder.path() / "nothing").empty());
}

TEST(ReportTest, ThumbnailsAreSmallJpegs) {
  for (const int channels : {1, 3}) {
    Picture picture{300, 100, channels, {}};
    picture.pixels.assign(static_cast<size_t>(300 * 100 * channels), 128);
    const std::string jpeg = Thumbnail(picture, 60);
    EXPECT_EQ(jpeg.substr(0, 3), "\xff\xd8\xff");
    EXPECT_LT(jpeg.size(), 3000u);
  }
  EXPECT_EQ(Thumbnail(Picture{}, 60), "");
}

}  // namespace
}  // namespace lockstep::trainer
