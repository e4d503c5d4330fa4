"""What chips can do at best, and where that is said.

One entry is one device as JAX counts them: a chip, or of Ironwood half a chip.
"""

from __future__ import annotations

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device. Peaks are of dense bfloat16 products, of memory, and of a link in one direction."""

    name: str
    flops: float  # a second
    memory: int  # bytes that programs may use
    memory_bandwidth: float  # bytes a second
    link_bandwidth: float  # bytes a second, of one link in one direction
    dimensions: int  # of the torus; each gives a device two links. 0: all devices behind one switch
    per_chip: int = 1  # devices on what is sold, and priced, as a chip
    source: str = ''
    network_bandwidth: float = 0.0  # bytes a second, of a device to other slices; 0: not published
    sums_wait: bool = False  # sums over devices stop the products, whatever its compiler is told

    def axis_bandwidth(self, rings: int) -> float:
        """Returns the bytes a second that a device can send along a mesh axis of so many torus dimensions."""
        return self.link_bandwidth * (2 * max(rings, 1) if self.dimensions else 1)


# Memory: what the compiler of libtpu 0.0.42 lets a program use, as it says when it refuses a larger one. The
# rest: cloud.google.com/tpu/docs, the system page of each version. It gives the interconnect in Gb/s of all
# links of a chip, in one direction: v4 2,400, v5e 1,600, v5p 4,800, v6e 3,200, Ironwood 9,600. The network
# between slices: the same pages' 6.4 and 25.6 Tb/s for the 256 chips of v5e and v6e; of v5p Austin et al.
# 2025, "How to Scale Your Model", part 5.
GOOGLE = 'cloud.google.com/tpu/docs/{}; memory: libtpu 0.0.42'
CHIPS = {
    'v4': Chip(
        *('TPU v4', 275e12, int(30.75 * GIB), 1228e9, 50e9, 3, 1, GOOGLE.format('v4')),
        sums_wait=True,
    ),
    'v5e': Chip(
        *('TPU v5e', 197e12, int(15.75 * GIB), 819e9, 50e9, 2, 1, GOOGLE.format('v5e')),
        network_bandwidth=6.4e12 / 8 / 256,
        sums_wait=True,
    ),
    'v5p': Chip(
        *('TPU v5p', 459e12, int(95.74 * GIB), 2765e9, 100e9, 3, 1, GOOGLE.format('v5p')),
        network_bandwidth=6.25e9,
    ),
    'v6e': Chip(
        *('TPU v6e', 918e12, int(31.25 * GIB), 1640e9, 100e9, 2, 1, GOOGLE.format('v6e')),
        network_bandwidth=25.6e12 / 8 / 256,
    ),
    'tpu7x': Chip(
        *('Ironwood (half)', 2307e12 / 2, int(94.75 * GIB), 7380e9 / 2, 100e9, 3, 2),
        source=GOOGLE.format('tpu7x') + '; half of a chip, and of its links, each',
    ),
}
# By the start of JAX's device_kind, longer ones first. Sources: NVIDIA's datasheets, dense figures; NVLink's
# bandwidth is given of both directions, and halved here.
GPUS = {
    'NVIDIA A100-SXM4-40GB': Chip('A100 40GB', 312e12, 40 * 10**9, 1555e9, 300e9, 0, source='NVIDIA A100'),
    'NVIDIA A100-PCIE-40GB': Chip('A100 40GB', 312e12, 40 * 10**9, 1555e9, 300e9, 0, source='NVIDIA A100'),
    'NVIDIA A100 80GB PCIe': Chip('A100 80GB', 312e12, 80 * 10**9, 1935e9, 300e9, 0, source='NVIDIA A100'),
    'NVIDIA A100-SXM4-80GB': Chip('A100 80GB', 312e12, 80 * 10**9, 2039e9, 300e9, 0, source='NVIDIA A100'),
    'NVIDIA H100 PCIe': Chip('H100 PCIe', 756e12, 80 * 10**9, 2000e9, 300e9, 0, source='NVIDIA H100'),
    'NVIDIA H100 NVL': Chip('H100 NVL', 835e12, 94 * 10**9, 3900e9, 300e9, 0, source='NVIDIA H100'),
    'NVIDIA H100': Chip('H100 SXM', 989e12, 80 * 10**9, 3350e9, 450e9, 0, source='NVIDIA H100'),
    'NVIDIA H200': Chip('H200 SXM', 989e12, 141 * 10**9, 4800e9, 450e9, 0, source='NVIDIA H200'),
}
KINDS = {
    'TPU v4': 'v4',
    'TPU v5 lite': 'v5e',
    'TPU v5e': 'v5e',
    'TPU v5': 'v5p',
    'TPU v6': 'v6e',
    'TPU7x': 'tpu7x',
}


def of_kind(device_kind: str) -> Chip | None:
    """Returns the chip that JAX calls so; None for one that is in no table."""
    for start, name in KINDS.items():
        if device_kind.startswith(start):
            return CHIPS[name]
    return next((chip for start, chip in GPUS.items() if device_kind.startswith(start)), None)
