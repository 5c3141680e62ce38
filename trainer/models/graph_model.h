// The one model class: a Graph and the tensors of its operations, run with ATen.
//
// Why not torch::nn: its modules draw their first values from the process-wide generator, so a
// model's initial weights would depend on what ran before, and building one would disturb the
// dropout of the step loop; and its headers cost 12 s a source. Here the initial values are drawn
// from a generator of the model's own, operation by operation: a function of the seed only.
//
// An intermediate value is let go after the operation that uses it last, so an evaluation needs
// little more memory than its largest layer. Whoever moves a parameter's storage (the arena does)
// must keep the tensor object, as Tensor::set_data() does.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "trainer/models/model.h"

namespace lockstep::trainer {

class GraphModel : public Model {
 public:
  /// With a communicator, which outlives the model, batch norm in training is over the samples of
  /// all ranks (trainer/models/sync_batch_norm.h).
  GraphModel(Graph graph, uint64_t seed, Communicator* communicator);

  /// Throws std::invalid_argument when a norm trains on one value per channel, which has no
  /// variance.
  ModelOutput Forward(const at::Tensor& input) override;
  at::Tensor Features(const at::Tensor& images) override;
  const Graph& graph() const override { return graph_; }
  void SetTraining(bool training) override { training_ = training; }
  void Freeze(int count) override;
  NamedTensors Parameters() const override { return parameters_; }
  NamedTensors Buffers() const override { return buffers_; }

 private:
  // Of one operation; undefined where it has none.
  struct Tensors {
    at::Tensor weight;
    at::Tensor bias;
    at::Tensor running_mean;
    at::Tensor running_var;
    at::Tensor num_batches_tracked;
  };
  // What to run for some of the values, and what is no longer needed after each operation.
  struct Plan {
    std::vector<int> operations;
    std::vector<std::vector<int>> last_used;
  };

  void Make(int operation, at::Generator& generator);
  Plan PlanFor(const std::vector<int>& targets, int given) const;
  std::vector<at::Tensor> Run(const Plan& plan, int given, const at::Tensor& value);
  at::Tensor RunOperation(int operation, const std::vector<at::Tensor>& values, bool may_overwrite);
  at::Tensor BatchNorm(const Operation& operation, const Tensors& tensors, const at::Tensor& input,
                       bool training);
  bool MayOverwrite(int operation, const std::vector<int>& last_used) const;
  bool UsesAuxiliary() const { return training_ && graph_.auxiliary >= frozen_; }

  Graph graph_;
  Communicator* communicator_;
  std::vector<Tensors> tensors_;  // By operation.
  NamedTensors parameters_;
  NamedTensors buffers_;
  Plan whole_, whole_with_auxiliary_, trunk_, head_;
  bool training_ = true;
  int frozen_ = 0;  // Operations before it are frozen.
};

}  // namespace lockstep::trainer
