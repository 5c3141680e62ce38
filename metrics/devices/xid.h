// Which XIDs, the errors NVIDIA's driver reports by number, end a GPU's use until it is reset.
#pragma once

namespace lockstep::metrics {

/// What a fatal XID says, in a few words; nullptr for one that a program's bug causes (13, 31, 43),
/// that is contained (94: the process ends, the GPU goes on) or that only informs (63, 92).
///
/// Fatal are those whose immediate action in NVIDIA's documentation is to reset the GPU or to
/// restart the machine: docs.nvidia.com/deploy/xid-errors, "XID Errors" and its catalog. Left out
/// though the catalog resets there too: 109, which programs cause as well and after which most GPUs
/// go on (NVIDIA's own plugin for Kubernetes ignores it); 155, also told of links that are shut
/// down on purpose; 156, memory that is replaced at the next reset.
const char* FatalXid(int xid);

}  // namespace lockstep::metrics
