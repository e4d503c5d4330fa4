"""Several sources as one: shares, the batch contract, and what cannot be mixed."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import experiment
from configs.errors import UserError
from data import loader, manifest, mixture
from data.preparation import prepare
from data.tokenizer import load as load_tokenizer
from tests.data.conftest import write_corpus
from tests.data.test_best_fit import pieces_of
from tests.data.test_preparation import all_rows

NAMES = ('large', 'small', 'tiny')
DOCUMENTS = (300, 150, 40)


def corpus(directory: Path, name: str) -> str:
    return str(directory / f'{name}.txt')


@pytest.fixture
def mixed(config: ConfigDict, tmp_path: Path) -> ConfigDict:
    """Returns a config that draws from three texts; every document of one begins with its name."""
    for seed, (name, count) in enumerate(zip(NAMES, DOCUMENTS, strict=True)):
        texts = write_corpus(tmp_path / f'{name}.txt', count, seed)
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(f'{name} {text}' for text in texts))
    config.data.source = ''
    config.data.mixture.names = NAMES
    config.data.mixture.weights = (0.5, 0.3, 0.2)
    config.num_steps = 60
    return config


def prepare_sources(mixed: ConfigDict, tmp_path: Path, *packings: str) -> None:
    """Prepares each source by itself, in its packing, with the tokenizer of the first."""
    mixed.data.mixture.sources = tuple(str(tmp_path / f'prepared-{name}') for name in NAMES)
    for name, directory, packing in zip(NAMES, mixed.data.mixture.sources, packings, strict=True):
        alone = mixed.copy_and_resolve_references()
        alone.data.mixture.names = ()
        alone.data.packing = packing
        alone.data.source, alone.data.path = corpus(tmp_path, name), directory
        if name != NAMES[0]:
            alone.tokenizer.path = f'{mixed.data.mixture.sources[0]}/tokenizer'
        prepare(alone)


def ready(mixed: ConfigDict, tmp_path: Path, kind: str) -> ConfigDict:
    """Makes all ready for training; kind: the mode and, if it is not the default, the packing."""
    mode, _, packing = kind.partition(' ')
    mixed.data.mode, mixed.data.packing = mode, packing or 'concatenate'
    if mode == 'shards':
        prepare_sources(mixed, tmp_path, *[mixed.data.packing] * 3)
    else:
        mixed.data.mixture.sources = tuple(corpus(tmp_path, name) for name in NAMES)
        prepare(mixed)
    return mixed


def take(config: ConfigDict, count: int, **arguments) -> list[tuple[np.ndarray, np.ndarray]]:
    batches = loader.load(config, split='train', **arguments)
    return list(islice(batches.batches(batches.initial_position()), count))


@pytest.fixture(params=['shards', 'shards best_fit', 'stream', 'stream best_fit'])
def curriculum(request: pytest.FixtureRequest, mixed: ConfigDict, tmp_path: Path) -> ConfigDict:
    """A mixture whose weights change twice, in every mode and packing."""
    mixed.data.mixture.curriculum = ((10, 0.1, 0.1, 0.8), (25, 5, 0, 5))
    return ready(mixed, tmp_path, request.param)


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_hold_parts_of_the_same_global_batch(curriculum: ConfigDict, processes: int) -> None:
    whole = take(curriculum, 60)
    share = curriculum.batch_size // processes
    for first in range(0, curriculum.batch_size, share):
        mine = slice(first, first + share)
        for (rows, position), (my_rows, my_position) in zip(
            whole, take(curriculum, 60, rows=mine), strict=True
        ):
            assert rows.dtype == position.dtype == np.int32
            assert np.array_equal(rows[mine], my_rows)
            assert np.array_equal(position[mine], my_position)


def test_every_position_restores_exactly_on_any_number_of_processes(curriculum: ConfigDict) -> None:
    whole = take(curriculum, 40)
    for at in (0, 8, 9, 24, 30):  # the curriculum's borders among them
        for rows in (slice(0, 8), slice(2, 4)):
            again = loader.load(curriculum, split='train', rows=rows)
            for expected, got in zip(whole[at + 1 :], again.batches(whole[at][1][rows]), strict=False):
                assert np.array_equal(got[0], expected[0][rows])
                assert np.array_equal(got[1], expected[1][rows])


def test_drawn_rows_are_in_the_shares_of_the_curriculum(curriculum: ConfigDict) -> None:
    """By the counts in the position, after every step; other tests see whose rows they are."""
    weights = np.zeros((60, 3))
    weights[:10], weights[10:25], weights[25:] = (0.5, 0.3, 0.2), (0.1, 0.1, 0.8), (0.5, 0, 0.5)
    due = np.cumsum(weights * 8, axis=0)
    counts = np.array([position[0, 1:4] for _, position in take(curriculum, 60)])
    assert np.abs(counts - due).max() <= 1 + 1e-9


def test_rows_of_shards_are_those_of_the_source_that_is_counted(mixed: ConfigDict, tmp_path: Path) -> None:
    ready(mixed, tmp_path, 'shards')
    whose, sizes = {}, {}
    for source, directory in enumerate(mixed.data.mixture.sources):
        alone = mixed.copy_and_resolve_references()
        alone.data.path = directory
        rows = all_rows(alone, 'train')
        sizes[source] = len(rows)
        whose |= {bytes(row): source for row in rows}
    assert len(whose) == sum(sizes.values())
    batches = take(mixed, 1000)
    before = np.zeros(3, int)
    read: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    for rows, position in batches:
        found = [whose[bytes(row)] for row in rows]
        assert np.array_equal(position[0, 1:] - before, np.bincount(found, minlength=3))
        before = position[0, 1:]
        for row, source in zip(rows, found, strict=True):
            read[source].append(bytes(row))
    for source, size in sizes.items():
        epochs = [read[source][at : at + size] for at in range(0, len(read[source]) - size + 1, size)]
        assert len(epochs) > 1
        assert all(len(set(epoch)) == size for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_rows_of_streams_are_those_of_the_source_that_is_counted(mixed: ConfigDict, tmp_path: Path) -> None:
    """Each document begins with the name of its source, and with best_fit each row with a document."""
    ready(mixed, tmp_path, 'stream best_fit')
    encoder = load_tokenizer(f'{mixed.data.path}/tokenizer')
    found, before = [], np.zeros(3, int)
    documents: dict[str, set[str]] = {name: set() for name in NAMES}
    for rows, position in take(mixed, 400):
        counts = np.zeros(3, int)
        for row in rows:
            names = set()
            for piece in pieces_of(row[None]):
                text = encoder.decode(piece)
                if text.split(' ')[0] in NAMES:
                    names.add(text.split(' ')[0])
                    documents[text.split(' ')[0]].add(text)
            assert len(names) <= 1
            found += names
            counts[NAMES.index(names.pop()) if names else 0] += 1
        assert position[0, 1:4].sum() - before.sum() == 8
        before = position[0, 1:4]
    shares = before / before.sum()
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=1 / 3200)
    for name, count in zip(NAMES, DOCUMENTS, strict=True):
        assert len(documents[name]) > 0.7 * count  # no part of a source is forgotten
        assert found.count(name) > 0


def test_sources_of_either_packing_mix(mixed: ConfigDict, tmp_path: Path) -> None:
    prepare_sources(mixed, tmp_path, 'concatenate', 'best_fit', 'concatenate')
    known = set()
    for directory in mixed.data.mixture.sources:
        alone = mixed.copy_and_resolve_references()
        alone.data.path = directory
        known |= set(map(bytes, all_rows(alone, 'train')))
    assert {bytes(row) for rows, _ in take(mixed, 60) for row in rows} <= known


def test_sources_that_are_used_up_give_their_share_to_the_others(mixed: ConfigDict, tmp_path: Path) -> None:
    mixed.data.mixture.epochs = (0, 2, 1.5)
    ready(mixed, tmp_path, 'shards')
    mixed.num_steps = 400
    sizes = [manifest.find(Path(each))['train']['rows'] for each in mixed.data.mixture.sources]
    train = loader.load(mixed, split='train')
    counts = np.array([p[0, 1:] for _, p in islice(train.batches(train.initial_position()), 400)])
    limits = [math.inf, 2 * sizes[1], math.floor(1.5 * sizes[2])]
    assert counts[-1].tolist() == [3200 - limits[1] - limits[2], *limits[1:]]
    gone = int(np.argmax(counts[:, 2] == limits[2])) + 1  # after this step the last one is used up
    assert gone * 8 * 0.2 == pytest.approx(limits[2], abs=8)
    later = counts[gone + 20] - counts[gone]
    assert later[:2] / later.sum() == pytest.approx([5 / 8, 3 / 8], abs=2 / 160)
    assert train.notes[2].endswith(f' epochs of {sizes[2]:,}, used up in step {math.ceil(limits[2] / 1.6)}')
    assert f'{limits[2] / sizes[2]:.2f} epochs' in train.notes[2]

    mixed.data.mixture.epochs = (1, 2, 1.5)
    steps = (sizes[0] + int(sum(limits[1:]))) // 8
    with pytest.raises(UserError, match=f'used up after step {steps} of num_steps=400'):
        loader.load(mixed, split='train')
    mixed.num_steps = steps
    train = loader.load(mixed, split='train')
    assert len(list(train.batches(train.initial_position()))) == steps  # and not one more


def test_weights_default_to_sizes_and_temperature_evens_them_out(mixed: ConfigDict, tmp_path: Path) -> None:
    ready(mixed, tmp_path, 'shards')
    sizes = np.array([manifest.find(Path(each))['train']['rows'] for each in mixed.data.mixture.sources])
    mixed.data.mixture.weights = ()
    for temperature in (1.0, 3.0):
        mixed.data.mixture.temperature = temperature
        expected = sizes ** (1 / temperature) / (sizes ** (1 / temperature)).sum() * 480
        assert np.abs(take(mixed, 60)[-1][1][0, 1:] - expected).max() <= 1 + 1e-9


@pytest.mark.parametrize('mode', ['shards', 'stream'])
def test_what_is_held_out_is_evaluated_source_by_source(mixed: ConfigDict, tmp_path: Path, mode: str) -> None:
    ready(mixed, tmp_path, mode)
    held_out = loader.held_out(mixed)
    assert tuple(held_out) == NAMES
    for name, of_source in held_out.items():
        rows = next(iter(of_source.batches(of_source.initial_position())))[0]
        text = of_source.tokenizer.decode(rows[rows > 2])
        assert {word for word in text.split() if word in NAMES} <= {name}
    with pytest.raises(UserError, match=r"split='eval' is not known"):
        loader.load(mixed, split='eval')


def test_fingerprints_follow_all_that_decides_batches(mixed: ConfigDict, tmp_path: Path) -> None:
    ready(mixed, tmp_path, 'shards')

    def fingerprint(**changes) -> str:
        config = mixed.copy_and_resolve_references()
        config.update_from_flattened_dict(changes)
        return loader.load(config, split='train').fingerprint

    first = fingerprint()
    assert fingerprint() == fingerprint(num_steps=61) == first
    turned = tuple(reversed(mixed.data.mixture.sources))
    changes = {
        'seed': 1,
        'batch_size': 4,
        'data.mixture.weights': (0.5, 0.2, 0.3),
        'data.mixture.curriculum': ((50, 1, 1, 1),),
        'data.mixture.temperature': 2.0,
        'data.mixture.epochs': (0, 0, 3),
        'data.mixture.sources': turned,
    }
    others = [fingerprint(**{key: value}) for key, value in changes.items()]
    assert len({first, *others}) == 1 + len(changes)


def test_sources_of_different_tokenizers_are_refused_by_name(mixed: ConfigDict, tmp_path: Path) -> None:
    prepare_sources(mixed, tmp_path, *['concatenate'] * 3)
    alone = mixed.copy_and_resolve_references()
    alone.data.mixture.names = ()
    alone.data.source, alone.data.path = corpus(tmp_path, 'small'), str(tmp_path / 'other')
    alone.tokenizer.vocab_size = 350
    prepare(alone)
    mixed.data.mixture.sources = (
        mixed.data.mixture.sources[0],
        alone.data.path,
        mixed.data.mixture.sources[2],
    )
    with pytest.raises(UserError, match=r'other \(small\) has tokenizer .* and .*prepared-large \(large\)'):
        loader.load(mixed, split='train')


def test_a_streamed_mixture_has_a_tokenizer_of_all_its_texts(mixed: ConfigDict, tmp_path: Path) -> None:
    ready(mixed, tmp_path, 'stream')
    record = manifest.read(Path(mixed.data.path) / 'preparation.json')
    assert record['config']['data.source'] == ','.join(mixed.data.mixture.sources)
    assert record['source']['files'] == 3
    manifest.adopt_source(mixed)
    assert mixed.data.source == record['config']['data.source']


def test_a_run_records_the_texts_of_a_mixture(mixed: ConfigDict, tmp_path: Path) -> None:
    ready(mixed, tmp_path, 'shards best_fit')
    mixed.data.packing = 'concatenate'
    manifest.adopt_source(mixed)
    assert mixed.data.source == ','.join(corpus(tmp_path, name) for name in NAMES)
    assert mixed.data.packing == 'best_fit'


def test_prepared_sources_are_prepared_one_by_one(mixed: ConfigDict) -> None:
    mixed.data.mixture.sources = ('a', 'b', 'c')
    with pytest.raises(UserError, match=r'prepared already, a, b, c\. Run prepare\.py for each'):
        prepare(mixed)
    with pytest.raises(UserError, match=r"data\.path='a' is no prepared directory"):
        loader.load(mixed, split='train')


def test_without_a_mixture_there_is_one_source(config: ConfigDict) -> None:
    assert mixture.members(config) == {'': config}
    assert mixture.whole(config) is config


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'names': ('a', 'a', 'b')}, 'must be different words'),
        ({'names': ('a', 'b/c', 'd')}, 'must be different words'),
        ({'names': ('a,b,c',)}, r'must be a text for each of data\.mixture\.names=\(.a,b,c.,\)'),
        ({'names': ()}, r'sources=\(.a., .b., .c.\) must be a text for each'),
        ({'weights': (1, 2)}, 'a number for each of the 3 sources'),
        ({'weights': (1, 2, -1)}, 'none below 0'),
        ({'weights': (0, 0, 0)}, 'one of them above'),
        ({'epochs': (1,)}, r'data\.mixture\.epochs=\(1,\) must be a number for each'),
        ({'temperature': 0.0}, 'must be above 0'),
        ({'curriculum': (5, 1, 1, 1)}, r'5 must be \(steps, weight'),
        ({'curriculum': ((5, 1, 1, 1), (5, 1, 1, 2))}, 'more steps than 5'),
        ({'curriculum': ((5, 1, 1),)}, r'weights after step 5 of data\.mixture\.curriculum=\(1, 1\) must'),
    ],
)
def test_mixtures_that_say_too_little_are_refused(mixed: ConfigDict, changes: dict, message: str) -> None:
    mixed.optimizer.warmup_steps = 0
    mixed.data.mixture.sources = ('a', 'b', 'c')
    experiment.check(mixed)
    mixed.data.mixture.update(changes)
    with pytest.raises(UserError, match=message):
        experiment.check(mixed)


@pytest.mark.parametrize('changes', [{'weights': ()}, {'epochs': (0, 0, 1)}])
def test_streams_cannot_be_measured_beforehand(mixed: ConfigDict, changes: dict) -> None:
    mixed.optimizer.warmup_steps, mixed.data.mode = 0, 'stream'
    mixed.data.mixture.sources = ('a', 'b', 'c')
    mixed.data.mixture.update(changes)
    with pytest.raises(UserError, match='does not know how many rows'):
        experiment.check(mixed)


def test_curricula_survive_the_disk(mixed: ConfigDict, tmp_path: Path) -> None:
    mixed.data.mixture.curriculum = ((10, 0.1, 0.1, 0.8), (25, 5, 0, 5))
    experiment.save(mixed, tmp_path / 'config.json')
    assert experiment.load(tmp_path / 'config.json').to_dict() == mixed.to_dict()
