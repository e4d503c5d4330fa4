"""Where tests run: on the CPU, with compiled programs kept between runs in .cache/jax, and compiled quickly.

Set in the environment before JAX is imported, so that the processes tests start inherit it.
"""

import os
from importlib.metadata import version
from pathlib import Path

# Most of a test's time is the compiler's, though its programs are small and run a few times. They are not
# split into parts, as every core has a process of its own. XLA's older emitters, which later JAX lacks,
# compile in a third of the time.
FLAGS = ['--xla_backend_optimization_level=0', '--xla_cpu_parallel_codegen_split_count=1']
if version('jaxlib').startswith('0.10.'):
    FLAGS.append('--xla_cpu_use_fusion_emitters=false')

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('XLA_FLAGS', ' '.join(FLAGS))
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(Path(__file__).parents[1] / '.cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)
