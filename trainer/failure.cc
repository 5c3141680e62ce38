#include "trainer/failure.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "config/load.h"
#include "config/rank_board.h"
#include "trainer/data/dataset.h"
#include "trainer/saver.h"
#include "trainer/step/replica_guard.h"
#include "trainer/train_setup.h"

namespace lockstep::trainer {

using config::RunDirectory;
using config::TrainerExit;

Failure Classify() {
  try {
    throw;
  } catch (const DataError& e) {
    return {TrainerExit::kData, e.what()};
  } catch (const CommunicatorLost& e) {
    return {TrainerExit::kCommunicatorLost, e.what()};
  } catch (const StaleAttempt& e) {
    return {TrainerExit::kStaleAttempt, e.what()};
  } catch (const CheckpointFailed& e) {
    return {TrainerExit::kCheckpointFailed, e.what()};
  } catch (const WrongConfig& e) {
    return {TrainerExit::kBadConfig, e.what()};
  } catch (const NonFiniteLoss& e) {
    return {TrainerExit::kNonFinite, e.what()};
  } catch (const ReplicasDiffer& e) {
    return {TrainerExit::kReplicasDiffer, e.what()};
  } catch (const c10::OutOfMemoryError& e) {
    return {TrainerExit::kOutOfMemory, std::string(e.what_without_backtrace())};
  } catch (const std::bad_alloc&) {
    return {TrainerExit::kOutOfMemory,
            "the host's memory is used up; lower the batch size, training.micro_batch_size or "
            "data.prefetch_batches"};
  } catch (const std::invalid_argument& e) {
    return {TrainerExit::kBadConfig, e.what()};
  } catch (const c10::Error& e) {
    const std::string text = e.what_without_backtrace();
    const bool memory = text.find("allocate memory") != std::string::npos;
    return {memory ? TrainerExit::kOutOfMemory : TrainerExit::kInternal, text};
  } catch (const std::exception& e) {
    return {TrainerExit::kInternal, e.what()};
  }
}

bool Agreed(TrainerExit exit) {
  return exit == TrainerExit::kNonFinite || exit == TrainerExit::kReplicasDiffer ||
         exit == TrainerExit::kBadConfig || exit == TrainerExit::kCheckpointFailed;
}

std::string WhoIsBehind(const RunDirectory& directory, int attempt) {
  const auto ranks = config::RankBoard::Read(directory.board(attempt));
  if (!ranks.ok()) return "";
  uint64_t most = 0;
  for (const config::RankState& rank : *ranks) most = std::max(most, rank.collectives);
  std::string text;
  for (const config::RankState& rank : *ranks) {
    if (rank.pid == 0 || rank.collectives == most) continue;
    absl::StrAppend(&text, text.empty() ? "; behind the others: " : ", ", "rank ", rank.rank,
                    " (step ", rank.step, ", in ", config::PhaseName(rank.phase), ", process ",
                    rank.pid, ")");
  }
  return text;
}

void KeepHistory(const RunDirectory& directory, int attempt, const Communicator& communicator) {
  const std::string history = communicator.History();
  if (history.empty()) return;
  const auto path =
      directory.attempt(attempt) / absl::StrCat("collectives-rank-", communicator.rank(), ".txt");
  (void)config::WriteFileDurably(path, history);  // The message itself goes another way.
}

}  // namespace lockstep::trainer
