"""Fused attention kernels: cuDNN on GPU, splash on TPU."""
