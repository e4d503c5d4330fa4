import random
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import UserError
from training.checkpoint import Checkpoints, DamagedCheckpointError, describe

ROOT = Path(__file__).parents[2]


def state(seed: int = 0) -> dict:
    key = jax.random.key(seed)
    return {
        'step': jnp.int32(seed),
        'params': {'a': jax.random.normal(key, (64, 33)), 'b': jnp.zeros((1000,))},
    }


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


POSITION = jnp.arange(8, dtype=jnp.int32)[:, None]


def save(checkpoints: Checkpoints, step: int, loss: float | None = None) -> None:
    metrics = None if loss is None else {'eval/loss': loss}
    checkpoints.save(step, state(step), POSITION, {'note': step}, metrics)
    checkpoints.wait()


def test_what_was_saved_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 3)
    restored, position = checkpoints.restore(3, abstract(state()), abstract(POSITION))
    jax.tree.map(np.testing.assert_array_equal, restored, state(3))
    np.testing.assert_array_equal(position, POSITION)
    assert checkpoints.meta(3)['note'] == 3


def test_a_part_can_be_read_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 3)
    part, _ = checkpoints.restore(3, {'params': abstract(state()['params'])})
    jax.tree.map(np.testing.assert_array_equal, part, {'params': state(3)['params']})


def test_the_newest_and_the_best_are_kept_across_restarts(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, loss in ((1, 3.0), (2, 1.0), (3, None), (4, 2.0), (5, None), (6, float('nan'))):
        save(checkpoints, step, loss)
    assert checkpoints.steps() == [2, 5, 6]
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 7, 1.5)
    assert checkpoints.steps() == [2, 6, 7]
    assert Checkpoints(tmp_path, read_only=True).best_step() == 2


def test_the_best_is_kept_by_any_metric(tmp_path):
    checkpoints = Checkpoints(tmp_path, best_metric='eval/accuracy')
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7), (4, None)):
        metrics = {'eval/loss': float(step)} | ({} if accuracy is None else {'eval/accuracy': accuracy})
        checkpoints.save(step, state(step), POSITION, {}, metrics)
        checkpoints.wait()
    assert checkpoints.steps() == [2, 4]
    assert Checkpoints(tmp_path, best_metric='eval/accuracy', read_only=True).best_step() == 2
    assert Checkpoints(tmp_path, read_only=True).best_step() == 2
    for metric in ('', 'eval/f1'):
        assert Checkpoints(tmp_path, best_metric=metric, read_only=True).best_step() is None


def test_without_a_metric_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, best_metric='')
    for step, loss in ((1, 1.0), (2, 2.0)):
        save(checkpoints, step, loss)
    assert checkpoints.steps() == [2]


def test_donated_arrays_may_change_as_soon_as_save_returns(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    value = {'params': {'a': jnp.ones((1 << 20,))}}
    checkpoints.save(1, value, POSITION, {})
    double = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)
    shapes = abstract(value)
    for _ in range(5):
        value = double(value)
    checkpoints.wait()
    restored, _ = checkpoints.restore(1, shapes)
    np.testing.assert_array_equal(restored['params']['a'], np.ones((1 << 20,)))


def test_every_flipped_bit_is_found(tmp_path):
    """Orbax alone restores flipped bits of array data without a word."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    checkpoints.close()
    files = [path for path in (tmp_path / '1' / 'state').rglob('d/*') if path.stat().st_size > 1000]
    assert files, 'the arrays are somewhere'
    draw = random.Random(0)
    for _ in range(10):
        path = draw.choice(files)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DamagedCheckpointError, match='is damaged'):
            Checkpoints(tmp_path, read_only=True).restore(1, abstract(state()))
        path.write_bytes(whole)
    Checkpoints(tmp_path, read_only=True).restore(1, abstract(state()))


@pytest.mark.parametrize('name', ['state/**/d/*', 'meta/metadata', '**/manifest.ocdbt'])
def test_truncated_and_missing_files_are_found(tmp_path, name):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    for path in (tmp_path / '1').glob(name):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DamagedCheckpointError, match='is damaged'):
        Checkpoints(tmp_path, read_only=True).restore(1, abstract(state()))


def test_digests_see_places_and_not_the_mesh():
    whole = jnp.arange(12.0).reshape(3, 4)
    assert describe({'a': whole}) != describe({'a': whole[::-1]})
    assert describe({'a': whole}) == describe(
        {'a': jnp.asarray(np.arange(12.0, dtype=np.float32).reshape(3, 4))}
    )
    assert describe({'a': whole})['a'][0] == [3, 4]


def test_another_model_is_refused_by_name_and_shape(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    other = abstract(state())
    other['params']['a'] = jax.ShapeDtypeStruct((64, 34), jnp.float32, sharding=other['params']['a'].sharding)
    with pytest.raises(UserError, match=r'params/a is \[64, 33\] there and \[64, 34\] here'):
        checkpoints.restore(1, other)


def test_a_damaged_checkpoint_is_set_aside_whole(tmp_path):
    checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=2)
    save(checkpoints, 1)
    save(checkpoints, 2)
    kept = checkpoints.set_aside(2)
    assert kept == tmp_path / 'damaged' / '2'
    assert (kept / 'state').is_dir()
    assert checkpoints.steps() == [1]


FILL_DISK = """
import resource, signal, sys
from pathlib import Path
import jax.numpy as jnp
from configs.errors import UserError
from training.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
position = jnp.zeros((1, 1), jnp.int32)
checkpoints.save(1, {'a': jnp.ones(10)}, position, {})
checkpoints.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # writing more fails, as on a full disk
import jax
try:
    checkpoints.save(2, {'a': jax.random.normal(jax.random.key(0), (1_000_000,))}, position, {})
    checkpoints.wait()
except UserError as error:
    print('refused:', error)
"""


def test_a_write_that_fails_says_so_and_harms_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', FILL_DISK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'refused: the checkpoint could not be written' in done.stdout, done.stdout + done.stderr[-2000:]
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.steps() == [1]
    restored, _ = checkpoints.restore(1, abstract({'a': jnp.ones(10)}))
    np.testing.assert_array_equal(restored['a'], np.ones(10))


def test_the_same_step_can_be_set_aside_twice(tmp_path):
    checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=2)
    kept = []
    for _ in range(2):
        save(checkpoints, 2)
        kept.append(checkpoints.set_aside(2).name)
    assert kept == ['2', '2-2']
    assert checkpoints.steps() == []
