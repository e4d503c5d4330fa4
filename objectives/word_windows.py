"""What skip-gram and CBOW share: thinned text, windows that differ from place to place, and noise words.

Places of a row stand in blocks of S, each of which sees W places more on either side and shares K noise
words, so that all scores of a block are matrix products.

R, B rows · L tokens in a row · M places left after thinning · P = M + 2 W, with a margin of empty places on
either side · N blocks · S places in a block · W window · T = S + 2 W · K noise words · V vocabulary · D width
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from data.word_tokenizer import WordTokenizer
from model import families
from model.lookup import lookup
from objectives import cross_entropy

BLOCK = 32  # places; more would share noise words among too many of them (docs/log.md)
GUIDE = 1 << 20  # equal parts of 0 … 1
Lookups = Mapping[str, tuple[str, ...]]  # of training/table_rows.py
NOISE_SHARE = 0.3  # of the pairs of a word with noise, in what its gradient is divided by


def check(objective: str, config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if model, tokenizer or text cannot do it."""
    require(objective, model_config, tokenizer)
    keys = config.words
    for key in ('window', 'negatives', 'shared_negatives'):
        if keys[key] < 1:
            raise UserError(f'words.{key}={keys[key]} must be at least 1.')
    if keys.subsample < 0:
        raise UserError(f'words.subsample={keys.subsample} must not be negative.')
    if config.sequence_length <= keys.window:
        raise UserError(
            f'words.window={keys.window} does not fit rows of sequence_length={config.sequence_length}.'
        )
    if keys.least_pairs <= 0:
        raise UserError(f'words.least_pairs={keys.least_pairs} must be above 0.')
    total = int(tokenizer.counts.sum())
    if total <= keys.window:
        raise UserError(
            f'the text has {total} words, which is less than one window: words.window={keys.window} on '
            'either side. Add text and prepare it, or narrow the window.'
        )


def require(objective: str, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError unless words are to be learnt, from a vocabulary that knows their counts."""
    cross_entropy.require(objective, model_config, 'words')
    if not isinstance(tokenizer, WordTokenizer):
        raise UserError(
            f"objective={objective!r} needs the counts of words; prepare text with tokenizer.kind='words'."
        )


@lru_cache(maxsize=4)
def kept_share(tokenizer: WordTokenizer, subsample: float) -> np.ndarray:
    """Returns the probability [V] with which each word is kept, float32; 0 for special tokens.

    √(t / f) + t / f of the word's share f of the text, as in word2vec's program; the paper (Mikolov et al.
    2013b, eq. 5) has the first term alone.
    """
    counts = np.maximum(tokenizer.counts, 1)
    ratio = subsample * tokenizer.counts.sum() / counts
    share = np.minimum(1.0, np.sqrt(ratio) + ratio) if subsample else np.ones(len(counts))
    return np.where(tokenizer.counts > 0, share, 0.0).astype(np.float32)


@lru_cache(maxsize=4)
def noise_ends(tokenizer: WordTokenizer, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cumulative distribution [V] of noise words, counts to `power`, float64; and a guide.

    The guide, int32 [GUIDE], has the first word that may be meant by a number from n / GUIDE on: it spares
    `draw_noise` most of a binary search, whose steps wait for memory.
    """
    sums = np.cumsum(tokenizer.counts.astype(np.float64) ** power * (tokenizer.counts > 0))
    ends = sums / sums[-1]
    return ends, np.searchsorted(ends, np.arange(GUIDE) / GUIDE, side='right').astype(np.int32)


def draw_noise(
    rng: np.random.Generator, shape: tuple[int, ...], tokenizer: WordTokenizer, power: float
) -> np.ndarray:
    """Returns int32 ids of noise words."""
    ends, guide = noise_ends(tokenizer, power)
    drawn = rng.random(shape)
    ids = guide[(drawn * GUIDE).astype(np.int32)]
    while (later := ends[ids] <= drawn).any():
        ids += later
    return ids


@lru_cache(maxsize=4)
def expected_share(tokenizer: WordTokenizer, subsample: float) -> float:
    """Returns the share of the text that is kept."""
    return float(kept_share(tokenizer, subsample) @ tokenizer.counts) / int(tokenizer.counts.sum())


def places(tokenizer: WordTokenizer, config: Any) -> int:
    """Returns M: room for a row after thinning, in whole blocks; a little more than is expected."""
    length = config.sequence_length
    expected = length * expected_share(tokenizer, config.words.subsample)
    needed = min(length, int(1.03 * expected + np.sqrt(length)))
    return families.round_up(needed, block(config.words.window))


def make_batch(
    rows_RT: np.ndarray, *, tokenizer: Any, config: Any, seeds_R: np.ndarray
) -> dict[str, np.ndarray]:
    """Thins frequent words, draws a window for each place and noise words for each block.

    What has no room in a row that kept more than expected is left out.

    Args:
      rows_RT: int32 ids [R, L + 1]; the last column belongs to the next row.
      tokenizer: a WordTokenizer.
      config: `words` and `sequence_length` are read.
      seeds_R: uint64.

    Returns:
      int32 words_BM and words_BP; documents_BP (counted from 1; 0 where nothing is), windows_BM (1 … W), and
      noise_BNK, ids of noise words for each block of places.
    """
    keys, size = config.words, places(tokenizer, config)
    share = kept_share(tokenizer, keys.subsample)
    count, length = len(rows_RT), config.sequence_length
    words_BP, documents_BP = np.zeros((2, count, size + 2 * keys.window), np.int32)
    windows_BM = np.zeros((count, size), np.int32)
    blocks = size // block(keys.window)
    noise_BNK = np.zeros((count, blocks, keys.shared_negatives), np.int32)
    ids_RL = rows_RT[:, :length]
    documents_RL = np.cumsum(ids_RL == tokenizer.bos_id, axis=1, dtype=np.int32) + 1
    for row, seed in enumerate(seeds_R):
        rng = np.random.default_rng(seed)
        kept = np.flatnonzero(rng.random(length, np.float32) < share[ids_RL[row]])[:size]
        words_BP[row, keys.window :][: len(kept)] = ids_RL[row, kept]
        documents_BP[row, keys.window :][: len(kept)] = documents_RL[row, kept]
        windows_BM[row] = rng.integers(1, keys.window + 1, size)
        noise_BNK[row] = draw_noise(rng, noise_BNK.shape[1:], tokenizer, keys.noise_power)
    return {
        'words_BM': np.ascontiguousarray(inner(words_BP, keys.window)),
        'words_BP': words_BP,
        'documents_BP': documents_BP,
        'windows_BM': windows_BM,
        'noise_BNK': noise_BNK,
    }


def lengths(config: Any) -> cross_entropy.Lengths:
    """Returns how many tokens of a row are read."""
    return cross_entropy.Lengths(config.sequence_length)


def score_flops(config: Any, tokenizer: WordTokenizer, model_config: Any, columns: int) -> int:
    """Returns the floating-point operations of a row, forward and backward.

    `columns`: what a place is multiplied by, besides its block's noise.
    """
    columns += config.words.shared_negatives
    return 6 * places(tokenizer, config) * columns * model_config.embed_dim


def block(window: int) -> int:
    """Returns S."""
    return max(BLOCK, 2 * window)


def in_blocks(x_BM: jax.Array, window: int) -> jax.Array:
    """Returns [B, N, S, …] of [B, M, …]."""
    return x_BM.reshape(x_BM.shape[0], -1, block(window), *x_BM.shape[2:])


def inner(x_BP: Any, window: int) -> Any:
    """Returns [B, M, …] of [B, P, …]: without the margin."""
    return x_BP[:, window : x_BP.shape[1] - window]


def with_neighbours(x_BP: jax.Array, window: int) -> jax.Array:
    """Returns [B, N, T, …] of [B, P, …]: blocks of places, and `window` more on either side of each."""
    size, rest = block(window), [(0, 0)] * (x_BP.ndim - 2)
    x = jnp.pad(x_BP, [(0, 0), (0, size - 2 * window), *rest])
    x = x.reshape(x.shape[0], -1, size, *x.shape[2:])  # N + 1 blocks
    return jnp.concatenate([x[:, :-1], x[:, 1:, : 2 * window]], axis=2)


def pair_mask(batch: dict[str, jax.Array], window: int) -> jax.Array:
    """Returns float32 [B, N, S, T]: 1 where a place has another within its window and document."""
    documents_BNS = in_blocks(inner(batch['documents_BP'], window), window)[..., None]
    around_BNT = with_neighbours(batch['documents_BP'], window)[:, :, None]
    radius_BNS = in_blocks(batch['windows_BM'], window)[..., None]
    size = block(window)
    distance_ST = jnp.abs(jnp.arange(size + 2 * window) - window - jnp.arange(size)[:, None])
    near = (distance_ST > 0) & (distance_ST <= radius_BNS)
    return (near & (documents_BNS == around_BNT) & (documents_BNS > 0)).astype(jnp.float32)


def vectors(params: Any, table: str, batch: dict[str, jax.Array], entry: str) -> jax.Array:
    """Returns the vectors that a table has for an entry of a batch, ids of words: float32 [*ids.shape, D].

    In place of a table there may be {entry: vectors} (training/table_rows.py).
    """
    found = params[table]
    return found[entry] if isinstance(found, dict) else lookup(found, batch[entry], 'vocab')


def noise_loss(scores_BNSK: jax.Array, weights_BNS: jax.Array) -> jax.Array:
    """Returns Σ weight · mean over the block's noise words of −log σ(−score), float32.

    The K words of a block stand for the draws of each of its places: the expectation is that of
    Mikolov et al. 2013b, eq. 4, where a place draws words of its own. As there, a noise word may happen to
    be the true one.
    """
    return jnp.sum(jnp.mean(jax.nn.softplus(scores_BNSK), axis=-1) * weights_BNS)


def word_factors(
    batch: dict[str, jax.Array], pairs_BNS: jax.Array, lookups: Lookups, config: Any, rows: int
) -> dict[str, jax.Array]:
    """Returns what gradients of a whole batch are multiplied by, such that each word moves by the mean over
    its own pairs: {table: float32 [V]}.

    The step divides a gradient by the number of all pairs; here it is multiplied by that, and divided by how
    many pairs the word itself has in the batch, or by words.least_pairs if it has fewer. So a rare word moves
    as far for a pair as in word2vec's own program, which learns pair by pair; and a frequent one, of which a
    batch sums thousands, cannot overshoot.

    Args:
      pairs_BNS: pairs of each place; a noise word has negatives / shared_negatives of those of its block, and
        counts NOISE_SHARE of them, since most are told apart already and have hardly a gradient.
      lookups: LOOKUPS of the objective.
      rows: V.
    """
    keys = config.words
    noise_BN = jnp.sum(pairs_BNS, axis=-1) * (NOISE_SHARE * keys.negatives / keys.shared_negatives)
    pairs_BM = pairs_BNS.reshape(batch['words_BM'].shape)
    pairs = {
        'words_BM': pairs_BM,
        'words_BP': jnp.pad(pairs_BM, [(0, 0), (keys.window, keys.window)]),
        'noise_BNK': jnp.broadcast_to(noise_BN[..., None], batch['noise_BNK'].shape),
    }
    counts = {table: jnp.zeros(rows) for tables in lookups.values() for table in tables}
    for entry, tables in lookups.items():
        for table in tables:
            counts[table] = counts[table].at[batch[entry]].add(pairs[entry])
    total = jnp.sum(pairs_BNS)
    return {table: total / jnp.maximum(counts_V, keys.least_pairs) for table, counts_V in counts.items()}


def scores(x_BNSD: jax.Array, y_BNTD: jax.Array, model: Any) -> jax.Array:
    """Returns x · y of every two rows of a block, in the compute dtype with float32 sums: [B, N, S, T]."""
    dtype = model.config.compute_dtype
    return _scores(x_BNSD.astype(dtype), y_BNTD.astype(dtype))


@jax.custom_vjp
def _scores(x_BNSD: jax.Array, y_BNTD: jax.Array) -> jax.Array:
    return _product('bnsd,bntd->bnst', x_BNSD, y_BNTD)


def _by_rows(rows: tuple[jax.Array, jax.Array], by_scores_BNST: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BNSD, y_BNTD = rows
    by_scores_BNST = by_scores_BNST.astype(x_BNSD.dtype)
    # A product that sums over the first axis of both takes XLA's CPU back end twice as long as a transposed
    # copy and a plain product; without the barrier it would put them together again.
    by_scores_BNTS = jax.lax.optimization_barrier(jnp.swapaxes(by_scores_BNST, -1, -2))
    by_x_BNSD = _product('bnst,bntd->bnsd', by_scores_BNST, y_BNTD)
    by_y_BNTD = _product('bnts,bnsd->bntd', by_scores_BNTS, x_BNSD)
    return by_x_BNSD.astype(x_BNSD.dtype), by_y_BNTD.astype(y_BNTD.dtype)


_scores.defvjp(lambda x, y: (_scores(x, y), (x, y)), _by_rows)


def _product(subscripts: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)
