"""What an instance type has, as `DescribeInstanceTypes` tells it. Pure.

Accelerators get the names and the memory that people know them by: AWS writes "RTX PRO Server 6000" and
22888 MiB where everybody says RTXPRO6000 and 24 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.contract import Accelerator

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB_PER_GIB = 1024
NAMES = {"RTX PRO Server 6000": "RTXPRO6000", "RTX PRO 4500": "RTXPRO4500"}
NOMINAL_GIB = {22888: 24, 45776: 48, 183359: 180, 275040: 270}
"""Memory of one accelerator by the MiB that AWS reports, where they differ: L4 and A10G, L40S, B200, B300."""
ARCHITECTURES = ("x86_64", "arm64")


@dataclass(frozen=True, slots=True)
class Hardware:
    """One instance type."""

    instance_type: str
    vcpus: int
    memory_gib: int
    architecture: str
    accelerator: Accelerator | None
    maker: str
    """Of the accelerator: NVIDIA, AMD, AWS, …; empty without one."""
    markets: frozenset[str]
    burstable: bool
    bare_metal: bool
    current: bool

    @property
    def is_general(self) -> bool:
        """Whether it will do for whoever names no type and no accelerator.

        Not what is too small to install packages, nor what costs extra once it is busy (burstable types), nor
        old generations and bare metal, which boots for many minutes.
        """
        small = self.vcpus < 2 or self.memory_gib < 4
        special = self.burstable or self.bare_metal or self.accelerator is not None
        return self.current and not small and not special


def hardware(document: Mapping[str, Any]) -> Hardware | None:
    """An instance type; None for one that runs no Linux of ours (Mac)."""
    supported = document.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    architecture = next((each for each in ARCHITECTURES if each in supported), None)
    markets = frozenset(document.get("SupportedUsageClasses", ())) & {"on-demand", "spot"}
    if architecture is None or not markets:
        return None
    accelerator, maker = accelerators(document)
    return Hardware(
        instance_type=document["InstanceType"],
        vcpus=int(document.get("VCpuInfo", {}).get("DefaultVCpus", 0)),
        memory_gib=int(document.get("MemoryInfo", {}).get("SizeInMiB", 0)) // MIB_PER_GIB,
        architecture=architecture,
        accelerator=accelerator,
        maker=maker,
        markets=markets,
        burstable=bool(document.get("BurstablePerformanceSupported")),
        bare_metal=bool(document.get("BareMetal")),
        current=bool(document.get("CurrentGeneration", True)),
    )


def accelerators(document: Mapping[str, Any]) -> tuple[Accelerator | None, str]:
    """The accelerators of a type, and who makes them."""
    for info, key, maker in (
        ("GpuInfo", "Gpus", ""),
        ("NeuronInfo", "NeuronDevices", "AWS"),
        ("InferenceAcceleratorInfo", "Accelerators", "AWS"),
    ):
        if devices := document.get(info, {}).get(key):
            device = devices[0]
            total = document[info].get("TotalGpuMemoryInMiB")
            made = Accelerator(accelerator_name(device), count(device), memory_gib(device, total))
            return made, str(device.get("Manufacturer") or maker)
    return None, ""


def accelerator_name(device: Mapping[str, Any]) -> str:
    """The name that people use."""
    name = str(device.get("Name", ""))
    return NAMES.get(name, name.replace(" ", ""))


def count(device: Mapping[str, Any]) -> Decimal:
    """How many; a part of one where AWS sells parts: it reports a count of 0 there."""
    whole = int(device.get("Count") or 0)
    return Decimal(whole) if whole else Decimal(str(device.get("GpuPartitionSize") or 0))


def memory_gib(device: Mapping[str, Any], total_mib: int | None) -> int | None:
    """Memory of each, or of the part."""
    if not int(device.get("Count") or 0):
        return total_mib // MIB_PER_GIB if total_mib else None
    each = int(device.get("MemoryInfo", {}).get("SizeInMiB") or 0)
    return NOMINAL_GIB.get(each, each // MIB_PER_GIB) if each else None
