// CRC-32C, the checksum of event files.
//
// Castagnoli's polynomial 0x1EDC6F41, bits reflected, start and final XOR of all ones: RFC 3720
// (iSCSI), section 12.1; test vectors in its appendix B.4. x86 processors since 2008 have an
// instruction for it; for others there is a table.
#pragma once

#include <cstdint>
#include <string_view>

namespace lockstep::trainer {

uint32_t Crc32c(std::string_view bytes);
/// The same without the instruction.
uint32_t Crc32cByTable(std::string_view bytes);

}  // namespace lockstep::trainer
