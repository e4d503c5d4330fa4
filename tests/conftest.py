"""Where tests run: on the CPU, with compiled programs kept between runs in .cache/jax, and compiled quickly.

Set in the environment before JAX is imported, so that the processes tests start inherit it.
"""

import os
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=1')  # as in parallel/compiler.py
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(Path(__file__).parents[1] / '.cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
