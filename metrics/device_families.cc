// The host's devices: GPUs as NVML tells them, and the CPUs' energy.
#include <optional>
#include <string>

#include "metrics/family_builder.h"

namespace lockstep::metrics {
namespace {

std::string Index(int gpu) {
  return std::to_string(gpu);
}

template <typename Value>
void PerGpu(FamilyBuilder& out, const DeviceReadings& devices, Value value) {
  for (const GpuReading& gpu : devices.gpus) {
    const std::optional<double> known = value(gpu);
    if (known) out.Add({{"gpu", Index(gpu.index)}}, *known);
  }
}

std::optional<double> KnownCount(int count) {
  return count > 0 ? std::optional<double>(count) : std::nullopt;
}

void AddGpuGauges(FamilyBuilder& out, const DeviceReadings& devices) {
  using Gpu = const GpuReading&;
  out.Gauge("gpu_healthy", "1 while a GPU answers and can be used, else 0.");
  PerGpu(out, devices, [](Gpu gpu) { return std::optional<double>(gpu.healthy ? 1 : 0); });
  out.Gauge("gpu_utilization_ratio", "Share of the time in which a kernel ran, 0 to 1.");
  PerGpu(out, devices, [](Gpu gpu) { return gpu.utilization_ratio; });
  out.Gauge("gpu_memory_used_bytes", "Memory of a GPU that is taken.");
  PerGpu(out, devices, [](Gpu gpu) { return gpu.memory_used_bytes; });
  out.Gauge("gpu_memory_total_bytes", "Memory of a GPU.");
  PerGpu(out, devices, [](Gpu gpu) { return gpu.memory_total_bytes; });
  out.Gauge("gpu_temperature_celsius", "Temperature of a GPU's chip.");
  PerGpu(out, devices, [](Gpu gpu) { return gpu.temperature_celsius; });
  out.Gauge("gpu_power_limit_watts", "The power to which a GPU keeps itself.");
  PerGpu(out, devices, [](Gpu gpu) { return gpu.power_limit_watts; });
  out.Gauge("gpu_sm_clock_hertz", "Present clock of a GPU's multiprocessors.");
  PerGpu(out, devices, [](Gpu gpu) { return gpu.sm_clock_hertz; });
  out.Gauge("gpu_memory_clock_hertz", "Present clock of a GPU's memory.");
  PerGpu(out, devices, [](Gpu gpu) { return gpu.memory_clock_hertz; });
  out.Gauge("gpu_pcie_link_width_lanes", "Lanes of a GPU's PCIe link now.");
  PerGpu(out, devices, [](Gpu gpu) { return KnownCount(gpu.pcie_width); });
  out.Gauge("gpu_pcie_link_width_max_lanes", "Lanes that the GPU and its place could use.");
  PerGpu(out, devices, [](Gpu gpu) { return KnownCount(gpu.pcie_width_max); });
  out.Gauge("gpu_pcie_link_generation", "PCIe generation of a GPU's link now; idle GPUs lower it.");
  PerGpu(out, devices, [](Gpu gpu) { return KnownCount(gpu.pcie_generation); });
  out.Gauge("gpu_pcie_link_generation_max",
            "PCIe generation that the GPU and its place could use.");
  PerGpu(out, devices, [](Gpu gpu) { return KnownCount(gpu.pcie_generation_max); });
  out.Gauge("gpu_energy_estimated",
            "1 where some of lockstep_gpu_energy_joules_total was integrated from power, else 0.");
  PerGpu(out, devices, [](Gpu gpu) { return std::optional<double>(gpu.energy_estimated ? 1 : 0); });
}

void AddGpuCounters(FamilyBuilder& out, const DeviceReadings& devices) {
  using Gpu = const GpuReading&;
  out.Counter("gpu_energy_joules_total",
              "Energy of a GPU since this coordinator started; its rate is the power.");
  PerGpu(out, devices, [](Gpu gpu) { return std::optional<double>(gpu.energy_joules); });
  out.Counter("gpu_xid_errors_total", "XID errors that the driver told of a GPU.");
  PerGpu(out, devices,
         [](Gpu gpu) { return std::optional<double>(static_cast<double>(gpu.xid_errors)); });
  out.Counter("gpu_throttle_seconds_total",
              "Time in which a GPU's clocks were held down, by reason.");
  for (const GpuReading& gpu : devices.gpus) {
    for (const auto& [reason, seconds] : gpu.throttle_seconds) {
      out.Add({{"gpu", Index(gpu.index)}, {"reason", reason}}, seconds);
    }
  }
}

}  // namespace

void AddDevices(FamilyBuilder& out, const Snapshot& snapshot) {
  const DeviceReadings& devices = snapshot.devices;
  out.Gauge("gpu_info", "What a GPU is, as labels to join other families with; always 1.");
  for (const GpuReading& gpu : devices.gpus) {
    out.Add({{"gpu", Index(gpu.index)},
             {"uuid", gpu.uuid},
             {"name", gpu.name},
             {"pci_bus_id", gpu.pci_bus_id}},
            1);
  }
  out.Gauge("gpu_holder_info", "Which rank of which run holds a GPU; always 1, absent while free.");
  for (const GpuHolder& holder : snapshot.gpu_holders) {
    out.Add(
        {{"gpu", Index(holder.gpu)}, {"run", holder.run}, {"rank", std::to_string(holder.rank)}},
        1);
  }
  AddGpuGauges(out, devices);
  AddGpuCounters(out, devices);
  out.Counter("host_cpu_energy_joules_total",
              "Energy of all CPU packages since this coordinator started (RAPL).");
  if (devices.cpu_energy_joules) out.Add({}, *devices.cpu_energy_joules);

  out.Counter("nvml_rounds_total", "Readings of all GPUs that were begun.");
  out.Add({}, static_cast<double>(devices.rounds));
  out.Counter("nvml_failed_rounds_total", "Those of them in which the driver did not answer.");
  out.Add({}, static_cast<double>(devices.failed_rounds));
  out.Gauge("nvml_stale",
            "1 while the driver does not answer and the GPUs' values are old, else 0.");
  out.Add({}, devices.stale ? 1 : 0);
  out.Gauge("scrape_nvml_duration_seconds", "Time of the newest reading of all GPUs.");
  if (devices.rounds > 0) out.Add({}, devices.read_seconds);
}

}  // namespace lockstep::metrics
